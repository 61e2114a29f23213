//! The program lamb: arguments, log, signals. Everything else is the library beside it.

mod log_to_stderr;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use lamb::{LEAST_MEMORY, Options, Passed, Server};
use sd_notify::NotifyState;
use sheepdog_proto::DEFAULT_PORT;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A single-node Sheepdog server over a directory.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 takes a free one. May be given several times [default: 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR:PORT", value_parser = resolve)]
    listen: Vec<SocketAddr>,

    /// The Unix socket to listen on [default: DIR/sock]
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    /// Acknowledge writes before they are on the disk: they survive the end of lamb, but the end of
    /// the machine only once a client has flushed
    #[arg(long)]
    no_sync: bool,

    /// Let one client at a time lock a VDI
    #[arg(long)]
    use_lock: bool,

    /// Listen on addresses that other machines can reach, without any authentication
    #[arg(long)]
    allow_remote: bool,

    /// Do as a real 1.0 server does, also where that loses data: for tests of clients, never for
    /// data
    #[arg(long = "mimic-1.0")]
    mimic: bool,

    /// The memory to use, in bytes or with K, M or G: peers that want more have to wait
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    memory: usize,

    /// Where the objects are; created if missing
    dir: PathBuf,
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|err| err.to_string())?;
    addresses.next().ok_or_else(|| "no such address".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 10),
        Some(digits) if text.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (text, 0),
    };
    let size = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(1 << shift));
    match size {
        Some(size) if size >= LEAST_MEMORY => Ok(size),
        Some(_) => Err(format!("it has to be at least {}M", LEAST_MEMORY >> 20)),
        None => Err("not a size such as 256M".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("lamb: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    // First of all: it says which descriptors are ours, before there are others.
    let passed = Passed::take().context("cannot take the sockets that LISTEN_FDS names")?;
    log::set_logger(log_to_stderr::start()?).context("cannot log")?;
    log::set_max_level(log::LevelFilter::Info);
    end_at_first_panic();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot wait for signals")?;
    let mut listen = args.listen;
    if listen.is_empty() && passed.tcp.is_empty() {
        listen.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    }
    let options = Options {
        dir: args.dir,
        listen,
        unix: args.unix,
        sync: !args.no_sync,
        use_lock: args.use_lock,
        allow_remote: args.allow_remote,
        mimic: args.mimic,
        memory: args.memory,
    };
    let server = Server::start_with(&options, passed)?;
    for address in server.addresses() {
        announce(&format!("lamb: listening on {address}"));
    }
    // For a service manager that waits for it; for others nothing.
    if let Err(err) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("cannot tell the service manager: {err}");
    }
    let stopper = server.stopper();
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            stopper.stop();
        }
    });
    server.wait();
    log::logger().flush();
    Ok(())
}

/// Nobody has to be listening: who started lamb may have closed the other end.
fn announce(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// A server that has lost one thread to a defect is worse than none: it ends, and whoever starts it
/// again finds a sound store.
fn end_at_first_panic() {
    std::panic::set_hook(Box::new(|info| {
        log::error!("{info}\n{}", Backtrace::capture());
        log::logger().flush();
        std::process::abort();
    }));
}

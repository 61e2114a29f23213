//! `sheepdog-vhost-user-blk`: serves one VDI to one virtual machine after the other.

#![allow(unsafe_code)] // a signalfd, which no crate here has

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use vhost_user_blk::device::{Disk, Options};
use vhost_user_blk::server::{Ask, Server};
use vmm_sys_util::signal::{block_signal, create_sigset};

/// A Sheepdog VDI as a virtio disk, for QEMU, cloud-hypervisor and others that speak vhost-user.
#[derive(Parser)]
#[command(name = "sheepdog-vhost-user-blk", version, max_term_width = 100)]
struct Cli {
    /// The cluster: HOST[:PORT], [V6]:PORT or unix:PATH, several gateways with commas between
    #[arg(long, env = "SHEEPDOG_ADDR", default_value = "127.0.0.1:7000")]
    addr: String,
    /// The VDI
    #[arg(long, value_name = "NAME")]
    vdi: String,
    /// The Unix socket that the virtual machine connects to
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How many queues the disk has at most
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    queues: u16,
    /// Open the VDI for reading alone, whoever has it open
    #[arg(long)]
    read_only: bool,
    /// The serial number that the guest sees, of which 20 bytes count [default: the VDI's name]
    #[arg(long, value_name = "S")]
    serial: Option<String>,
    /// Seconds that each request may take; 0 is for ever
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    timeout: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::set_logger(&Log).expect("there is no other one");
    log::set_max_level(log::LevelFilter::Info);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> io::Result<()> {
    // Before the library starts a thread, so that none has them.
    let mut signals = signals()?;
    let options = Options {
        addr: cli.addr,
        vdi: cli.vdi,
        queues: cli.queues,
        read_only: cli.read_only,
        serial: cli.serial,
        timeout: Some(Duration::from_secs(cli.timeout.into())).filter(|time| !time.is_zero()),
    };
    let disk = Disk::open(&options)?;
    let listener = listen(&cli.socket)?;
    log::info!("listening on {}", cli.socket.display());
    let server = Server::new(disk, listener, signals.try_clone()?)?;
    let ended = server.run(|| ask(&mut signals));
    let _ = fs::remove_file(&cli.socket);
    Ok(ended?.close()?)
}

/// Listens at `path`, where a server that was killed may have left its socket.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {}
                _ => return Err(failed(error)),
            }
            fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)
        }
        result => result.map_err(failed),
    }
}

const END: [i32; 2] = [libc::SIGTERM, libc::SIGINT];
const MEASURE: i32 = libc::SIGHUP;

/// What the signals that mean something can be read from, instead of being delivered.
fn signals() -> io::Result<File> {
    let all = [END[0], END[1], MEASURE];
    for signal in all {
        block_signal(signal).map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    let set = create_sigset(&all)?;
    // SAFETY: a new descriptor, for a set that outlives the call.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn ask(signals: &mut File) -> Option<Ask> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    let len = signals.read(&mut info).ok()?;
    // The number is its first field.
    let signal = i32::from_ne_bytes(info[..4].try_into().ok().filter(|_| len >= 4)?);
    match signal {
        MEASURE => Some(Ask::Measure),
        _ => Some(Ask::End),
    }
}

/// To standard error, a line for each.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("sheepdog-vhost-user-blk: {}", record.args());
    }

    fn flush(&self) {}
}

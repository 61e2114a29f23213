//! What can be said on the command line.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::place::{Place, Target};

/// The shepherd's staff: a command-line tool for Sheepdog clusters.
///
/// A VDI is named by its name, a snapshot as NAME@TAG or NAME@NUMBER. Sizes take K, M, G, T and P,
/// of 1024 each.
#[derive(Parser)]
#[command(name = "crook", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    /// Print what a script can read: one JSON document on standard output, of a failure one on
    /// standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no confirmations
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 exists already,
5 cluster not reachable, 6 locked or open elsewhere, 7 timed out, 8 no space,
9 check has found errors, 130 and 143 ended by a signal.";

#[derive(Args)]
pub struct Connection {
    /// The cluster: HOST[:PORT], [V6]:PORT or unix:PATH, several gateways with commas between
    #[arg(long, global = true, env = "SHEEPDOG_ADDR", default_value = "127.0.0.1:7000")]
    pub addr: String,
    /// The Unix socket of a server on this machine, instead
    #[arg(long, global = true, value_name = "PATH")]
    pub unix: Option<String>,
    /// Seconds that each operation may take; 0 is for ever
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
}

#[derive(Subcommand)]
pub enum Command {
    /// List VDIs
    Ls(List),
    /// Show what a VDI or snapshot is
    Info(Info),
    /// Create a VDI
    Create(Create),
    /// Delete VDIs or snapshots
    Rm(Remove),
    /// Copy between files, pipes, VDIs and snapshots
    Cp(Copy),
    /// Make a VDI larger or smaller
    Resize(Resize),
    /// Take, list, delete snapshots and go back to them
    #[command(subcommand)]
    Snap(Snap),
    /// Create a VDI as a copy of a snapshot that shares its data
    Clone(CloneVdi),
    /// Show what a VDI or snapshot consists of
    Map(Map),
    /// Read and change the attributes of a VDI
    #[command(subcommand)]
    Attr(Attr),
    /// See to locks
    #[command(subcommand)]
    Lock(Lock),
    /// Measure reads or writes
    Bench(Bench),
    /// Read everything that a VDI or snapshot has
    Check(Check),
    /// Print completions for a shell
    Completions { shell: Shell },
}

#[derive(Args)]
pub struct List {
    /// Snapshots as well
    #[arg(long, short)]
    pub snapshots: bool,
    /// Names alone
    #[arg(long, short = '1')]
    pub names: bool,
}

#[derive(Args)]
pub struct Info {
    /// NAME, or NAME@SNAPSHOT
    pub vdi: Target,
}

#[derive(Args)]
pub struct Create {
    pub name: String,
    #[arg(value_parser = size)]
    pub size: u64,
    #[command(flatten)]
    pub options: CreateOptions,
}

#[derive(Args, Clone)]
pub struct CreateOptions {
    /// Copies of each object [default: as the cluster was formatted]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=31))]
    pub copies: Option<u8>,
    /// An erasure code instead of copies: data and parity strips, as 4:2
    #[arg(long, value_name = "DATA:PARITY", value_parser = strips, conflicts_with = "copies")]
    pub erasure_code: Option<(u8, u8)>,
    /// Bytes of an object, a power of two from 1M to 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub object_size: Option<u64>,
    /// Allocate everything now
    #[arg(long)]
    pub preallocate: bool,
    /// Up to 16 PiB, without snapshots
    #[arg(long)]
    pub hypervolume: bool,
}

#[derive(Args)]
pub struct Remove {
    /// NAME, or NAME@SNAPSHOT
    #[arg(required = true)]
    pub vdis: Vec<Target>,
    /// VDIs with their snapshots
    #[arg(long, short)]
    pub snapshots: bool,
    /// What does not exist is no failure
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Args)]
pub struct Copy {
    /// A path, - for standard input, vdi:NAME or vdi:NAME@SNAPSHOT
    pub source: Place,
    /// A path, - for standard output, or vdi:NAME, which is created where it does not exist
    pub destination: Place,
    /// Bytes of a VDI that is created, instead of the source's
    #[arg(long, value_parser = size)]
    pub size: Option<u64>,
    #[command(flatten)]
    pub create: CreateOptions,
    /// Fail where the destination exists
    #[arg(long, short)]
    pub no_clobber: bool,
    /// Write zeros instead of leaving holes
    #[arg(long)]
    pub no_sparse: bool,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub requests: u16,
    /// Bytes of a request
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = request_size)]
    pub request_size: u64,
}

#[derive(Args)]
pub struct Resize {
    pub name: String,
    /// The new size; +SIZE and -SIZE add to it and take from it
    #[arg(allow_hyphen_values = true)]
    pub size: NewSize,
    /// Make it smaller, too: what is cut off is gone
    #[arg(long)]
    pub shrink: bool,
}

#[derive(Subcommand)]
pub enum Snap {
    /// Take a snapshot
    Create { name: String, tag: String },
    /// List the snapshots of a VDI
    Ls { name: String },
    /// Delete snapshots
    Rm {
        /// NAME@SNAPSHOT
        #[arg(required = true)]
        snapshots: Vec<Target>,
        /// What does not exist is no failure
        #[arg(long, short)]
        force: bool,
    },
    /// Make a VDI what its snapshot is: what was written since is gone
    Rollback {
        /// NAME@SNAPSHOT
        snapshot: Target,
    },
}

#[derive(Args)]
pub struct CloneVdi {
    /// NAME@SNAPSHOT
    pub snapshot: Target,
    /// The VDI to be created
    pub name: String,
    /// Copies of each object that is written [default: as the snapshot has]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=31))]
    pub copies: Option<u8>,
}

#[derive(Args)]
pub struct Map {
    /// NAME, or NAME@SNAPSHOT
    pub vdi: Target,
}

#[derive(Subcommand)]
pub enum Attr {
    /// Print the value of an attribute
    Get { name: String, key: String },
    /// Set an attribute
    Set {
        name: String,
        key: String,
        /// The value; - is standard input
        value: String,
    },
    /// Delete an attribute
    Rm { name: String, key: String },
}

#[derive(Subcommand)]
pub enum Lock {
    /// Tell whether another client has the lock, by trying to take it
    Show { name: String },
    /// Give the lock back of a client that is no more
    Break { name: String },
}

#[derive(Args)]
pub struct Bench {
    /// The VDI; without one, a new one that is deleted afterwards
    pub name: Option<String>,
    /// Write instead of reading: what the VDI holds is lost
    #[arg(long)]
    pub write: bool,
    /// In order instead of at random
    #[arg(long)]
    pub sequential: bool,
    /// Bytes of a request
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = request_size)]
    pub block: u64,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// For so long
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// Bytes of a new VDI
    #[arg(long, default_value = "256M", value_parser = size, conflicts_with = "name")]
    pub size: u64,
}

#[derive(Args)]
pub struct Check {
    /// NAME, or NAME@SNAPSHOT
    pub vdi: Target,
    /// Read one sector of each object instead of all
    #[arg(long)]
    pub quick: bool,
}

/// A size that may be said by what changes.
#[derive(Clone, Copy)]
pub enum NewSize {
    To(u64),
    By(i64),
}

impl std::str::FromStr for NewSize {
    type Err = String;

    fn from_str(text: &str) -> Result<NewSize, String> {
        let signed = |text, sign: i64| {
            let size = i64::try_from(size(text)?).map_err(|_| "too large".to_owned())?;
            Ok(NewSize::By(sign * size))
        };
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => signed(more, 1),
            (_, Some(less)) => signed(less, -1),
            _ => size(text).map(NewSize::To),
        }
    }
}

/// As people write sizes: 10G are 10 GiB, as everywhere with disks. With "B" or "iB" as well.
fn size(text: &str) -> Result<u64, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let binary = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => String::new(),
        unit @ ("k" | "m" | "g" | "t" | "p") => format!("{unit}iB"),
        _ => return Err("a size is a number, and K, M, G, T or P".into()),
    };
    if number.is_empty() || number.starts_with('.') {
        return Err("a size is a number, and K, M, G, T or P".into());
    }
    if binary.is_empty() {
        return number.parse().map_err(|_| "no number of bytes".into());
    }
    format!("{number}{binary}").parse::<ByteSize>().map(|size| size.as_u64())
}

fn request_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        size @ 512..=0x400_0000 => Ok(size),
        _ => Err("not in 512..64M".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "no number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn strips(text: &str) -> Result<(u8, u8), String> {
    let parse = || {
        let (data, parity) = text.split_once(':')?;
        Some((data.parse().ok()?, parity.parse().ok()?))
    };
    parse().ok_or_else(|| "strips are two numbers, as 4:2".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4K", 4096),
            ("4k", 4096),
            ("1.5M", 3 << 19),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10gb", 10 << 30),
            ("2T", 2 << 40),
            ("16P", 16 << 50),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1X", "1 G x", ".5G", "1.5", "G1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_new_size_may_be_relative() {
        assert!(matches!("+1K".parse(), Ok(NewSize::By(1024))));
        assert!(matches!("-1K".parse(), Ok(NewSize::By(-1024))));
        assert!(matches!("1K".parse(), Ok(NewSize::To(1024))));
        assert!("--1K".parse::<NewSize>().is_err());
    }
}

//! One file for each command.

pub mod attr;
pub mod clone;
pub mod create;
pub mod info;
pub mod list;
pub mod lock;
pub mod map;
pub mod remove;
pub mod resize;
pub mod snap;

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, Kind, Result};
use crate::place::Target;

pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "crook", &mut text);
    let written = io::stdout().write_all(&text);
    written.map_err(|error| Failure::io("standard output", error))
}

/// The snapshot that must be meant.
pub fn snapshot(target: &Target) -> Result<sheepdog::SnapshotId> {
    target.snapshot.clone().ok_or_else(|| {
        Failure::usage(format!("\"{target}\" names no snapshot, which is NAME@TAG or NAME@NUMBER"))
    })
}

/// Whether it is, or nobody minds that it is not.
pub fn forgive<T>(result: Result<T>, force: bool) -> Result<Option<T>> {
    match result {
        Err(failure) if force && failure.kind == Kind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

//! crook: the shepherd's staff, a command-line tool for Sheepdog clusters.
//!
//! - [`cli`]: what can be said on the command line, and [`place`], names of VDIs, snapshots and files.
//! - [`session`]: the connection, and what a signal makes of what is under way.
//! - `commands`: one file for each command; [`copy`] and [`bench`], which are larger.
//! - [`output`], [`progress`]: what people and scripts are told; [`failure`]: with which exit code.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod cli;
mod commands;
mod copy;
mod failure;
mod output;
mod place;
mod progress;
mod session;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Result;
use output::Output;
use session::Session;

fn main() -> ExitCode {
    // What is said wrongly ends here, with code 2.
    let cli = Cli::parse();
    let output = Output::new(cli.json, cli.quiet);
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.code().into()
        }
    }
}

fn run(cli: Cli, output: &Output) -> Result<()> {
    if let Command::Completions { shell } = cli.command {
        return commands::completions(shell);
    }
    let session = Session::new(&cli.connection)?;
    let result = match cli.command {
        Command::Ls(args) => commands::list::run(&session, output, args),
        Command::Info(args) => commands::info::run(&session, output, args),
        Command::Create(args) => commands::create::run(&session, output, args),
        Command::Rm(args) => commands::remove::run(&session, output, args),
        Command::Cp(args) => copy::run(&session, output, args),
        Command::Resize(args) => commands::resize::run(&session, output, args),
        Command::Snap(command) => commands::snap::run(&session, output, command),
        Command::Clone(args) => commands::clone::run(&session, output, args),
        Command::Map(args) => commands::map::run(&session, output, args),
        Command::Attr(command) => commands::attr::run(&session, output, command),
        Command::Lock(command) => commands::lock::run(&session, output, command),
        Command::Bench(args) => bench::run(&session, output, args),
        Command::Check(args) => check::run(&session, output, args),
        Command::Completions { .. } => Ok(()),
    };
    session.end(result)
}

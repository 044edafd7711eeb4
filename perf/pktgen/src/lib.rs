//! `ringwire-pktgen`: a vhost-user frontend that generates, receives and measures packets.
//!
//! ```text
//! args -> setup (port: proto, memory, ring) -> engine (generator, sink -> track) -> report
//!                                                 ^ search: trial after trial
//! reflect: the other end, which only returns descriptors
//! ```
//!
//! It is a program: all of it is behind [`main`]. What other benchmarks need of it is [`guest`]; [`command`] is for its
//! man pages.
#![warn(clippy::undocumented_unsafe_blocks)]

mod args;
mod clock;
mod cost;
mod engine;
mod frame;
mod generator;
pub mod guest;
mod kick;
mod memory;
mod parse;
mod port;
mod progress;
mod proto;
mod reflect;
mod report;
mod ring;
mod run;
mod search;
mod setup;
mod sink;
mod track;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Why the program ends without a result.
#[derive(Debug)]
enum Failure {
    /// The command line, or what it asks of this host.
    Usage(String),
    /// The backend.
    Connect(String),
}

fn usage(what: String) -> Failure {
    Failure::Usage(what)
}

/// The program's command line, for what is written about it.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// The program, from its command line to its exit status.
pub fn main() -> ExitCode {
    let result = match args::Cli::parse().command {
        args::Command::Run(args) => run::run(&args),
        args::Command::Rfc2544(args) => run::rfc2544(&args),
        args::Command::Reflect(args) => run::reflect(&args),
        args::Command::Cost(args) => cost::cost(&args),
    };
    let (message, status) = match result {
        Ok(status) => return ExitCode::from(status),
        Err(Failure::Usage(message)) => (message, 2),
        Err(Failure::Connect(message)) => (message, 3),
    };
    eprintln!("ringwire-pktgen: {message}");
    ExitCode::from(status)
}

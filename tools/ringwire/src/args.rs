//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Shows what a running ringwired does.
///
/// Exit status: 0 fine; 1 ringwired refused, and said why; 2 wrong command line; 3 ringwired cannot be
/// reached.
#[derive(Debug, Parser)]
#[command(name = "ringwire", version)]
pub struct Cli {
    /// Socket of ringwired's control API.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "RINGWIRE_API",
        default_value = "/run/ringwire/api.sock",
        global = true
    )]
    pub api: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole picture: workers, ports, rates, and where packets stop.
    Status(Output),
    /// The ports, or one of them.
    #[command(subcommand)]
    Port(PortCommand),
    /// Counters: packets and bytes each way, held, and drops by reason.
    Stats {
        /// Only this port.
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// The commands about ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Every port in one line.
    List(Output),
    /// Everything about one port.
    Show {
        /// The port.
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print ringwired's answer as it came, JSON.
    #[arg(long)]
    pub json: bool,
}

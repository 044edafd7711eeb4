//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::log::{Format, MOST_LINES};

/// ringwire's daemon: moves packets between guests' virtqueues and NICs.
///
/// Runs in the foreground and logs to stderr. SIGTERM and SIGINT stop it. Exit status: 0 after a stop,
/// 1 when it cannot start, 2 when the command line or the configuration is wrong.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// How much to log [default: what RUST_LOG says, else info].
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,

    /// What a line of the log looks like.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,

    /// Lines of one cause and port that are logged in ten seconds; the others are counted.
    #[arg(long, value_name = "N", default_value_t = MOST_LINES)]
    pub log_lines: u32,

    /// Only say whether the configuration is valid.
    #[arg(long)]
    pub check: bool,
}

/// How much to log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Level {
    /// What keeps ringwired from doing its work.
    Error,
    /// What somebody should look at, too.
    Warn,
    /// What happens to ports and who changes something, too.
    Info,
    /// More about it.
    Debug,
    /// Everything.
    Trace,
}

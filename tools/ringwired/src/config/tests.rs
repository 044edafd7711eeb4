//! The configuration file: read, refused, dumped.

mod arbitrary;
mod dump;
mod read;
mod refused;

use super::{Config, ConfigError};

const CORES: [usize; 4] = [0, 1, 2, 6];

/// A file with everything, some of it left to its default.
const FULL: &str = include_str!("tests/full.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("rw.toml", text, &CORES)
}

//! The configuration file: TOML in, a validated [`Config`] out.
//!
//! Whoever edits the file sees every mistake as one line, `FILE:LINE: KEY: what is wrong`. That is why
//! the sections are read from toml's spanned values by hand rather than through serde's derive: serde
//! knows the line of an error, but neither the path of its key nor what would have been allowed.

mod document;
pub mod file;
pub(crate) mod request;
pub(crate) mod sections;
pub(crate) mod shapes;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use document::Document;
use rustix::fs::OFlags;

/// Longest file, in bytes: ten times one of all guests that there can be, with comments.
const LONGEST: u64 = 4 << 20;

/// What `ringwired` runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The control API.
    pub api: ApiConfig,
    /// Everything below it.
    pub datapath: engine::config::Config,
}

/// The control API's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Path of the unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Number of its owner; the process's own user when absent.
    pub owner: Option<u32>,
    /// Number of its group; the process's own when absent.
    pub group: Option<u32>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig { socket: PathBuf::from("/run/ringwire/api.sock"), mode: 0o660, owner: None, group: None }
    }
}

/// Why a configuration cannot be used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read at all.
    #[error("{}: cannot be read: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{file}:{line}: {key}: {problem}")]
    Invalid {
        /// The file as given on the command line.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Path of the key, e.g. `guest[1].backend`.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl Config {
    /// Reads and validates `file`, for a host on which this process may run on `allowed_cores`.
    pub fn load(file: &Path, allowed_cores: &[usize]) -> Result<Config, ConfigError> {
        let bytes = read(file).map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let name = file.display().to_string();
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(&name, text, allowed_cores),
            Err(error) => {
                let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let document = Document::new(&name, &valid);
                Err(document.error_near(valid.len(), "not UTF-8 text"))
            }
        }
    }

    /// Validates `text`, the content of a file called `name`.
    pub fn parse(name: &str, text: &str, allowed_cores: &[usize]) -> Result<Config, ConfigError> {
        sections::read(&Document::new(name, text), allowed_cores)
    }

    /// The same with everything in one order, and of two connected guests each naming the other: configurations of which
    /// the same comes are equal then.
    pub fn canonical(mut self) -> Config {
        let engine::config::Config { cores, nics, sockets, guests, .. } = &mut self.datapath;
        cores.sort_unstable();
        nics.sort_by(|a, b| a.name.cmp(&b.name));
        sockets.sort_by(|a, b| a.name.cmp(&b.name));
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        let named: Vec<(String, String)> =
            guests.iter().filter_map(|guest| Some((guest.backend.clone()?, guest.name.clone()))).collect();
        for guest in guests.iter_mut().filter(|guest| guest.backend.is_none()) {
            let by = named.iter().find(|(backend, _)| *backend == guest.name);
            guest.backend = by.map(|(_, by)| by.clone());
        }
        self
    }
}

/// What is in `file`. Another one may have been named by mistake, and be as long as a disk, or never end.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe that nobody writes to, as on a reload, would be waited for. One that somebody does is.
    let source = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    rustix::fs::fcntl_setfl(&source, OFlags::empty())?;
    source.take(LONGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        ..=LONGEST => Ok(bytes),
        _ => Err(io::Error::other(format!("it is longer than {} MiB", LONGEST >> 20))),
    }
}

/// The cores that the kernel lets this process run on, in ascending order.
pub fn allowed_cores() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_default();
    (0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
}

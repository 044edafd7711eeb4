//! Reload: what runs becomes what the file says, or stays as it is.
//!
//! - `diff`: what is different
//! - `plan`: the changes that this takes, in order
//! - `apply`: all of them, or none
//! - `change`: one change
//! - `datapath`: how the datapath makes it

mod apply;
mod change;
mod datapath;
mod diff;
mod plan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

use sd_notify::NotifyState;

pub use apply::Failure;
pub use change::{Change, Fallback, PortConfig};
pub use engine::config::Config as DatapathConfig;

use crate::config::file::File;
use crate::config::{ApiConfig, Config, ConfigError};
use crate::systemd::notify;

/// What runs, and can be changed.
pub trait Running: Send + Sync {
    /// As it is now.
    fn config(&self) -> DatapathConfig;

    /// Makes one change, or says in one line why it cannot be.
    fn change(&self, change: &Change) -> Result<(), String>;
}

/// Why a reload changed nothing. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is too late.
    #[error("ringwired is stopping")]
    Stopping,
    /// It wants what only a restart can do.
    #[error("{}: needs a restart of ringwired (nothing has changed): {}", .file.display(), .keys.join(", "))]
    Fixed {
        /// The file.
        file: PathBuf,
        /// The keys, and how they differ.
        keys: Vec<String>,
    },
    /// A change was not possible.
    #[error("{}: {failure}", .file.display())]
    Failed {
        /// The file.
        file: PathBuf,
        /// Which one, and why.
        failure: Failure,
    },
}

/// Compares what runs with the file it was started with.
pub struct Reloader {
    file: PathBuf,
    /// The cores that the process was given when it started: by now it has left some to the workers.
    cores: Vec<usize>,
    api: ApiConfig,
    running: Arc<dyn Running>,
    /// Locked for writing while a reload is under way, for reading while something else changes what runs. Whether
    /// ringwired stops, and nothing is to change any more.
    stopping: RwLock<bool>,
}

impl Reloader {
    /// `running` was started with `file`, whose `[api]` is `api`, when the process could run on `cores`.
    pub fn new(file: PathBuf, cores: Vec<usize>, api: ApiConfig, running: Arc<dyn Running>) -> Reloader {
        Reloader { file, cores, api, running, stopping: RwLock::default() }
    }

    /// Waits for a reload that is under way. None begins any more.
    pub fn stop(&self) {
        *self.stopping.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Changes something else of what runs, in between reloads; not at all while one is under way.
    pub fn between<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        let _no_reload = match self.stopping.try_read() {
            Ok(free) => free,
            Err(TryLockError::Poisoned(free)) => free.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(change())
    }

    /// Where the control API is.
    pub fn api_socket(&self) -> &Path {
        &self.api.socket
    }

    /// The file that would bring back what runs now.
    pub fn running(&self) -> File {
        File::of(&self.now())
    }

    fn now(&self) -> Config {
        Config { api: self.api.clone(), datapath: self.running.config() }.canonical()
    }

    /// Makes what runs what the file says, or only says what would change. One line a change.
    ///
    /// # Errors
    /// If the file is wrong, wants what needs a restart, or a change fails. Nothing has changed then, unless the error
    /// says so.
    pub fn reload(&self, dry_run: bool) -> Result<Vec<String>, ReloadError> {
        let stopping = self.stopping.write().unwrap_or_else(PoisonError::into_inner);
        if *stopping {
            return Err(ReloadError::Stopping);
        }
        if dry_run {
            return self.change(true);
        }
        announce();
        let outcome = self.change(false);
        let file = self.file.display();
        match &outcome {
            Ok(changes) => {
                changes.iter().for_each(|change| tracing::info!("{change}"));
                let what = if changes.is_empty() { "nothing has changed" } else { "reloaded" };
                tracing::info!("{what}: {file} is what runs");
            }
            Err(error) => tracing::error!("{error}"),
        }
        notify(&[NotifyState::Ready]);
        outcome
    }

    fn change(&self, dry_run: bool) -> Result<Vec<String>, ReloadError> {
        let wanted = Config::load(&self.file, &self.cores)?.canonical();
        let now = self.now();
        let keys = diff::fixed(&now, &wanted);
        if !keys.is_empty() {
            return Err(ReloadError::Fixed { file: self.file.clone(), keys });
        }
        let differences = diff::between(&now.datapath, &wanted.datapath);
        if !dry_run {
            let changes = plan::plan(&now.datapath, &wanted.datapath, &differences);
            apply::apply(&*self.running, &changes)
                .map_err(|failure| ReloadError::Failed { file: self.file.clone(), failure })?;
        }
        Ok(differences.lines)
    }
}

/// Tells systemd that a reload begins (sd_notify(3): the two go together).
fn announce() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("no monotonic time for systemd: {error}"),
    }
}

//! Where things run: cores, directories, and whether to go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;

use crate::Failure;

/// What all of them are told on the command line.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// The frontend's core
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub front: usize,
    /// The core that all backends take turns on
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub back: usize,
    /// Memory from huge pages, everywhere
    #[arg(long)]
    pub hugepages: bool,
}

/// What is the same for all backends.
pub struct Place {
    /// For sockets, logs and the like; removed in the end.
    pub directory: PathBuf,
    /// Where ringwire's programs are.
    pub programs: PathBuf,
    /// The frontend's core.
    pub front: usize,
    /// The backend's core.
    pub back: usize,
    /// Huge pages, or none at all.
    pub hugepages: bool,
    interrupted: Arc<AtomicBool>,
    _directory: TempDir,
}

impl Place {
    /// A new directory; ringwire's programs are next to this one. From now on, SIGINT and SIGTERM are noticed by
    /// [`Place::go_on`].
    pub fn new(args: &PlaceArgs) -> Result<Place, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let directory = tempfile::tempdir()?;
        let program = std::env::current_exe()?;
        Ok(Place {
            directory: directory.path().to_path_buf(),
            programs: program.parent().map(std::path::Path::to_path_buf).unwrap_or_default(),
            front: args.front,
            back: args.back,
            hugepages: args.hugepages,
            interrupted,
            _directory: directory,
        })
    }

    /// One of ringwire's programs.
    pub fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    /// An error if this program was asked to stop.
    pub fn go_on(&self) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure("interrupted".into()));
        }
        Ok(())
    }
}

/// Has this thread, and those that it starts, run on `core`, the frontend's.
pub fn pin(core: usize) -> Result<(), Failure> {
    let this = Pid::from_raw(0);
    let mut only = CpuSet::new();
    let allowed = sched_getaffinity(this)?;
    if allowed.is_set(core) != Ok(true) {
        return Err(Failure(format!("--front {core}: this process may not run there")));
    }
    only.set(core)?;
    Ok(sched_setaffinity(this, &only)?)
}

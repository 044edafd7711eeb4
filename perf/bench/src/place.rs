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
    /// As [`Place::new`], for what is timed: the two cores must be there, and be two. Where two that poll share one, what
    /// is measured is the scheduler.
    pub fn timed(args: &PlaceArgs) -> Result<Place, Failure> {
        may_run_on("--front", args.front)?;
        may_run_on("--back", args.back)?;
        if args.front == args.back {
            return Err(Failure(format!("--front and --back are both core {}: two are needed", args.front)));
        }
        Place::new(args)
    }

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
    may_run_on("--front", core)?;
    let mut only = CpuSet::new();
    only.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// An error if this thread may not run on `core`, which `option` has named.
fn may_run_on(option: &str, core: usize) -> Result<(), Failure> {
    match sched_getaffinity(Pid::from_raw(0))?.is_set(core) {
        Ok(true) => Ok(()),
        _ => Err(Failure(format!("{option} {core}: this process may not run there"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_has_two_cores() {
        let refused = |front, back| {
            let failure = Place::timed(&PlaceArgs { front, back, hugepages: false }).err();
            failure.map(|Failure(why)| why).unwrap_or_default()
        };
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("this process' cores");
        let core = (0..CpuSet::count()).find(|core| allowed.is_set(*core) == Ok(true)).expect("a core");
        assert!(refused(core, core).contains("two are needed"));
        for beyond in [CpuSet::count() - 1, CpuSet::count(), usize::MAX] {
            assert!(refused(core, beyond).contains("--back") && refused(beyond, core).contains("--front"));
        }
    }
}

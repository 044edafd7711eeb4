//! DPDK's environment abstraction layer: initialised once in a process, cleaned up at the end.

#![allow(unsafe_code, reason = "rte_eal_init and rte_eal_cleanup are foreign functions")]

mod args;
mod host;
mod thread;

pub use args::{EalArgs, HugepagePolicy};
pub use thread::{LcoreRegistration, register_thread};

use std::ffi::{CStr, CString, NulError, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::Errno;
use crate::log::{self, Said};

/// Why the environment layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// EAL can be initialised once in the life of a process, even after a failure or a cleanup.
    #[error("DPDK was already initialised in this process; it can be only once")]
    AlreadyInitialised,
    /// Called before [`Eal::init`], or after the [`Eal`] and all that used it were dropped.
    #[error("DPDK is not initialised")]
    NotInitialised,
    /// Hugepages were required and too few are free.
    #[error(
        "hugepages are required but {free_mb} MB are free and {wanted_mb} MB are needed; reserve \
         them, e.g. `echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`, or \
         set hugepages = \"auto\" to run without"
    )]
    NoHugepages {
        /// Free huge memory of all page sizes, in MB.
        free_mb: u64,
        /// What [`EalArgs::memory_mb`] asks for, in MB.
        wanted_mb: u64,
        /// How many 2 MB pages that is.
        pages: u64,
    },
    /// An argument cannot be passed to C.
    #[error("DPDK argument with a zero byte: {0}")]
    ZeroByte(#[from] NulError),
    /// `rte_eal_init` failed.
    #[error("DPDK did not initialise: {}; arguments: {}", said.of(*errno), args.join(" "))]
    Init {
        /// What DPDK reported.
        errno: Errno,
        /// What it has logged.
        said: Said,
        /// The arguments it was given.
        args: Vec<String>,
    },
    /// The thread could not become an lcore; all lcore ids may be in use.
    #[error("cannot register this thread with DPDK: {errno}")]
    Register {
        /// What DPDK reported.
        errno: Errno,
    },
}

enum State {
    Never,
    Failed,
    Started(Weak<EalHandle>),
}

static STATE: Mutex<State> = Mutex::new(State::Never);

/// Keeps EAL alive; held by every value that points into its memory.
#[derive(Debug)]
pub(crate) struct EalHandle {
    /// There are files that other processes know.
    shared: bool,
}

impl Drop for EalHandle {
    fn drop(&mut self) {
        if self.shared {
            // SAFETY: EAL was initialised, and the last value that uses its memory is gone.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// The running EAL, for values that must keep it alive.
pub(crate) fn handle() -> Result<Arc<EalHandle>, EalError> {
    match &*STATE.lock().unwrap_or_else(PoisonError::into_inner) {
        State::Started(handle) => handle.upgrade().ok_or(EalError::NotInitialised),
        State::Never | State::Failed => Err(EalError::NotInitialised),
    }
}

/// The initialised environment layer.
///
/// `rte_eal_cleanup` runs when this and every mempool, port and registration made from it are gone, if EAL shares files
/// with other processes. Else there is nothing that does not end with the process, and it would do harm: it unmaps memory
/// in which EAL's interrupt thread still looks for sources that drivers have just given up.
#[derive(Debug)]
pub struct Eal {
    _handle: Arc<EalHandle>,
    args: Vec<String>,
    hugepages: bool,
}

impl Eal {
    /// Initialises DPDK with arguments fit for this host and those in `args`.
    ///
    /// The calling thread becomes DPDK's main lcore; its CPU affinity stays as it is. Several
    /// processes on one host do not collide.
    ///
    /// # Errors
    /// [`EalError::AlreadyInitialised`] on the second call in a process, whatever became of the
    /// first; [`EalError::NoHugepages`], [`EalError::ZeroByte`] and [`EalError::Init`] as they say.
    pub fn init(args: &EalArgs) -> Result<Eal, EalError> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Never) {
            return Err(EalError::AlreadyInitialised);
        }
        let choice = args::choose(args, &host::Facts::gather())?;
        let argv = choice.argv.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;

        *state = State::Failed;
        let affinity = host::affinity();
        let (started, said) = log::listen(|| init_raw(argv));
        if choice.own_runtime_dir {
            remove_runtime_dir();
        }
        started.map_err(|errno| EalError::Init { errno, said, args: choice.argv.clone() })?;
        // EAL pins its main thread to the CPUs of its lcore, which leave out CPU numbers it does
        // not know and are whatever `extra` says.
        if let Some(affinity) = &affinity {
            host::set_affinity(affinity);
        }

        let handle = Arc::new(EalHandle { shared: !choice.own_runtime_dir });
        *state = State::Started(Arc::downgrade(&handle));
        Ok(Eal { _handle: handle, args: choice.argv, hugepages: choice.hugepages })
    }

    /// Whether DPDK's memory is made of hugepages.
    pub fn hugepages(&self) -> bool {
        self.hugepages
    }

    /// The arguments DPDK was given, program name first.
    pub fn args(&self) -> &[String] {
        &self.args
    }
}

fn init_raw(argv: Vec<CString>) -> Result<(), Errno> {
    let mut pointers: Vec<*mut c_char> = argv.into_iter().map(CString::into_raw).collect();
    let argc = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    // EAL may permute the pointers and keep some of the strings: both live as long as the process.
    let argv = pointers.leak().as_mut_ptr();
    // SAFETY: argv has argc writable strings and a null behind them, all of static lifetime.
    if unsafe { dpdk_sys::rte_eal_init(argc, argv) } < 0 {
        return Err(Errno::last());
    }
    Ok(())
}

/// Removes the directory EAL made and, without shared configuration, never uses: it would stay
/// behind for good if this process were killed.
fn remove_runtime_dir() {
    // SAFETY: the string is static and NUL terminated, and empty before EAL has chosen one.
    let dir = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    let dir = Path::new(OsStr::from_bytes(dir.to_bytes()));
    if let Err(error) = std::fs::remove_dir(dir) {
        tracing::debug!(dir = %dir.display(), %error, "DPDK's runtime directory stays");
    }
}

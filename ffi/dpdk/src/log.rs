//! DPDK's log as a part of the program's own.
//!
//! DPDK says why something failed in its log, and returns little more than -1. So what it says goes to `tracing`, and
//! errors of a thread also to whoever [`listen`]s there.

#![allow(unsafe_code, reason = "is called by DPDK, with text of its own")]

use std::cell::RefCell;
use std::ffi::c_char;

use crate::error::Errno;

// Levels of rte_log.h.
const ERR: u32 = 4;
const WARNING: u32 = 5;
const NOTICE: u32 = 6;
const INFO: u32 = 7;

thread_local! {
    /// The first error since somebody has begun to listen: the cause. Others say that it did not work therefore.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has DPDK's log go to `tracing`, with target `dpdk`, for the life of the process. Which of its lines there are is
/// DPDK's matter (`--log-level`).
///
/// # Errors
/// If there is no memory for the stream.
pub fn to_tracing() -> Result<(), Errno> {
    // SAFETY: the function is one of the program, which ends with it.
    Errno::check(unsafe { dpdk_sys::rw_log_to(Some(take)) })
}

/// Does something, and says what DPDK has first logged as an error on this thread meanwhile.
pub(crate) fn listen<T>(act: impl FnOnce() -> T) -> (T, Said) {
    HEARD.take();
    let done = act();
    (done, Said(HEARD.take()))
}

/// What DPDK has said of an error; nothing, if its log goes elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(Option<String>);

impl Said {
    /// All that is known of an error that DPDK has returned as `errno`. It returns -1 for most, which is no EPERM.
    pub(crate) fn of(&self, errno: Errno) -> String {
        match &self.0 {
            None => errno.to_string(),
            Some(said) if errno.0 == libc::EPERM => format!("DPDK says: {said}"),
            Some(said) => format!("{errno}; DPDK says: {said}"),
        }
    }
}

/// A piece of the log: a line, as a rule.
extern "C" fn take(level: u32, text: *const c_char, length: usize) {
    // SAFETY: the shim passes on what stdio has to write: so many bytes, valid until this returns.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    String::from_utf8_lossy(text).lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| {
        say(level, line);
        if level <= ERR {
            // A thread that ends has none any more.
            let _ = HEARD.try_with(|heard| {
                heard.borrow_mut().get_or_insert_with(|| line.to_owned());
            });
        }
    });
}

fn say(level: u32, line: &str) {
    match level {
        ..=ERR => tracing::error!(target: "dpdk", "{line}"),
        WARNING => tracing::warn!(target: "dpdk", "{line}"),
        NOTICE | INFO => tracing::info!(target: "dpdk", "{line}"),
        _ => tracing::debug!(target: "dpdk", "{line}"),
    }
}

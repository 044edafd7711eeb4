//! DPDK's interrupt thread, before its memory goes.
#![allow(unsafe_code, reason = "rte_eal_alarm_set is a foreign function")]

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long to wait for the thread, which has next to nothing to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the alarm has gone off.
static RANG: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Does not return, and so keeps the thread that calls it.
extern "C" fn rang(_: *mut c_void) {
    *RANG.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    RANG.1.notify_all();
    loop {
        std::thread::park();
    }
}

/// Stops the thread for good. It looks at its interrupt sources whenever a driver has given one up, as
/// `rte_eal_cleanup` has some do, and they are in memory which that unmaps a moment later. Alarms go off on that thread.
pub(super) fn stop() {
    // SAFETY: EAL runs; the function stays, and is given nothing.
    let set = unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(rang), null_mut()) };
    if set != 0 {
        return;
    }
    let (rang, bell) = &RANG;
    let rang = rang.lock().unwrap_or_else(PoisonError::into_inner);
    drop(bell.wait_timeout_while(rang, PATIENCE, |rang| !*rang));
}

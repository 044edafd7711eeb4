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

extern "C" fn rang(_: *mut c_void) {
    *RANG.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    RANG.1.notify_all();
}

/// Waits until the thread knows of every interrupt source that a driver has given up: it looks at all sources anew some
/// time after that, and they are in memory that `rte_eal_cleanup` unmaps. Alarms go off on the same thread, and one that
/// is set now does so when it has looked.
pub(super) fn settle() {
    // SAFETY: EAL runs; the function stays, and is given nothing.
    let set = unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(rang), null_mut()) };
    if set != 0 {
        return;
    }
    let (rang, bell) = &RANG;
    let rang = rang.lock().unwrap_or_else(PoisonError::into_inner);
    drop(bell.wait_timeout_while(rang, PATIENCE, |rang| !*rang));
}

//! Threads that DPDK did not start.

#![allow(unsafe_code, reason = "rte_thread_register and rte_thread_unregister are foreign functions")]

use std::marker::PhantomData;
use std::sync::Arc;

use super::{EalError, EalHandle, handle};
use crate::error::Errno;

/// This thread has an lcore id, and with it a mempool cache, until this is dropped.
#[derive(Debug)]
pub struct LcoreRegistration {
    _eal: Arc<EalHandle>,
    /// Whether dropping this takes the id away.
    owned: bool,
    /// An lcore id belongs to one thread: not `Send`.
    _thread: PhantomData<*const ()>,
}

impl Drop for LcoreRegistration {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: this thread was registered by `register_thread`; EAL is still alive.
            unsafe { dpdk_sys::rte_thread_unregister() };
        }
    }
}

/// Gives the calling thread an lcore id.
///
/// A thread that has one already (the one that called [`super::Eal::init`]) keeps it, and keeps it
/// when the result is dropped.
///
/// # Errors
/// [`EalError::NotInitialised`], or [`EalError::Register`] when all lcore ids are in use.
pub fn register_thread() -> Result<LcoreRegistration, EalError> {
    let eal = handle()?;
    // SAFETY: reads a thread-local integer.
    let owned = unsafe { dpdk_sys::rw_lcore_id() } == dpdk_sys::RW_LCORE_ID_ANY;
    // SAFETY: EAL is initialised and this thread has no lcore id.
    if owned && unsafe { dpdk_sys::rte_thread_register() } != 0 {
        return Err(EalError::Register { errno: Errno::last() });
    }
    Ok(LcoreRegistration { _eal: eal, owned, _thread: PhantomData })
}

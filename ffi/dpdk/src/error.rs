//! The error number DPDK reports, with its text.

#![allow(unsafe_code, reason = "rte_strerror and rte_errno are foreign functions")]

use std::ffi::CStr;
use std::fmt;

/// A positive errno, or one of DPDK's own numbers from 1000 on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `rte_errno`.
    pub(crate) fn last() -> Errno {
        // SAFETY: reads a thread-local integer.
        Errno(unsafe { dpdk_sys::rw_errno() })
    }

    /// Turns DPDK's "0 or negative errno" into a result.
    pub(crate) fn check(ret: i32) -> Result<(), Errno> {
        if ret == 0 { Ok(()) } else { Err(Errno(ret.saturating_neg())) }
    }

    /// Whether there was no memory.
    pub(crate) fn is_out_of_memory(self) -> bool {
        self.0 == libc::ENOMEM
    }

    /// Whether the driver says that it has no such operation.
    pub(crate) fn is_unsupported(self) -> bool {
        self.0 == libc::ENOTSUP || self.0 == libc::ENOSYS
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror returns a NUL terminated string in a buffer of this thread, which
        // is valid until this thread calls it again.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

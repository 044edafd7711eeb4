//! The time-stamp counter: cycles that are of one length, whatever the CPU does.

#![allow(unsafe_code, reason = "asks DPDK")]

/// The counter now. On all cores the same, where the hardware keeps it so.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: reads a register.
    unsafe { dpdk_sys::rw_tsc() }
}

/// Cycles a second, as found when EAL was initialised; at least 1.
pub fn hz() -> u64 {
    // SAFETY: reads a number that is written when EAL is initialised.
    unsafe { dpdk_sys::rte_get_tsc_hz() }.max(1)
}

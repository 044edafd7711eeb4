//! Asks for cache lines ahead of time. What the guest has touched last is in its core's cache, and takes hundreds of
//! cycles to come if the two cores share none; asked for early, the lines of a whole burst are on their way together.
#![allow(unsafe_code)] // a hint about a raw pointer, which need not lead anywhere

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// The first lines of a buffer at `ptr` will be read: with the header in front, even the shortest frame is in two.
#[inline(always)]
pub(crate) fn read(ptr: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it reads nothing and faults nowhere.
    unsafe {
        std::arch::asm!("prefetcht0 [{0}]", "prefetcht0 [{0} + 64]", in(reg) ptr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = ptr;
}

/// They will be written, but for the header at `ptr`, which will be read first: where the frame begins on a line of its
/// own, the header's is most often left as it is.
#[inline(always)]
pub(crate) fn write(ptr: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it reads nothing and faults nowhere. (The intrinsic for it becomes one for reading unless more
    // is asked of the CPU than 64-bit Linux asks.)
    unsafe {
        std::arch::asm!("prefetcht0 [{0}]", "prefetchw [{0} + 12]", "prefetchw [{0} + 75]", in(reg) ptr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = ptr;
}

/// The line at `ptr` will be written.
#[inline(always)]
pub(crate) fn write_line(ptr: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as in `write`.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) ptr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = ptr;
}

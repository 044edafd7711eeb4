//! What a split ring looks like in guest memory, and the only places that touch it.
#![allow(unsafe_code)] // the three areas are guest memory, reached through pointers checked at start

use std::sync::atomic::{AtomicU16, Ordering};

use crate::chain::DESC_LEN;
use crate::prefetch;

/// A descriptor, read once (virtio 1.2, 2.7.5).
#[derive(Clone, Copy)]
pub(super) struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// Half a descriptor, or a used entry. Indirect tables need not be aligned, and entries are to 4 bytes only,
/// hence `packed`.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

/// A table of descriptors: the ring's own, or an indirect one.
#[derive(Clone, Copy)]
pub(super) struct Table {
    at: *const Word,
    pub size: u16,
    pub indirect: bool,
}

// SAFETY: a pointer into guest memory, which is mapped for every thread.
unsafe impl Send for Table {}

impl Table {
    /// Bytes of a table of `size` descriptors.
    pub const fn len(size: u16) -> u64 {
        DESC_LEN as u64 * size as u64
    }

    /// `at` need not be aligned.
    ///
    /// # Safety
    ///
    /// `len(size)` bytes from `at` on stay mapped for as long as it is read.
    pub unsafe fn new(at: *mut u8, size: u16, indirect: bool) -> Table {
        Table { at: at.cast(), size, indirect }
    }

    /// Reads descriptor `index` out of guest memory: each half once, never looked at again.
    ///
    /// # Safety
    ///
    /// `index` is less than `size`.
    #[inline(always)]
    pub unsafe fn read(self, index: u16) -> Desc {
        // SAFETY: by the caller's promise both words lie in the table, which `new` was promised to be mapped; `Word` asks for no alignment.
        let (addr, rest) = unsafe {
            let at = self.at.add(2 * usize::from(index));
            (at.read_volatile().0, at.add(1).read_volatile().0)
        };
        Desc { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

/// The avail ring: written by the guest, but for the avail event at the used ring's end (virtio 1.2, 2.7.6).
#[derive(Clone, Copy)]
pub(super) struct Avail {
    at: *const u16,
    size: u16,
}

/// The used ring: written by us, but for what the guest does against the rules (virtio 1.2, 2.7.8).
pub(super) struct Used {
    at: *mut u16,
    size: u16,
}

// SAFETY: pointers into guest memory, which is mapped for every thread.
unsafe impl Send for Avail {}
// SAFETY: the same.
unsafe impl Send for Used {}

// The accessors below are the only places that touch the two rings. Each relies on what `new` was promised:
// that the whole area, event word included, is mapped and aligned.
impl Avail {
    /// Bytes of a ring of `size` entries, event word included.
    pub const fn len(size: u16) -> u64 {
        6 + 2 * size as u64
    }

    /// # Safety
    ///
    /// `at` is aligned to 2 bytes, `size` is a power of two, and `len(size)` bytes from `at` on stay mapped.
    pub unsafe fn new(at: *mut u8, size: u16) -> Avail {
        Avail { at: at.cast(), size }
    }

    #[inline(always)]
    pub fn flags(&self) -> u16 {
        // SAFETY: word 0 of a checked area.
        unsafe { self.at.read_volatile() }
    }

    /// Acquire: orders the read of the index before the reads of the entries and descriptors it publishes.
    #[inline(always)]
    pub fn index(&self) -> u16 {
        // SAFETY: word 1 of a checked, aligned area.
        unsafe { AtomicU16::from_ptr(self.at.add(1).cast_mut()) }.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub fn entry(&self, index: usize) -> u16 {
        // SAFETY: the slot is masked to the ring's size.
        unsafe { self.at.add(2 + (index & usize::from(self.size - 1))).read_volatile() }
    }

    /// The used index after which the guest wants a call (virtio 1.2, 2.7.7.1).
    #[inline(always)]
    pub fn used_event(&self) -> u16 {
        // SAFETY: the word behind the entries is part of the checked area.
        unsafe { self.at.add(2 + usize::from(self.size)).read_volatile() }
    }
}

impl Used {
    /// Bytes of a ring of `size` entries, event word included.
    pub const fn len(size: u16) -> u64 {
        6 + 8 * size as u64
    }

    /// # Safety
    ///
    /// `at` is aligned to 4 bytes, `size` is a power of two, and `len(size)` bytes from `at` on stay mapped.
    pub unsafe fn new(at: *mut u8, size: u16) -> Used {
        Used { at: at.cast(), size }
    }

    pub fn set_flags(&self, flags: u16) {
        // SAFETY: word 0 of a checked area.
        unsafe { self.at.write_volatile(flags) }
    }

    pub fn index(&self) -> u16 {
        // SAFETY: word 1 of a checked area.
        unsafe { self.at.add(1).read_volatile() }
    }

    /// Release: orders the entries, and the data in the buffers, before the index that publishes them.
    #[inline(always)]
    pub fn publish(&self, index: u16) {
        // SAFETY: word 1 of a checked, aligned area.
        unsafe { AtomicU16::from_ptr(self.at.add(1)) }.store(index, Ordering::Release)
    }

    #[inline(always)]
    pub fn set_entry(&self, index: u16, head: u16, len: u32) {
        let slot = 1 + 2 * usize::from(index & (self.size - 1));
        let entry = Word(u64::from(head) | u64::from(len) << 32);
        // SAFETY: the slot is masked to the ring's size; `Word` asks for no alignment.
        unsafe { self.at.cast::<u32>().add(slot).cast::<Word>().write_volatile(entry) }
    }

    /// Asks for the lines of `count` entries from `index` on: the guest has read them last.
    #[inline(always)]
    pub fn prefetch(&self, index: u16, count: u16) {
        const ENTRIES: u16 = (prefetch::LINE / size_of::<Word>()) as u16;
        for ahead in (0..count).step_by(ENTRIES.into()) {
            let slot = usize::from(index.wrapping_add(ahead) & (self.size - 1));
            prefetch::write_line(self.at.wrapping_add(2 + 4 * slot).cast());
        }
    }

    /// Writes entries from `index` on: chains `heads` with their lengths.
    #[inline(always)]
    pub fn set_entries(&self, index: u16, heads: &[u16], mut lens: impl Iterator<Item = u32>) {
        let first = index & (self.size - 1);
        let to_the_end = heads.len().min(usize::from(self.size - first));
        // Up to the ring's end, and from its start.
        let (before, behind) = heads.split_at(to_the_end);
        for (slot, heads) in [(first, before), (0, behind)] {
            for ((slot, head), len) in (usize::from(slot)..).zip(heads).zip(&mut lens) {
                let entry = Word(u64::from(*head) | u64::from(len) << 32);
                // SAFETY: there are fewer chains than the ring has entries, so the slot is less than its size.
                unsafe { self.at.cast::<u32>().add(1).cast::<Word>().add(slot).write_volatile(entry) }
            }
        }
    }

    /// The avail index at which we want a kick (virtio 1.2, 2.7.10).
    pub fn set_avail_event(&self, index: u16) {
        // SAFETY: the word behind the entries is part of the checked area.
        unsafe { self.at.add(2 + 4 * usize::from(self.size)).write_volatile(index) }
    }
}

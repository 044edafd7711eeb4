//! What a packed ring looks like in guest memory, and the only places that touch it.
#![allow(unsafe_code)] // the three areas are guest memory, reached through pointers checked at start

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use virtio_bindings::virtio_ring::{VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED};

use crate::chain::{INDIRECT, NEXT, WRITE};
use crate::prefetch;

/// Flag bits that say whose a descriptor is (virtio 1.2, 2.8.1).
const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
/// The flag bits that describe a buffer.
pub(super) const KIND: u16 = NEXT | WRITE | INDIRECT;
/// The wrap counter's bit beside a slot, in a ring base and in an event.
const WRAP: u16 = 1 << 15;

/// A descriptor, read once (virtio 1.2, 2.8.13).
#[derive(Clone, Copy)]
pub(super) struct Desc {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}

impl Desc {
    #[inline(always)]
    fn new(addr: u64, rest: u64) -> Desc {
        Desc { addr, len: rest as u32, id: (rest >> 32) as u16, flags: (rest >> 48) as u16 }
    }

    /// Whether it is available at `position`, and its kind is `kind` (of [`KIND`]).
    #[inline(always)]
    pub fn is(self, position: Position, kind: u16) -> bool {
        self.flags & (AVAIL | USED | KIND) == position.available() | kind
    }

    /// Whether the guest has made it available, if it was read at `position`.
    #[inline(always)]
    pub fn is_available(self, position: Position) -> bool {
        self.flags & (AVAIL | USED) == position.available()
    }
}

/// A place in the ring, and the wrap counter that belongs to it (virtio 1.2, 2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub slot: u16,
    pub wrap: bool,
}

impl Position {
    /// As in GET_VRING_BASE and in events: the wrap counter above the slot.
    pub fn from_bits(bits: u16) -> Position {
        Position { slot: bits & !WRAP, wrap: bits & WRAP != 0 }
    }

    pub fn bits(self) -> u16 {
        self.slot | if self.wrap { WRAP } else { 0 }
    }

    /// `by` slots further, at most once round a ring of `size`.
    #[inline(always)]
    pub fn after(self, by: u16, size: u16) -> Position {
        debug_assert!(self.slot < size && by <= size);
        let slot = u32::from(self.slot) + u32::from(by);
        match slot.checked_sub(u32::from(size)) {
            None => Position { slot: slot as u16, wrap: self.wrap },
            Some(slot) => Position { slot: slot as u16, wrap: !self.wrap },
        }
    }

    /// How many of the `count` slots from here on are on the same lap, one behind the other in memory.
    #[inline(always)]
    pub fn on_this_lap(self, count: u16, size: u16) -> u16 {
        count.min(size - self.slot)
    }

    /// How many slots it is ahead of `behind`; `None` if that is more than once round.
    pub fn distance(self, behind: Position, size: u16) -> Option<u16> {
        let start = behind.lap(self, size);
        u16::try_from(i32::from(self.slot) - start).ok().filter(|distance| *distance <= size)
    }

    /// Whether the step from `old` to `new` has passed `event`: old <= event < new.
    #[inline(always)]
    pub fn passed(event: Position, old: Position, new: Position, size: u16) -> bool {
        (old.lap(new, size)..i32::from(new.slot)).contains(&event.lap(new, size))
    }

    /// Where it is, counted from the start of the lap that `now` is in; the lap before is negative.
    #[inline(always)]
    fn lap(self, now: Position, size: u16) -> i32 {
        let slot = i32::from(self.slot);
        if self.wrap == now.wrap { slot } else { slot - i32::from(size) }
    }

    /// How a descriptor here is flagged once it is available.
    #[inline(always)]
    pub fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// How a descriptor here is flagged once it is used.
    #[inline(always)]
    pub fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }
}

/// The descriptor ring.
pub(super) struct Descs {
    at: *mut u64,
    size: u16,
}

// SAFETY: a pointer into guest memory, which is mapped for every thread.
unsafe impl Send for Descs {}

impl Descs {
    /// Bytes of a ring of `size` descriptors.
    pub const fn len(size: u16) -> u64 {
        16 * size as u64
    }

    /// # Safety
    ///
    /// `at` is aligned to 16 bytes, and `len(size)` bytes from there on stay mapped; whoever calls the
    /// accessors keeps every slot less than `size`.
    pub unsafe fn new(at: *mut u8, size: u16) -> Descs {
        Descs { at: at.cast(), size }
    }

    #[inline(always)]
    fn word(&self, slot: u16, word: usize) -> *mut u64 {
        debug_assert!(slot < self.size);
        // SAFETY: the slot is less than the size, by the promise made to `new`.
        unsafe { self.at.add(2 * usize::from(slot) + word) }
    }

    #[inline(always)]
    fn flags(&self, slot: u16) -> &AtomicU16 {
        // SAFETY: the last two bytes of a mapped descriptor, aligned.
        unsafe { AtomicU16::from_ptr(self.word(slot, 1).cast::<u16>().add(3)) }
    }

    /// Acquire: orders the read of the flags, which publish a chain, before the read of everything else.
    /// Flags, id and length are one load.
    #[inline(always)]
    pub fn read(&self, slot: u16) -> Desc {
        // SAFETY: the second half of a mapped descriptor, aligned.
        let rest = unsafe { AtomicU64::from_ptr(self.word(slot, 1)) }.load(Ordering::Acquire);
        // SAFETY: the first half.
        let addr = unsafe { self.word(slot, 0).read_volatile() };
        Desc::new(addr, rest)
    }

    /// Asks for the line that a descriptor is in, to write to it.
    #[inline(always)]
    pub fn prefetch(&self, slot: u16) {
        prefetch::write_line(self.word(slot, 0).cast());
    }

    /// How many descriptors, of at most `most`, the guest has made available one behind the other from `first` on.
    #[inline(always)]
    pub fn available(&self, first: Position, most: u16) -> u16 {
        let (mut at, mut count) = (first, 0);
        while count < most {
            let here = at.on_this_lap(most - count, self.size);
            let (end, available) = (at.slot + here, at.available());
            let mut slot = at.slot;
            while end - slot >= 8 && self.are_available::<8>(slot, available) {
                slot += 8;
            }
            while slot < end && self.are_available::<1>(slot, available) {
                slot += 1;
            }
            count += slot - at.slot;
            if slot < end {
                return count;
            }
            at = at.after(here, self.size);
        }
        count
    }

    /// Whether all of `K` descriptors from `slot` on are flagged as `available`.
    #[inline(always)]
    fn are_available<const K: u16>(&self, slot: u16, available: u16) -> bool {
        let (mut all, mut any) = (u16::MAX, 0);
        for k in 0..K {
            let flags = self.flags(slot + k).load(Ordering::Relaxed);
            (all, any) = (all & flags, any | flags);
        }
        all & available != 0 && any & (AVAIL | USED) == available
    }

    /// Whether the guest has made the descriptor at `position` available.
    #[inline(always)]
    pub fn is_available(&self, position: Position) -> bool {
        self.flags(position.slot).load(Ordering::Relaxed) & (AVAIL | USED) == position.available()
    }

    /// Writes a used descriptor, but for its flags (virtio 1.2, 2.8.4).
    #[inline(always)]
    pub fn set_used(&self, slot: u16, id: u16, len: u32) {
        // SAFETY: length and id are the first six bytes of the second half of a mapped descriptor.
        unsafe {
            let at = self.word(slot, 1);
            at.cast::<u32>().write_volatile(len);
            at.cast::<u16>().add(2).write_volatile(id);
        }
    }

    /// Writes a used descriptor, whole, where no earlier one is shown before `publish`.
    #[inline(always)]
    pub fn set_hidden(&self, slot: u16, id: u16, len: u32, flags: u16) {
        let rest = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        // SAFETY: the second half of a mapped descriptor, aligned.
        unsafe { AtomicU64::from_ptr(self.word(slot, 1)) }.store(rest, Ordering::Relaxed);
    }

    /// Writes the flags of a used descriptor.
    #[inline(always)]
    pub fn set_flags(&self, slot: u16, flags: u16, ordering: Ordering) {
        self.flags(slot).store(flags, ordering);
    }
}

/// Half a descriptor of an indirect table, which need not be aligned, as the guest wrote it.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

/// Entry `index` of an indirect table: each half read once.
///
/// # Safety
///
/// That entry of the table at `at` is mapped.
#[inline(always)]
pub(super) unsafe fn table_entry(at: *mut u8, index: u16) -> Desc {
    // SAFETY: by the caller's promise both words are mapped; `Word` asks for no alignment.
    let (addr, rest) = unsafe {
        let at = at.cast::<Word>().add(2 * usize::from(index));
        (at.read_volatile().0, at.add(1).read_volatile().0)
    };
    Desc::new(addr, rest)
}

/// An event suppression structure (virtio 1.2, 2.8.14): the position of an event, and flags. It is read and
/// written as a whole, so the two always belong together.
pub(super) struct Event {
    at: *mut u32,
}

// SAFETY: a pointer into guest memory, which is mapped for every thread.
unsafe impl Send for Event {}

impl Event {
    /// Bytes of the structure.
    pub const LEN: u64 = 4;

    /// # Safety
    ///
    /// `at` is aligned to 4 bytes, and as many stay mapped.
    pub unsafe fn new(at: *mut u8) -> Event {
        Event { at: at.cast() }
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: aligned and mapped, by the promise made to `new`.
        unsafe { AtomicU32::from_ptr(self.at) }
    }

    #[inline(always)]
    pub fn read(&self) -> (Position, u32) {
        let word = self.word().load(Ordering::Relaxed);
        (Position::from_bits(word as u16), word >> 16 & 3)
    }

    pub fn write(&self, event: Position, flags: u32) {
        self.word().store(u32::from(event.bits()) | flags << 16, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

//! The driver's side of a virtqueue.

mod packed;
mod split;

use std::rc::Rc;

use super::{Areas, Descriptor, Slot};
use crate::memory::Shared;
use packed::PackedRing;
use split::SplitRing;

/// What was negotiated, as far as rings care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// Packed format.
    pub packed: bool,
    /// The device uses descriptors in the order they were offered.
    pub in_order: bool,
    /// Notifications by index.
    pub event_idx: bool,
}

/// The length of a buffer that the device returned without saying (IN_ORDER: a batch has one used entry).
pub const UNKNOWN: u32 = u32::MAX;

/// What to do with each descriptor that comes back. A trait, because a closure cannot be told to be inlined.
pub trait Each {
    /// `slot` came back with `length` bytes written.
    fn each(&mut self, slot: Slot, length: u32);
}

impl<F: FnMut(Slot, u32)> Each for F {
    #[inline(always)]
    fn each(&mut self, slot: Slot, length: u32) {
        self(slot, length);
    }
}

/// A virtqueue in either format. Chosen once per burst, not per packet.
#[derive(Debug)]
pub enum Ring {
    /// 2.7
    Split(SplitRing),
    /// 2.8
    Packed(PackedRing),
}

/// Calls the same method of either format.
macro_rules! either {
    ($self:expr, $ring:ident => $call:expr) => {
        match $self {
            Ring::Split($ring) => $call,
            Ring::Packed($ring) => $call,
        }
    };
}

impl Ring {
    /// An empty ring. `None` if `areas` are not inside `memory`.
    pub fn new(memory: &Rc<Shared>, areas: Areas, features: RingFeatures) -> Option<Ring> {
        Some(if features.packed {
            Ring::Packed(PackedRing::new(memory, areas, features)?)
        } else {
            Ring::Split(SplitRing::new(memory, areas, features)?)
        })
    }

    /// Writes all descriptors.
    pub fn fill(&mut self, describe: impl Fn(Slot) -> Descriptor) {
        either!(self, ring => ring.fill(describe))
    }

    /// Descriptors that the driver has.
    #[inline(always)]
    pub fn free(&self) -> u32 {
        either!(self, ring => ring.free())
    }

    /// Descriptors that the device has.
    pub fn in_flight(&self) -> u32 {
        self.size() - self.free()
    }

    /// Entries.
    pub fn size(&self) -> u32 {
        either!(self, ring => ring.size())
    }

    /// Takes back what the device is done with, without looking at it.
    #[inline(always)]
    pub fn reclaim(&mut self) {
        either!(self, ring => ring.reclaim())
    }

    /// The descriptor that is offered after `ahead` others. `ahead` must be below [`Ring::free`].
    #[inline(always)]
    pub fn next(&self, ahead: u32) -> Slot {
        either!(self, ring => ring.next(ahead))
    }

    /// Its length, when it is offered.
    pub fn set_length(&mut self, ahead: u32, length: u32) {
        either!(self, ring => ring.set_length(ahead, length))
    }

    /// Offers the next `count` descriptors, at most [`Ring::free`], to the device.
    #[inline(always)]
    pub fn offer(&mut self, count: u32) {
        either!(self, ring => ring.offer(count))
    }

    /// Takes back at most `max` descriptors, with the length the device wrote (or [`UNKNOWN`]).
    #[inline(always)]
    pub fn take(&mut self, max: u32, mut each: impl Each) -> u32 {
        either!(self, ring => ring.take(max, &mut each))
    }

    /// Whether the device wants to be notified of what was offered since this was last asked. Takes a full
    /// barrier.
    #[inline(always)]
    pub fn kick_wanted(&mut self) -> bool {
        either!(self, ring => ring.kick_wanted())
    }

    /// How the device broke the rules, if it did. The ring does not move any more then.
    pub fn broken(&self) -> Option<&str> {
        either!(self, ring => ring.broken())
    }

    /// Whether descriptors have come back in the order they were offered, so far.
    #[inline(always)]
    pub fn orderly(&self) -> bool {
        either!(self, ring => ring.orderly())
    }

    /// The base for SET_VRING_BASE: 0, and for a packed ring both wrap counters 1 (as QEMU sends it).
    pub fn base(&self) -> u32 {
        match self {
            Ring::Split(_) => 0,
            Ring::Packed(_) => 0x8000_8000,
        }
    }
}

//! What the drivers of both formats can do: all that tests need which mean the same for either.

use std::ops::Range;

use super::*;
use crate::{RingConfig, SetupError, Virtqueue};

/// The driver's side of a ring. Its places are counts of what has gone by before: chains (split), or descriptors
/// (packed).
pub trait RingDriver: Sized + Send {
    /// The device's side.
    type Ring: Virtqueue;

    /// The size of a small ring; no power of two, if that may be.
    const SIZE: u16;

    /// Flags of a descriptor that mean nothing.
    const UNDEFINED: u16;

    /// A driver of a ring of `size` entries, and the guest's memory.
    fn new(size: u16, features: u64) -> Self;

    /// As if `count` had gone by already, and nothing were posted.
    fn at(self, count: u64) -> Self;

    /// The same driver on other memory.
    fn over(self, guest: Guest) -> Self;

    fn guest(&self) -> &Guest;

    fn wires(&self) -> &Wires;

    /// Whether a ring may have `size` entries.
    fn is_size(size: u16) -> bool;

    /// A place where what counts them wraps, in the middle of [`starts`](RingDriver::starts): the 16 bits of an index
    /// (split), or the ring (packed).
    fn wraps_at(size: u16) -> u64;

    /// Where a ring of `size` entries is to be started by tests: a lap to both sides of the wrap.
    fn starts(size: u16) -> Range<u64> {
        let (wrap, lap) = (Self::wraps_at(size), u64::from(size));
        wrap - lap..wrap + lap
    }

    /// How violations name chain `id`, posted at `count` on a ring of `size` entries.
    fn head(size: u16, count: u64, id: u16) -> u16;

    /// What GET_VRING_BASE says at `count`, if nothing is in flight.
    fn base(&self, count: u64) -> u32;

    /// Where the next chain is posted.
    fn avail(&self) -> u64;

    /// How far on from `place` that is.
    fn posted_since(&self, place: u64) -> u16;

    /// What a ring over what is posted and not used is started with.
    fn config(&self) -> RingConfig;

    /// The device's side, started with `config`.
    fn ring(config: RingConfig) -> Result<Self::Ring, SetupError>;

    /// A ring over what is posted so far and not used.
    fn start(&self) -> Self::Ring {
        Self::ring(self.config()).unwrap()
    }

    fn start_at(&self, base: u32) -> Self::Ring {
        Self::ring(RingConfig { base, ..self.config() }).unwrap()
    }

    /// How many bytes the ring's areas have; they are at [`RINGS`].
    fn areas(&self) -> usize;

    /// All bytes of the ring's areas.
    fn bytes(&self) -> Vec<u8> {
        self.guest().read(RINGS, self.areas())
    }

    /// Posts a chain that comes back as `id`. Split rings: it is the chain's first descriptor, the others are every
    /// third after it.
    fn post(&mut self, id: u16, bufs: &[Buf]);

    /// Writes an indirect table and returns the buffer that names it.
    fn table(&self, at: u64, bufs: &[Buf]) -> Buf;

    /// Whether there is anything used that was not looked at.
    fn has_used(&self) -> bool;

    /// What was used since the last look: (id, length).
    fn used(&mut self) -> Vec<(u16, u32)>;

    /// As Linux: asks for a call when anything more is used than was looked at, or for none; which, with EVENT_IDX, a
    /// split ring's driver cannot.
    fn want_calls(&self, wanted: bool);

    /// Whether a driver that has posted from `old` up to now would kick.
    fn would_kick(&self, old: u64) -> bool;

    /// Calls since the last look; `expected` where there are no eventfds.
    fn calls(&self, expected: u64) -> u64 {
        self.wires().calls(expected)
    }

    /// Errors since the last look; `expected` where there are no eventfds.
    fn errors(&self, expected: u64) -> u64 {
        self.wires().errors(expected)
    }

    /// Sleeps until called; `false` after ten seconds.
    fn sleep(&self) -> bool {
        self.wires().sleep()
    }

    /// (guest address, length) of what the ring lent last.
    fn lent(&self, ring: &Self::Ring) -> Vec<(u64, usize)> {
        ring.segments().iter().map(|segment| (self.guest().addr_of(segment), segment.len())).collect()
    }
}

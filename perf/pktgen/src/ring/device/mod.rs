//! The device's side of a virtqueue, for `reflect`: as little of one as can be. It returns descriptors, and
//! copies frames if told to; it is not meant for guests that are hostile (ringwire's own is in
//! `dataplane/virtqueue`), but it does not leave the memory it was given either.

mod memory;
mod packed;
mod split;

pub use memory::{Memory, Segment};
use packed::PackedDevice;
use split::SplitDevice;

/// A chain the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its id.
    pub id: u16,
    /// Entries of a packed ring it takes up.
    pub entries: u16,
}

/// What a device must know of a ring; addresses are the frontend's own, `base` as in SET_VRING_BASE.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceSetup {
    /// Entries.
    pub size: u32,
    /// Descriptor table, or packed ring.
    pub descriptors: u64,
    /// Avail ring, or driver event structure.
    pub driver: u64,
    /// Used ring, or device event structure.
    pub device: u64,
    /// Where to start.
    pub base: u32,
    /// Format.
    pub packed: bool,
}

/// A virtqueue in either format.
#[derive(Debug)]
pub enum DeviceRing {
    /// 2.7
    Split(SplitDevice),
    /// 2.8
    Packed(PackedDevice),
}

macro_rules! either {
    ($self:expr, $ring:ident => $call:expr) => {
        match $self {
            DeviceRing::Split($ring) => $call,
            DeviceRing::Packed($ring) => $call,
        }
    };
}

impl DeviceRing {
    /// A ring; `None` if it is not inside `memory`, or has no good size.
    pub fn new(memory: &Memory, setup: DeviceSetup) -> Option<DeviceRing> {
        if !setup.size.is_power_of_two() || setup.size > 32768 {
            return None;
        }
        Some(if setup.packed {
            DeviceRing::Packed(PackedDevice::new(memory, setup)?)
        } else {
            DeviceRing::Split(SplitDevice::new(memory, setup)?)
        })
    }

    /// Returns up to `max` chains as they are, with `length` bytes written.
    #[inline(always)]
    pub fn return_all(&mut self, max: u32, length: u32) -> u32 {
        either!(self, ring => ring.return_all(max, length))
    }

    /// The next chain, and where its buffers are. `segments` is emptied first.
    pub fn pop(&mut self, memory: &Memory, segments: &mut Vec<Segment>) -> Option<Chain> {
        segments.clear();
        either!(self, ring => ring.pop(memory, segments))
    }

    /// Takes back the last `chains`, as if they had not been popped.
    pub fn unpop(&mut self, chains: &[Chain]) {
        either!(self, ring => ring.unpop(chains))
    }

    /// Returns a chain with `length` bytes written. Seen by the driver after [`DeviceRing::flush`].
    pub fn push(&mut self, chain: Chain, length: u32) {
        either!(self, ring => ring.push(chain, length))
    }

    /// Publishes what was pushed.
    pub fn flush(&mut self) {
        either!(self, ring => ring.flush())
    }

    /// Whether the driver wants to be called.
    pub fn call_wanted(&self) -> bool {
        either!(self, ring => ring.call_wanted())
    }

    /// For GET_VRING_BASE.
    pub fn base(&self) -> u32 {
        either!(self, ring => ring.base())
    }
}

//! What all ring formats share: configuration, violations, and the enum chosen when a ring starts.

use std::sync::Arc;

use crate::{Memory, Notifier, SplitRing};

/// Everything a ring needs to run.
#[derive(Clone)]
pub struct RingConfig {
    /// Virtqueue index; even: the guest receives on it, odd: it sends.
    pub index: u16,
    /// Entries: a power of two up to 32768 (split).
    pub size: u16,
    /// Descriptor table, in the frontend's address space.
    pub desc: u64,
    /// Avail ring, likewise.
    pub avail: u64,
    /// Used ring, likewise.
    pub used: u64,
    /// Where to go on: the next avail index (split).
    pub base: u32,
    /// Virtio feature bits the guest acknowledged.
    pub features: u64,
    /// The guest's memory.
    pub memory: Arc<Memory>,
    /// Signalled by the guest when it has added buffers. Not used while a worker polls.
    pub kick: Option<Notifier>,
    /// Signalled by us when buffers were used.
    pub call: Option<Notifier>,
    /// Signalled by us when the ring is broken.
    pub err: Option<Notifier>,
}

/// A ring that cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Virtio 1.2, 2.7: "Queue Size corresponds to the maximum number of buffers \[and\] is always a power of 2".
    #[error("queue size {0} is not a power of two from 1 to 32768")]
    Size(u16),
    /// One of the three areas is not aligned as virtio 1.2, 2.7 asks.
    #[error("{area} at {addr:#x} is not aligned to {align} bytes")]
    Unaligned {
        /// Which area.
        area: &'static str,
        /// Its address in the frontend.
        addr: u64,
        /// What it should be aligned to.
        align: usize,
    },
    /// One of the three areas is not within one mapped region.
    #[error("{area} of {len} bytes at {addr:#x} is not within one memory region")]
    Unmapped {
        /// Which area.
        area: &'static str,
        /// Its address in the frontend.
        addr: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The base is no index of this ring format.
    #[error("ring base {0:#x} is out of range")]
    Base(u32),
}

/// What a guest did to a ring that it must not do. The ring is stopped for good: it takes nothing more
/// until it is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Avail index further ahead than the ring has entries (virtio 1.2, 2.7.13).
    #[error("avail index jumped from {from} to {to} on a ring of {size} entries")]
    AvailJump {
        /// Next entry we would have taken.
        from: u16,
        /// What the guest published.
        to: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// An avail entry names no descriptor.
    #[error("avail entry {at} names descriptor {head} of {size}")]
    Head {
        /// Avail index.
        at: u16,
        /// What it names.
        head: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A descriptor's `next` names no descriptor.
    #[error("chain {head} goes on at descriptor {next} of {size}")]
    Next {
        /// First descriptor of the chain.
        head: u16,
        /// What is named.
        next: u16,
        /// Descriptors there are.
        size: u16,
    },
    /// More descriptors than the queue size: too long, or a loop (virtio 1.2, 2.7.5.3.1).
    #[error("chain {head} is longer than the queue")]
    ChainTooLong {
        /// First descriptor of the chain.
        head: u16,
    },
    /// Too many pieces to keep: a chain of crumbs.
    #[error("chain {head} is in too many pieces")]
    TooManyPieces {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A buffer or indirect table outside the guest's memory.
    #[error("chain {head} has {len} bytes at unmapped guest address {addr:#x}")]
    Unmapped {
        /// First descriptor of the chain.
        head: u16,
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A device-writable part where the guest sends, or a readable one where it receives.
    #[error("chain {head} has a descriptor of the wrong direction")]
    Direction {
        /// First descriptor of the chain.
        head: u16,
    },
    /// Lengths that add up to more than 32 bits.
    #[error("chain {head} has more than 4 GiB")]
    Length {
        /// First descriptor of the chain.
        head: u16,
    },
    /// An indirect descriptor that was not negotiated, is nested or chained, or whose table's length is
    /// not a multiple of 16, zero, or more than the queue size (virtio 1.2, 2.7.5.3).
    #[error("chain {head} has a bad indirect descriptor")]
    Indirect {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A receive buffer without room for what it must hold.
    #[error("receive buffer {head} has room for {room} bytes only")]
    NoRoom {
        /// First descriptor of the chain.
        head: u16,
        /// Its room in bytes.
        room: u32,
    },
}

/// What publishing used entries did about the guest's notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// There was nothing to publish.
    Nothing,
    /// The guest was called.
    Sent,
    /// The guest wants no call now.
    Suppressed,
}

/// Whether receive buffers for a packet could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// They are taken: so many chains.
    Ready(u16),
    /// The guest has not posted enough yet; nothing was taken.
    Short,
    /// The guest can never post enough for this packet; nothing was taken.
    TooSmall,
}

/// A running ring. Which format it has is settled when it starts.
pub enum Ring {
    /// Split (virtio 1.2, section 2.7).
    Split(SplitRing),
}

impl Ring {
    /// Checks `config` and starts a ring.
    pub fn start(config: RingConfig) -> Result<Ring, SetupError> {
        SplitRing::start(config).map(Ring::Split)
    }

    /// Virtqueue index.
    pub fn index(&self) -> u16 {
        match self {
            Ring::Split(ring) => ring.index(),
        }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        match self {
            Ring::Split(ring) => ring.size(),
        }
    }

    /// Where a ring started in this one's place must go on: the next avail index (split), as in
    /// vhost-user's GET_VRING_BASE.
    pub fn base(&self) -> u32 {
        match self {
            Ring::Split(ring) => ring.base(),
        }
    }

    /// Name of the format, as in `ringwire port show`.
    pub fn format(&self) -> &'static str {
        match self {
            Ring::Split(_) => "split",
        }
    }

    /// Feature bits the ring was started with.
    pub fn features(&self) -> u64 {
        match self {
            Ring::Split(ring) => ring.features(),
        }
    }

    /// Asks the guest to kick, or not to: a polling owner wants no kicks.
    pub fn set_kicks(&mut self, wanted: bool) {
        match self {
            Ring::Split(ring) => ring.set_kicks(wanted),
        }
    }
}

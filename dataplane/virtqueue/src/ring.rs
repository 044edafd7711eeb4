//! What all ring formats share: configuration, violations, and the enum chosen when a ring starts.

use std::ops::RangeInclusive;
use std::sync::Arc;

use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};

use crate::{Memory, Notifier, Offer, PackedRing, Segment, SplitRing};

/// Everything a ring needs to run.
#[derive(Clone)]
pub struct RingConfig {
    /// Virtqueue index; even: the guest receives on it, odd: it sends.
    pub index: u16,
    /// Entries: up to 32768, a power of two if split.
    pub size: u16,
    /// Descriptor table (split) or ring (packed), in the frontend's address space.
    pub desc: u64,
    /// Avail ring (split) or driver event suppression (packed), likewise.
    pub avail: u64,
    /// Used ring (split) or device event suppression (packed), likewise.
    pub used: u64,
    /// Where to go on. Split: the next avail index. Packed: the next slot to take, with its wrap counter in
    /// bit 15, and in the upper half likewise the next slot to write as used; an upper half of 0 (some
    /// frontends leave it so) says that the two are the same.
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
    /// Virtio 1.2, 2.8.10.1: a packed ring has at most 2^15 entries.
    #[error("queue size {0} is not from 1 to 32768")]
    PackedSize(u16),
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
    /// More descriptors than the queue size, than the guest can have free, or than 1024: too long, or a loop
    /// (virtio 1.2, 2.7.5.3.1 and 2.8.17).
    #[error("chain {head} is longer than the queue, or than 1024 descriptors")]
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
    /// A descriptor without a byte.
    #[error("chain {head} has a descriptor of length zero")]
    EmptyDescriptor {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A descriptor that was available is not any more (packed; virtio 1.2, 2.8.16: "A driver MUST NOT change
    /// a descriptor after changing the VIRTQ_DESC_F_AVAIL bit").
    #[error("chain {head} was available, and was taken back")]
    Withdrawn {
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

impl Violation {
    /// Name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Violation::AvailJump { .. } => "avail_jump",
            Violation::Head { .. } => "head",
            Violation::Next { .. } => "next",
            Violation::ChainTooLong { .. } => "chain_too_long",
            Violation::TooManyPieces { .. } => "too_many_pieces",
            Violation::EmptyDescriptor { .. } => "empty_descriptor",
            Violation::Withdrawn { .. } => "withdrawn",
            Violation::Unmapped { .. } => "unmapped",
            Violation::Direction { .. } => "direction",
            Violation::Length { .. } => "length",
            Violation::Indirect { .. } => "indirect",
            Violation::NoRoom { .. } => "no_room",
        }
    }
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

/// Names a chain that was taken, to return it: once, and to the ring it came from.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    /// Head descriptor (split) or buffer id (packed).
    pub(crate) id: u16,
    /// Descriptors of the ring that the chain takes up (packed: they follow each other).
    pub(crate) descs: u16,
}

/// A chain of device-readable buffers.
pub struct Taken<'a> {
    /// To return it with.
    pub token: Token,
    /// Its length in bytes.
    pub len: u32,
    /// Where it is.
    pub segments: &'a [Segment],
}

/// A running ring, whatever its format.
///
/// Chains are taken with [`take`](Virtqueue::take) (the guest sends), and returned with
/// [`complete`](Virtqueue::complete), in the order in which they were taken. Where the guest receives,
/// [`reserve`](Virtqueue::reserve) does both; or, if it is not known yet how long the packet is,
/// [`offer`](Virtqueue::offer) and [`accept`](Virtqueue::accept). All that was returned is shown to the guest at once by
/// [`publish`](Virtqueue::publish).
pub trait Virtqueue {
    /// What the ring was started with.
    fn config(&self) -> &RingConfig;

    /// Where a ring started in this one's place must go on, as in vhost-user's GET_VRING_BASE.
    fn base(&self) -> u32;

    /// What the guest did, if the ring was stopped for it.
    fn violation(&self) -> Option<Violation>;

    /// Asks the guest to kick when it publishes more than was seen so far, or not to kick. With EVENT_IDX
    /// a wish is good for one kick; ask again before each wait, and look at
    /// [`has_news`](Virtqueue::has_news) after asking.
    fn set_kicks(&mut self, wanted: bool);

    /// Whether there is nothing to take: one look at the ring, for those that are polled and mostly idle. A stopped
    /// ring may seem to have something.
    fn is_idle(&self) -> bool;

    /// How many chains [`available`](Virtqueue::available) has seen that are not taken yet.
    fn seen(&self) -> u16;

    /// How many chains can be taken, as far as up to `wanted` matter: exactly (split), or at most (packed,
    /// where a chain may take up several descriptors); 0 only if there is none.
    fn available(&mut self, wanted: u16) -> Result<u16, Violation>;

    /// Takes the next chain of device-readable buffers, of those that [`available`](Virtqueue::available)
    /// has seen.
    fn take(&mut self) -> Result<Option<Taken<'_>>, Violation>;

    /// Puts the chain taken last back: it was not completed, and will be taken again.
    fn untake(&mut self);

    /// Takes chains of device-readable buffers that are one piece of memory each, of a length in `lens` (not 0), at most
    /// `most` or 64, and says where they are; it ends in front of the first chain that is anything else, for
    /// [`take`](Virtqueue::take) to look at. All are returned with
    /// [`return_singles`](Virtqueue::return_singles) before anything else is taken.
    fn take_singles(&mut self, most: u16, lens: RangeInclusive<u32>) -> Result<&[Segment], Violation>;

    /// Returns the first `done` chains that [`take_singles`](Virtqueue::take_singles) took as used, and puts the
    /// others back. The guest sees it after `publish`.
    fn return_singles(&mut self, done: u16);

    /// Takes chains of device-writable buffers that are one piece of memory each and have room for as many bytes
    /// as `lens` says (never 0), one after the other, at most 64; enters them as used, and says where they are. It ends in
    /// front of the first chain that is anything else, for [`reserve`](Virtqueue::reserve) to look at.
    fn reserve_singles(&mut self, lens: &[u32]) -> Result<&[Segment], Violation>;

    /// Looks for chains of device-writable buffers with room for `len` bytes: as many as those need, at most
    /// `max_chains` or 1024, or as there are. The first must have room for `header` bytes.
    /// [`segments`](Virtqueue::segments) then says where they are, to be written to at once. They are not taken yet:
    /// [`accept`](Virtqueue::accept) or [`decline`](Virtqueue::decline) comes before anything else is done to the
    /// ring.
    fn offer(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Offer, Violation>;

    /// Takes the first chains of the last offer, as many as `len` bytes need and at least one, enters them as used,
    /// and says how many. The others stay with the guest.
    fn accept(&mut self, len: u32) -> u16;

    /// Leaves all of the last offer with the guest.
    fn decline(&mut self);

    /// Takes as many chains of device-writable buffers as `len` bytes need, at most `max_chains` or 1024, and
    /// enters them as used; [`segments`](Virtqueue::segments) then says where they are. The first must
    /// have room for `header` bytes. Unless it answers `Ready`, nothing was taken.
    #[inline(always)]
    fn reserve(&mut self, len: u32, header: u32, max_chains: u16) -> Result<Reservation, Violation> {
        let offer = self.offer(len, header, max_chains)?;
        if offer.chains > 0 && offer.room >= len {
            return Ok(Reservation::Ready(self.accept(len)));
        }
        self.decline();
        Ok(if offer.all { Reservation::TooSmall } else { Reservation::Short })
    }

    /// Where the chains taken or offered last are.
    fn segments(&self) -> &[Segment];

    /// Whether the guest has published anything that [`available`](Virtqueue::available) has not seen; a
    /// stopped ring has no news.
    fn has_news(&self) -> bool;

    /// Returns a chain as used, with `len` bytes written to it. The guest sees it after `publish`. (On a ring
    /// that the guest sends on, with IN_ORDER, it does not see the length, which is 0.)
    fn complete(&mut self, token: Token, len: u32);

    /// Shows all returned chains to the guest, and calls it if it wants that: once a burst.
    fn publish(&mut self) -> Call;
}

impl RingConfig {
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.features & 1 << bit != 0
    }

    /// Whether chains published together are shown by one used entry, the last one's: the guest knows which
    /// they are (IN_ORDER), and does not need their lengths, because it sends.
    pub(crate) fn is_batched(&self) -> bool {
        self.has(VIRTIO_F_IN_ORDER) && !self.index.is_multiple_of(2)
    }

    #[inline(always)]
    pub(crate) fn call_if(&self, wanted: bool) -> Call {
        match &self.call {
            Some(call) if wanted => {
                call.signal();
                Call::Sent
            }
            _ => Call::Suppressed,
        }
    }
}

/// Finds one of a ring's areas in our memory.
pub(crate) fn area(
    memory: &Memory,
    area: &'static str,
    addr: u64,
    len: u64,
    align: usize,
) -> Result<*mut u8, SetupError> {
    let host = memory.user_to_host(addr, len).ok_or(SetupError::Unmapped { area, addr, len })?;
    // Ours counts, not the frontend's: it is ours that is dereferenced.
    match host.addr().is_multiple_of(align) {
        true => Ok(host),
        false => Err(SetupError::Unaligned { area, addr, align }),
    }
}

/// A running ring. Which format it has is settled when it starts.
pub enum Ring {
    /// Split (virtio 1.2, section 2.7).
    Split(SplitRing),
    /// Packed (virtio 1.2, section 2.8).
    Packed(PackedRing),
}

impl Ring {
    /// Checks `config` and starts a ring, packed if the guest acknowledged RING_PACKED.
    pub fn start(config: RingConfig) -> Result<Ring, SetupError> {
        if config.has(VIRTIO_F_RING_PACKED) {
            PackedRing::start(config).map(Ring::Packed)
        } else {
            SplitRing::start(config).map(Ring::Split)
        }
    }

    /// The ring behind operations that are not worth a loop of their own.
    pub fn as_dyn(&mut self) -> &mut dyn Virtqueue {
        match self {
            Ring::Split(ring) => ring,
            Ring::Packed(ring) => ring,
        }
    }

    /// What the ring was started with.
    pub fn config(&self) -> &RingConfig {
        match self {
            Ring::Split(ring) => ring.config(),
            Ring::Packed(ring) => ring.config(),
        }
    }

    /// Virtqueue index.
    pub fn index(&self) -> u16 {
        self.config().index
    }

    /// Where a ring started in this one's place must go on, as in vhost-user's GET_VRING_BASE.
    pub fn base(&self) -> u32 {
        match self {
            Ring::Split(ring) => ring.base(),
            Ring::Packed(ring) => ring.base(),
        }
    }
}

#[cfg(test)]
mod tests;

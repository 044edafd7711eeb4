//! The guest port: bursts out of and into a pair of virtqueues.
//!
//! A packet is copied once, between the guest's buffer and an mbuf; the chain is returned to the guest in
//! the same burst. So a ring that nobody is inside of has nothing in flight: what was taken was used.

use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use net::Header;
use virtqueue::{Call, Cursor, Reservation, Ring, SplitRing, Violation};

use crate::counters::{DropReason, PairCounters, RingCounters, Shared};

/// What a turn at a queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

/// One queue pair of a guest.
pub struct GuestPair {
    /// Pair number k: virtqueues 2k and 2k+1.
    pub index: u16,
    /// Name of the port, for messages.
    name: String,
    /// Virtqueue 2k+1: the guest sends.
    from: Side,
    /// Virtqueue 2k: the guest receives.
    to: Side,
    counters: Shared<PairCounters>,
}

/// One virtqueue and what goes with it.
struct Side {
    ring: Ring,
    header: Header,
    counters: Shared<RingCounters>,
    /// The guest violated the protocol: the ring is not looked at any more.
    broken: bool,
    /// The next packet needs more buffers than were posted: no need to try before there are more.
    short: bool,
}

/// The shared counters of one guest pair.
#[derive(Clone, Default)]
pub struct GuestCounters {
    /// Packets.
    pub pair: Shared<PairCounters>,
    /// The ring the guest sends on.
    pub from: Shared<RingCounters>,
    /// The ring the guest receives on.
    pub to: Shared<RingCounters>,
}

impl GuestPair {
    /// A pair of started rings: `from` is the one the guest sends on. Kicks are switched off: it will be
    /// polled.
    pub fn new(name: &str, from: Ring, to: Ring, counters: &GuestCounters) -> GuestPair {
        GuestPair {
            index: from.index() / 2,
            name: name.to_owned(),
            from: Side::new(from, counters.from.clone()),
            to: Side::new(to, counters.to.clone()),
            counters: counters.pair.clone(),
        }
    }

    /// Gives the rings (the one the guest sends on first) back; kicks are switched on again.
    pub fn into_rings(self) -> [Ring; 2] {
        [self.from, self.to].map(|side| {
            let mut ring = side.ring;
            ring.set_kicks(true);
            ring
        })
    }

    /// Moves up to `max` packets that the guest sent, and about `budget` bytes, into `burst`, in mbufs of
    /// `pool`. Frames longer than `max_frame` bytes are dropped. Fewer than `max` when the guest has sent
    /// no more, the burst is full, or mbufs are short (then they stay with the guest).
    #[inline]
    pub fn receive(
        &mut self,
        burst: &mut Burst,
        max: usize,
        budget: u64,
        max_frame: u32,
        pool: &Mempool,
    ) -> Moved {
        if self.from.broken {
            return Moved::default();
        }
        let mut taken = Taken { first: burst.len(), filled: 0, bytes: 0, runts: 0, oversize: 0 };
        let outcome = match &mut self.from.ring {
            Ring::Split(ring) => {
                let wanted = max.min(burst.capacity_left());
                let outcome = taken.receive(ring, &self.from.header, burst, wanted, budget, max_frame, pool);
                self.from.counters.published(taken.returned(), ring.publish());
                outcome
            }
        };
        let counters = &self.counters;
        counters.rx.add(taken.returned(), taken.bytes);
        if taken.runts + taken.oversize > 0 {
            counters.dropped(DropReason::Runt, taken.runts);
            counters.dropped(DropReason::Oversize, taken.oversize);
        }
        if let Err(violation) = outcome {
            self.from.break_off(&self.name, violation);
        }
        Moved { packets: taken.returned(), bytes: taken.bytes }
    }

    /// How many receive buffers the guest has posted, as far as up to `wanted` matter; 0 while a packet
    /// waits for more than there are.
    #[inline]
    pub fn room(&mut self, wanted: u16) -> usize {
        let Side { ring: Ring::Split(ring), broken, .. } = &mut self.to;
        if *broken {
            return 0;
        }
        match ring.available(wanted) {
            Ok(available) => usize::from(available.min(wanted)),
            Err(violation) => {
                self.to.break_off(&self.name, violation);
                0
            }
        }
    }

    /// Copies packets from the front of `burst` into the guest's receive buffers, as many as it has room
    /// for; those leave the burst. Packets the guest can never take leave it too, counted in `origin`, the
    /// counters of the port they came from.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst, origin: &PairCounters) -> Moved {
        let mut placed = Placed::default();
        let Side { ring: Ring::Split(ring), header, counters, broken, short } = &mut self.to;
        if *broken || (*short && !ring.has_news()) {
            return Moved::default();
        }
        *short = false;
        let outcome = if net::mergeable(ring.features()) {
            let most = ring.size();
            placed.send(ring, header, burst, most)
        } else {
            placed.send(ring, header, burst, 1)
        };
        *short = placed.short;
        counters.published(placed.chains, ring.publish());
        burst.free_front(placed.done);
        self.counters.tx.add(placed.packets, placed.bytes);
        if placed.too_long > 0 {
            origin.dropped(DropReason::GuestBufferTooSmall, placed.too_long);
        }
        if let Err(violation) = outcome {
            self.to.break_off(&self.name, violation);
        }
        Moved { packets: placed.packets + placed.too_long, bytes: placed.bytes }
    }
}

impl Side {
    fn new(mut ring: Ring, counters: Shared<RingCounters>) -> Side {
        ring.set_kicks(false);
        let header = Header::plain(ring.features());
        let violation = match &ring {
            Ring::Split(split) => split.violation(),
        };
        *counters.violation.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = violation;
        Side { ring, header, counters, broken: violation.is_some(), short: false }
    }

    #[cold]
    fn break_off(&mut self, name: &str, violation: Violation) {
        self.broken = true;
        tracing::warn!(guest = name, ring = self.ring.index(), "ring stopped: {violation}");
        *self.counters.violation.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(violation);
    }
}

impl RingCounters {
    #[inline(always)]
    fn published(&self, chains: u64, call: Call) {
        match call {
            Call::Nothing => return,
            Call::Sent => self.calls.add(1),
            Call::Suppressed => self.calls_suppressed.add(1),
        }
        self.used.add(chains);
    }
}

/// A burst on its way from the guest.
struct Taken {
    /// Where in the burst it starts.
    first: usize,
    /// Packets in the burst.
    filled: usize,
    /// Bytes of all frames taken, dropped ones included.
    bytes: u64,
    runts: u64,
    oversize: u64,
}

impl Taken {
    /// Chains returned to the guest so far.
    fn returned(&self) -> u64 {
        self.filled as u64 + self.runts + self.oversize
    }

    #[allow(clippy::too_many_arguments)] // the parts of one port, borrowed apart
    #[inline(always)]
    fn receive(
        &mut self,
        ring: &mut SplitRing,
        header: &Header,
        burst: &mut Burst,
        wanted: usize,
        budget: u64,
        max_frame: u32,
        pool: &Mempool,
    ) -> Result<(), Violation> {
        let available = usize::from(ring.available(wanted as u16)?).min(wanted);
        if available == 0 || pool.alloc_bulk(burst, available).is_err() {
            return Ok(());
        }
        let outcome = self.fill(ring, header, burst, available, budget, max_frame, pool);
        burst.truncate_free(self.first + self.filled);
        outcome
    }

    #[allow(clippy::too_many_arguments)] // as above
    #[inline(always)]
    fn fill(
        &mut self,
        ring: &mut SplitRing,
        header: &Header,
        burst: &mut Burst,
        available: usize,
        budget: u64,
        max_frame: u32,
        pool: &Mempool,
    ) -> Result<(), Violation> {
        for _ in 0..available {
            let (head, len, segments) = ring.take()?;
            let frame = len.saturating_sub(header.len());
            if frame < net::MIN_FRAME {
                self.runts += 1;
            } else if frame > max_frame {
                self.oversize += 1;
            } else {
                let mut cursor = Cursor::new(segments);
                cursor.skip(header.len() as usize);
                let mbuf = &mut burst.as_mut_slice()[self.first + self.filled];
                if !fill(mbuf, frame, &mut cursor, pool) {
                    ring.untake();
                    return Ok(());
                }
                self.filled += 1;
            }
            ring.complete(head, 0);
            self.bytes += u64::from(frame);
            if self.bytes >= budget {
                break;
            }
        }
        Ok(())
    }
}

/// Copies a frame of `len` bytes into a fresh mbuf, and into more of them if it is longer than one.
/// `false` if there are not enough; what was copied goes back to the pool with the mbuf.
#[inline(always)]
fn fill(mbuf: &mut Mbuf, len: u32, cursor: &mut Cursor, pool: &Mempool) -> bool {
    let first = len.min(u32::from(mbuf.room())) as u16;
    mbuf.set_single_len(first);
    cursor.read(mbuf.data_mut());
    u32::from(first) == len || fill_more(mbuf, len - u32::from(first), cursor, pool)
}

#[cold]
fn fill_more(mbuf: &mut Mbuf, mut left: u32, cursor: &mut Cursor, pool: &Mempool) -> bool {
    while left > 0 {
        let Some(mut segment) = pool.alloc() else {
            return false;
        };
        let len = left.min(u32::from(segment.room())) as u16;
        segment.set_single_len(len);
        cursor.read(segment.data_mut());
        mbuf.append_segment(segment, len);
        left -= u32::from(len);
    }
    true
}

/// A burst on its way to the guest.
#[derive(Default)]
struct Placed {
    /// Packets that can leave the burst.
    done: usize,
    packets: u64,
    bytes: u64,
    too_long: u64,
    chains: u64,
    short: bool,
}

impl Placed {
    #[inline(always)]
    fn send(
        &mut self,
        ring: &mut SplitRing,
        header: &mut Header,
        burst: &Burst,
        max_chains: u16,
    ) -> Result<(), Violation> {
        for mbuf in burst.as_slice() {
            let frame = mbuf.pkt_len();
            match ring.reserve(frame + header.len(), header.len(), max_chains)? {
                Reservation::Ready(chains) => {
                    let mut cursor = Cursor::new(ring.segments());
                    cursor.write(header.spanning(chains));
                    for segment in mbuf.segments() {
                        cursor.write(segment);
                    }
                    self.packets += 1;
                    self.bytes += u64::from(frame);
                    self.chains += u64::from(chains);
                }
                Reservation::TooSmall => self.too_long += 1,
                Reservation::Short => {
                    self.short = true;
                    break;
                }
            }
            self.done += 1;
        }
        Ok(())
    }
}

//! The guest port: bursts out of and into a pair of virtqueues.
//!
//! A packet is copied once, between the guest's buffer and an mbuf; the chain is returned to the guest in
//! the same burst. So a ring that nobody is inside of has nothing in flight: what was taken was used.

mod announce;
pub(crate) mod complete;
mod forward;
mod receive;
mod seen;
mod send;
mod socket;

use std::sync::PoisonError;

use dpdk::burst::Burst;
use dpdk::mempool::Mempool;
use net::Header;
use virtqueue::{Call, Ring, Segment, Violation, Virtqueue};

use crate::counters::{DropReason, PairCounters, RingCounters, Shared};
use crate::outbox::Outbox;
use complete::Workbench;
use receive::{Received, ReceivedIncomplete};
pub(crate) use seen::Frames;
use send::Sent;
pub use socket::{Stop, Turn};

/// What a turn at a queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// What a turn's budget is charged: the bytes, and more where a packet is in many pieces.
    pub cost: u64,
}

/// What a packet is charged for each piece it is in: a piece may be on a page that the kernel has to find first.
const PIECE: u64 = 512;

/// The cost of a packet of one or more pieces.
fn cost(frame: u32, pieces: &[Segment]) -> u64 {
    u64::from(frame).max(PIECE * pieces.len() as u64)
}

/// How much to take from a guest.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Packets, at most.
    pub packets: usize,
    /// Cost, see [`Moved::cost`], after which to stop.
    pub cost: u64,
    /// Longest frame that the other end takes, in bytes; longer ones are dropped.
    pub frame: u32,
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
    /// For what the guest may leave to complete, if it negotiated that.
    workbench: Option<Box<Workbench>>,
}

/// One virtqueue and what goes with it.
struct Side {
    ring: Ring,
    header: Header,
    counters: Shared<RingCounters>,
    /// The next packet needs more buffers than were posted: no need to try before there are more.
    short: bool,
    /// How many more frames from a socket are expected to be as long as any.
    long: u8,
}

/// Runs a block on the ring behind a [`Ring`], compiled once for each format.
macro_rules! with_ring {
    ($ring:expr, $name:ident => $body:expr) => {
        match $ring {
            Ring::Split($name) => $body,
            Ring::Packed($name) => $body,
        }
    };
}
use with_ring;

impl GuestPair {
    /// A pair of started rings: `from` is the one the guest sends on. Kicks are switched off: it will be
    /// polled.
    pub fn new(name: &str, from: Ring, to: Ring, counters: &GuestCounters) -> GuestPair {
        let workbench = Workbench::new(from.config().features).map(Box::new);
        GuestPair {
            index: from.index() / 2,
            name: name.to_owned(),
            from: Side::new(from, counters.from.clone()),
            to: Side::new(to, counters.to.clone()),
            counters: counters.pair.clone(),
            workbench,
        }
    }

    /// Counts `n` packets that the guest sent and that were dropped.
    pub fn count_drops(&self, reason: DropReason, n: u64) {
        self.counters.dropped(reason, n);
    }

    /// Virtio features the guest acknowledged.
    pub fn features(&self) -> u64 {
        self.from.ring.config().features
    }

    /// Gives the rings (the one the guest sends on first) back; kicks are switched on again.
    pub fn into_rings(mut self) -> [Ring; 2] {
        if let Some(workbench) = &mut self.workbench {
            // Segments for another guest that had no room for them yet.
            let (packets, bytes) = workbench.undelivered(|len| self.counters.rx.sizes.add(len));
            if packets > 0 {
                self.counters.rx.add(packets, bytes);
                self.counters.dropped(DropReason::BackendChanged, packets);
            }
        }
        [self.from, self.to].map(|side| {
            let mut ring = side.ring;
            ring.as_dyn().set_kicks(true);
            ring
        })
    }

    /// Whether the guest has sent nothing: one look at the ring.
    #[inline(always)]
    pub fn is_idle(&self) -> bool {
        with_ring!(&self.from.ring, ring => ring.is_idle())
    }

    /// Moves packets that the guest sent into `outbox`. Fewer than allowed when the guest has sent no more, the
    /// burst is full, or mbufs are short (then they stay with the guest). A frame that is cut into segments counts
    /// as many packets as these.
    #[inline(always)]
    pub fn receive(&mut self, outbox: &mut Outbox, limits: Limits) -> Moved {
        if self.is_idle() {
            return Moved::default();
        }
        if self.workbench.is_some() {
            return self.receive_incomplete(outbox, limits);
        }
        self.receive_burst(&mut outbox.burst, limits, &outbox.pool)
    }

    #[inline(never)]
    fn receive_burst(&mut self, burst: &mut Burst, limits: Limits, pool: &Mempool) -> Moved {
        let mut received = Received::default();
        let Side { ring, header, counters, .. } = &mut self.from;
        let outcome = with_ring!(ring, ring => {
            let sizes = &self.counters.rx.sizes;
            let outcome = received.receive(ring, header.len(), burst, limits, pool, sizes);
            counters.published(received.chains(), ring.publish());
            outcome
        });
        self.received(&received, 0, outcome)
    }

    /// The same from a guest that may leave something to complete.
    #[inline(never)]
    fn receive_incomplete(&mut self, outbox: &mut Outbox, limits: Limits) -> Moved {
        let mut incomplete = ReceivedIncomplete::default();
        let Some(workbench) = &mut self.workbench else { return Moved::default() };
        let Side { ring, header, counters, .. } = &mut self.from;
        let outcome = with_ring!(ring, ring => {
            let sizes = &self.counters.rx.sizes;
            let outcome = incomplete.receive(ring, header.len(), outbox, limits, workbench, sizes);
            counters.published(incomplete.chains(), ring.publish());
            outcome
        });
        self.counters.dropped(DropReason::BadOffload, incomplete.bad_offload);
        self.received(&incomplete.received, incomplete.cut + incomplete.bad_offload, outcome)
    }

    /// Counts what was received, and `more` packets of the same bytes.
    #[inline(always)]
    fn received(&mut self, received: &Received, more: u64, outcome: Result<(), Violation>) -> Moved {
        let packets = received.chains() + more;
        let moved = Moved { packets, bytes: received.bytes, cost: received.cost };
        if moved.packets > 0 {
            self.counters.rx.add(moved.packets, moved.bytes);
            if received.runts + received.oversize > 0 {
                self.counters.dropped(DropReason::Runt, received.runts);
                self.counters.dropped(DropReason::Oversize, received.oversize);
            }
        }
        if let Err(violation) = outcome {
            self.from.report(&self.name, violation);
        }
        moved
    }

    /// How many packets at most the guest has receive buffers for, as far as up to `wanted` matter.
    #[inline(always)]
    pub fn room(&mut self, wanted: u16) -> usize {
        if !self.to.short && with_ring!(&self.to.ring, ring => ring.seen()) >= wanted {
            return usize::from(wanted);
        }
        self.look_for_room(wanted)
    }

    #[inline(never)]
    fn look_for_room(&mut self, wanted: u16) -> usize {
        if self.to.is_short() {
            return 0;
        }
        match with_ring!(&mut self.to.ring, ring => ring.available(wanted)) {
            Ok(available) => usize::from(available.min(wanted)),
            Err(violation) => {
                self.to.report(&self.name, violation);
                0
            }
        }
    }

    /// Copies packets from the front of `burst` into the guest's receive buffers, as many as it has room for, until
    /// that has cost `budget`; those leave the burst. Packets the guest can never take leave it too, counted in
    /// `origin`, the counters of the port they came from.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst, origin: &PairCounters, budget: u64) -> Moved {
        self.send_burst::<false>(burst, origin, budget)
    }

    /// The same from a NIC that says something about the packets: the guest hears it.
    #[inline(never)]
    pub fn send_judged(&mut self, burst: &mut Burst, origin: &PairCounters, budget: u64) -> Moved {
        self.send_burst::<true>(burst, origin, budget)
    }

    #[inline(always)]
    fn send_burst<const JUDGED: bool>(
        &mut self,
        burst: &mut Burst,
        origin: &PairCounters,
        budget: u64,
    ) -> Moved {
        if self.to.is_short() {
            return Moved::default();
        }
        let mut sent = Sent::default();
        let Side { ring, header, counters, short, .. } = &mut self.to;
        let outcome = with_ring!(ring, ring => {
            let outcome = sent.send::<_, JUDGED>(ring, header, burst, budget, &self.counters.tx.sizes);
            counters.published(sent.chains, ring.publish());
            outcome
        });
        *short = sent.short;
        burst.free_front(sent.done());
        if sent.packets > 0 {
            self.counters.tx.add(sent.packets, sent.bytes);
        }
        if sent.too_long > 0 {
            origin.dropped(DropReason::GuestBufferTooSmall, sent.too_long);
        }
        if let Err(violation) = outcome {
            self.to.report(&self.name, violation);
        }
        Moved { packets: sent.packets + sent.too_long, bytes: sent.bytes, cost: sent.cost }
    }
}

impl Side {
    fn new(mut ring: Ring, counters: Shared<RingCounters>) -> Side {
        let queue = ring.as_dyn();
        queue.set_kicks(false);
        let header = Header::plain(queue.config().features);
        counters.show_violation(queue.violation());
        Side { ring, header, counters, short: false, long: 0 }
    }

    /// Whether the next packet still needs more buffers than were posted. To be asked before anyone looks at the
    /// ring: what has been looked at is no news.
    #[inline(always)]
    fn is_short(&mut self) -> bool {
        self.short = self.short && !with_ring!(&self.ring, ring => ring.has_news());
        self.short
    }

    /// Says and counts, once, that the ring was stopped; from now on it has nothing to take.
    #[cold]
    fn report(&mut self, name: &str, violation: Violation) {
        tracing::warn!(port = name, queue = self.ring.index(), "ring stopped: {violation}");
        self.counters.show_violation(Some(violation));
        let mut violations = self.counters.violations.lock().unwrap_or_else(PoisonError::into_inner);
        *violations.entry(violation.name()).or_default() += 1;
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

    fn show_violation(&self, violation: Option<Violation>) {
        *self.violation.lock().unwrap_or_else(PoisonError::into_inner) = violation;
    }
}

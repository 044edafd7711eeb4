//! Counters of queues: written by the one thread that owns the queue, read by anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
pub use snapshot::DropReason;

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner of the counter may call this: it loads and stores, and locks nothing.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the number (for one that rises and falls).
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number as last written.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes that passed one queue in one direction.
#[derive(Debug, Default)]
pub struct Passed {
    /// Packets.
    pub packets: Counter,
    /// Bytes of frames.
    pub bytes: Counter,
}

impl Passed {
    /// Adds a burst.
    #[inline(always)]
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}

/// Counters of one queue pair of a port.
#[derive(Debug, Default)]
pub struct PairCounters {
    /// What entered the datapath here.
    pub rx: Passed,
    /// What left it here.
    pub tx: Passed,
    /// What entered here and was dropped, by [`DropReason`].
    pub drops: [Counter; DropReason::ALL.len()],
    /// What waits in this pair to leave: it came from the other end of the wire.
    pub tx_held: Counter,
    /// What came in here and waits for room at the other end.
    pub rx_held: Counter,
}

impl PairCounters {
    /// Counts `n` packets that entered here and were dropped.
    #[inline(always)]
    pub fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }
}

/// Counters of one virtqueue.
#[derive(Debug, Default)]
pub struct RingCounters {
    /// Chains returned to the guest.
    pub used: Counter,
    /// Calls sent.
    pub calls: Counter,
    /// Calls the guest did not want.
    pub calls_suppressed: Counter,
    /// What the guest did, once the ring was stopped for it. Locked at that moment and to look at it.
    pub violation: Mutex<Option<virtqueue::Violation>>,
    /// How often the guest has done what, by [`Violation::name`](virtqueue::Violation::name). Locked likewise.
    pub violations: Mutex<BTreeMap<&'static str, u64>>,
}

/// Counters shared between the owner of a queue and whoever shows them, on cache lines of their own.
pub type Shared<T> = Arc<CachePadded<T>>;

/// Fresh, shared counters.
pub fn shared<T: Default>() -> Shared<T> {
    Arc::default()
}

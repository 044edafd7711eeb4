//! Counters of queues: written by the one thread that owns the queue, read by anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
use dpdk::mbuf::Mbuf;
use dpdk::{BURST_MAX, cycles};
pub use snapshot::DropReason;
use snapshot::SIZE_CLASSES;

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

/// Frames that were added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their lengths, or'ed: as long as the longest at least.
    pub any: u32,
}

impl Lengths {
    /// Adds up packets.
    #[inline(always)]
    pub fn of(packets: &[Mbuf]) -> Lengths {
        let (mut bytes, mut any) = (0, 0);
        for mbuf in packets {
            bytes += u64::from(mbuf.pkt_len());
            any |= mbuf.pkt_len();
        }
        Lengths { packets: packets.len() as u64, bytes, any }
    }

    /// The length of each, if it is the same: if none is longer than `any`, all can only come to so much if none is
    /// shorter.
    #[inline(always)]
    pub fn each(&self) -> Option<u32> {
        (self.packets * u64::from(self.any) == self.bytes).then_some(self.any)
    }
}

/// Bytes that a frame has on the wire and not in memory: its check sequence (FCS).
const FCS: u32 = 4;
/// The longest frame, without its FCS, of each class of sizes but the last, which has no end.
const LONGEST: [u32; SIZE_CLASSES - 1] = {
    let mut longest = snapshot::Sizes::LAST;
    let mut class = 0;
    while class < longest.len() {
        longest[class] -= FCS;
        class += 1;
    }
    longest
};

/// Frames by their size on the wire, see [`snapshot::Sizes`].
#[derive(Debug, Default)]
pub struct Sizes([Counter; SIZE_CLASSES]);

impl Sizes {
    /// Counts one frame of `len` bytes.
    #[inline(always)]
    pub fn add(&self, len: u32) {
        self.add_alike(1, len);
    }

    /// Counts frames that are of `len` bytes each.
    #[inline(always)]
    pub fn add_alike(&self, packets: u64, len: u32) {
        self.0[LONGEST.iter().filter(|longest| len > **longest).count()].add(packets);
    }

    /// Counts a burst. Only when its frames are of different lengths are these looked at one by one: `lens`.
    #[inline(always)]
    pub fn add_burst(&self, lengths: Lengths, lens: impl Iterator<Item = u32>) {
        match lengths.each() {
            Some(len) => self.add_alike(lengths.packets, len),
            None => self.add_each(lens),
        }
    }

    /// Counts frames, of which `lens` has the bytes of each and of a header of `header` bytes: `bytes` altogether.
    #[inline(never)]
    pub fn add_lens(&self, lens: &[u32], header: u32, bytes: u64) {
        let packets = lens.len() as u64;
        if packets == 0 {
            return;
        }
        let any = lens.iter().fold(0, |any, len| any | len);
        match (Lengths { packets, bytes, any }).each() {
            Some(len) => self.add_alike(packets, len - header),
            None => self.add_each(lens.iter().map(|len| len - header)),
        }
    }

    /// Counts frames of different lengths.
    #[inline(never)]
    pub fn add_each(&self, mut lens: impl Iterator<Item = u32>) {
        let mut some = [0; BURST_MAX];
        loop {
            let mut count = 0;
            for (to, len) in some.iter_mut().zip(&mut lens) {
                *to = len;
                count += 1;
            }
            self.add_some(&some[..count]);
            if count < BURST_MAX {
                return;
            }
        }
    }

    /// A pass for each class: that takes no branches, and several lengths at a time.
    fn add_some(&self, lens: &[u32]) {
        let mut left = lens.len() as u64;
        for (class, longest) in self.0.iter().zip(LONGEST) {
            let longer: u32 = lens.iter().map(|len| u32::from(*len > longest)).sum();
            class.add(left - u64::from(longer));
            left = longer.into();
        }
        self.0[SIZE_CLASSES - 1].add(left);
    }

    /// The numbers, shortest frames first.
    pub fn get(&self) -> [u64; SIZE_CLASSES] {
        self.0.each_ref().map(Counter::get)
    }
}

/// What passed one queue in one direction.
#[derive(Debug, Default)]
pub struct Passed {
    /// Packets.
    pub packets: Counter,
    /// Bytes of frames.
    pub bytes: Counter,
    /// Bursts, none of which was empty: a burst's fill is packets by bursts.
    pub bursts: Counter,
    /// Packets by size. Counted where the lengths are known: by whoever fills or empties the queue.
    pub sizes: Sizes,
}

impl Passed {
    /// Adds a burst, but for its [`sizes`](Passed::sizes).
    #[inline(always)]
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
        self.bursts.add(1);
    }

    /// Adds a burst of one frame of `len` bytes.
    pub fn add_frame(&self, len: usize) {
        self.add(1, len as u64);
        self.sizes.add(u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// For how long something was so, in cycles of the time-stamp counter. The counter is read when it begins and when it
/// ends, and not in between.
#[derive(Debug, Default)]
pub struct Stopwatch(AtomicU64);

/// While it runs: the other bits are its time so far, less the time at which it was started.
const RUNS: u64 = 1 << 63;

impl Stopwatch {
    /// Starts it, or stops it, at the time `now`. Only by its owner.
    fn run(&self, runs: bool, now: u64) {
        let time = self.0.load(Ordering::Relaxed);
        let next = match (time & RUNS != 0, runs) {
            (false, true) => time.wrapping_sub(now) | RUNS,
            (true, false) => time.wrapping_add(now) & !RUNS,
            _ => time,
        };
        self.0.store(next, Ordering::Relaxed);
    }

    /// Cycles until `now`.
    fn at(&self, now: u64) -> u64 {
        // One word says all, so that it cannot be half old and half new.
        let time = self.0.load(Ordering::Relaxed);
        if time & RUNS == 0 { time } else { time.wrapping_add(now) & !RUNS }
    }
}

/// Packets that wait for room, and for how long there have been any.
#[derive(Debug, Default)]
pub struct Held {
    packets: Counter,
    time: Stopwatch,
}

impl Held {
    /// So many wait now. Only by the owner.
    #[inline(always)]
    pub fn set(&self, packets: u64) {
        let before = self.packets.get();
        if packets == before {
            return;
        }
        self.packets.set(packets);
        if packets == 0 || before == 0 {
            self.time.run(packets > 0, cycles::now());
        }
    }

    /// How many wait.
    pub fn get(&self) -> u64 {
        self.packets.get()
    }

    /// For how long any have waited, in cycles.
    pub fn cycles(&self) -> u64 {
        self.time.at(cycles::now())
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
    pub tx_held: Held,
    /// What came in here and waits for room at the other end.
    pub rx_held: Held,
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
    /// Kicks that were noticed. A ring that is polled is not waited for; and of kicks that come together only the first
    /// is seen.
    pub kicks: Counter,
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

#[cfg(test)]
mod tests;

//! What became of each packet: received, missing, late, twice, damaged; and how long it took.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::frame;

/// Gaps a flow remembers. Older ones are given up: their packets stay lost, and count as duplicates if they
/// do come.
const GAPS: usize = 4096;

/// A receiver's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Packets of ours, duplicates included.
    pub received: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Numbers that were skipped and have not come since.
    pub missing: u64,
    /// Came after a later one of the same flow.
    pub reordered: u64,
    /// Came more than once.
    pub duplicates: u64,
    /// Ours by their stamp, but of a wrong length or checksum.
    pub corrupt: u64,
    /// Not ours, or of another trial.
    pub foreign: u64,
}

#[derive(Debug, Default)]
struct Flow {
    next: u32,
    /// Numbers below `next` that are missing: first, and one past the last.
    gaps: Option<VecDeque<(u32, u32)>>,
}

/// Follows the flows that one port receives.
#[derive(Debug)]
pub struct Tracker {
    /// Key of the first flow.
    first: u64,
    epoch: u8,
    flows: Vec<Flow>,
    /// The sender is another process: flows and epochs are learnt from what comes.
    learn: bool,
    /// So far.
    pub counts: Counts,
    /// Timestamps come in runs, as each burst has one: it is recorded when the run ends.
    run: (u64, u64),
    now: u64,
    latency: Histogram<u64>,
}

impl Tracker {
    /// Expects `flows` flows from number `first` on; with `learn`, any.
    pub fn new(first: u32, flows: u32, epoch: u8, learn: bool) -> Tracker {
        let mut tracker = Tracker {
            first: frame::key(first, epoch),
            epoch,
            flows: Vec::new(),
            learn,
            counts: Counts::default(),
            run: (0, 0),
            now: 0,
            latency: new_histogram(),
        };
        tracker.flows.resize_with(flows as usize, Flow::default);
        tracker
    }

    /// What follows is received at `now`.
    #[inline(always)]
    pub fn burst(&mut self, now: u64) {
        if self.run.1 > 0 {
            self.end_run();
        }
        self.now = now;
    }

    /// The next packet of its flow; counted by [`Tracker::usual`]. False, and nothing done, if it is not.
    #[inline(always)]
    pub fn next(&mut self, key: u64, timestamp: u64, sequence: u32) -> bool {
        match self.flows.get_mut(key.wrapping_sub(self.first) as usize) {
            Some(flow) if flow.next == sequence => flow.next = sequence.wrapping_add(1),
            _ => return false,
        }
        self.time(timestamp);
        true
    }

    /// Counts packets that [`Tracker::next`] took.
    pub fn usual(&mut self, packets: u64, bytes: u64) {
        self.counts.received += packets;
        self.counts.bytes += bytes;
    }

    #[inline(always)]
    fn time(&mut self, timestamp: u64) {
        if timestamp == self.run.0 {
            self.run.1 += 1;
        } else {
            self.end_run();
            self.run = (timestamp, 1);
        }
    }

    /// Any packet with a stamp, of `length` bytes.
    pub fn packet(&mut self, key: u64, timestamp: u64, sequence: u32, length: usize) {
        if !self.next(key, timestamp, sequence) {
            let number = key.wrapping_sub(self.first) as usize;
            if number >= self.flows.len() {
                return self.unknown(key, timestamp, sequence, length);
            }
            self.out_of_line(number, sequence);
            self.time(timestamp);
        }
        self.usual(1, length as u64);
    }

    /// Records the run's latency.
    #[inline(never)]
    fn end_run(&mut self) {
        let (timestamp, count) = std::mem::take(&mut self.run);
        // A negative one is another host's clock.
        if count > 0 && self.now >= timestamp {
            self.latency.saturating_record_n(self.now - timestamp, count);
        }
    }

    /// A stamp of no flow that is followed.
    #[cold]
    fn unknown(&mut self, key: u64, timestamp: u64, sequence: u32, length: usize) {
        let first = (self.first & 0xff_ffff) as u32;
        match frame::split_key(key) {
            Some((flow, epoch)) if self.learn && flow >= first => {
                if epoch != self.epoch {
                    // A new sender: it counts from 0 again.
                    self.flows.clear();
                    (self.epoch, self.first) = (epoch, frame::key(first, epoch));
                }
                self.flows.resize_with(self.flows.len().max((flow - first) as usize + 1), Flow::default);
                self.packet(key, timestamp, sequence, length);
            }
            _ => self.counts.foreign += 1,
        }
    }

    /// A number that is not the next one.
    #[cold]
    fn out_of_line(&mut self, number: usize, sequence: u32) {
        let (flow, counts) = (&mut self.flows[number], &mut self.counts);
        let ahead = sequence.wrapping_sub(flow.next);
        if self.learn && flow.next == 0 && flow.gaps.is_none() {
            flow.next = sequence.wrapping_add(1);
        } else if ahead < 1 << 31 {
            let gaps = flow.gaps.get_or_insert_default();
            if gaps.len() == GAPS {
                gaps.pop_front();
            }
            gaps.push_back((flow.next, sequence));
            counts.missing += u64::from(ahead);
            flow.next = sequence.wrapping_add(1);
        } else if flow.gaps.as_mut().is_some_and(|gaps| fill(gaps, sequence)) {
            counts.missing -= 1;
            counts.reordered += 1;
        } else {
            counts.duplicates += 1;
        }
    }

    /// Latencies so far, in ticks.
    pub fn latency(&mut self) -> &Histogram<u64> {
        self.end_run();
        &self.latency
    }
}

/// An empty histogram of ticks: three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1 << 42, 3).expect("bounds and digits are constants within the limits")
}

/// Takes `sequence` out of the gaps; false if it is in none.
fn fill(gaps: &mut VecDeque<(u32, u32)>, sequence: u32) -> bool {
    let inside = |(first, end): (u32, u32)| sequence.wrapping_sub(first) < end.wrapping_sub(first);
    // The latest gap is the likeliest.
    let Some(at) = gaps.iter().rposition(|gap| inside(*gap)) else { return false };
    let (first, end) = gaps[at];
    let after = (sequence.wrapping_add(1), end);
    match (first == sequence, after.0 == end) {
        (true, true) => drop(gaps.remove(at)),
        (true, false) => gaps[at] = after,
        (false, true) => gaps[at].1 = sequence,
        (false, false) => {
            gaps[at].1 = sequence;
            gaps.insert(at + 1, after);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receive(numbers: &[u32]) -> Counts {
        let mut tracker = Tracker::new(0, 1, 1, false);
        for number in numbers {
            tracker.packet(frame::key(0, 1), 0, *number, 64);
        }
        tracker.counts
    }

    #[test]
    fn each_fate_has_its_counter() {
        assert_eq!(receive(&[0, 1, 2]), Counts { received: 3, bytes: 192, ..Default::default() });
        let counts = receive(&[0, 3, 1, 1, 4]);
        assert_eq!((counts.missing, counts.reordered, counts.duplicates), (1, 1, 1));
        let counts = receive(&[5, 4, 3, 2, 1, 0, 0, 6]);
        assert_eq!((counts.missing, counts.reordered, counts.duplicates), (0, 5, 1));
    }

    #[test]
    fn flows_are_counted_apart_and_others_are_foreign() {
        let mut tracker = Tracker::new(10, 2, 1, false);
        tracker.packet(frame::key(10, 1), 0, 0, 64);
        tracker.packet(frame::key(11, 1), 0, 0, 64);
        tracker.packet(frame::key(12, 1), 0, 0, 64);
        tracker.packet(frame::key(9, 1), 0, 0, 64);
        tracker.packet(frame::key(10, 2), 0, 1, 64);
        tracker.packet(0, 0, 1, 64);
        assert_eq!((tracker.counts.received, tracker.counts.foreign), (2, 4));
        assert_eq!(tracker.counts.missing, 0);
    }

    #[test]
    fn a_lone_receiver_learns_who_sends() {
        let mut tracker = Tracker::new(0, 1, 0, true);
        tracker.packet(frame::key(3, 9), 0, 1000, 64);
        tracker.packet(frame::key(3, 9), 0, 1002, 64);
        tracker.packet(frame::key(3, 10), 0, 0, 64);
        tracker.packet(0, 0, 0, 64);
        assert_eq!((tracker.counts.received, tracker.counts.missing, tracker.counts.foreign), (3, 1, 1));
    }

    #[test]
    fn latency_counts_every_packet() {
        let mut tracker = Tracker::new(0, 1, 1, false);
        tracker.burst(1000);
        for number in 0..10 {
            tracker.packet(frame::key(0, 1), 900 + u64::from(number / 5) * 50, number, 64);
        }
        tracker.burst(2000);
        tracker.packet(frame::key(0, 1), 950, 10, 64);
        let latency = tracker.latency();
        assert_eq!((latency.len(), latency.min(), latency.value_at_quantile(0.5)), (11, 50, 100));
        assert!(latency.equivalent(latency.max(), 1050));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a set of the numbers seen, near the wrap as elsewhere.
        #[test]
        fn counts_are_those_of_a_set(numbers in proptest::collection::vec(0u32..60, 1..200)) {
            let counts = receive(&numbers);
            let distinct: std::collections::BTreeSet<_> = numbers.iter().copied().collect();
            let highest = u64::from(*distinct.last().expect("not empty"));
            prop_assert_eq!(counts.received, numbers.len() as u64);
            prop_assert_eq!(counts.duplicates, (numbers.len() - distinct.len()) as u64);
            prop_assert_eq!(counts.missing, highest + 1 - distinct.len() as u64);
        }
    }
}

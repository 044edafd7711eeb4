//! A wire: one guest's virtqueues, the nic pairs behind them, and who owns each at the moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use port::counters::DropReason;
use port::guest::{GuestCounters, GuestPair};
use port::nic::NicPair;
use virtqueue::Ring;

use crate::lane::{Lane, LaneId};
use crate::worker::Worker;

/// How often, a millisecond apart, a wire that is taken down tries to send what it still holds.
const LAST_TRIES: usize = 100;

/// One guest and its nic. Every change is: take all lanes back, change, give them out again.
pub struct Wire {
    guest: String,
    counters: Vec<GuestCounters>,
    workers: Arc<[Worker]>,
    /// Rings without an owner, by virtqueue index.
    parked: BTreeMap<u16, Ring>,
    /// Nic pairs without an owner; all of them, or none.
    nics: Vec<NicPair>,
    lanes: Vec<Placed>,
}

/// A lane that a worker owns.
struct Placed {
    id: LaneId,
    worker: usize,
    pairs: Vec<u16>,
}

impl Wire {
    /// A wire without guest yet; `nics` is empty if the guest's backend is `none`.
    pub fn new(
        guest: &str,
        counters: Vec<GuestCounters>,
        workers: Arc<[Worker]>,
        nics: Vec<NicPair>,
    ) -> Wire {
        Wire { guest: guest.to_owned(), counters, workers, parked: BTreeMap::new(), nics, lanes: Vec::new() }
    }

    /// Takes a ring from the guest's session and runs it as soon as its pair is complete.
    pub fn give_out(&mut self, ring: Ring) {
        let partner = ring.index() ^ 1;
        self.parked.insert(ring.index(), ring);
        if self.parked.contains_key(&partner) {
            self.rewire(|_| {});
        }
    }

    /// Gives a ring back to the guest's session; nobody is inside it any more.
    pub fn take_back(&mut self, index: u16) -> Option<Ring> {
        if let Some(ring) = self.parked.remove(&index) {
            return Some(ring);
        }
        self.lanes.iter().find(|lane| lane.pairs.contains(&(index / 2)))?;
        let mut taken = None;
        self.rewire(|parked| taken = parked.remove(&index));
        taken
    }

    /// Which worker's core polls queue pair `pair`; `None` while it is parked.
    pub fn owner(&self, pair: u16) -> Option<usize> {
        let lane = self.lanes.iter().find(|lane| lane.pairs.contains(&pair))?;
        Some(self.workers[lane.worker].core)
    }

    /// How many lanes the worker with index `worker` polls for this wire.
    pub fn lanes_on(&self, worker: usize) -> usize {
        self.lanes.iter().filter(|lane| lane.worker == worker).count()
    }

    /// Takes everything back, lets `change` change which rings there are, and gives everything out again.
    fn rewire(&mut self, change: impl FnOnce(&mut BTreeMap<u16, Ring>)) {
        self.take_lanes();
        change(&mut self.parked);
        self.give_lanes();
    }

    fn take_lanes(&mut self) {
        for placed in self.lanes.drain(..) {
            let lane = self.workers[placed.worker].take(placed.id);
            self.nics.extend(lane.nics);
            let rings = lane.guests.into_iter().flat_map(GuestPair::into_rings);
            self.parked.extend(rings.map(|ring| (ring.index(), ring)));
        }
        self.nics.sort_by_key(|nic| nic.index);
    }

    fn give_lanes(&mut self) {
        if self.nics.is_empty() {
            return;
        }
        let guests = self.take_complete_pairs();
        let idle = self.nics.iter().all(|nic| nic.tx.held.is_empty());
        if guests.is_empty() && idle {
            return;
        }
        let lanes = lay_out(guests, std::mem::take(&mut self.nics));
        let workers = self.workers.len();
        for (l, (guests, nics)) in lanes.into_iter().enumerate() {
            let id = next_lane_id();
            let worker = l % workers;
            let pairs = guests.iter().map(|guest| guest.index).collect();
            self.lanes.push(Placed { id, worker, pairs });
            self.workers[worker].give(Lane { id, guests, nics });
        }
    }

    fn take_complete_pairs(&mut self) -> Vec<GuestPair> {
        let mut pairs = Vec::new();
        for (k, counters) in self.counters.iter().enumerate() {
            let to = 2 * k as u16;
            if !(self.parked.contains_key(&to) && self.parked.contains_key(&(to + 1))) {
                continue;
            }
            if let (Some(from), Some(to)) = (self.parked.remove(&(to + 1)), self.parked.remove(&to)) {
                pairs.push(GuestPair::new(&self.guest, from, to, counters));
            }
        }
        pairs
    }

    /// Takes the wire down for good: sends what is held for as long as the nic takes it within a tenth of
    /// a second, counts what is left as dropped, and closes the nic's queues.
    pub fn remove(&mut self) {
        self.take_lanes();
        for _ in 0..LAST_TRIES {
            if self.nics.iter_mut().fold(true, |all, nic| nic.flush() & all) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for nic in self.nics.drain(..) {
            nic.counters.dropped(DropReason::WireRemoved, nic.rx.held.len() as u64);
            nic.counters.rx_held.set(0);
            self.counters[0].pair.dropped(DropReason::WireRemoved, nic.tx.held.len() as u64);
            nic.counters.tx_held.set(0);
        }
    }
}

/// Distributes guest and nic pairs over lanes, as `lane.rs` says.
fn lay_out<G, N>(guests: Vec<G>, nics: Vec<N>) -> Vec<(Vec<G>, Vec<N>)> {
    let count = guests.len().min(nics.len()).max(1);
    let mut lanes: Vec<(Vec<G>, Vec<N>)> = (0..count).map(|_| (Vec::new(), Vec::new())).collect();
    for (k, guest) in guests.into_iter().enumerate() {
        lanes[k % count].0.push(guest);
    }
    for (j, nic) in nics.into_iter().enumerate() {
        lanes[j % count].1.push(nic);
    }
    lanes
}

fn next_lane_id() -> LaneId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    LaneId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod moving;

#[cfg(test)]
mod tests {
    use super::lay_out;

    #[test]
    fn every_queue_is_in_one_lane_and_one_side_of_each_is_single() {
        for guests in 0..9 {
            for nics in 1..9 {
                let lanes = lay_out((0..guests).collect(), (0..nics).collect());
                let mut seen = (Vec::new(), Vec::new());
                for (lane_guests, lane_nics) in &lanes {
                    assert!(guests == 0 || lane_guests.len() == 1 || lane_nics.len() == 1);
                    assert!(guests == 0 || !lane_guests.is_empty());
                    assert!(!lane_nics.is_empty());
                    seen.0.extend(lane_guests);
                    seen.1.extend(lane_nics);
                }
                seen.0.sort();
                seen.1.sort();
                assert_eq!(seen, ((0..guests).collect(), (0..nics).collect()));
            }
        }
    }

    #[test]
    fn pair_k_meets_pair_k() {
        let lanes = lay_out(vec![0, 1, 2, 3], vec![0, 1, 2, 3]);
        assert!(lanes.iter().enumerate().all(|(k, lane)| *lane == (vec![k], vec![k])));
        assert_eq!(lay_out(vec![0, 1, 2], vec![0, 1]), [(vec![0, 2], vec![0]), (vec![1], vec![1])]);
        assert_eq!(lay_out(vec![0], vec![0, 1, 2]), [(vec![0], vec![0, 1, 2])]);
    }
}

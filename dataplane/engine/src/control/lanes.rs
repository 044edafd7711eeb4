//! A wire's queues become lanes, which are given out, and are queues again when they are taken back.

use std::sync::atomic::{AtomicU64, Ordering};

use port::capture::Taps;
use port::counters::DropReason;
use port::guest::GuestPair;
use port::nic::NicPair;
use port::socket::{Fault, SocketPair};

use super::placement::{Pair, pairs};
use super::{Control, Placed, Queues, Wire};
use crate::lane::{Far, Lane, LaneId, PuntEnd};

impl Control {
    /// Takes a wire's lanes back, lets `change` change which rings there are, and gives them out again.
    pub(super) fn rewire(&mut self, at: usize, change: impl FnOnce(&mut Control)) {
        let lanes = self.take_lanes(at);
        let wire = self.wires.remove(at);
        lanes.into_iter().for_each(|lane| self.park(&wire, lane));
        self.wires.insert(at, wire);
        change(self);
        self.give_lanes(at);
    }

    pub(super) fn take_lanes(&mut self, at: usize) -> Vec<Lane> {
        let placed = std::mem::take(&mut self.wires[at].lanes);
        placed.iter().map(|placed| self.take(placed)).collect()
    }

    pub(super) fn take(&self, placed: &Placed) -> Lane {
        match placed.worker {
            Some(core) => self.worker(core).take(placed.id),
            None => self.slow_path.take(placed.id),
        }
    }

    pub(super) fn give(&self, worker: Option<usize>, lane: Lane) {
        match worker {
            Some(core) => self.worker(core).give(lane),
            None => self.slow_path.give(lane),
        }
    }

    /// Puts the queues of a lane that nobody owns any more where they belong.
    pub(super) fn park(&mut self, wire: &Wire, mut lane: Lane) {
        if let Some(end) = &mut lane.punt {
            end.drop_held(DropReason::BackendChanged);
        }
        self.park_rings(&wire.guest, lane.guests);
        match (lane.far, self.ports.get_mut(&wire.backend)) {
            (Far::Guest(guests), _) => self.park_rings(&wire.backend, guests),
            (Far::Nic(pairs), Some(Queues::Nic(parked))) => {
                parked.extend(pairs);
                parked.sort_by_key(|pair| pair.index);
            }
            (Far::Socket(pairs), Some(Queues::Socket(parked))) => {
                parked.extend(pairs);
                parked.sort_by_key(|pair| pair.index);
            }
            _ => {}
        }
    }

    pub(super) fn park_rings(&mut self, guest: &str, pairs: Vec<GuestPair>) {
        if let Some(Queues::Guest(parked, _)) = self.ports.get_mut(guest) {
            let rings = pairs.into_iter().flat_map(GuestPair::into_rings);
            parked.extend(rings.map(|ring| (ring.index(), ring)));
        }
    }

    /// Gives out whatever of a wire can run.
    pub(super) fn give_lanes(&mut self, at: usize) {
        let (guest, backend) = (self.wires[at].guest.clone(), self.wires[at].backend.clone());
        let guests = self.take_complete_pairs(&guest);
        let lanes: Vec<(Vec<GuestPair>, Far)> = match self.ports.get_mut(&backend) {
            Some(Queues::Nic(pairs)) if !guests.is_empty() || pairs.iter().any(NicPair::holds_unsent) => {
                let host = self.punts.contains_key(&guest);
                if let Some(first) = guests.first() {
                    pairs.iter_mut().for_each(|pair| pair.set_guest(first.features(), host));
                }
                lay_out(guests, std::mem::take(pairs), Far::Nic)
            }
            Some(Queues::Socket(pairs)) if !guests.is_empty() => {
                pairs.iter_mut().for_each(|pair| set_offloads(pair, &backend, guests[0].features()));
                lay_out(guests, std::mem::take(pairs), Far::Socket)
            }
            Some(Queues::Guest(..)) if !guests.is_empty() => {
                let others = self.take_complete_pairs(&backend);
                if others.is_empty() {
                    return self.park_rings(&guest, guests);
                }
                lay_out(guests, others, Far::Guest)
            }
            _ => return self.park_rings(&guest, guests),
        };
        for (guests, far) in lanes {
            let nic = matches!(far, Far::Nic(_));
            let path = self.punts.get(&guest).filter(|_| nic);
            let punt = path.map(|path| Box::new(PuntEnd::new(path.punt.clone())));
            let taps = Taps::new(&self.captures, &guest, &backend);
            let lane = Lane { id: next_lane_id(), guests, far, punt, taps };
            let placed = self.place(lane, &guest, &backend);
            self.wires[at].lanes.push(placed);
        }
    }

    /// Gives a lane between these two to its owner: the slow path, or a worker.
    fn place(&self, lane: Lane, guest: &str, backend: &str) -> Placed {
        let numbers = |pairs: &[GuestPair]| pairs.iter().map(|pair| pair.index).collect();
        let (id, near): (_, Vec<u16>) = (lane.id, numbers(&lane.guests));
        let far = if let Far::Guest(guests) = &lane.far { numbers(guests) } else { Vec::new() };
        let worker = match lane.far {
            Far::Socket(_) => None,
            Far::Nic(_) | Far::Guest(_) => {
                let pairs: Vec<Pair> = pairs(guest, &near).chain(pairs(backend, &far)).collect();
                Some(self.core_for(&pairs))
            }
        };
        self.give(worker, lane);
        Placed { id, worker, pairs: near, far_pairs: far }
    }

    pub(super) fn take_complete_pairs(&mut self, guest: &str) -> Vec<GuestPair> {
        let Some(Queues::Guest(rings, counters)) = self.ports.get_mut(guest) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (k, counters) in counters.iter().enumerate() {
            let to = 2 * k as u16;
            if !(rings.contains_key(&to) && rings.contains_key(&(to + 1))) {
                continue;
            }
            if let (Some(from), Some(to)) = (rings.remove(&(to + 1)), rings.remove(&to)) {
                pairs.push(GuestPair::new(guest, from, to, counters));
            }
        }
        pairs
    }
}

/// Distributes guest and far pairs over lanes, as `lane.rs` says.
fn lay_out<G, N, F>(guests: Vec<G>, far: Vec<N>, side: impl Fn(Vec<N>) -> F) -> Vec<(Vec<G>, F)> {
    let count = guests.len().min(far.len()).max(1);
    let mut lanes: Vec<(Vec<G>, Vec<N>)> = (0..count).map(|_| (Vec::new(), Vec::new())).collect();
    for (k, guest) in guests.into_iter().enumerate() {
        lanes[k % count].0.push(guest);
    }
    for (j, pair) in far.into_iter().enumerate() {
        lanes[j % count].1.push(pair);
    }
    lanes.into_iter().map(|(guests, far)| (guests, side(far))).collect()
}

/// Tells the kernel what the guest takes. Should it refuse, it goes on completing packets itself.
fn set_offloads(pair: &mut SocketPair, name: &str, features: u64) {
    // An interface that is gone is shown as that.
    if let Err(cause) = pair.set_offloads(features)
        && Fault::of(&cause) != Fault::Gone
    {
        tracing::warn!(port = name, "the kernel refuses the guest's offloads: {cause}");
    }
}

fn next_lane_id() -> LaneId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    LaneId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::lay_out;

    #[test]
    fn every_queue_is_in_one_lane_and_one_side_of_each_is_single() {
        for guests in 0..9 {
            for nics in 1..9 {
                let lanes = lay_out((0..guests).collect(), (0..nics).collect(), |far| far);
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
        let lanes = lay_out(vec![0, 1, 2, 3], vec![0, 1, 2, 3], |far| far);
        assert!(lanes.iter().enumerate().all(|(k, lane)| *lane == (vec![k], vec![k])));
        assert_eq!(
            lay_out(vec![0, 1, 2], vec![0, 1], |far| far),
            [(vec![0, 2], vec![0]), (vec![1], vec![1])]
        );
        assert_eq!(lay_out(vec![0], vec![0, 1, 2], |far| far), [(vec![0], vec![0, 1, 2])]);
    }
}

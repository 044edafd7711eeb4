//! Which worker polls which lane.
//!
//! A lane goes to the worker that the first of its queue pairs which is assigned to one is assigned to, or else to one with
//! the fewest lanes. It moves when its worker goes, when a worker is added that has fewer, and when one of its pairs is
//! assigned.

use std::collections::BTreeMap;
use std::{fmt, io};

use super::{Control, Placed, Queues, Wire};
use crate::config::Polling;
use crate::worker::{Worker, WorkerError};

/// A queue pair of a guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Port name.
    pub guest: String,
    /// Number of the pair.
    pub index: u16,
}

impl fmt::Display for Pair {
    /// `GUEST:PAIR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.guest, self.index)
    }
}

impl Control {
    /// The workers, in the order in which they were added.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Their cores.
    pub fn cores(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.core).collect()
    }

    /// How workers poll.
    pub fn polling(&self) -> Polling {
        self.polling
    }

    /// How many lanes the worker on `core` polls.
    pub fn lanes_on(&self, core: usize) -> usize {
        let lanes = self.wires.iter().flat_map(|wire| &wire.lanes);
        lanes.filter(|lane| lane.worker == Some(core)).count()
    }

    /// The pairs that were assigned to the worker on `core`, polled now or not.
    pub fn assigned_to(&self, core: usize) -> impl Iterator<Item = &Pair> {
        self.assigned.iter().filter(move |(_, to)| **to == core).map(|(pair, _)| pair)
    }

    /// The cores that pairs of a guest were assigned to, by number of the pair.
    pub fn assignments(&self, guest: &str) -> BTreeMap<u16, usize> {
        let its = self.assigned.iter().filter(|(pair, _)| pair.guest == guest);
        its.map(|(pair, core)| (pair.index, *core)).collect()
    }

    /// Takes in a worker on a core that has none, and gives it lanes of those with most, until it has as many. Assigned
    /// ones stay.
    pub fn add_worker(&mut self, worker: Worker) {
        let to = worker.core;
        self.workers.push(worker);
        while let Some((wire, lane)) = self.lane_to_spare(to) {
            self.move_lane(wire, lane, to);
        }
    }

    /// Takes a worker out; the others get its lanes. What was assigned to it, is no more.
    pub fn remove_worker(&mut self, core: usize) -> Result<Worker, WorkerError> {
        let at = self.workers.iter().position(|worker| worker.core == core);
        let at = at.ok_or(WorkerError::NoSuchWorker(core))?;
        if self.workers.len() == 1 {
            return Err(WorkerError::Last(core));
        }
        self.assigned.retain(|_, to| *to != core);
        let worker = self.workers.remove(at);
        for wire in 0..self.wires.len() {
            for lane in 0..self.wires[wire].lanes.len() {
                let placed = &self.wires[wire].lanes[lane];
                if placed.worker == Some(core) {
                    let taken = worker.take(placed.id);
                    let to = self.core_for(&self.wires[wire].pairs_of(placed));
                    self.worker(to).give(taken);
                    self.wires[wire].lanes[lane].worker = Some(to);
                }
            }
        }
        Ok(worker)
    }

    /// Has a pair polled by the worker on `core` from now on, also when it comes back after it was stopped; `None`: by any.
    /// All pairs of its lane move with it, and they are returned: none, if it is not polled now.
    pub fn assign(&mut self, pair: Pair, core: Option<usize>) -> Result<Vec<Pair>, WorkerError> {
        self.check_assignment(&pair, core)?;
        let Some(core) = core else {
            self.assigned.remove(&pair);
            return Ok(self.move_assigned());
        };
        let lane = self.lane_of(&pair);
        let moved = lane.map(|(wire, lane)| self.wires[wire].pairs_of(&self.wires[wire].lanes[lane]));
        let moved = moved.unwrap_or_default();
        // Theirs were older.
        self.assigned.retain(|other, _| !moved.contains(other));
        self.assigned.insert(pair, core);
        self.move_assigned();
        Ok(moved)
    }

    /// Has the pairs of a guest polled by the workers on these cores, by number of the pair, and all others by any.
    pub fn assign_all(&mut self, guest: &str, cores: &BTreeMap<u16, usize>) -> Result<(), WorkerError> {
        let named = |(index, core): (&u16, &usize)| (Pair { guest: guest.to_owned(), index: *index }, *core);
        let wanted: Vec<(Pair, usize)> = cores.iter().map(named).collect();
        self.pairs_offered(guest)?;
        wanted.iter().try_for_each(|(pair, core)| self.check_assignment(pair, Some(*core)))?;
        self.assigned.retain(|pair, _| pair.guest != guest);
        self.assigned.extend(wanted);
        self.move_assigned();
        Ok(())
    }

    /// Whether there are the pair and the worker.
    fn check_assignment(&self, pair: &Pair, core: Option<usize>) -> Result<(), WorkerError> {
        let pairs = self.pairs_offered(&pair.guest)?;
        if usize::from(pair.index) >= pairs {
            return Err(WorkerError::NoSuchPair { guest: pair.guest.clone(), pair: pair.index, pairs });
        }
        match core.filter(|core| !self.workers.iter().any(|worker| worker.core == *core)) {
            Some(core) => Err(WorkerError::NoSuchWorker(core)),
            None => Ok(()),
        }
    }

    /// How many queue pairs a guest has.
    fn pairs_offered(&self, guest: &str) -> Result<usize, WorkerError> {
        match self.ports.get(guest) {
            Some(Queues::Guest(_, counters)) => Ok(counters.len()),
            _ => Err(WorkerError::NoSuchGuest(guest.to_owned())),
        }
    }

    /// Has workers poll otherwise; all of them, or none.
    pub fn set_polling(&mut self, polling: Polling) -> io::Result<()> {
        if polling.idle != self.polling.idle {
            let naps = self.workers.iter().map(|worker| worker.nap(polling.idle));
            let naps = naps.collect::<io::Result<Vec<_>>>()?;
            self.workers.iter().zip(naps).for_each(|(worker, nap)| worker.set_nap(nap));
        }
        self.workers.iter().for_each(|worker| worker.set_burst(polling.burst));
        self.polling = polling;
        Ok(())
    }

    /// The core of the worker that gets a new lane with these pairs.
    pub(super) fn core_for(&self, pairs: &[Pair]) -> usize {
        self.assigned_core(pairs).unwrap_or_else(|| self.least_loaded())
    }

    /// The core that a lane with these pairs is assigned to: which of two connected guests has the other as its backend
    /// makes no difference.
    fn assigned_core(&self, pairs: &[Pair]) -> Option<usize> {
        let assigned = pairs.iter().filter_map(|pair| self.assigned.get_key_value(pair));
        assigned.min().map(|(_, core)| *core)
    }

    pub(super) fn worker(&self, core: usize) -> &Worker {
        let found = self.workers.iter().position(|worker| worker.core == core);
        // Lanes are placed, and pairs assigned, on workers that there are, and leave with them.
        &self.workers[found.unwrap_or(0)]
    }

    fn least_loaded(&self) -> usize {
        let cores = self.workers.iter().map(|worker| worker.core);
        // There always is a worker: the last one is not removed.
        cores.min_by_key(|core| self.lanes_on(*core)).unwrap_or_default()
    }

    /// The lane that was placed last of those that may leave the worker with most, if that has two more than the one on
    /// `core`: moved there, it makes them more even.
    fn lane_to_spare(&self, core: usize) -> Option<(usize, usize)> {
        let lanes = |of: usize| {
            let all = self.wires.iter().enumerate();
            let all = all.flat_map(|(at, wire)| (0..wire.lanes.len()).map(move |lane| (at, lane)));
            all.filter(move |(wire, lane)| self.wires[*wire].lanes[*lane].worker == Some(of))
        };
        let free = |(wire, lane): &(usize, usize)| {
            let pairs = self.wires[*wire].pairs_of(&self.wires[*wire].lanes[*lane]);
            !pairs.iter().any(|pair| self.assigned.contains_key(pair))
        };
        let mut others: Vec<usize> = self.cores().into_iter().filter(|other| *other != core).collect();
        others.sort_by_key(|other| std::cmp::Reverse(self.lanes_on(*other)));
        let enough = self.lanes_on(core) + 2;
        let mut fuller = others.into_iter().filter(|other| self.lanes_on(*other) >= enough);
        fuller.find_map(|other| lanes(other).rfind(free))
    }

    /// The lane in which a worker polls a pair.
    fn lane_of(&self, pair: &Pair) -> Option<(usize, usize)> {
        self.wires.iter().enumerate().find_map(|(at, wire)| {
            let holds = |lane: &Placed| lane.worker.is_some() && wire.pairs_of(lane).contains(pair);
            Some((at, wire.lanes.iter().position(holds)?))
        })
    }

    /// Moves every lane that is not where it is assigned to. The pairs that have moved.
    fn move_assigned(&mut self) -> Vec<Pair> {
        let mut moved = Vec::new();
        for wire in 0..self.wires.len() {
            for lane in 0..self.wires[wire].lanes.len() {
                let placed = &self.wires[wire].lanes[lane];
                let pairs = self.wires[wire].pairs_of(placed);
                let to = self.assigned_core(&pairs).filter(|_| placed.worker.is_some());
                if let Some(to) = to.filter(|to| placed.worker != Some(*to)) {
                    self.move_lane(wire, lane, to);
                    moved.extend(pairs);
                }
            }
        }
        moved
    }

    /// From its worker to another. Nothing of it is under way meanwhile but what it holds.
    fn move_lane(&mut self, wire: usize, lane: usize, to: usize) {
        let placed = &self.wires[wire].lanes[lane];
        let Some(from) = placed.worker.filter(|from| *from != to) else { return };
        let taken = self.worker(from).take(placed.id);
        self.worker(to).give(taken);
        self.wires[wire].lanes[lane].worker = Some(to);
    }
}

impl Wire {
    /// The pairs of guests in one of its lanes.
    fn pairs_of(&self, lane: &Placed) -> Vec<Pair> {
        pairs(&self.guest, &lane.pairs).chain(pairs(&self.backend, &lane.far_pairs)).collect()
    }
}

/// The pairs of a guest with these numbers.
pub(super) fn pairs<'a>(guest: &'a str, indices: &'a [u16]) -> impl Iterator<Item = Pair> + 'a {
    indices.iter().map(|index| Pair { guest: guest.to_owned(), index: *index })
}

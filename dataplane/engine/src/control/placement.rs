//! Which worker polls which lane.
//!
//! A lane goes to the worker that one of its queue pairs was assigned to by hand, or else to one with the fewest lanes.
//! It moves when its worker goes, when a worker is added that has fewer, and when one of its pairs is assigned.

use std::{fmt, io};

use super::{Control, Placed, Queues, Wire};
use crate::config::Idle;
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

    /// What workers do without work.
    pub fn idle(&self) -> Idle {
        self.idle
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
                    let to = self.least_loaded();
                    self.worker(to).give(taken);
                    self.wires[wire].lanes[lane].worker = Some(to);
                }
            }
        }
        Ok(worker)
    }

    /// Has a pair polled by the worker on `core` from now on, also when it comes back after it was stopped. All pairs of
    /// its lane move with it, and they are returned; none, if it is not polled now.
    pub fn assign(&mut self, pair: Pair, core: usize) -> Result<Vec<Pair>, WorkerError> {
        let Some(Queues::Guest(_, counters)) = self.ports.get(&pair.guest) else {
            return Err(WorkerError::NoSuchGuest(pair.guest));
        };
        if usize::from(pair.index) >= counters.len() {
            return Err(WorkerError::NoSuchPair {
                guest: pair.guest,
                pair: pair.index,
                pairs: counters.len(),
            });
        }
        if !self.workers.iter().any(|worker| worker.core == core) {
            return Err(WorkerError::NoSuchWorker(core));
        }
        let mut moved = Vec::new();
        if let Some((wire, lane)) = self.lane_of(&pair) {
            moved = self.wires[wire].pairs_of(&self.wires[wire].lanes[lane]);
            // Theirs were older.
            self.assigned.retain(|other, _| !moved.contains(other));
            self.move_lane(wire, lane, core);
        }
        self.assigned.insert(pair, core);
        Ok(moved)
    }

    /// Replaces what workers do without work; all of them, or none.
    pub fn set_idle(&mut self, idle: Idle) -> io::Result<()> {
        let naps = self.workers.iter().map(|worker| worker.nap(idle));
        let naps = naps.collect::<io::Result<Vec<_>>>()?;
        self.workers.iter().zip(naps).for_each(|(worker, nap)| worker.set_nap(nap));
        self.idle = idle;
        Ok(())
    }

    /// The core of the worker that gets a new lane with these pairs.
    pub(super) fn core_for(&self, pairs: &[Pair]) -> usize {
        let assigned = pairs.iter().find_map(|pair| self.assigned.get(pair));
        assigned.copied().unwrap_or_else(|| self.least_loaded())
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

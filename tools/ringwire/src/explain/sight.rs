//! Two looks at the datapath, side by side.

use std::time::Duration;

use snapshot::{Guest, Port, Queue, Status, Worker};

/// The datapath at two moments.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    before: &'a Status,
    /// The later look.
    pub now: &'a Status,
    /// Time between the two.
    pub elapsed: Duration,
}

/// The same thing at the two moments.
pub struct Seen<'a, T> {
    before: &'a T,
    /// At the later one.
    pub now: &'a T,
}

// Derived, these would ask the same of `T`.
impl<T> Copy for Seen<'_, T> {}
impl<T> Clone for Seen<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T> Seen<'a, T> {
    /// By how much a counter went up.
    pub fn moved(&self, count: impl Fn(&T) -> u64) -> u64 {
        count(self.now).saturating_sub(count(self.before))
    }

    /// Whether something was so both times.
    pub fn stays(&self, is: impl Fn(&T) -> bool) -> bool {
        is(self.before) && is(self.now)
    }

    /// A part of it.
    pub fn part<P>(&self, part: impl Fn(&'a T) -> Option<&'a P>) -> Option<Seen<'a, P>> {
        let now = part(self.now)?;
        Some(Seen { before: part(self.before).unwrap_or(now), now })
    }
}

impl<'a> Seen<'a, Port> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.now.name
    }

    /// The part only a guest has.
    pub fn guest(&self) -> Option<&'a Guest> {
        self.now.guest.as_ref()
    }

    /// A guest's virtqueues.
    pub fn queues(&self) -> Vec<Seen<'a, Queue>> {
        let Some(guest) = self.part(|port| port.guest.as_ref()) else { return Vec::new() };
        let queue = |at| guest.part(move |guest| guest.queues.get(at));
        (0..guest.now.queues.len()).filter_map(queue).collect()
    }
}

impl<'a> Sight<'a> {
    /// Two looks, the earlier one first.
    pub fn new(before: &'a Status, now: &'a Status, elapsed: Duration) -> Sight<'a> {
        Sight { before, now, elapsed }
    }

    fn all(&self) -> Seen<'a, Status> {
        Seen { before: self.before, now: self.now }
    }

    /// The port called `name`. What was not there before has not moved.
    pub fn port(&self, name: &str) -> Option<Seen<'a, Port>> {
        self.all().part(|status| status.ports.iter().find(|port| port.name == name))
    }

    /// Every worker that was there both times.
    pub fn workers(&self) -> Vec<Seen<'a, Worker>> {
        let there = |core| self.before.workers.iter().any(|worker| worker.core == core);
        let cores = self.now.workers.iter().map(|worker| worker.core).filter(|core| there(*core));
        let worker =
            |core| self.all().part(move |status| status.workers.iter().find(|worker| worker.core == core));
        cores.filter_map(worker).collect()
    }

    /// The guest, if any, that is connected to port `name`, and is not itself the one that names its backend.
    pub fn guest_of(&self, name: &str) -> Option<&'a Port> {
        let connected = |port: &&Port| port.guest.as_ref().is_some_and(|guest| guest.backend == name);
        self.now.ports.iter().find(connected)
    }

    /// What is at the other end of a port's wire.
    pub fn peer(&self, port: Seen<'a, Port>) -> Option<Seen<'a, Port>> {
        match port.guest() {
            Some(guest) => self.port(&guest.backend),
            None => self.guest_of(port.name()).and_then(|guest| self.port(&guest.name)),
        }
    }
}

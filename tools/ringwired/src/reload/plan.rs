//! The changes that lead from what runs to what a file says, in an order in which each is possible.
//!
//! 1. What needs nothing of what goes: workers, then ports that share nothing with those that go. If one of these
//!    cannot be had, no guest has noticed anything.
//! 2. What frees names, sockets and interfaces: guests let go of ports that go, the ports go.
//! 3. The other ports.
//! 4. Fallbacks, offloads, assigned queue pairs, backends; workers that go.

use std::collections::BTreeMap;

use engine::config::{Config, GuestConfig};

use super::change::{Change, Fallback, PortConfig};
use super::diff::Differences;

/// The changes, and what they have led to so far.
struct Plan {
    changes: Vec<Change>,
    /// Each guest's backend; two guests that are connected have each other.
    backends: BTreeMap<String, Option<String>>,
    fallbacks: BTreeMap<String, Fallback>,
}

/// The changes that lead from `now` to `wanted`, of which these are the differences; both in canonical order.
pub fn plan(now: &Config, wanted: &Config, differences: &Differences) -> Vec<Change> {
    let mut plan = Plan::new(now);
    let added = wanted.cores.iter().filter(|core| !now.cores.contains(core));
    plan.changes.extend(added.map(|core| Change::AddWorker(*core)));
    if now.polling != wanted.polling {
        plan.changes.push(Change::Polling { from: now.polling, to: wanted.polling });
    }
    let (late, early) = late(differences);
    early.into_iter().for_each(|port| plan.add(port));
    plan.let_go(now, wanted, differences);
    let (guests, others): (Vec<_>, Vec<_>) = differences.gone.iter().partition(|port| is_guest(port));
    // Guests first, because other ports may be their exception paths.
    guests.into_iter().chain(others).for_each(|port| plan.remove(port));
    late.into_iter().for_each(|port| plan.add(port));
    for guest in &wanted.guests {
        plan.set_fallback(&guest.name, fallback(guest));
        let before = now.guests.iter().find(|before| before.name == guest.name);
        if let Some(before) = before.filter(|before| !differences.goes(&before.name)) {
            plan.change_live(before, guest);
        }
    }
    plan.connect_all(wanted);
    let removed = now.cores.iter().filter(|core| !wanted.cores.contains(core));
    plan.changes.extend(removed.map(|core| Change::RemoveWorker(*core)));
    plan.changes
}

/// The ports that come: those that have to wait until others are let go or gone, and those that have not.
fn late(differences: &Differences) -> (Vec<&PortConfig>, Vec<&PortConfig>) {
    let punts = |port: &PortConfig| matches!(port, PortConfig::Guest(guest) if guest.punt.is_some());
    let mut come: Vec<&PortConfig> = differences.come.iter().collect();
    // Guests last, because other ports may be their exception paths.
    come.sort_by_key(|port| is_guest(port));
    come.into_iter().partition(|port| punts(port) || differences.gone.iter().any(|gone| clash(gone, port)))
}

fn is_guest(port: &PortConfig) -> bool {
    matches!(port, PortConfig::Guest(_))
}

/// Whether there cannot be both at a time, as far as we can tell: what a nic's driver opens, it alone knows.
fn clash(one: &PortConfig, other: &PortConfig) -> bool {
    use PortConfig::{Nic, Socket};
    one.name() == other.name()
        || match (one, other) {
            (Nic(_), Nic(_) | Socket(_)) | (Socket(_), Nic(_)) => true,
            _ => one.thing().is_some_and(|thing| Some(thing) == other.thing()),
        }
}

fn fallback(guest: &GuestConfig) -> Fallback {
    Fallback { port: guest.fallback.clone(), hold: guest.fallback_hold }
}

impl Plan {
    fn new(now: &Config) -> Plan {
        let backends = now.guests.iter().map(|guest| (guest.name.clone(), guest.backend.clone()));
        let fallbacks = now.guests.iter().map(|guest| (guest.name.clone(), fallback(guest)));
        Plan { changes: Vec::new(), backends: backends.collect(), fallbacks: fallbacks.collect() }
    }

    fn add(&mut self, port: &PortConfig) {
        if let PortConfig::Guest(guest) = port {
            self.backends.insert(guest.name.clone(), None);
            let none = Fallback { port: None, hold: guest.fallback_hold };
            self.fallbacks.insert(guest.name.clone(), none);
        }
        self.changes.push(Change::Add(port.unconnected()));
    }

    fn remove(&mut self, port: &PortConfig) {
        self.backends.remove(port.name());
        self.fallbacks.remove(port.name());
        self.changes.push(Change::Remove(port.unconnected()));
    }

    /// Guests that go let go of their ports, the others of ports that go or become an exception path.
    fn let_go(&mut self, now: &Config, wanted: &Config, differences: &Differences) {
        let punts = || wanted.guests.iter().filter_map(|guest| guest.punt.as_ref());
        for guest in &now.guests {
            let goes = |port: &Option<String>| {
                port.as_ref().is_some_and(|port| differences.goes(&guest.name) || differences.goes(port))
            };
            if goes(&guest.fallback) {
                self.set_fallback(&guest.name, Fallback { port: None, hold: guest.fallback_hold });
            }
            if goes(&guest.backend) || punts().any(|punt| Some(&punt.port) == guest.backend.as_ref()) {
                self.connect(&guest.name, None);
            }
        }
    }

    /// What else of a guest changes while it runs.
    fn change_live(&mut self, before: &GuestConfig, wanted: &GuestConfig) {
        let guest = || wanted.name.clone();
        if before.offloads != wanted.offloads {
            let (from, to) = (before.offloads, wanted.offloads);
            self.changes.push(Change::Offloads { guest: guest(), from, to });
        }
        if before.assign != wanted.assign {
            let (from, to) = (before.assign.clone(), wanted.assign.clone());
            self.changes.push(Change::Assign { guest: guest(), from, to });
        }
    }

    fn set_fallback(&mut self, guest: &str, to: Fallback) {
        let Some(known) = self.fallbacks.get_mut(guest) else { return };
        let from = std::mem::replace(known, to.clone());
        if from != to {
            self.changes.push(Change::Fallback { guest: guest.to_owned(), from, to });
        }
    }

    fn connect(&mut self, guest: &str, to: Option<&str>) {
        let Some(from) = self.backends.get(guest).cloned() else { return };
        if from.as_deref() == to {
            return;
        }
        let to = to.map(str::to_owned);
        if let Some(partner) = from.as_ref().and_then(|from| self.backends.get_mut(from)) {
            *partner = None;
        }
        if let Some(partner) = to.as_ref().and_then(|to| self.backends.get_mut(to)) {
            *partner = Some(guest.to_owned());
        }
        self.backends.insert(guest.to_owned(), to.clone());
        self.changes.push(Change::Backend { guest: guest.to_owned(), from, to });
    }

    /// Connects all guests as they are wanted: each directly to its new backend, once that is free. Where some have to
    /// exchange their backends, one lets go first.
    fn connect_all(&mut self, wanted: &Config) {
        loop {
            let differs = |guest: &&GuestConfig| self.backends.get(&guest.name) != Some(&guest.backend);
            let open: Vec<&GuestConfig> = wanted.guests.iter().filter(differs).collect();
            let free = open.iter().find(|guest| self.is_free(guest.backend.as_deref()));
            let holds = |guest: &&&GuestConfig| self.backends.get(&guest.name) != Some(&None);
            match (free, open.iter().find(holds)) {
                (Some(guest), _) => self.connect(&guest.name, guest.backend.as_deref()),
                (None, Some(guest)) => self.connect(&guest.name, None),
                (None, None) => return,
            }
        }
    }

    fn is_free(&self, port: Option<&str>) -> bool {
        let Some(port) = port else { return true };
        let used = self.backends.values().any(|backend| backend.as_deref() == Some(port));
        let occupied = self.backends.get(port).is_some_and(Option::is_some);
        !used && !occupied
    }
}

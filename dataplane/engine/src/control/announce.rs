//! A guest that comes to another network is announced there, if its address is known.

use port::announce;

use super::{Control, Queues};

/// Where a guest is announced.
#[derive(Default)]
pub(super) struct Announcement {
    /// The guest's address, if it is there and its address is known.
    mac: Option<[u8; 6]>,
    /// How many frames were sent in its name so far.
    sent: u64,
}

impl Control {
    /// Notes at which address a guest is to be announced to each network that it comes to; `None`: not at all.
    pub fn know_mac(&mut self, guest: &str, mac: Option<[u8; 6]>) {
        self.announcements.entry(guest.to_owned()).or_default().mac = mac;
    }

    /// Announces a guest to the network behind its backend, if it has one. A frontend asks for this as often as it
    /// likes, so nothing is logged.
    pub fn announce(&mut self, guest: &str) {
        if let Some(at) = self.wire_of(guest) {
            self.rewire(at, |control| _ = control.announce_parked(guest));
        }
    }

    /// How often a guest was announced.
    pub fn announced(&self, guest: &str) -> u64 {
        self.announcements.get(guest).map_or(0, |announcement| announcement.sent)
    }

    /// Sends the frame that says where a guest is, while nobody owns a queue of its wire. Whether there was room for
    /// it; `None` if its address is not known. It counts as a frame that the guest has sent, so that its books balance;
    /// one that there was no room for counts nowhere.
    pub(super) fn announce_parked(&mut self, guest: &str) -> Option<bool> {
        let frame = announce::rarp(self.announcements.get(guest)?.mac?);
        let backend = self.backend(guest)?.to_owned();
        let sent = match self.ports.get_mut(&backend) {
            Some(Queues::Nic(pairs)) => pairs.first_mut().is_some_and(|pair| pair.announce(&frame)),
            Some(Queues::Socket(pairs)) => pairs.first_mut().is_some_and(|pair| pair.announce(&frame)),
            Some(Queues::Guest(..)) => {
                let mut pairs = self.take_complete_pairs(&backend);
                let sent = pairs.first_mut().is_some_and(|pair| pair.announce(&frame));
                self.park_rings(&backend, pairs);
                sent
            }
            _ => false,
        };
        if sent && let Some(Queues::Guest(_, counters)) = self.ports.get(guest) {
            counters.iter().take(1).for_each(|first| first.pair.rx.add_frame(frame.len()));
            self.announcements.entry(guest.to_owned()).or_default().sent += 1;
        }
        Some(sent)
    }
}

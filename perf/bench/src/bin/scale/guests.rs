//! So many guests of one worker, and their frontends.
//!
//! Each guest has a NIC's stand-in of its own, as long as DPDK can have one more: distributions build it for 32
//! ports. Guests beyond that are connected in pairs, and send to each other.

use std::path::{Path, PathBuf};

use ringwire_bench::Failure;
use ringwire_bench::daemon;
use ringwire_bench::far::{Nic, ORDINARY};
use ringwire_bench::place::Place;
use ringwire_pktgen::guest::{Guest, Shape};

/// DPDK's `RTE_MAX_ETHPORTS`, as distributions leave it.
const NICS: u16 = 32;
/// Bytes of a packet.
pub const BYTES: usize = 64;
/// Packets a guest sends at a time.
pub const BURST: u32 = 32;

/// NICs of `guests` guests.
pub fn nics(guests: u16) -> u16 {
    // A guest that is left over cannot be a pair.
    let nics = guests.min(NICS);
    nics - (guests - nics) % 2
}

/// Lanes that the worker polls: one for a guest and its NIC, one for a pair.
pub fn lanes(guests: u16) -> u16 {
    nics(guests) + (guests - nics(guests)) / 2
}

/// Their sockets.
pub fn sockets(guests: u16, directory: &Path) -> Vec<PathBuf> {
    (0..guests).map(|at| directory.join(format!("{guests}-{at}.sock"))).collect()
}

/// ringwired's configuration.
pub fn config(guests: u16, place: &Place) -> String {
    let nic = Nic::Sink { longest: ORDINARY };
    let nics: Vec<daemon::Nic> = (0..nics(guests))
        .map(|at| daemon::Nic { device: nic.devargs(usize::from(at), &place.directory), mtu: None })
        .collect();
    // The first beyond the NICs with the second, and so on.
    let backend = |at: usize| match at.checked_sub(nics.len()) {
        None => format!("nic{at}"),
        Some(beyond) => format!("vm{}", nics.len() + (beyond ^ 1)),
    };
    let all: Vec<daemon::Guest> = sockets(guests, &place.directory)
        .into_iter()
        .enumerate()
        .map(|(at, socket)| daemon::Guest { socket, backend: backend(at) })
        .collect();
    daemon::config(place, &place.directory.join(format!("{guests}-api.sock")), &nics, &all)
}

/// Connected guests.
pub struct Guests {
    guests: Vec<Guest>,
    nics: usize,
}

impl Guests {
    /// Connects all of them, with virtqueues of `queue_size` entries.
    pub fn connect(sockets: &[PathBuf], packed: bool, queue_size: u16) -> Result<Guests, Failure> {
        let shape = Shape { packed, mergeable: false, in_order: false, frame: BYTES, queue_size };
        let guests: Vec<Guest> =
            sockets.iter().map(|socket| Guest::connect(socket, shape)).collect::<Result<_, _>>()?;
        Ok(Guests { nics: usize::from(nics(guests.len() as u16)), guests })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// The `at`-th sends a burst, if its ring has room for it. Packets it sent. One that is in a pair also takes
    /// what the other has sent.
    pub fn send(&mut self, at: usize) -> u64 {
        let guest = &mut self.guests[at];
        if at >= self.nics {
            guest.receive(BURST);
        }
        if guest.send(BURST) { u64::from(BURST) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_a_nic_or_another_guest() {
        for (guests, expected) in [(1, 1), (2, 2), (31, 31), (32, 32), (33, 31), (34, 32), (64, 32), (65, 31)]
        {
            assert_eq!(nics(guests), expected, "{guests}");
            assert_eq!((guests - nics(guests)) % 2, 0);
        }
        assert_eq!((lanes(16), lanes(64)), (16, 48));
    }
}

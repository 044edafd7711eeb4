//! NICs are added, used and removed.

use std::time::Duration;

use tests::bare_guest::{self, BareGuest, FROM, TO};
use tests::daemon::{self, Daemon};
use tests::frames::number;
use tests::lan::nic_device;
use tests::link_socket::LinkSocket;
use tests::pcap;

use crate::witness::{Witness, idle_fds, settled, wait_exactly};

const ROUNDS: usize = 20;
/// After this round nothing may grow any more.
const LEVEL: usize = 3;
/// Resident memory may go up and down by this much, in KiB: a NIC has 16 MiB of packet memory.
const RESIDENT_SLACK: u64 = 1024;
/// Frames that the guest sends through each; through the first, all that its ring has room for: then all of its memory
/// has been seen.
const FRAMES: u64 = 100;
const RING: u64 = bare_guest::SIZE as u64;

/// A guest "vm1" without a backend, and its rings.
fn guest(witness: &Witness) -> BareGuest {
    let mut guest = BareGuest::connect(&witness.scene.socket("vm1"), 64);
    [TO, FROM].into_iter().for_each(|ring| guest.start_ring(ring, 0));
    guest.post(TO);
    guest
}

fn send(guest: &mut BareGuest, frames: u64) {
    guest.rings[FROM].collect();
    (0..frames).for_each(|_| guest.post_one(FROM));
}

/// Descriptors and KiB of resident memory.
fn sample(daemon: &Daemon) -> (usize, u64) {
    (daemon.child.fds(), daemon.child.resident_kib())
}

#[test]
fn a_nic_comes_and_goes_twenty_times_and_leaves_nothing() {
    let witness = Witness::start(|_, scene| scene.guest("vm1", "none", 1));
    let daemon = &witness.daemon;
    let mut guest = guest(&witness);
    let idle_fds = idle_fds(daemon);
    let mut samples = Vec::new();
    let mut so_far = 0;
    for round in 0..ROUNDS {
        let frames = if round == 0 { RING } else { FRAMES };
        let file = witness.scene.path(&format!("{round}.pcap"));
        let device = format!("net_pcap0,tx_pcap={}", file.display());
        let nic = witness.answer(&["port", "add", "nic", "wire0", "--device", &device]);
        assert_eq!((nic.state.as_str(), daemon::nic(&nic).driver.as_str()), ("up", "net_pcap"));
        daemon.set_backend("vm1", "wire0");
        send(&mut guest, frames);
        wait_exactly(daemon, "wire0", "tx", frames, |port| port.tx_packets);
        daemon.set_backend("vm1", "none");
        let last = witness.answer(&["port", "remove", "wire0"]);
        assert_eq!((last.tx_packets, daemon::drops(&last), last.held), (frames, 0, 0));
        assert!(daemon.status().ports.iter().all(|port| port.name != "wire0"));
        // Closed, so that all is in the file.
        let sent: Vec<u64> = pcap::read(&file).iter().map(|frame| number(frame)).collect();
        let expected = (so_far..so_far + frames).map(|number| number % RING);
        assert_eq!(sent, expected.collect::<Vec<_>>(), "round {round}");
        so_far += frames;
        samples.push(settled(|| sample(daemon), |(fds, _)| *fds == idle_fds));
        println!("round {round}: {:?}", samples[samples.len() - 1]);
    }
    for (round, (fds, resident)) in samples.iter().enumerate().skip(LEVEL) {
        assert_eq!(*fds, idle_fds, "descriptors after round {round}: {samples:?}");
        assert!(*resident <= samples[LEVEL].1 + RESIDENT_SLACK, "memory after round {round}: {samples:?}");
    }
    assert_eq!(daemon.port("vm1").rx_packets, so_far);
    drop(guest);
    witness.end(&[]);
}

#[test]
fn an_interface_is_driven_by_dpdk_for_a_while() {
    let witness = Witness::start(|lan, scene| {
        lan.veth("wire0");
        scene.guest("vm1", "none", 1);
    });
    let daemon = &witness.daemon;
    let host = LinkSocket::bind("wire0b");
    let mut guest = guest(&witness);
    for round in 0..3 {
        witness.client(&[
            "port",
            "add",
            "nic",
            "wire0",
            "--device",
            &nic_device(0, "wire0"),
            "--mtu",
            "1400",
        ]);
        assert_eq!(daemon::nic(&daemon.port("wire0")).mtu, 1400);
        daemon.set_backend("vm1", "wire0");
        send(&mut guest, FRAMES);
        for wanted in FRAMES * round..FRAMES * (round + 1) {
            let frame = host.receive(Duration::from_secs(10)).expect("a frame of the guest's");
            assert_eq!(number(&frame), wanted);
        }
        assert!(host.send(&[0x5a; 60]));
        daemon.wait_count("vm1", "tx", 20, round + 1, |port| port.tx_packets);
        daemon.set_backend("vm1", "none");
        let last = witness.answer(&["port", "remove", "wire0"]);
        assert_eq!((last.tx_packets, last.rx_packets), (FRAMES, 1 + daemon::drops(&last)));
    }
    drop(guest);
    witness.end(&[]);
}

/// Two NICs of a kind that receives as much as it can, one after the other, on the worker of the witnesses.
#[test]
fn a_flood_from_a_new_nic_costs_others_time_only() {
    let witness = Witness::start(|_, scene| scene.guest("vm1", "none", 2));
    let daemon = &witness.daemon;
    let guest = BareGuest::connect(&witness.scene.socket("vm1"), 64).load([0, 0]);
    for round in 0..2 {
        let name = format!("flood{round}");
        let device = format!("net_null{round},size=64,copy=1");
        witness.client(&["port", "add", "nic", &name, "--device", &device, "--queues", "2"]);
        daemon.set_backend("vm1", &name);
        daemon.wait_count(&name, "tx", 20, 10_000, |port| port.tx_packets);
        daemon.wait_count(&name, "rx", 20, 10_000, |port| port.rx_packets);
        witness.assert_flows();
        daemon.set_backend("vm1", "none");
        let last = witness.answer(&["port", "remove", &name]);
        assert_eq!(last.held, 0);
    }
    guest.end();
    witness.end(&[]);
}

//! Two of [`Pktgen`]'s guests that send each other numbered packets: what arrives is as it was and in order, and what
//! does not has a name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::balance::{assert_lost_by_change, drops_by_name};
use crate::daemon::{self, Daemon};
use crate::lan::{Lan, nic_device};
use crate::pktgen::{MACS, Pktgen, Seen};
use crate::scene::Scene;

/// The guests.
const NAMES: [&str; 2] = ["vm1", "vm2"];
/// Packets each way of an [`exchange`].
const COUNT: u64 = 200_000;

/// Two guests that are each other's backend.
pub fn joined() -> Scene {
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    scene
}

/// Frames of all lengths both ways between two that are joined, as fast as it goes, with `more` arguments of the
/// generator; `meanwhile` runs with them. None is lost, each byte is as it was. How many passed vm1.
pub fn exchange(scene: &Scene, daemon: &Daemon, more: &[&str], meanwhile: impl FnOnce(&mut Pktgen)) -> u64 {
    let count = COUNT.to_string();
    let arguments = ["--count", &count, "--checksum", "--check", "--size", "60,64,594,1518"];
    let mut pktgen = run(scene, &[&arguments, more].concat());
    meanwhile(&mut pktgen);
    for guest in pktgen.finish(Duration::from_secs(120)) {
        println!("{guest:?}");
        let found = (guest.sent, guest.received, guest.lost, guest.pending);
        assert_eq!(found, (COUNT, COUNT, 0, 0), "{guest:?}");
        let bad = (guest.reordered, guest.duplicates, guest.corrupt, guest.foreign);
        assert_eq!(bad, (0, 0, 0, 0), "{guest:?}");
    }
    let [vm1, vm2] = NAMES.map(|name| daemon.port(name));
    for (from, to) in [(&vm1, &vm2), (&vm2, &vm1)] {
        assert_eq!((from.rx_packets, from.rx_bytes), (to.tx_packets, to.tx_bytes), "{}", daemon.summary());
        assert_eq!((daemon::drops(from), from.held), (0, 0), "{}", daemon.summary());
        assert_eq!(daemon::guest(from).backend, to.name);
    }
    vm1.rx_packets + vm1.tx_packets
}

/// Two guests, each on an AF_PACKET nic, and a tap: all on the bridge of `lan`.
pub fn on_nics(lan: &Lan) -> Scene {
    lan.veth("wire0");
    lan.veth("wire1");
    lan.tap("tap0", &[]);
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.nic("wire1", &nic_device(1, "wire1"), 1, "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.guest("vm1", "wire0", 1);
    scene.guest("vm2", "wire1", 1);
    scene
}

/// Packets that two guests [`on_nics`] send each other, for as long as it lives.
pub struct Stream<'l> {
    pktgen: Pktgen,
    lan: &'l Lan,
    /// What the kernel had lost before.
    lost_before: BTreeMap<String, u64>,
}

impl<'l> Stream<'l> {
    /// Starts it, with `more` arguments of the generator. Both guests have received some.
    pub fn start(lan: &'l Lan, scene: &Scene, daemon: &Daemon, more: &[&str]) -> Stream<'l> {
        lan.expect_at(MACS[0], "wire0b");
        lan.expect_at(MACS[1], "wire1b");
        let lost_before = lan.lost();
        let pktgen = run(scene, &[&["--seconds", "0", "--drain", "1"], more].concat());
        for name in NAMES {
            daemon.wait_count(name, "tx", 20, 1000, |port| port.tx_packets);
        }
        Stream { pktgen, lan, lost_before }
    }

    /// Ends it, where vm1 has changed to and fro between tap and nic: nothing came twice, late or otherwise than sent,
    /// what is missing has a name, and nothing that may not be was lost. What each guest has seen.
    pub fn end(self, daemon: &Daemon) -> Vec<Seen> {
        self.pktgen.stop();
        let seen = self.pktgen.finish(Duration::from_secs(30));
        // What is still at the port that was left is counted when the port is somebody's again.
        ["tap0", "wire0"].into_iter().for_each(|backend| drop(daemon.set_backend("vm1", backend)));
        let ports = daemon.status().ports;
        let mut named = drops_by_name(&ports);
        let new = |(name, count): &(String, u64)| self.lost_before.get(name) != Some(count);
        named.extend(self.lan.lost().into_iter().filter(new));
        for nic in ["wire0", "wire1"] {
            // The driver does not tell (DPDK 22.11) for how many it had no room: the kernel delivered them to it.
            let taken = daemon::nic(&daemon.port(nic)).device_stats["ipackets"];
            named.insert(format!("{nic} af_packet ring full"), self.lan.arrived(nic) - taken);
        }
        println!("{seen:?}\nnamed: {named:?}");
        for guest in &seen {
            let bad = (guest.reordered, guest.duplicates, guest.corrupt, guest.pending);
            assert_eq!(bad, (0, 0, 0, 0), "{guest:?}");
        }
        let lost: u64 = seen.iter().map(|guest| guest.lost).sum();
        assert_eq!(lost, named.values().sum::<u64>(), "lost, and {named:?}");
        assert_lost_by_change(&ports);
        seen
    }
}

/// The generator, both ways.
fn run(scene: &Scene, more: &[&str]) -> Pktgen {
    let [first, second] = NAMES.map(|name| scene.socket(name));
    let arguments = [&["--mode", "both"], more].concat();
    Pktgen::run(&first, Some(&second), &scene.path("pktgen.log"), &arguments)
}

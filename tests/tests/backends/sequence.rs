//! Numbered packets both ways between two guests, one of which goes from nic to tap and back all the time: what is
//! missing has a name, nothing comes twice or late.

use std::time::Duration;

use tests::balance::{assert_lost_by_change, drops_by_name, table};
use tests::daemon;
use tests::lan::{Lan, nic_device};
use tests::pktgen::{MACS, Pktgen};
use tests::scene::Scene;

use crate::owner_with;

const SWITCHES: usize = 100;
const STAY: Duration = Duration::from_millis(80);

fn packets_through_switches(more: &[&str]) {
    let lan = Lan::enter("10.79.2.1/24");
    lan.veth("wire0");
    lan.veth("wire1");
    lan.tap("tap0", &[]);
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.nic("wire1", &nic_device(1, "wire1"), 1, "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.guest("vm1", "wire0", 1);
    scene.guest("vm2", "wire1", 1);
    let mut daemon = scene.start();
    lan.expect_at(MACS[0], "wire0b");
    lan.expect_at(MACS[1], "wire1b");
    let kernel_before = lan.lost();
    let sockets = ["vm1", "vm2"].map(|name| scene.socket(name));
    let arguments = ["--mode", "both", "--rate", "20kpps", "--seconds", "0", "--drain", "1"];
    let pktgen =
        Pktgen::run(&sockets[0], Some(&sockets[1]), &scene.path("pktgen.log"), &[&arguments, more].concat());
    daemon.wait_count("vm1", "tx", 20, 1000, |port| port.tx_packets);
    daemon.wait_count("vm2", "tx", 20, 1000, |port| port.tx_packets);
    for backend in ["tap0", "wire0"].into_iter().cycle().take(SWITCHES) {
        let vm1 = daemon.set_backend("vm1", backend);
        for queue in &daemon::guest(&vm1).queues {
            assert_eq!(
                (queue.owner.as_str(), &queue.violation),
                (owner_with(backend).as_str(), &None),
                "{queue:?}"
            );
        }
        std::thread::sleep(STAY);
    }
    pktgen.stop();
    let seen = pktgen.finish(Duration::from_secs(30));
    // What is still at the port that was left is counted when the port is somebody's again.
    ["tap0", "wire0"].into_iter().for_each(|backend| drop(daemon.set_backend("vm1", backend)));

    let ports = daemon.status().ports;
    let mut named = drops_by_name(&ports);
    named.extend(lan.lost().into_iter().filter(|(name, count)| kernel_before.get(name) != Some(count)));
    for nic in ["wire0", "wire1"] {
        // The driver does not tell (DPDK 22.11) for how many it had no room: the kernel delivered them to it.
        let taken = daemon::nic(&daemon.port(nic)).device_stats["ipackets"];
        named.insert(format!("{nic} af_packet ring full"), lan.arrived(nic) - taken);
    }
    println!("{SWITCHES} switches{}vm1: {:?}\nvm2: {:?}\nnamed: {named:?}", table(&ports), seen[0], seen[1]);
    for guest in &seen {
        assert_eq!(
            (guest.duplicates, guest.reordered, guest.corrupt, guest.pending),
            (0, 0, 0, 0),
            "{guest:?}"
        );
        assert!(guest.received > 10_000, "{guest:?}");
    }
    let lost: u64 = seen.iter().map(|guest| guest.lost).sum();
    assert_eq!(lost, named.values().sum::<u64>(), "lost, and {named:?}");
    assert_lost_by_change(&ports);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn numbered_packets_through_a_hundred_switches_split() {
    packets_through_switches(&["--packed", "off"]);
}

#[test]
fn numbered_packets_through_a_hundred_switches_packed() {
    packets_through_switches(&["--packed", "on"]);
}

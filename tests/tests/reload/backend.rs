//! A guest's backend changes in the file, under load: what is missing has a name, nothing comes twice or late.

use std::time::Duration;

use tests::balance::{assert_lost_by_change, drops_by_name};
use tests::daemon;
use tests::lan::{Lan, nic_device};
use tests::pktgen::{MACS, Pktgen};
use tests::scene::Scene;

use crate::stage::{By, Stage};

const SWITCHES: usize = 8;

fn scene(lan: &Lan) -> Scene {
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

#[test]
fn numbered_packets_while_the_file_changes_their_backend() {
    let lan = Lan::enter("10.79.10.1/24");
    let mut stage = Stage::start(scene(&lan));
    lan.expect_at(MACS[0], "wire0b");
    lan.expect_at(MACS[1], "wire1b");
    let kernel_before = lan.lost();
    let sockets = ["vm1", "vm2"].map(|name| stage.scene.socket(name));
    let arguments = ["--mode", "both", "--rate", "10kpps", "--seconds", "0", "--drain", "1"];
    let pktgen = Pktgen::run(&sockets[0], Some(&sockets[1]), &stage.scene.path("pktgen.log"), &arguments);
    stage.daemon.wait_count("vm1", "tx", 20, 1000, |port| port.tx_packets);
    stage.daemon.wait_count("vm2", "tx", 20, 1000, |port| port.tx_packets);
    for (turn, by) in
        [By::Client, By::Client, By::Hangup, By::Hangup].into_iter().cycle().take(SWITCHES).enumerate()
    {
        let (from, to) = if turn % 2 == 0 { ("wire0", "tap0") } else { ("tap0", "wire0") };
        stage.edit(&[("backend = \"wire0\"", &format!("backend = {to:?}"))]);
        assert_eq!(stage.reload(by), [format!("guest vm1: backend {from} -> {to}")], "{by:?}");
        assert_eq!(daemon::guest(&stage.daemon.port("vm1")).backend, to);
        let taken = stage.daemon.port("vm1").rx_packets;
        stage.daemon.wait_count("vm1", "rx", 10, taken + 200, |port| port.rx_packets);
    }
    pktgen.stop();
    let seen = pktgen.finish(Duration::from_secs(30));
    // What is still at the port that was left is counted when the port is somebody's again.
    ["tap0", "wire0"].into_iter().for_each(|backend| drop(stage.daemon.set_backend("vm1", backend)));
    let ports = stage.daemon.status().ports;
    let mut named = drops_by_name(&ports);
    named.extend(lan.lost().into_iter().filter(|(name, count)| kernel_before.get(name) != Some(count)));
    for nic in ["wire0", "wire1"] {
        // The driver does not tell (DPDK 22.11) for how many it had no room: the kernel delivered them to it.
        let taken = daemon::nic(&stage.daemon.port(nic)).device_stats["ipackets"];
        named.insert(format!("{nic} af_packet ring full"), lan.arrived(nic) - taken);
    }
    println!("{seen:?}\nnamed: {named:?}");
    for guest in &seen {
        let found = (guest.duplicates, guest.reordered, guest.corrupt, guest.pending);
        assert_eq!(found, (0, 0, 0, 0), "{guest:?}");
        assert!(guest.received > 2000, "{guest:?}");
    }
    let lost: u64 = seen.iter().map(|guest| guest.lost).sum();
    assert_eq!(lost, named.values().sum::<u64>(), "lost, and {named:?}");
    assert_lost_by_change(&ports);
    assert_eq!(daemon::guest(&stage.daemon.port("vm1")).connections, 1);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}

/// A NIC is made anew under a guest, which stays connected.
#[test]
fn a_nic_is_made_anew_under_its_guest() {
    let lan = Lan::enter("10.79.11.1/24");
    let mut stage = Stage::start(scene(&lan));
    lan.expect_at(MACS[0], "wire0b");
    lan.expect_at(MACS[1], "wire1b");
    let sockets = ["vm1", "vm2"].map(|name| stage.scene.socket(name));
    let arguments = ["--mode", "both", "--rate", "5kpps", "--seconds", "0"];
    let pktgen = Pktgen::run(&sockets[0], Some(&sockets[1]), &stage.scene.path("pktgen.log"), &arguments);
    stage.daemon.wait_count("vm2", "tx", 20, 1000, |port| port.tx_packets);
    for by in [By::Client, By::Hangup] {
        for (promiscuous, from, to) in [("promiscuous = false\n", true, false), ("", false, true)] {
            stage.edit(&[("name = \"wire0\"\n", &format!("name = \"wire0\"\n{promiscuous}"))]);
            let line = format!("nic wire0: promiscuous {from} -> {to} (made anew)");
            assert_eq!(stage.reload(by), [line], "{by:?}");
            assert_eq!(daemon::nic(&stage.daemon.port("wire0")).promiscuous, to);
        }
        let (vm1, vm2) = (stage.daemon.port("vm1"), stage.daemon.port("vm2"));
        stage.daemon.wait_count("vm1", "tx", 10, vm1.tx_packets + 200, |port| port.tx_packets);
        stage.daemon.wait_count("vm2", "tx", 10, vm2.tx_packets + 200, |port| port.tx_packets);
        assert_eq!(daemon::guest(&vm1).connections, 1);
    }
    drop(pktgen);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}

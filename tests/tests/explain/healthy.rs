//! Wires that carry traffic: nothing is to be wrong with them, from either end.

use std::time::Duration;

use tests::lan::{Lan, nic_device};
use tests::pktgen::{MACS, Pktgen};
use tests::scene::Scene;

use crate::frontends::{running, scene};
use crate::table::Answer::Well;
use crate::table::Table;

/// Packets that show that there is traffic.
const SOME: u64 = 1000;

/// Two guests that send to each other all the time, with `more` arguments.
fn exchange(scene: &Scene, guests: [&str; 2], more: &[&str]) -> Pktgen {
    let arguments = ["--mode", "both", "--rate", "5kpps", "--seconds", "0"];
    let [first, second] = guests.map(|name| scene.socket(name));
    let log = scene.path(&format!("{}.log", guests[0]));
    Pktgen::run(&first, Some(&second), &log, &[&arguments, more].concat())
}

/// Guest to nic, tap, raw socket and guest.
fn healthy(format: &str, more: &[&str]) {
    let mut table = Table::start(&format!("healthy wires, {format} rings"));
    let lan = Lan::enter("10.79.9.1/24");
    lan.veth("wire0");
    lan.veth("raw0");
    lan.tap("tap0", &[]);
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.socket_port("raw", "raw0", "raw0", "");
    for (guest, backend) in [("vm1", "wire0"), ("vm2", "tap0"), ("vm3", "vm4"), ("vm4", "vm3")] {
        scene.guest(guest, backend, 1);
    }
    let mut daemon = scene.start();
    lan.expect_at(MACS[0], "wire0b");
    lan.expect_at(MACS[1], "tap0");
    let pairs = [exchange(&scene, ["vm1", "vm2"], more), exchange(&scene, ["vm3", "vm4"], more)];
    for guest in ["vm1", "vm2", "vm3", "vm4"] {
        daemon.wait_count(guest, "rx", 20, SOME, |port| port.rx_packets);
        daemon.wait_count(guest, "tx", 20, SOME, |port| port.tx_packets);
    }
    for name in ["vm1", "wire0", "vm2", "tap0", "vm3", "vm4"] {
        table.ask(name, &daemon, name, Well, &format!("{name} carries traffic (rx "));
    }
    daemon.set_backend("vm2", "raw0");
    lan.expect_at(MACS[1], "raw0b");
    let sent = daemon.port("raw0").tx_packets;
    daemon.wait_count("raw0", "tx", 20, sent + SOME, |port| port.tx_packets);
    table.ask("raw0", &daemon, "raw0", Well, "raw0 carries traffic (rx ");
    table.end();
    drop(pairs);
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

#[test]
fn nothing_is_wrong_with_healthy_wires_split() {
    healthy("split", &["--packed", "off"]);
}

#[test]
fn nothing_is_wrong_with_healthy_wires_packed() {
    healthy("packed", &["--packed", "on"]);
}

/// Text, and exit status 0; a name that is none is said as everywhere.
#[test]
fn an_idle_guest_can_carry_traffic() {
    let mut table = Table::start("an idle guest");
    let scene = scene();
    let mut daemon = scene.start();
    let _guest = running(&scene, "vm1");
    table.ask("idle", &daemon, "vm1", Well, "vm1 can carry traffic, though none passed just now");
    let output = daemon.client(&["explain", "vm1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    for line in ["✓  ringwired", "✓  vm1        memory", "✓  vm1        buffers", "✓  wire0      link"]
    {
        assert!(text.contains(line), "no {line:?}");
    }
    let output = daemon.client(&["explain", "vm9"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said, "ringwire: no port is called \"vm9\" (there are: wire0, vm1)\n");
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

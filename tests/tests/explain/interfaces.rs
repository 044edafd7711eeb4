//! Taps, raw sockets and nics whose interfaces are not as they should be.

use std::time::Duration;

use tests::daemon::Daemon;
use tests::lan::{Lan, nic_device, tap_device};
use tests::namespace::run;
use tests::scene::Scene;
use tests::wait;

use crate::frontends::running;
use crate::table::Answer::{Fail, Note, Well};
use crate::table::Table;

fn wait_state(daemon: &Daemon, name: &str, wanted: &str) {
    wait::until(&format!("{name} is {wanted}"), 10, || {
        let state = daemon.port(name).state;
        if state == wanted { Ok(()) } else { Err(state) }
    });
}

#[test]
fn interfaces() {
    let mut table = Table::start("interfaces");
    let lan = Lan::enter("10.79.8.1/24");
    lan.veth("raw0");
    lan.tap("tap0", &[]);
    lan.tap("tap1", &[]);
    let mut scene = Scene::new();
    scene.nic("wire0", &tap_device("wire0"), 1, "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.socket_port("tap", "tap1", "tap1", "");
    scene.socket_port("raw", "raw0", "raw0", "");
    scene.guest("vm1", "tap0", 1);
    scene.guest("vm2", "wire0", 1);
    scene.add("fallback = \"tap1\"\nfallback_hold = 1\n");
    let mut daemon = scene.start();
    lan.plug_in("wire0");
    let _guests = [running(&scene, "vm1"), running(&scene, "vm2")];

    wait_state(&daemon, "tap0", "up");
    table.ask("tap up", &daemon, "vm1", Well, "vm1 c");
    lan.set_up("tap0", false);
    wait_state(&daemon, "tap0", "down");
    table.ask("tap interface down", &daemon, "vm1", Fail("link"), "tap0: interface tap0 is down");
    table.ask("tap interface down, asked about it", &daemon, "tap0", Fail("link"), "interface tap0 is down");
    run(&["ip", "link", "del", "tap0"]);
    wait_state(&daemon, "tap0", "gone");
    table.ask("tap gone", &daemon, "vm1", Fail("link"), "tap0: interface tap0 was removed");

    daemon.set_backend("vm1", "raw0");
    wait_state(&daemon, "raw0", "up");
    table.ask("raw up", &daemon, "raw0", Well, "raw0 c");
    run(&["ip", "link", "set", "raw0b", "down"]);
    wait_state(&daemon, "raw0", "no_carrier");
    table.ask("raw interface without carrier", &daemon, "vm1", Fail("link"), "interface raw0 has no carrier");
    lan.set_up("raw0", false);
    wait_state(&daemon, "raw0", "down");
    table.ask("raw interface down", &daemon, "vm1", Fail("link"), "raw0: interface raw0 is down");

    table.ask("a fallback at rest", &daemon, "tap1", Fail("backend"), "is vm2's fallback, and not in use");
    lan.set_up("wire0", false);
    wait_state(&daemon, "wire0", "down");
    wait::until("vm2 goes to tap1", 10, || {
        let backend = tests::daemon::guest(&daemon.port("vm2")).backend.clone();
        if backend == "tap1" { Ok(()) } else { Err(backend) }
    });
    let words = "it runs on its fallback tap1, because wire0 has no link";
    table.ask("fallback in use", &daemon, "vm2", Note("backend"), words);
    table.ask("its nic's link down", &daemon, "wire0", Fail("link"), "wire0: the link is down");
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// The drivers themselves say that it is up.
#[test]
fn a_nic_on_an_interface_without_link() {
    let mut table = Table::start("a nic on an interface without link");
    let lan = Lan::enter("10.79.8.1/24");
    lan.veth("wire0");
    lan.veth("wire1");
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.nic("wire1", "net_pcap1,iface=wire1", 1, "");
    scene.guest("vm1", "wire0", 1);
    scene.guest("vm2", "wire1", 1);
    let mut daemon = scene.start();
    let _guests = [running(&scene, "vm1"), running(&scene, "vm2")];
    for (guest, nic) in [("vm1", "wire0"), ("vm2", "wire1")] {
        table.ask("link up", &daemon, guest, Well, &format!("{guest} c"));
        for (situation, interface) in
            [("its interface", nic.to_owned()), ("the other end", format!("{nic}b"))]
        {
            lan.set_up(&interface, false);
            wait_state(&daemon, nic, "down");
            table.ask(&format!("{situation} is down"), &daemon, guest, Fail("link"), "the link is down");
            lan.set_up(&interface, true);
            wait_state(&daemon, nic, "up");
        }
    }
    run(&["ip", "link", "del", "wire0"]);
    wait_state(&daemon, "wire0", "down");
    table.ask("its interface is gone", &daemon, "vm1", Fail("link"), "wire0: the link is down");
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

#[test]
fn a_nic_without_link() {
    let mut table = Table::start("a nic without link");
    let lan = Lan::enter("10.79.8.1/24");
    let mut scene = Scene::new();
    scene.nic("wire0", &tap_device("wire0"), 1, "");
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    lan.plug_in("wire0");
    wait_state(&daemon, "wire0", "up");
    let _guest = running(&scene, "vm1");
    table.ask("nic link up", &daemon, "vm1", Well, "vm1 c");
    lan.set_up("wire0", false);
    wait_state(&daemon, "wire0", "down");
    table.ask("nic link down", &daemon, "vm1", Fail("link"), "wire0: the link is down");
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

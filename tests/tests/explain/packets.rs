//! Packets that cannot pass: too long for the nic, or for the guest's buffers.

use std::time::Duration;

use tests::bare_guest::BareGuest;
use tests::daemon::drops;
use tests::hostile::guest::{DATA, Hostile};
use tests::hostile::ring::Buf;
use tests::scene::Scene;

use crate::frontends::{SINK, leave};
use crate::table::Answer::{Fail, Note};
use crate::table::Table;

#[test]
fn packets_that_are_too_long() {
    let mut table = Table::start("packets that are too long");
    let mut scene = Scene::new();
    scene.nic("wire0", SINK, 1, "mtu = 1500\n");
    scene.nic("wire1", "net_null1,size=1500,copy=1", 1, "mtu = 9000\n");
    scene.guest("vm1", "wire0", 1);
    scene.guest("vm2", "wire1", 1);
    let mut daemon = scene.start();

    let load = BareGuest::connect(&scene.socket("vm1"), 1900).load([0, 0]);
    daemon.wait_count("vm1", "drops", 10, 1000, drops);
    let words = "vm1: drops all packets that enter here as oversize";
    table.ask("MTU mismatch, while it sends", &daemon, "vm1", Fail("drops"), words);
    table.ask("MTU mismatch, asked about the nic", &daemon, "wire0", Fail("drops"), words);
    let mut guest = load.end();
    guest.turn();
    table.ask("MTU mismatch, when it has stopped", &daemon, "vm1", Fail("drops"), words);
    leave(&daemon, "vm1", guest);

    let mut small = Hostile::running(&scene.socket("vm2"), 0);
    small.rings[0].post_all(&[Buf::writable(DATA, 256); 64]);
    daemon.wait_count("wire1", "drops", 10, 1000, drops);
    let words = "wire1: drops all packets that enter here as guest_buffer_too_small";
    table.ask("guest's buffers too small", &daemon, "vm2", Fail("drops"), words);
    leave(&daemon, "vm2", small);
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// It may be that nothing long ever comes.
#[test]
fn jumbo_frames_without_mergeable_buffers() {
    let mut table = Table::start("jumbo frames without mergeable buffers");
    let mut scene = Scene::new();
    scene.nic("wire0", SINK, 1, "mtu = 9000\n");
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let mut guest = Hostile::running(&scene.socket("vm1"), 0);
    guest.rings[0].post_all(&[Buf::writable(DATA, 1526); 64]);
    let words = "VIRTIO_NET_F_MRG_RXBUF was not negotiated, and wire0 has an MTU of 9000";
    table.ask("no mergeable buffers for an MTU of 9000", &daemon, "vm1", Note("features"), words);
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

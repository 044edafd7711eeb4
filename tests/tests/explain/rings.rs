//! A guest's rings, each as it should not be; and backends that are none.

use std::time::Duration;

use tests::daemon::{Daemon, guest};
use tests::hostile::client::{Answer, code, words};
use tests::hostile::guest::{Hostile, feature};
use tests::hostile::ring::Buf;
use tests::scene::Scene;
use tests::wait;

use crate::frontends::{leave, running, scene};
use crate::table::Answer::Fail;
use crate::table::Table;

/// A guest with memory, whose first ring is as `first` says, and whose second runs.
fn with_ring(scene: &Scene, first: impl Fn(&mut Hostile)) -> Hostile {
    let mut guest = Hostile::ready(&scene.socket("vm1"), feature::MRG_RXBUF);
    first(&mut guest);
    guest.set_up(1);
    guest
}

#[test]
fn a_guests_rings() {
    let mut table = Table::start("a guest's rings");
    let scene = scene();
    let mut daemon = scene.start();
    let empty = Hostile::running(&scene.socket("vm1"), feature::MRG_RXBUF);
    let posted = "has posted no receive buffers in queue 0";
    table.ask("rx ring never filled, split", &daemon, "vm1", Fail("buffers"), posted);
    leave(&daemon, "vm1", empty);
    let empty = Hostile::running(&scene.socket("vm1"), feature::PACKED);
    table.ask("rx ring never filled, packed", &daemon, "vm1", Fail("buffers"), posted);
    leave(&daemon, "vm1", empty);

    let unkicked = with_ring(&scene, |guest| {
        guest.prepare(0);
        assert_eq!(guest.tell_ring(code::SET_VRING_ENABLE, 0, 1), Answer::Done);
        assert!(guest.client.ask(code::GET_VRING_BASE, &words(&[0, 0])).is_some());
    });
    let words = "queue 0 (the guest receives) was never kicked off";
    table.ask("rx ring enabled, never kicked", &daemon, "vm1", Fail("rings"), words);
    leave(&daemon, "vm1", unkicked);

    let disabled = with_ring(&scene, |guest| guest.prepare(0));
    let words = "queue 0 (the guest receives) is disabled by the frontend";
    table.ask("rx ring disabled", &daemon, "vm1", Fail("rings"), words);
    leave(&daemon, "vm1", disabled);

    let missing = with_ring(&scene, |_| ());
    table.ask(
        "rx ring not set up",
        &daemon,
        "vm1",
        Fail("driver"),
        "queue 0 (the guest receives) is not set up",
    );
    leave(&daemon, "vm1", missing);

    for (format, features) in [("split", feature::MRG_RXBUF), ("packed", feature::PACKED)] {
        violation(&mut table, &daemon, &scene, format, features);
    }

    let guest = running(&scene, "vm1");
    daemon.set_backend("vm1", "none");
    table.ask("backend none", &daemon, "vm1", Fail("backend"), "it has no backend");
    table.ask("a nic that is no backend", &daemon, "wire0", Fail("backend"), "is no guest's backend");
    leave(&daemon, "vm1", guest);
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// A descriptor that points out of the guest's memory.
fn violation(table: &mut Table, daemon: &Daemon, scene: &Scene, format: &str, features: u64) {
    let mut broken = Hostile::running(&scene.socket("vm1"), features);
    broken.rings[1].post(&[Buf::readable(1 << 40, 100)]);
    wait::until("the ring is stopped", 10, || {
        let port = daemon.port("vm1");
        let stopped = guest(&port).queues[1].violation.is_some();
        if stopped { Ok(()) } else { Err(port.state) }
    });
    let words = "queue 1 (the guest sends) was stopped, because the guest broke the protocol";
    table.ask(&format!("bad descriptor, {format}"), daemon, "vm1", Fail("violation"), words);
    leave(daemon, "vm1", broken);
}

#[test]
fn a_guest_that_is_a_backend() {
    let mut table = Table::start("a guest that is a backend");
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    let mut daemon = scene.start();
    let _near = running(&scene, "vm1");
    table.ask("backend not connected", &daemon, "vm1", Fail("frontend"), "vm2: no frontend is connected");
    let far = Hostile::running(&scene.socket("vm2"), feature::MRG_RXBUF);
    let words = "vm2: the guest has posted no receive buffers";
    table.ask("backend's rx ring never filled", &daemon, "vm1", Fail("buffers"), words);
    leave(&daemon, "vm2", far);
    table.end();
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

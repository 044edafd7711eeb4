//! Interfaces that go down, change or vanish while a guest is connected to them.

use std::time::Instant;

use tests::namespace::run;
use tests::wait;

use crate::traffic::Traffic;

/// The interface of `backend` itself goes down, and is up again.
fn goes_down(backend: &str) {
    goes_down_with(backend, backend);
}

/// So does `interface`.
fn goes_down_with(backend: &str, interface: &str) {
    let traffic = Traffic::start(backend, "");
    for _ in 0..2 {
        let since = Instant::now();
        traffic.lan.set_up(interface, false);
        let down = traffic.wait_state(backend, "down", since);
        let since = Instant::now();
        traffic.lan.set_up(interface, true);
        let up = traffic.wait_state(backend, "up", since);
        println!("{backend}: down was shown after {down:?}, up after {up:?}");
        traffic.assert_flows();
    }
    traffic.end("");
}

#[test]
fn traffic_is_back_when_the_interface_is_up_again_tap() {
    goes_down("tap0");
}

#[test]
fn traffic_is_back_when_the_interface_is_up_again_raw() {
    goes_down("raw0");
}

#[test]
fn traffic_is_back_when_the_interface_is_up_again_nic() {
    goes_down("wire0");
}

/// What a driver over a socket does not look at.
#[test]
fn traffic_is_back_when_the_interface_is_up_again_af_packet() {
    goes_down("wire2");
}

#[test]
fn traffic_is_back_when_the_other_end_is_up_again_af_packet() {
    goes_down_with("wire2", "wire2b");
}

/// The interface of `backend` is removed. That is shown as `state`; the guest goes elsewhere, and there is no way back.
fn vanishes(backend: &str, state: &str) {
    let traffic = Traffic::start(backend, "");
    let daemon = &traffic.daemon;
    run(&["ip", "link", "del", backend]);
    let assert_shown = || traffic.wait_state(backend, state, Instant::now());
    assert_shown();
    // While it is gone, the guest's queues are where they were, and its frontend is served.
    assert_eq!(daemon.port("vm1").state, "up");
    let elsewhere = if backend == "tap0" { "raw0" } else { "tap0" };
    daemon.set_backend("vm1", elsewhere);
    traffic.assert_flows();
    // It can be asked for; nothing comes of it.
    daemon.set_backend("vm1", backend);
    assert_shown();
    daemon.set_backend("vm1", elsewhere);
    traffic.assert_flows();
    traffic.end("");
}

#[test]
fn an_interface_that_vanishes_is_shown_and_left_tap() {
    vanishes("tap0", "gone");
}

#[test]
fn an_interface_that_vanishes_is_shown_and_left_raw() {
    vanishes("raw0", "gone");
}

#[test]
fn an_interface_that_vanishes_is_shown_and_left_nic() {
    vanishes("wire0", "down");
}

#[test]
fn an_interface_that_vanishes_is_shown_and_left_af_packet() {
    vanishes("wire2", "down");
}

/// Another MTU is shown, and stops nothing that fits it.
fn changes_mtu(backend: &str) {
    let traffic = Traffic::start(backend, "");
    let mtu = || traffic.daemon.port(backend).interface.expect("an interface").mtu;
    assert_eq!(mtu(), 1500);
    for wanted in [9000, 68, 1500] {
        run(&["ip", "link", "set", backend, "mtu", &wanted.to_string()]);
        wait::until(&format!("an MTU of {wanted}"), 10, || if mtu() == wanted { Ok(()) } else { Err(mtu()) });
        traffic.assert_flows();
    }
    traffic.end("");
}

#[test]
fn another_mtu_is_shown_and_traffic_goes_on_tap() {
    changes_mtu("tap0");
}

#[test]
fn another_mtu_is_shown_and_traffic_goes_on_raw() {
    changes_mtu("raw0");
}

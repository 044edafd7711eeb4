//! What a running datapath counts, and how it is shown: each packet in a class of sizes and in a burst, a worker's time,
//! the Grafana dashboard's queries, `ringwire top` in real terminals.

mod dashboard;
mod screens;

use std::time::Duration;

use snapshot::{Passed, Port, QueuePair};
use tests::bare_guest::BareGuest;
use tests::daemon::Daemon;
use tests::scene::Scene;
use tests::wait;

/// Bytes of the guest's frames: with the check sequence, of the second class.
const FRAME: usize = 64;

/// A NIC that sends and takes as much as it can, and a guest behind it.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0,size=1200,copy=1", 1, "");
    scene.guest("vm1", "wire0", 1);
    scene
}

/// Everything, once nothing moves.
fn at_rest(daemon: &Daemon) -> Vec<Port> {
    wait::until("everything comes to rest", 20, || {
        let before = daemon.status().ports;
        std::thread::sleep(Duration::from_millis(50));
        let after = daemon.status().ports;
        let counts = |ports: &[Port]| -> Vec<[u64; 2]> {
            ports.iter().map(|port| [port.rx_packets, port.tx_packets]).collect()
        };
        if counts(&before) == counts(&after) { Ok(after) } else { Err(daemon.summary()) }
    })
}

fn assert_counted(port: &Port) {
    let sum = |count: fn(&QueuePair) -> u64| port.pairs.iter().map(count).sum::<u64>();
    assert_eq!((sum(|pair| pair.rx.packets), sum(|pair| pair.rx.bytes)), (port.rx_packets, port.rx_bytes));
    assert_eq!((sum(|pair| pair.tx.packets), sum(|pair| pair.tx.bytes)), (port.tx_packets, port.tx_bytes));
    assert_eq!(sum(|pair| pair.drops.values().sum()), port.drops.values().sum::<u64>(), "{}", port.name);
    for passed in port.pairs.iter().flat_map(|pair| [&pair.rx, &pair.tx]) {
        let Passed { packets, bursts, sizes, .. } = passed;
        assert_eq!(sizes.classes().iter().sum::<u64>(), *packets, "{}: {passed:?}", port.name);
        // A burst has 64 packets at most.
        assert!(bursts <= packets && packets.div_ceil(64) <= *bursts, "{}: {passed:?}", port.name);
    }
}

#[test]
fn every_packet_is_in_a_class_a_burst_and_a_workers_time() {
    let scene = scene();
    let mut daemon = scene.start();
    let load = BareGuest::connect(&scene.socket("vm1"), FRAME).load([0, 0]);
    daemon.wait_count("vm1", "rx", 20, 10_000, |port| port.rx_packets);
    daemon.wait_count("vm1", "tx", 20, 10_000, |port| port.tx_packets);
    // A sample a second: in one of them all was busy.
    wait::until("the worker's rates are known", 20, || {
        let worker = daemon.status().workers.remove(0);
        match worker.rates {
            Some(rates) if rates.cycles_per_packet.is_some_and(|cycles| cycles >= 1.0) => {
                assert!(rates.pps > 0.0 && (0.0..=100.0).contains(&rates.utilisation_percent), "{rates:?}");
                assert!(rates.utilisation_percent > 0.0, "{rates:?}");
                Ok(())
            }
            rates => Err(format!("{rates:?}")),
        }
    });
    let guest = load.end();
    let ports = at_rest(&daemon);
    ports.iter().for_each(assert_counted);
    let pair = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.pairs[0].clone());
    let (wire, guest_pair) = (pair("wire0").expect("wire0"), pair("vm1").expect("vm1"));
    assert_eq!(guest_pair.rx.sizes.octets_65_to_127, guest_pair.rx.packets);
    assert_eq!(wire.tx.sizes.octets_65_to_127, wire.tx.packets);
    assert_eq!(wire.rx.sizes.octets_1024_to_1518, wire.rx.packets);
    assert_eq!(guest_pair.tx.sizes.octets_1024_to_1518, guest_pair.tx.packets);
    // Each packet was moved by the worker once: from the guest, or to it.
    let worker = daemon.status().workers.remove(0);
    assert_eq!(worker.time.packets, guest_pair.rx.packets + guest_pair.tx.packets);
    assert!(worker.time.busy_cycles > 0 && worker.time.idle_cycles > 0, "{:?}", worker.time);
    assert!(worker.time.cycles_per_second > 1_000_000, "{:?}", worker.time);
    drop(guest);
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// Of frames in different classes, by turns: each burst has to be looked at one by one.
#[test]
fn frames_of_mixed_sizes_are_told_apart() {
    let mut scene = Scene::new();
    let frames: Vec<Vec<u8>> = [60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1514, 14]
        .map(|len| [[2; 12].as_slice(), &[0x08, 0], &vec![7; len - 14]].concat())
        .to_vec();
    let capture = scene.path("in.pcap");
    tests::pcap::write(&capture, &frames);
    let device = tests::scene::pcap_device("net_pcap0", &[capture], &[scene.path("out.pcap")]);
    scene.nic("wire0", &device, 1, "");
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let load = BareGuest::connect(&scene.socket("vm1"), FRAME).load([0, 0]);
    daemon.wait_count("vm1", "tx", 20, frames.len() as u64, |port| port.tx_packets);
    let guest = load.end();
    let ports = at_rest(&daemon);
    ports.iter().for_each(assert_counted);
    for port in &ports {
        let passed = if port.name == "vm1" { &port.pairs[0].tx } else { &port.pairs[0].rx };
        assert_eq!(passed.sizes.classes(), [2, 2, 2, 2, 2, 2, 0], "{}", port.name);
    }
    drop(guest);
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

/// Without a peer a memif takes nothing: what the guest has sent waits, and for how long is counted until it goes.
#[test]
fn held_time_goes_on_while_packets_wait() {
    let mut scene = Scene::new();
    let socket = scene.path("memif");
    let device = format!("net_memif0,role=server,socket-abstract=no,socket={}", socket.display());
    scene.nic("wire0", &device, 1, "");
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let load = BareGuest::connect(&scene.socket("vm1"), FRAME).load([0, 0]);
    let waits = |daemon: &Daemon| daemon.port("wire0").pairs.remove(0).tx;
    wait::until("packets are held", 20, || match waits(&daemon).held {
        0 => Err(daemon.summary()),
        _ => Ok(()),
    });
    let (first, waited) = (waits(&daemon), Duration::from_millis(200));
    std::thread::sleep(waited);
    let second = waits(&daemon);
    assert_eq!((second.held, second.packets), (first.held, 0));
    // Half of it, because the frequency of the time-stamp counter is measured.
    assert!(u128::from(second.held_ns - first.held_ns) > waited.as_nanos() / 2, "{first:?} {second:?}");
    // Another backend: they are dropped, and nobody waits any more.
    daemon.set_backend("vm1", "none");
    let (third, fourth) = (waits(&daemon), waits(&daemon));
    assert_eq!((third.held, third.held_ns), (0, fourth.held_ns));
    assert!(third.held_ns >= second.held_ns);
    drop(load.end());
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

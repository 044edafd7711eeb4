//! Rings are given back whole. After GET_VRING_BASE, and after SIGTERM under full load, what
//! the backend has taken from a ring is exactly what it has published as used, and has passed on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::bare_guest::{BareGuest, FROM, SIZE, TO};
use tests::frames::{Frames, number};
use tests::pcap;
use tests::scene::{Scene, pcap_device};
use vhost::VhostBackend;

/// The daemon ends within this time.
const STOP: Duration = Duration::from_secs(2);
/// Length of the frames that the guests send.
const LENGTH: usize = 64;

/// A NIC that writes what it sends into a file, and receives the same frames over and over.
fn endless_pcap(scene: &mut Scene, name: &str) -> PathBuf {
    let (rx, tx) = (scene.path("endless.pcap"), scene.path("sent.pcap"));
    pcap::write(&rx, Frames { count: 64, lengths: 60..=1500, seed: 6 }.iter());
    scene.nic(name, &(pcap_device("net_pcap0", &[rx], std::slice::from_ref(&tx)) + ",infinite_rx=1"), 1, "");
    tx
}

/// The file has the frames of buffers 0, 1, 2, ... over and over, and as many as the guest's ring says were used.
fn assert_sent_once(path: &Path, used: u64) {
    let sent = pcap::read(path);
    let wrong =
        (0..).zip(&sent).find(|(n, frame)| number(frame) != n % u64::from(SIZE) || frame.len() != LENGTH);
    assert_eq!(wrong, None);
    assert_eq!(sent.len() as u64, used, "sent by the NIC, and used in the guest's ring");
}

fn assert_consistent(guest: &mut BareGuest, name: &str) {
    for (ring, what) in guest.rings.iter_mut().zip(["to the guest", "from the guest"]) {
        ring.collect();
        assert_eq!(ring.wrong, [""; 0], "{name}, {what}");
        assert!(ring.total > 10_000, "{name}, {what}: only {} used: that was no load", ring.total);
        println!("{name}, {what}: {} used, all in order", ring.total);
    }
}

fn stops_under_load(signal: Signal) {
    let mut scene = Scene::new();
    let sent = endless_pcap(&mut scene, "wire1");
    scene.nic("wire2", "net_null0,size=64,copy=1", 1, "");
    scene.guest("vm1", "wire1", 1);
    scene.guest("vm2", "wire2", 1);
    let mut daemon = scene.start();
    let loads = ["vm1", "vm2"].map(|name| BareGuest::connect(&scene.socket(name), LENGTH).load([0, 0]));
    std::thread::sleep(Duration::from_secs(1));
    println!("{}", daemon.summary());
    let asked = Instant::now();
    daemon.child.signal(signal);
    let ended = daemon.child.wait(STOP);
    println!("ended {:?} after {signal}", asked.elapsed());
    assert!(ended.is_some_and(|status| status.success()), "ended within {STOP:?}: {ended:?}");
    for socket in ["vm1.sock", "vm2.sock", "api.sock"] {
        assert!(!scene.path(socket).exists(), "{socket} is still there");
    }
    let [mut vm1, mut vm2] = loads.map(|load| load.end());
    assert_consistent(&mut vm1, "vm1");
    assert_consistent(&mut vm2, "vm2");
    assert_sent_once(&sent, vm1.rings[FROM].total);
    // What the daemon said last counts the same.
    let log = daemon.child.log();
    for (name, guest) in [("vm1", &vm1), ("vm2", &vm2)] {
        let (rx, tx) = (guest.rings[FROM].total, guest.rings[TO].total);
        let expected = format!("rx {rx}, tx {tx}, held 0, drops 0 packets port=\"{name}\"");
        assert!(log.contains(&expected), "not in the log: {expected}");
    }
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn sigterm_under_load_gives_the_rings_back() {
    stops_under_load(Signal::SIGTERM);
}

#[test]
fn sigint_under_load_gives_the_rings_back() {
    stops_under_load(Signal::SIGINT);
}

/// A frontend stops and starts its rings in the middle of its traffic: nothing is lost or sent twice.
#[test]
fn get_vring_base_under_load_is_what_was_used() {
    let mut scene = Scene::new();
    let sent = endless_pcap(&mut scene, "wire1");
    scene.guest("vm1", "wire1", 1);
    let mut daemon = scene.start();
    let mut guest = BareGuest::connect(&scene.socket("vm1"), LENGTH);
    let mut bases = [0; 2];
    for round in 0..20 {
        let frontend = guest.frontend().clone();
        let load = guest.load(bases);
        std::thread::sleep(Duration::from_millis(50));
        for index in [FROM, TO] {
            bases[index] = frontend.get_vring_base(index).expect("GET_VRING_BASE") as u16;
        }
        // The guest still posts: nobody is to touch that.
        std::thread::sleep(Duration::from_millis(10));
        guest = load.end();
        for index in [FROM, TO] {
            assert_eq!(bases[index], guest.rings[index].used(), "round {round}, ring {index}");
        }
    }
    assert_consistent(&mut guest, "vm1");
    assert!(daemon.stop(STOP).success());
    assert_sent_once(&sent, guest.rings[FROM].total);
    assert_eq!(daemon.complaints(), [""; 0]);
}

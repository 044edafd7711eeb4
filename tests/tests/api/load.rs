//! A thousand requests a second, good ones and bad ones, beside small packets between two guests.

use std::time::Duration;

use tests::daemon::{self, Daemon};
use tests::pktgen::Pktgen;
use tests::requests::{self, Tally};
use tests::scene::Scene;
use tests::wait;

const RATE: u32 = 1000;
/// What is allocated once, is so after as many requests.
const WARM_UP: u32 = 2 * RATE;
const REQUESTS: u32 = 10 * RATE;
/// Packets a second of each guest.
const PACKETS: &str = "50kpps";
/// Memory of the daemon's own, in KiB, may grow by this much: what a request leaves behind would have to be under 53
/// bytes not to be seen. (It goes up and down by buffers of requests that are served at the same time.)
const RESIDENT_SLACK: u64 = 512;
/// Threads that ask the datapath come when they are needed, and go ten seconds later.
const THREADS_SLACK: usize = 4;

#[derive(Debug)]
struct Level {
    fds: usize,
    threads: usize,
    resident: u64,
}

/// As soon as nobody is connected any more.
fn level(daemon: &Daemon, idle_fds: usize) -> Level {
    let child = &daemon.child;
    wait::until("connections are closed", 10, || {
        let fds = child.fds();
        if fds <= idle_fds { Ok(()) } else { Err(format!("{fds} descriptors, not {idle_fds}")) }
    });
    Level { fds: child.fds(), threads: child.threads(), resident: child.anonymous_kib() }
}

fn make(scene: &Scene, total: u32) -> Tally {
    let tally = requests::make(&scene.path("api.sock"), total, RATE, ("vm1", "vm2"));
    println!("{:.0} a second, slowest {:?}, {:?}", tally.rate(), tally.slowest, tally.sent);
    let wrong = &tally.wrong;
    assert!(
        wrong.is_empty(),
        "{} of {}, such as {:#?}",
        wrong.len(),
        tally.total(),
        &wrong[..wrong.len().min(5)]
    );
    tally
}

#[test]
fn a_thousand_requests_a_second_cost_no_packet_and_leave_nothing() {
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    let mut daemon = scene.start();
    let [first, second] = ["vm1", "vm2"].map(|name| scene.socket(name));
    let traffic = ["--mode", "both", "--rate", PACKETS, "--seconds", "0", "--check", "--checksum"];
    let mut pktgen = Pktgen::run(&first, Some(&second), &scene.path("pktgen.log"), &traffic);
    daemon.wait_count("vm1", "rx", 20, 10_000, |port| port.rx_packets);
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        daemon.child.fds()
    });
    let idle_fds = looks.min().expect("twenty looks");

    make(&scene, WARM_UP);
    let before = (level(&daemon, idle_fds), daemon.port("vm1").rx_packets);
    let tally = make(&scene, REQUESTS);
    let after = (level(&daemon, idle_fds), daemon.port("vm1").rx_packets);
    println!("before {before:?}, after {after:?}");
    assert_eq!(tally.total(), u64::from(REQUESTS));
    assert!(after.1 > before.1, "packets flow");
    assert_eq!(after.0.fds, before.0.fds);
    assert!(after.0.threads <= before.0.threads + THREADS_SLACK);
    assert!(after.0.resident <= before.0.resident + RESIDENT_SLACK);

    assert!(pktgen.ended().is_none());
    pktgen.stop();
    for guest in pktgen.finish(Duration::from_secs(30)) {
        assert_eq!((guest.lost, guest.pending, guest.received > 0), (0, 0, true), "{guest:?}");
        assert_eq!((guest.reordered, guest.duplicates, guest.corrupt), (0, 0, 0), "{guest:?}");
    }
    let [vm1, vm2] = ["vm1", "vm2"].map(|name| daemon.port(name));
    for (from, to) in [(&vm1, &vm2), (&vm2, &vm1)] {
        assert_eq!(
            (from.rx_packets, from.held, daemon::drops(from)),
            (to.tx_packets, 0, 0),
            "{}",
            daemon.summary()
        );
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

//! Guests that die in the middle of their traffic, one after the other, leave nothing
//! behind, and the next one is served.

use std::time::Duration;

use tests::daemon::{self, Daemon};
use tests::scene::Scene;
use tests::testpmd::{Setup, Testpmd, virtio_user};
use tests::wait;

/// Guests, one after the other. `RINGWIRE_CHURN_ROUNDS` may ask for more: what leaks less than some 15 KiB each is only
/// seen among hundreds.
const ROUNDS: usize = 50;
/// From this round on nothing may grow any more.
const LEVEL: usize = 20;
/// Packets each way that a guest must see before it is killed.
const ENOUGH: u64 = 10_000;
/// Resident memory may go up and down by this much, in KiB.
const RESIDENT_SLACK: u64 = 512;
/// Idle threads of the API's status pool come and go.
const THREADS_SLACK: usize = 4;

/// What a guest's death may leave behind.
#[derive(Clone, Copy, Debug)]
struct Sample {
    fds: usize,
    threads: usize,
    resident: u64,
}

fn sample(daemon: &Daemon, idle_fds: usize) -> Sample {
    let child = &daemon.child;
    Sample { fds: fds(daemon, idle_fds), threads: child.threads(), resident: child.resident_kib() }
}

/// Open file descriptors, once the connection that was asked over last is closed.
fn fds(daemon: &Daemon, wanted: usize) -> usize {
    let settled = || (daemon.child.fds() == wanted).then_some(wanted);
    wait::poll(Duration::from_secs(1), settled).unwrap_or_else(|| daemon.child.fds())
}

/// Open file descriptors while nobody is connected.
fn idle_fds(daemon: &Daemon) -> usize {
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        daemon.child.fds()
    });
    looks.min().expect("twenty looks")
}

fn start(scene: &Scene, round: usize) -> Testpmd {
    let mut setup = Setup::small([virtio_user(&scene.socket("vm1"), 2, 256)]);
    setup.queues = 2;
    // What comes from the NIC goes back to it.
    setup.more = vec!["--port-topology=loop".to_owned()];
    let mut guest = Testpmd::start(&format!("guest of round {round}"), &setup, &scene.path("guest.log"));
    guest.forward();
    guest
}

fn rounds() -> usize {
    std::env::var("RINGWIRE_CHURN_ROUNDS").map_or(ROUNDS, |count| count.parse().expect("a number"))
}

#[test]
fn guests_killed_in_their_traffic() {
    let rounds = rounds();
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0,size=256,copy=1", 2, "");
    scene.guest("vm1", "wire0", 2);
    let mut daemon = scene.start();
    let mut random = fastrand::Rng::with_seed(4);
    let mut samples = Vec::new();
    let idle_fds = idle_fds(&daemon);
    for round in 0..rounds {
        let before = daemon.port("vm1");
        let mut guest = start(&scene, round);
        wait::until(&format!("traffic both ways in round {round}"), 10, || {
            let now = daemon.port("vm1");
            let (rx, tx) = (now.rx_packets - before.rx_packets, now.tx_packets - before.tx_packets);
            if rx >= ENOUGH && tx >= ENOUGH { Ok(()) } else { Err(format!("rx {rx} tx {tx}")) }
        });
        std::thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        guest.child.kill();
        daemon.wait_connected("vm1", false);
        samples.push(sample(&daemon, idle_fds));
        if round % 20 == 0 || round + 1 == rounds {
            println!("round {round}: {:?}", samples[round]);
        }
    }
    let vm1 = daemon.port("vm1");
    assert_eq!(daemon::guest(&vm1).connections, rounds as u64);
    daemon::assert_balanced(&daemon, "vm1", "wire0");
    assert_level(&samples[LEVEL..]);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    for line in daemon.complaints() {
        assert!(
            line.contains(" WARN ") && line.contains("vm1"),
            "names no guest, or is worse than a warning: {line}"
        );
        let cause = line.rsplit(": ").next().unwrap_or_default();
        assert!(!cause.trim().is_empty(), "names no cause: {line}");
    }
}

fn assert_level(samples: &[Sample]) {
    let spread = |value: fn(&Sample) -> u64| {
        let values = || samples.iter().map(value);
        values().max().unwrap_or(0) - values().min().unwrap_or(0)
    };
    assert_eq!(spread(|sample| sample.fds as u64), 0, "file descriptors: {samples:?}");
    assert!(spread(|sample| sample.threads as u64) <= THREADS_SLACK as u64, "threads: {samples:?}");
    assert!(spread(|sample| sample.resident) <= RESIDENT_SLACK, "resident memory: {samples:?}");
}

/// Killed at any moment of its start: half a handshake, half a memory table, rings that are not enabled.
#[test]
fn guests_killed_while_they_connect() {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0", 2, "");
    scene.guest("vm1", "wire0", 2);
    let daemon = scene.start();
    let mut random = fastrand::Rng::with_seed(5);
    let idle_fds = idle_fds(&daemon);
    for round in 0..30 {
        let setup = Setup { queues: 2, ..Setup::small([virtio_user(&scene.socket("vm1"), 2, 256)]) };
        let mut guest = Testpmd::spawn(&format!("guest of round {round}"), &setup, &scene.path("guest.log"));
        // From before it connects to just after it is complete.
        std::thread::sleep(Duration::from_millis(random.u64(50..400)));
        guest.child.kill();
        daemon.wait_connected("vm1", false);
        assert_eq!(fds(&daemon, idle_fds), idle_fds, "file descriptors after round {round}");
    }
    let _guest = start(&scene, 30);
    daemon.wait_count("vm1", "tx", 10, ENOUGH, |port| port.tx_packets);
    daemon.wait_count("vm1", "rx", 10, ENOUGH, |port| port.rx_packets);
}

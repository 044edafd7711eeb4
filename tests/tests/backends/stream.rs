//! A TCP stream of a Linux guest survives whatever its backend does.

use std::process::Command;
use std::time::{Duration, Instant};

use snapshot::Port;
use tests::balance::{self, assert_adds_up, assert_grew, assert_lost_by_change};
use tests::child::Child;
use tests::daemon::{self, Daemon};
use tests::lan::{Lan, nic_device};
use tests::linux_guest::{LinuxGuest, find_mark, mark, skipped};
use tests::scene::Scene;

use crate::owner_with;

const OURS: &str = "10.79.1.1";
const THEIRS: &str = "10.79.1.2";
const BACKENDS: [&str; 4] = ["wire0", "tap0", "raw0", "none"];
/// How long a backend is left alone, in milliseconds. TCP of the guest may wait as long again after `none`.
const STAY: std::ops::Range<u64> = 150..450;

/// Run in the guest. It streams for longer than the switches take.
const SCRIPT: &str = r#"
ip addr add THEIRS/24 dev eth0
ip link set eth0 up
ping -c 3 -i 0.2 -W 2 OURS >/run/out || { cat /run/out; exit 10; }
mark "streams now"
iperf3 -c OURS -t SECONDS >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "out $(awk '/receiver/ { print $(NF-2) * ($(NF-1) ~ /^G/ ? 1000 : $(NF-1) ~ /^K/ ? 0.001 : 1) }' /run/out)"
ping -c 3 -i 0.2 -W 2 OURS >/run/out || { cat /run/out; exit 12; }
mark "ping $(grep -c 'bytes from' /run/out)"
"#;

/// Where the guest is connected to next, and until when after the first switch.
fn plan(seed: u64, switches: usize) -> Vec<(&'static str, Duration)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut backend, mut until) = ("wire0", Duration::ZERO);
    let mut step = || {
        let others: Vec<&str> = BACKENDS.into_iter().filter(|other| *other != backend).collect();
        backend = others[random.usize(..others.len())];
        until += Duration::from_millis(random.u64(STAY));
        (backend, until)
    };
    (0..switches).map(|_| step()).collect()
}

fn a_stream_survives(packed: bool, switches: usize) {
    if skipped() {
        return;
    }
    let seed = std::env::var("RINGWIRE_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("RINGWIRE_SEED={seed}");
    let plan = plan(seed, switches);
    let lan = Lan::enter(&format!("{OURS}/24"));
    let scene = scene(&lan);
    let mut daemon = scene.start();
    let mut iperf = Command::new("iperf3");
    iperf.args(["-s", "-1", "-B", OURS]);
    let mut server = Child::start("iperf3", iperf, &scene.path("iperf.log"));
    let seconds = plan[switches - 1].1.as_secs() + 6;
    let mut guest = boot(&scene, packed, seconds);
    guest.wait_mark("streams", 60);
    daemon.wait_count("vm1", "rx", 60, 1000, |port| port.rx_packets);

    let visits = switch_as(&plan, &daemon);
    assert!(find_mark(&guest.said(), "out").is_none(), "the stream has ended before the last switch");
    daemon.set_backend("vm1", "wire0");
    let said = guest.end().unwrap_or_else(|why| panic!("{why}\n{}", daemon.summary()));
    assert!(server.wait(Duration::from_secs(10)).expect("the server's end").success());
    daemon.wait_connected("vm1", false);

    // What is still at a port that was left alone is counted when the port is somebody's again.
    BACKENDS.into_iter().for_each(|backend| drop(daemon.set_backend("vm1", backend)));
    let ports = daemon.status().ports;
    println!(
        "packed={packed}: {switches} switches, {visits:?}; TCP {} Mb/s, ping {} of 3 afterwards{}",
        mark(&said, "out"),
        mark(&said, "ping"),
        balance::table(&ports)
    );
    assert_adds_up(&ports);
    assert_lost_by_change(&ports);
    assert_all_carried(&ports);
    assert!(mark(&said, "out") > 1.0 && mark(&said, "ping") == 3.0);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

fn scene(lan: &Lan) -> Scene {
    lan.veth("wire0");
    lan.veth("raw0");
    lan.tap("tap0", &[]);
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.socket_port("raw", "raw0", "raw0", "");
    scene.guest("vm1", "wire0", 1);
    scene
}

fn boot(scene: &Scene, packed: bool, seconds: u64) -> LinuxGuest {
    let script =
        SCRIPT.replace("THEIRS", THEIRS).replace("OURS", OURS).replace("SECONDS", &seconds.to_string());
    let options = if packed { "packed=on" } else { "packed=off" };
    let limit = (seconds + 60).to_string();
    LinuxGuest::start(scene, "vm1", &script, &["--timeout", &limit, "--extra-device-opts", options])
}

/// Does it, looking at all counters after each switch. How often the guest was connected to each.
fn switch_as(plan: &[(&str, Duration)], daemon: &Daemon) -> Vec<(&'static str, usize)> {
    let start = Instant::now();
    let mut before = daemon.status().ports;
    for (backend, until) in plan {
        let output = daemon.client(&["backend", "set", "vm1", backend]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ports: Vec<Port> =
            serde_json::from_str(&daemon.get("/v1/ports").expect("all ports")).expect("ports");
        let vm1 = ports.iter().find(|port| port.name == "vm1").expect("vm1");
        let guest = daemon::guest(vm1);
        assert_eq!(guest.backend, *backend);
        for queue in &guest.queues {
            assert_eq!(queue.owner, owner_with(backend), "{queue:?}");
            assert_eq!(queue.violation, None);
        }
        assert_grew(&before, &ports);
        assert_lost_by_change(&ports);
        if *backend == "none" {
            // Nothing moves now.
            assert_adds_up(&ports);
        }
        before = ports;
        std::thread::sleep(until.saturating_sub(start.elapsed()));
    }
    BACKENDS.map(|name| (name, plan.iter().filter(|(backend, _)| *backend == name).count())).to_vec()
}

/// The stream went through each backend, both ways.
fn assert_all_carried(ports: &[Port]) {
    for port in ports {
        assert!(port.rx_packets > 100 && port.tx_packets > 100, "{}: {}", port.name, balance::table(ports));
    }
}

#[test]
fn linux_guest_streams_through_fifty_switches() {
    a_stream_survives(false, 50);
}

#[test]
fn linux_guest_streams_through_switches_packed() {
    a_stream_survives(true, 20);
}

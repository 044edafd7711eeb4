//! Two guests that are each other's backend.

use std::time::Duration;

use tests::daemon;
use tests::lan::Lan;
use tests::linux_guest::{LinuxGuest, mark, skipped};
use tests::pktgen::Pktgen;
use tests::scene::Scene;

/// Two guests, the first of which has the other as backend.
fn pair() -> Scene {
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    scene
}

/// Frames of all lengths both ways, as fast as it goes: none is lost, each byte is looked at.
fn exchange(more: &[&str]) {
    let _lan = Lan::enter("10.79.7.1/24");
    let scene = pair();
    let mut daemon = scene.start();
    let [first, second] = ["vm1", "vm2"].map(|name| scene.socket(name));
    let arguments =
        ["--mode", "both", "--count", "200000", "--checksum", "--check", "--size", "60,64,594,1518"];
    let pktgen = Pktgen::run(&first, Some(&second), &scene.path("pktgen.log"), &[&arguments, more].concat());
    let seen = pktgen.finish(Duration::from_secs(60));
    println!("{more:?}: {:?}\n{:?}", seen[0], seen[1]);
    for guest in &seen {
        assert_eq!(
            (guest.sent, guest.received, guest.lost, guest.pending),
            (200_000, 200_000, 0, 0),
            "{guest:?}"
        );
        assert_eq!(
            (guest.reordered, guest.duplicates, guest.corrupt, guest.foreign),
            (0, 0, 0, 0),
            "{guest:?}"
        );
    }
    let [vm1, vm2] = ["vm1", "vm2"].map(|name| daemon.port(name));
    for (from, to) in [(&vm1, &vm2), (&vm2, &vm1)] {
        assert_eq!((from.rx_packets, from.rx_bytes), (to.tx_packets, to.tx_bytes), "{}", daemon.summary());
        assert_eq!((daemon::drops(from), from.held), (0, 0), "{}", daemon.summary());
        assert_eq!(daemon::guest(from).backend, to.name);
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn guests_exchange_frames_split() {
    exchange(&["--packed", "off"]);
}

#[test]
fn guests_exchange_frames_packed() {
    exchange(&["--packed", "on"]);
}

#[test]
fn guests_exchange_frames_split_single_buffers_event_idx_indirect() {
    exchange(&["--packed", "off", "--mergeable", "off", "--event-idx", "on", "--indirect", "on"]);
}

/// The one that is pinged answers until the other has gone.
const PINGED: &str = r#"
ip addr add 10.79.7.11/24 dev eth0
ip link set eth0 up
iperf3 -s -1 >/run/out 2>&1
mark "served $?"
sleep 2
"#;
const PINGS: &str = r#"
ip addr add 10.79.7.12/24 dev eth0
ip link set eth0 up
n=0
until ping -c 1 -W 1 10.79.7.11 >/dev/null; do n=$((n + 1)); [ $n -lt 30 ] || exit 10; sleep 0.5; done
ping -c 10 -i 0.2 -W 2 10.79.7.11 >/run/out
mark "ping $(grep -c 'bytes from' /run/out)"
iperf3 -c 10.79.7.11 -t 2 >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "out $(awk '/receiver/ { print $(NF-2) * ($(NF-1) ~ /^G/ ? 1000 : $(NF-1) ~ /^K/ ? 0.001 : 1) }' /run/out)"
"#;

#[test]
fn linux_guests_ping_and_stream_to_each_other() {
    if skipped() {
        return;
    }
    let _lan = Lan::enter("10.79.7.1/24");
    let scene = pair();
    let mut daemon = scene.start();
    let guests =
        [("vm1", PINGED, "packed=off"), ("vm2", PINGS, "packed=on")].map(|(name, script, options)| {
            let mac = format!("52:54:00:00:01:0{}", &name[2..]);
            let more = ["--memory", "128", "--extra-device-opts", options, "--mac", &mac];
            LinuxGuest::start(&scene, name, script, &more)
        });
    let ends = guests.map(|guest| guest.end().inspect_err(|why| eprintln!("{why}")));
    let [Ok(pinged), Ok(pings)] = ends else { panic!("a guest has failed; {}", daemon.summary()) };
    println!("ping {} of 10, TCP {} Mb/s; {}", mark(&pings, "ping"), mark(&pings, "out"), daemon.summary());
    assert_eq!((mark(&pinged, "served"), mark(&pings, "ping")), (0.0, 10.0));
    assert!(mark(&pings, "out") > 1.0);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

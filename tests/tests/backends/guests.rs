//! Two guests that are each other's backend.

use std::time::Duration;

use tests::lan::Lan;
use tests::linux_guest::{LinuxGuest, mark, skipped};
use tests::pair;

fn exchange(more: &[&str]) {
    let _lan = Lan::enter("10.79.7.1/24");
    let scene = pair::joined();
    let mut daemon = scene.start();
    println!("{more:?}");
    pair::exchange(&scene, &daemon, more, |_| {});
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
sleep 1
"#;
const PINGS: &str = r#"
ip addr add 10.79.7.12/24 dev eth0
ip link set eth0 up
n=0
until ping -c 1 -W 1 10.79.7.11 >/dev/null; do n=$((n + 1)); [ $n -lt 30 ] || exit 10; sleep 0.5; done
ping -c 10 -i 0.1 -W 2 10.79.7.11 >/run/out
mark "ping $(grep -c 'bytes from' /run/out)"
iperf3 -c 10.79.7.11 -t 1 >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "out $(awk '/receiver/ { print $(NF-2) * ($(NF-1) ~ /^G/ ? 1000 : $(NF-1) ~ /^K/ ? 0.001 : 1) }' /run/out)"
"#;

#[test]
fn linux_guests_ping_and_stream_to_each_other() {
    if skipped() {
        return;
    }
    let _lan = Lan::enter("10.79.7.1/24");
    let scene = pair::joined();
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

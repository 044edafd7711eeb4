//! A real Linux guest in QEMU brings its interface up, pings and streams both ways
//! through the datapath; and ringwired, inside a VM, drives an emulated e1000e through vfio-pci.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::daemon::{self, assert_balanced};
use tests::namespace::Namespace;
use tests::scene::Scene;

const OURS: &str = "10.79.0.1";
const GUEST: &str = "10.79.0.2";

/// Run in the guest: its marks are the lines the test reads.
const SCRIPT: &str = r#"
ip addr add GUEST/24 dev eth0
ip link set eth0 up
mark "queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
ping -c 10 -i 0.2 -W 2 OURS >/run/out || { cat /run/out; exit 10; }
mark "ping $(grep -c 'bytes from' /run/out)"
rate() { awk '/receiver/ { print $(NF-2) * ($(NF-1) ~ /^G/ ? 1000 : $(NF-1) ~ /^K/ ? 0.001 : 1) }' /run/out; }
iperf3 -c OURS -t 3 -P STREAMS >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "out $(rate | tail -n 1)"
iperf3 -c OURS -t 3 -P STREAMS -R >/run/out 2>&1 || { cat /run/out; exit 12; }
mark "in $(rate | tail -n 1)"
"#;

fn rig(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rig").join(name)
}

/// Why there can be no guest here; nothing if there can.
fn missing() -> Option<String> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rig");
    let made = Command::new(rig("make-guest")).arg(cache).output().expect("bash");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    (!made.status.success()).then(|| said.lines().last().unwrap_or("make-guest failed").to_owned())
}

fn skipped() -> bool {
    let why = missing();
    if let Some(why) = &why {
        assert!(std::env::var_os("RINGWIRE_REQUIRE_VM").is_none(), "there can be no guest: {why}");
        println!("skipped: no QEMU guest can be had here: {why}");
    }
    why.is_some()
}

/// One guest: `options` of its device, e.g. `mrg_rxbuf=off`.
fn guest(queues: usize, mergeable: bool, options: &str) {
    if skipped() {
        return;
    }
    let namespace = Namespace::new(&format!("{OURS}/24"));
    let mut scene = Scene::new();
    let near = &namespace.near;
    let device =
        format!("net_af_packet0,iface={near},framesz=2048,blocksz=4096,framecnt=512,qpairs={queues}");
    scene.nic("wire0", &device, queues, "");
    scene.guest("vm1", "wire0", queues);
    let mut daemon = scene.start();
    let _server = namespace.spawn(&["iperf3", "-s", "-B", OURS]);
    let seen = scene.path("seen.txt");
    let listen = format!("exec timeout 100 tcpdump -l -n -i {} icmp >{}", namespace.far, seen.display());
    let _tcpdump = namespace.spawn(&["sh", "-c", &listen]);
    let script = scene.path("script");
    // Of so many, each queue gets some.
    let streams = if queues > 1 { 8 * queues } else { 1 };
    let text = SCRIPT.replace("GUEST", GUEST).replace("OURS", OURS).replace("STREAMS", &streams.to_string());
    std::fs::write(&script, text).expect("a script");

    let console = scene.path("console");
    let mut command = Command::new(rig("run-guest"));
    command.arg("--socket").arg(scene.socket("vm1")).arg("--script").arg(&script);
    command.arg("--console").arg(&console).args(["--timeout", "90", "--queues", &queues.to_string()]);
    command.args(["--mrg", if mergeable { "on" } else { "off" }]);
    if !options.is_empty() {
        command.args(["--extra-device-opts", options]);
    }
    let output = command.output().expect("bash");
    let said =
        std::fs::read(&console).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let rig_said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {rig_said}\n{said}\n{}", output.status, daemon.summary());
    let mark = |name: &str| -> f64 {
        let marks = said.lines().filter_map(|line| line.trim().strip_prefix("RW-GUEST: "));
        let value = marks.filter_map(|mark| mark.split_once(' ')).find(|(key, _)| *key == name);
        value.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no mark {name} in {said}"))
    };
    println!(
        "queues {queues} mergeable {mergeable} {options}: ping {} of 10, TCP out {} Mb/s, in {} Mb/s; {}",
        mark("ping"),
        mark("out"),
        mark("in"),
        daemon.summary()
    );
    assert_eq!(mark("queues") as usize, queues);
    assert_eq!(mark("ping"), 10.0);
    assert!(mark("out") > 1.0 && mark("in") > 1.0);

    daemon.wait_connected("vm1", false);
    assert_balanced(&daemon, "vm1", "wire0");
    let vm1 = daemon.port("vm1");
    for queue in &daemon::guest(&vm1).queues {
        assert!(queue.used > 0, "no traffic through {queue:?}");
    }
    // The API forgets what a frontend negotiated when it goes.
    let log = daemon.child.log();
    let negotiated = log.lines().find(|line| line.contains("negotiated ")).expect("what was negotiated");
    let has = |feature| negotiated.contains(feature);
    println!("{negotiated}");
    assert_eq!(has("VIRTIO_NET_F_MRG_RXBUF"), mergeable);
    assert_eq!(has("VIRTIO_F_RING_PACKED"), options.contains("packed=on"));
    assert_eq!(has("VIRTIO_NET_F_MQ"), queues > 1);
    assert_eq!(has("VIRTIO_RING_F_INDIRECT_DESC"), !options.contains("indirect_desc=off"));
    assert_eq!(has("VIRTIO_RING_F_EVENT_IDX"), !options.contains("event_idx=off"));
    assert_eq!(has("VIRTIO_F_VERSION_1"), !options.contains("disable-modern=on"));
    let dump = std::fs::read_to_string(&seen).expect("tcpdump's lines");
    for kind in ["echo request", "echo reply"] {
        let count = dump.lines().filter(|line| line.contains(kind)).count();
        assert!(count >= 10, "tcpdump saw {count} times {kind}: {dump}");
    }
    // What the kernel's packet sockets lost on the way is not ringwired's, and none of it is the guest's.
    assert_eq!(namespace.count("rx_packets"), daemon.port("wire0").tx_packets);
    assert_eq!(vm1.rx_packets, daemon.port("wire0").tx_packets);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    let complaints = daemon.complaints();
    assert!(complaints.iter().all(|line| line.contains(" WARN ") && line.contains("vm1")), "{complaints:?}");
}

#[test]
fn linux_guest_mergeable_1() {
    guest(1, true, "");
}

#[test]
fn linux_guest_mergeable_2() {
    guest(2, true, "");
}

#[test]
fn linux_guest_single_1() {
    guest(1, false, "");
}

#[test]
fn linux_guest_single_2() {
    guest(2, false, "");
}

/// Neither indirect descriptors nor event indexes: chains, and flags.
#[test]
fn linux_guest_plain_ring() {
    guest(1, false, "indirect_desc=off,event_idx=off");
}

#[test]
fn linux_guest_packed_mergeable_2() {
    guest(2, true, "packed=on");
}

#[test]
fn linux_guest_packed_single_1() {
    guest(1, false, "packed=on,event_idx=off");
}

#[test]
fn linux_guest_packed_plain_ring() {
    guest(1, true, "packed=on,indirect_desc=off,event_idx=off");
}

/// A driver from before virtio 1.0, whose header has 10 bytes.
#[test]
fn linux_guest_legacy() {
    guest(1, false, "disable-modern=on,disable-legacy=off");
}

#[test]
fn linux_guest_side_e1000e_through_vfio() {
    if skipped() {
        return;
    }
    let mut command = Command::new(rig("run-e1000e"));
    let output = command.args(["ringwired", "ringwire"].map(daemon::program)).output().expect("bash");
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", said(&output.stdout));
    assert!(output.status.success(), "{:?}: {}", output.status, said(&output.stderr));
}

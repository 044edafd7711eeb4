//! A real Linux guest in QEMU brings its interface up, pings and streams both ways
//! through the datapath; and ringwired, inside a VM, drives an emulated e1000e through vfio-pci.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::daemon::{self, Daemon, assert_balanced};
use tests::linux_guest::{LinuxGuest, mark, rig, skipped};
use tests::namespace::Namespace;
use tests::scene::Scene;
use tests::wait;

const OURS: &str = "10.79.0.1";
const THEIRS: &str = "10.79.0.2";

/// Run in the guest: its marks are the lines the test reads.
const SCRIPT: &str = r#"
ip addr add THEIRS/24 dev eth0
ip link set eth0 up
mark "queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
ping -c 10 -i 0.1 -W 2 OURS >/run/out || { cat /run/out; exit 10; }
mark "ping $(grep -c 'bytes from' /run/out)"
rate() { awk '/receiver/ { print $(NF-2) * ($(NF-1) ~ /^G/ ? 1000 : $(NF-1) ~ /^K/ ? 0.001 : 1) }' /run/out; }
iperf3 -c OURS -t 1 -P STREAMS >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "out $(rate | tail -n 1)"
iperf3 -c OURS -t 1 -P STREAMS -R >/run/out 2>&1 || { cat /run/out; exit 12; }
mark "in $(rate | tail -n 1)"
"#;

/// A guest's device.
#[derive(Clone, Copy)]
struct Guest {
    queues: usize,
    mergeable: bool,
    packed: bool,
    event_idx: bool,
    indirect: bool,
    /// A driver from before virtio 1.0, whose header has 10 bytes.
    legacy: bool,
}

/// One guest, from its boot to its end.
fn run(guest: Guest) {
    if skipped() {
        return;
    }
    let queues = guest.queues;
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

    let said = guest.boot(&scene, &daemon);
    let [ping, out, back] = ["ping", "out", "in"].map(|name| mark(&said, name));
    daemon.wait_connected("vm1", false);
    // The API forgets what a frontend negotiated when it goes.
    let log = daemon.child.log();
    let negotiated = log.lines().find_map(|line| line.split_once("negotiated ")).expect("negotiation").1;
    let vm1 = daemon.port("vm1");
    println!(
        "queues={queues},mrg_rxbuf={},{}: ping {ping} of 10, TCP out {out} Mb/s, in {back} Mb/s; \
         frames out {}, in {}; negotiated {negotiated}",
        on(guest.mergeable),
        guest.options(),
        vm1.rx_packets,
        vm1.tx_packets
    );
    assert_eq!((mark(&said, "queues") as usize, ping), (queues, 10.0));
    assert!(out > 1.0 && back > 1.0);
    guest.assert_negotiated(negotiated);
    assert_pings_seen(&seen);
    assert_counters(&daemon, &namespace);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    let complaints = daemon.complaints();
    assert!(complaints.iter().all(|line| line.contains(" WARN ") && line.contains("vm1")), "{complaints:?}");
}

impl Guest {
    /// Boots it, runs the script in it until it is off, and gives what it said.
    fn boot(self, scene: &Scene, daemon: &Daemon) -> String {
        // Of so many, each queue gets some.
        let streams = if self.queues > 1 { 8 * self.queues } else { 1 };
        let text = SCRIPT.replace("THEIRS", THEIRS).replace("OURS", OURS);
        let text = text.replace("STREAMS", &streams.to_string());
        let (queues, options) = (self.queues.to_string(), self.options());
        let more = ["--timeout", "90", "--queues", &queues, "--mrg", on(self.mergeable)];
        let more = [&more[..], &["--extra-device-opts", &options]].concat();
        let guest = LinuxGuest::start(scene, "vm1", &text, &more);
        guest.end().unwrap_or_else(|why| panic!("{why}\n{}", daemon.summary()))
    }

    /// What is said of its device to QEMU.
    fn options(self) -> String {
        let [packed, event_idx, indirect] = [self.packed, self.event_idx, self.indirect].map(on);
        let options = format!("packed={packed},event_idx={event_idx},indirect_desc={indirect}");
        if self.legacy { options + ",disable-modern=on,disable-legacy=off" } else { options }
    }

    fn assert_negotiated(self, features: &str) {
        let has = |feature| features.contains(feature);
        assert_eq!(has("VIRTIO_NET_F_MRG_RXBUF"), self.mergeable);
        assert_eq!(has("VIRTIO_F_RING_PACKED"), self.packed);
        assert_eq!(has("VIRTIO_NET_F_MQ"), self.queues > 1);
        assert_eq!(has("VIRTIO_RING_F_INDIRECT_DESC"), self.indirect);
        assert_eq!(has("VIRTIO_RING_F_EVENT_IDX"), self.event_idx);
        assert_eq!(has("VIRTIO_F_VERSION_1"), !self.legacy);
    }
}

fn on(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}

fn assert_pings_seen(dump: &Path) {
    let dump = std::fs::read_to_string(dump).expect("tcpdump's lines");
    for kind in ["echo request", "echo reply"] {
        let count = dump.lines().filter(|line| line.contains(kind)).count();
        assert!(count >= 10, "tcpdump saw {count} times {kind}: {dump}");
    }
}

fn assert_counters(daemon: &Daemon, namespace: &Namespace) {
    assert_balanced(daemon, "vm1", "wire0");
    let (vm1, wire0) = (daemon.port("vm1"), daemon.port("wire0"));
    for queue in &daemon::guest(&vm1).queues {
        assert!(queue.used > 0, "no traffic through {queue:?}");
    }
    // What the kernel's packet sockets lost on the way is not ringwired's, and none of it is the guest's.
    assert_eq!(namespace.count("rx_packets"), wire0.tx_packets);
    assert_eq!(vm1.rx_packets, wire0.tx_packets);
}

/// Every ring a Linux driver can have. The other settings are spread over them: each meets each of every other.
macro_rules! rings {
    ($($name:ident: $packed:literal $event_idx:literal $indirect:literal, $mergeable:literal $queues:literal;)*) => {
        $(#[test]
        fn $name() {
            run(Guest {
                queues: $queues,
                mergeable: $mergeable,
                packed: $packed,
                event_idx: $event_idx,
                indirect: $indirect,
                legacy: false,
            });
        })*
    };
}

rings! {
    linux_guest_split_event_idx_indirect: false true true, true 1;
    linux_guest_split_event_idx_single_2: false true false, false 2;
    linux_guest_split_indirect_single_2: false false true, false 2;
    linux_guest_split_plain: false false false, true 1;
    linux_guest_packed_event_idx_indirect_2: true true true, true 2;
    linux_guest_packed_event_idx_single: true true false, false 1;
    linux_guest_packed_indirect_single: true false true, false 1;
    linux_guest_packed_plain_2: true false false, true 2;
}

#[test]
fn linux_guest_legacy() {
    run(Guest { queues: 1, mergeable: false, packed: false, event_idx: true, indirect: true, legacy: true });
}

/// Run in a guest whose QEMU is told things meanwhile; it then loses its driver, and gets it back.
const TOLD_SCRIPT: &str = r#"
up() { ip addr add THEIRS/24 dev eth0; ip link set eth0 up; }
pings() { ping -c 3 -i 0.2 -W 5 OURS >/run/out; mark "$1 $(grep -c 'bytes from' /run/out)"; }
up; pings before
mark "ready"
while [ ! -e /run/went ]; do ping -c 1 -W 1 GO >/run/out && touch /run/went; done
pings after
device=$(basename $(readlink -f /sys/class/net/eth0/device))
echo $device >/sys/bus/virtio/drivers/virtio_net/unbind
echo $device >/sys/bus/virtio/drivers/virtio_net/bind
sleep 1
up; pings rebound
"#;

/// QEMU announces its guest, stops it, and lets it go on; the guest resets its device. With QEMU 7.2 and 10, which tell
/// of the device status in different orders.
#[test]
fn linux_guest_is_announced_stopped_and_reset() {
    if skipped() {
        return;
    }
    const GO: &str = "10.79.0.3";
    let namespace = Namespace::new(&format!("{OURS}/24"));
    let mut scene = Scene::new();
    let near = &namespace.near;
    scene.nic("wire0", &format!("net_af_packet0,iface={near},framesz=2048,blocksz=4096,framecnt=512"), 1, "");
    scene.guest("vm1", "wire0", 1);
    let daemon = scene.start();
    let monitor = scene.path("monitor");
    let text = TOLD_SCRIPT.replace("THEIRS", THEIRS).replace("OURS", OURS).replace("GO", GO);
    let more = ["--timeout", "90", "--monitor", monitor.to_str().expect("letters")];
    let mut guest = LinuxGuest::start(&scene, "vm1", &text, &more);
    guest.wait_mark("ready", 60);

    let mut monitor = UnixStream::connect(&monitor).expect("QEMU's monitor");
    let mut tell = |line: &str| monitor.write_all(line.as_bytes()).expect("QEMU's monitor");
    let shown = || daemon::guest(&daemon.port("vm1")).clone();
    tell("announce_self\n");
    daemon.wait_count("vm1", "announced", 10, 1, |port| daemon::guest(port).announced);
    for running in [false, true, false, true] {
        tell(if running { "cont\n" } else { "stop\n" });
        wait::until(&format!("its rings run: {running}"), 10, || {
            let state = daemon.port("vm1").state;
            if (state == "up") == running { Ok(()) } else { Err(state) }
        });
    }
    // QEMU says that the driver is there after it has started the rings.
    wait::until("the status is whole again", 10, || {
        let status = shown().device_status;
        let whole = status == ["ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"];
        if whole { Ok(()) } else { Err(format!("{status:?}")) }
    });
    namespace.run(&["ip", "addr", "add", &format!("{GO}/24"), "dev", &namespace.far]);
    let said = guest.end().unwrap_or_else(|why| panic!("{why}\n{}", daemon.summary()));
    let pings = ["before", "after", "rebound"].map(|name| mark(&said, name));
    println!("pings {pings:?}, announced {}", shown().announced);
    assert_eq!(pings, [3.0; 3], "{said}");
    assert_balanced(&daemon, "vm1", "wire0");
    assert!(daemon.complaints().is_empty(), "{:?}", daemon.complaints());
}

/// Run in a guest with `host_mtu`.
const MTU_SCRIPT: &str = r#"
ip addr add THEIRS/24 dev eth0
ip link set eth0 up
mark "mtu $(cat /sys/class/net/eth0/mtu)"
ping -c 5 -i 0.2 -W 1 -s 1300 OURS >/run/out
mark "ping $(grep -c 'bytes from' /run/out)"
true
"#;

/// A guest that QEMU gives an MTU, on a nic of 1500: what it says, and the MTU that was shown meanwhile, if any.
fn with_host_mtu(mtu: u16) -> Option<(String, Option<u16>, Daemon, Scene)> {
    if skipped() {
        return None;
    }
    let namespace = Namespace::new(&format!("{OURS}/24"));
    let mut scene = Scene::new();
    let near = &namespace.near;
    scene.nic("wire0", &format!("net_af_packet0,iface={near},framesz=2048,blocksz=4096,framecnt=512"), 1, "");
    scene.guest("vm1", "wire0", 1);
    let daemon = scene.start();
    let script = MTU_SCRIPT.replace("THEIRS", THEIRS).replace("OURS", OURS);
    let options = format!("host_mtu={mtu}");
    let more = ["--timeout", "90", "--extra-device-opts", &options];
    let mut guest = LinuxGuest::start(&scene, "vm1", &script, &more);
    let mut shown = None;
    while guest.ended().is_none() {
        shown = shown.or(daemon::guest(&daemon.port("vm1")).frontend_mtu);
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = guest.end().unwrap_or_else(|why| panic!("{why}\n{}", daemon.summary()));
    Some((said, shown, daemon, scene))
}

#[test]
fn linux_guest_host_mtu_is_taken_and_shown() {
    let Some((said, shown, daemon, _scene)) = with_host_mtu(1400) else { return };
    assert_eq!((mark(&said, "mtu"), mark(&said, "ping"), shown), (1400.0, 5.0, Some(1400)));
    assert!(daemon.complaints().is_empty(), "{:?}", daemon.complaints());
}

/// QEMU has already told its guest of that MTU, and starts none of its rings.
#[test]
fn linux_guest_host_mtu_of_more_than_the_nic_takes_is_refused() {
    let Some((said, shown, daemon, _scene)) = with_host_mtu(9000) else { return };
    assert_eq!((mark(&said, "mtu"), mark(&said, "ping"), shown), (9000.0, 0.0, None));
    let complaints = daemon.complaints();
    let expected = "refused: an MTU of 9000 bytes is not from 68 to 1500";
    assert!(complaints.iter().any(|line| line.contains("vm1") && line.contains(expected)), "{complaints:?}");
}

fn e1000e(arguments: &[&str]) {
    if skipped() {
        return;
    }
    let mut command = Command::new(rig("run-e1000e"));
    command.args(arguments).args(["ringwired", "ringwire"].map(daemon::program));
    let output = command.output().expect("bash");
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", said(&output.stdout));
    assert!(output.status.success(), "{:?}: {}", output.status, said(&output.stderr));
}

#[test]
fn linux_guest_side_e1000e_through_vfio() {
    e1000e(&[]);
}

#[test]
fn linux_guest_side_e1000e_added_while_ringwired_runs() {
    e1000e(&["--live"]);
}

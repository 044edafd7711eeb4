//! Two Linux stacks, one behind a guest port, the other in a network behind each kind of port: iperf3 with TCP and UDP,
//! over IPv4 and IPv6, both ways; and a guest that changes its MTU and its offloads while it streams. Neither stack may
//! find a checksum or a header wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::balance::{assert_adds_up, assert_lost_by_change};
use tests::daemon::Daemon;
use tests::lan::Lan;
use tests::linux_guest::{boot, mark, marks, skipped};
use tests::namespace::Namespace;
use tests::scene::Scene;

use crate::stage::Backend;

const PEER: &str = "10.79.6.1";
const PEER6: &str = "fd79:6::1";
const GUEST: &str = "10.79.6.2";
const GUEST6: &str = "fd79:6::2";

/// What both scripts begin and end with: an interface, and counters of what was found wrong.
const FRAME: &str = r#"
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad # else it says ::1 until its address is its own
ip addr add GUEST/24 dev eth0
ip addr add GUEST6/64 dev eth0
ip link set eth0 up
until ping -c 1 -W 1 PEER >/dev/null && ping6 -c 1 -W 1 PEER6 >/dev/null; do sleep 0.2; done
errors() {
    awk '!($1 in names) { names[$1] = $0; next }
        { n = split(names[$1], name); for (i = 2; i <= n; i++) if (name[i] ~ /InCsumErrors|InHdrErrors/) sum += $i }
        END { print sum + 0 }' /proc/net/snmp
    awk '/InCsumErrors|InHdrErrors/ { sum += $2 } END { print sum + 0 }' /proc/net/snmp6
}
SCRIPT
mark "errors $(errors | awk '{ sum += $1 } END { print sum }')"
mark "datagrams $(awk '/^Udp: [0-9]/ { print $2 }' /proc/net/snmp)"
mark "datagrams6 $(awk '/^Udp6InDatagrams/ { print $2 }' /proc/net/snmp6)"
"#;

/// Each for a second both ways at once, with datagrams that fit a frame, and longer ones, which travel in fragments.
const STREAMS: &str = r#"
for to in PEER PEER6; do
    for how in "" "-u -b 30M -l 1400" "-u -b 30M -l 20000"; do
        timeout 60 iperf3 -f m -c $to -t 1 --bidir $how >/run/out 2>&1 || { cat /run/out; exit 11; }
        mark "stream $to ${how:-tcp}: $(awk '/receiver/ { print $7, $8, $11, $12 ";" }' /run/out | tr '\n' ' ')"
    done
done
"#;

/// A change counts if two megabytes more came through after it.
const CHANGES: &str = r#"
count() { cat /sys/class/net/eth0/statistics/$1; }
change() {
    "$@" 2>/run/said && said=done || said="refused: $(tail -n 1 /run/said)"
    from=$(count $way) n=0
    until [ $(($(count $way) - from)) -gt 2000000 ]; do
        n=$((n + 1)); [ $n -lt 150 ] || { mark "stuck after $*"; exit 20; }; sleep 0.1
    done
    mark "change $way $*: $said"
}
port=5200
for options in "" "-R"; do
    for to in PEER PEER6; do
        way=tx_bytes; [ -z "$options" ] || way=rx_bytes
        port=$((port + 1))
        timeout 60 iperf3 -c $to -p $port -t 50 $options >/run/out 2>&1 &
        change true
        for what in tx tso gso gro rx rx-gro-hw sg; do
            change ethtool -K eth0 $what off; change ethtool -K eth0 $what on
        done
        change ip link set eth0 mtu 1280; change ip link set eth0 mtu 1500
        kill $!; wait $! 2>/dev/null
    done
done
"#;

fn script(body: &str) -> String {
    let words = [("SCRIPT", body), ("GUEST6", GUEST6), ("PEER6", PEER6), ("GUEST", GUEST), ("PEER", PEER)];
    words.iter().fold(FRAME.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// A guest whose stack talks to another one's through `backend`.
struct Talk {
    daemon: Daemon,
    peer: Namespace,
    scene: Scene,
    /// The bridge between port and peer goes with it.
    _lan: Lan,
}

impl Talk {
    fn begin(backend: Backend) -> Talk {
        let lan = Lan::enter("10.79.6.254/24");
        let peer = Namespace::new(&format!("{PEER}/24"));
        lan.plug_in(&peer.near);
        peer.run(&["ethtool", "-K", &peer.far, "tx", "on", "tso", "on", "gso", "on", "gro", "on"]);
        let enable = format!("echo 0 >/proc/sys/net/ipv6/conf/{}/disable_ipv6", peer.far);
        peer.run(&["sh", "-c", &enable]);
        peer.run(&["ip", "addr", "add", &format!("{PEER6}/64"), "dev", &peer.far, "nodad"]);
        let mut scene = Scene::new();
        backend.add(&lan, &mut scene);
        scene.guest("vm1", backend.name(), 1);
        let daemon = scene.start();
        if backend == Backend::NetTap {
            lan.plug_in(backend.name());
        }
        Talk { daemon, peer, scene, _lan: lan }
    }

    /// Runs the script in the guest until its end: what it said.
    fn run(mut self, body: &str) -> String {
        // A server that a client has left is busy for a while: each stream that is cut off has one of its own.
        let _servers =
            [5201, 5202, 5203, 5204].map(|port| self.peer.spawn(&["iperf3", "-s", "-p", &port.to_string()]));
        let said = boot(&self.scene, "vm1", &script(body), &["--timeout", "150"]);
        self.daemon.wait_connected("vm1", false);
        let ports = self.daemon.status().ports;
        assert_adds_up(&ports);
        assert_lost_by_change(&ports);
        let (guest, peer) = (mark(&said, "errors"), errors(&self.peer));
        println!("wrong checksums and headers: {guest} in the guest, {peer:?} behind the port");
        assert!(guest == 0.0 && peer.is_empty(), "{guest}, {peer:?}\n{said}");
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        assert_eq!(self.daemon.complaints(), [""; 0]);
        said
    }
}

/// What the stack in `namespace` has found wrong, by nstat: checksums, IP headers.
fn errors(namespace: &Namespace) -> BTreeMap<String, u64> {
    let text = namespace.run(&["nstat", "-asz"]);
    let counts = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    let mut counts: BTreeMap<String, u64> = counts.collect();
    counts.retain(|name, _| name.ends_with("InCsumErrors") || name.ends_with("InHdrErrors"));
    for name in ["TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "IpInHdrErrors", "Ip6InHdrErrors"]
    {
        assert!(counts.contains_key(name), "nstat has no {name}: {text}");
    }
    counts.retain(|_, count| *count > 0);
    counts
}

fn streams(backend: Backend) {
    if skipped() {
        return;
    }
    let said = Talk::begin(backend).run(STREAMS);
    let streams = marks(&said, "stream");
    println!("{backend:?}\n{}", streams.join("\n"));
    assert_eq!(streams.len(), 6);
    assert!(streams.iter().all(|stream| stream.matches("bits/sec").count() == 2), "{streams:?}");
    assert!(["datagrams", "datagrams6"].iter().all(|name| mark(&said, name) > 100.0), "{said}");
}

/// Traffic goes on: the script waits for it after each change.
fn changes(backend: Backend) {
    if skipped() {
        return;
    }
    let said = Talk::begin(backend).run(CHANGES);
    let changes = marks(&said, "change");
    println!("{backend:?}\n{}", changes.join("\n"));
    assert_eq!(changes.len(), 4 * 17);
    let must = ["tx off", "tx on", "tso off", "tso on", "mtu 1280", "mtu 1500"];
    for what in must {
        let done = changes.iter().filter(|line| line.contains(&format!("{what}: done"))).count();
        assert_eq!(done, 4, "{what}");
    }
}

#[test]
fn linux_guest_iperf3_af_packet() {
    streams(Backend::AfPacket);
}

#[test]
fn linux_guest_iperf3_net_tap() {
    streams(Backend::NetTap);
}

#[test]
fn linux_guest_iperf3_tap() {
    streams(Backend::Tap);
}

#[test]
fn linux_guest_iperf3_raw() {
    streams(Backend::Raw);
}

#[test]
fn linux_guest_changes_offloads_af_packet() {
    changes(Backend::AfPacket);
}

#[test]
fn linux_guest_changes_offloads_tap() {
    changes(Backend::Tap);
}

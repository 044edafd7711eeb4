//! Segmentation and checksums that a Linux guest leaves to whoever is next, and what others leave to the guest: through
//! a tap or a raw socket they stay left, in frames far longer than the MTU; for a nic ringwire does what that does not do.
//!
//! The guest's peer is in a network behind the bridge. On the way to it the kernel completes what is still to be done,
//! so that the peer's tcpdump judges finished frames. What the peer sends is left to the guest as far as possible.

mod stage;

use std::path::Path;

use snapshot::Port;
use tests::daemon;
use tests::linux_guest::{mark, skipped};
use tests::namespace::{Namespace, run};

use stage::{Backend, Stage};

const PEER: &str = "10.79.6.1";
const GUEST: &str = "10.79.6.2";
/// Where the guest forwards to.
const THIRD: &str = "10.79.6.3";
/// Bytes of a stream, each way.
const STREAM: u64 = 16 << 20;
const MTU: u64 = 1500;
/// A finished frame with its Ethernet header.
const FINISHED: u64 = MTU + 14;
/// Frames are longer than this on average where segments are left to the next. (Up to 65 KB, but TCP starts slowly.)
const LONG: u64 = 5000;
/// Options of a guest that takes finished frames only.
const TAKES_NOTHING: &str = "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// Run in the guest. The pauses after marks are for the test, which looks at the counters then.
const SCRIPT: &str = r#"
ip addr add GUEST/24 dev eth0
ethtool -K eth0 gro off # frames are looked at as they come
ip link set eth0 up
ping -c 3 -i 0.2 -W 2 PEER >/run/out || { cat /run/out; exit 10; }
mark "ready now"
sleep 0.3
iperf3 -c PEER -n STREAM >/run/out 2>&1 || { cat /run/out; exit 11; }
mark "sent now"
echo root:x:0:0::/:/bin/sh >/etc/passwd # tcpdump asks who it is
tcpdump -n -i eth0 -Q in -B 32768 -Z root -w /run/in tcp 2>/run/said &
until grep -q 'listening on' /run/said; do sleep 0.1; done
iperf3 -c PEER -n STREAM -R >/run/out 2>&1 || { cat /run/out; exit 12; }
mark "received now"
sleep 0.5
kill -INT $! || { cat /run/said; exit 13; }
wait
mark "unseen $(awk '/dropped by kernel/ { print $1 }' /run/said)"
tcpdump -t -n -vv -Z root -r /run/in >/run/text 2>/dev/null
mark "right $(grep -c '(correct)' /run/text)"
mark "wrong $(grep -c 'incorrect\|bad cksum' /run/text)"
mark "longest $(awk '/^IP / && $NF + 0 > most { most = $NF + 0 } END { print most }' /run/text)"
mark "bad_sums $(awk '/^Tcp:/ { last = $NF } END { print last }' /proc/net/snmp)"
mark "errors $(cat /sys/class/net/eth0/statistics/rx_errors)"
"#;

/// Run in the guest that forwards, until it is called.
const FORWARDS: &str = r#"
ip addr add GUEST/24 dev eth0
ethtool -K eth0 gro off # frames go on as they come
echo 1 >/proc/sys/net/ipv4/ip_forward
for of in all eth0; do echo 0 >/proc/sys/net/ipv4/conf/$of/send_redirects; done
ip link set eth0 up
ping -c 3 -i 0.2 -W 2 PEER >/run/out || { cat /run/out; exit 10; }
mark "ready now"
nc -l -p 79 </dev/null >/dev/null
"#;

/// What tcpdump says of the frames from one address.
#[derive(Debug, Default)]
struct Verdict {
    /// With a checksum of TCP that is right.
    right: u64,
    /// With another one, or a wrong one of IP.
    wrong: u64,
    /// The longest, from its IP header on.
    longest: u64,
    /// All that TCP carried.
    payload: u64,
}

impl Verdict {
    fn of(file: &Path, source: &str) -> Verdict {
        let file = file.to_str().expect("a path");
        let text = run(&["tcpdump", "-t", "-n", "-vv", "-r", file]);
        let mut verdict = Verdict::default();
        // A frame has two lines: of IP, and of TCP.
        let mut lines = text.lines();
        while let (Some(ip), Some(tcp)) = (lines.next(), lines.next()) {
            assert!(ip.starts_with("IP ") && tcp.starts_with("    "), "{ip}\n{tcp}");
            if tcp.trim_start().starts_with(&format!("{source}.")) {
                verdict.add(ip, tcp);
            }
        }
        verdict
    }

    fn add(&mut self, ip: &str, tcp: &str) {
        let right = tcp.contains(" (correct), ") && !ip.contains("bad cksum");
        *(if right { &mut self.right } else { &mut self.wrong }) += 1;
        self.longest = self.longest.max(length(ip));
        self.payload += length(tcp);
    }

    /// The stream arrived in finished frames. (iperf3 ends when all is sent. What is on the way then may stay there.)
    fn assert_finished(&self) {
        assert!(self.wrong == 0 && self.longest <= MTU && self.payload > STREAM / 2, "{self:?}");
    }
}

/// What tcpdump says after `length`, which comes last but for what is in the packet.
fn length(line: &str) -> u64 {
    let (_, after) = line.split_once(", length ").unwrap_or_else(|| panic!("no length: {line}"));
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().unwrap_or_else(|_| panic!("no length: {line}"))
}

/// Bytes by packets between two looks at a port.
struct Average<'a>(&'a Port, &'a Port);

impl<'a> Average<'a> {
    fn of(name: &str, before: &'a [Port], after: &'a [Port]) -> Average<'a> {
        let [before, after] =
            [before, after].map(|ports| ports.iter().find(|port| port.name == name).expect("a port"));
        Average(before, after)
    }

    fn grew(&self, count: impl Fn(&Port) -> u64) -> u64 {
        count(self.1) - count(self.0)
    }

    /// Of packets that entered here.
    fn rx(&self) -> u64 {
        self.grew(|port| port.rx_bytes) / self.grew(|port| port.rx_packets)
    }

    /// Of packets that left here.
    fn tx(&self) -> u64 {
        self.grew(|port| port.tx_bytes) / self.grew(|port| port.tx_packets)
    }

    /// Of what a nic has received, as its driver counts.
    fn device_rx(&self) -> u64 {
        let count = |name: &str| self.grew(|port| daemon::nic(port).device_stats[name]);
        count("ibytes") / count("ipackets")
    }

    /// Of what the guest sent as one: its only transmit queue's chains.
    fn chain(&self) -> u64 {
        self.grew(|port| port.rx_bytes) / self.grew(|port| daemon::guest(port).queues[1].used)
    }
}

/// What a stream each way has shown. First bytes on average, from where it comes to where it goes.
struct Shown {
    /// What the guest sent as one, and what left at the port.
    out: [u64; 2],
    /// What entered at the port, and what the guest received.
    back: [u64; 2],
    /// What the driver gave us meanwhile, if the port is a nic.
    received: Option<u64>,
    /// Frames that came to the interface meanwhile, as the kernel counts.
    came: u64,
    /// Of what came out of the guest, at the peer.
    at_peer: Verdict,
    /// Of what came to the guest, at the guest: frames that are right and wrong, and the longest one's bytes.
    at_guest: [u64; 3],
}

/// A stream each way, in which nothing was damaged.
fn streams(backend: Backend, device: &str) -> Shown {
    let mut stage = Stage::set(backend, SCRIPT, device);
    let _server = stage.peer.spawn(&["iperf3", "-s", "-B", PEER]);
    let capture = stage.capture(&stage.peer);
    let [ready, sent] = ["ready", "sent"].map(|name| stage.ports_at(name));
    let came = stage.lan.arrived(backend.interface());
    let received = stage.ports_at("received");
    let came = stage.lan.arrived(backend.interface()) - came;
    let file = capture.end();
    let [at_peer, to_guest] = [GUEST, PEER].map(|source| Verdict::of(&file, source));
    let peer_sums = bad_sums(&stage.peer);
    let said = stage.end();
    let [vm1, port] = ["vm1", backend.name()];
    let shown = Shown {
        out: [Average::of(vm1, &ready, &sent).chain(), Average::of(port, &ready, &sent).tx()],
        back: [Average::of(port, &sent, &received).rx(), Average::of(vm1, &sent, &received).tx()],
        received: received[0].nic.as_ref().map(|_| Average::of(port, &sent, &received).device_rx()),
        came,
        at_peer,
        at_guest: ["right", "wrong", "longest"].map(|name| mark(&said, name) as u64),
    };
    println!("{device}: {}", shown.table(port));
    assert_eq!((mark(&said, "unseen"), mark(&said, "errors"), mark(&said, "bad_sums")), (0.0, 0.0, 0.0));
    shown.at_peer.assert_finished();
    assert_eq!(peer_sums, 0);
    // It is tcpdump's word that counts: it has found out about these, which were left to the next.
    assert!(to_guest.wrong > 0 && to_guest.payload > STREAM / 2, "{to_guest:?}");
    shown
}

impl Shown {
    fn table(&self, port: &str) -> String {
        let Shown { out, back, at_peer: Verdict { right, wrong, longest, .. }, at_guest, .. } = self;
        let line = |way, [from, to]: &[u64; 2], [right, wrong, longest]: &[u64; 3]| {
            format!("{way:<16}{from:>9}{to:>9}{right:>9}{wrong:>9}{longest:>9}\n")
        };
        // What is left to the guest is wrong, too, as tcpdump sees it.
        format!(
            "bytes of a frame, and tcpdump's verdict at the end\n{port:<16}{:>9}{:>9}{:>9}{:>9}{:>9}\n",
            "from", "to", "right", "wrong", "longest"
        ) + &line("guest -> host", out, &[*right, *wrong, *longest])
            + &line("host -> guest", back, at_guest)
    }

    /// The guest received finished frames.
    fn assert_finished_at_guest(&self) {
        let [right, wrong, longest] = self.at_guest;
        assert!(right > STREAM / MTU / 2 && wrong == 0 && longest <= MTU, "{:?}", self.at_guest);
        assert!(self.back[1] <= FINISHED);
    }
}

/// How many segments TCP in `namespace` has found to be damaged.
fn bad_sums(namespace: &Namespace) -> u64 {
    let text = namespace.run(&["nstat", "-asz", "TcpInCsumErrors"]);
    let line = text.lines().find(|line| line.starts_with("TcpInCsumErrors")).expect("the counter");
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

/// Each frame is as long as TCP made it, all the way.
fn passes_segments(backend: Backend, device: &str) {
    if skipped() {
        return;
    }
    let Shown { out, back, .. } = streams(backend, device);
    assert!(out.iter().chain(&back).all(|average| *average > LONG), "{out:?} {back:?}");
}

#[test]
fn segments_are_left_to_the_next_tap() {
    passes_segments(Backend::Tap, "packed=off");
}

#[test]
fn segments_are_left_to_the_next_raw() {
    passes_segments(Backend::Raw, "packed=on");
}

/// A nic gets finished frames, whatever the guest sends.
#[test]
fn segments_are_cut_for_a_nic() {
    if skipped() {
        return;
    }
    let shown = streams(Backend::Nic, "packed=off");
    assert!(shown.out[0] > LONG && shown.out[1] <= FINISHED, "{:?}", shown.out);
    shown.assert_finished_at_guest();
}

/// It sums them.
#[test]
fn segments_are_cut_for_a_nic_that_sums() {
    if skipped() {
        return;
    }
    let shown = streams(Backend::TapNic, "packed=on");
    assert!(shown.out[0] > LONG && shown.out[1] <= FINISHED, "{:?}", shown.out);
    shown.assert_finished_at_guest();
}

/// Each way, it leaves to the next what that takes.
#[test]
fn segments_are_left_to_a_nic_and_by_it() {
    passes_segments(Backend::VirtioNic { lro: true }, "packed=off");
}

/// A guest that takes no segments gets those of the nic cut.
#[test]
fn segments_of_a_nic_are_cut_for_a_guest() {
    if skipped() {
        return;
    }
    let shown = streams(Backend::VirtioNic { lro: true }, &format!("packed=on,{TAKES_NOTHING}"));
    shown.assert_finished_at_guest();
    assert!(shown.out.iter().all(|average| *average > LONG), "{:?}", shown.out);
    println!("the nic received {:?} bytes a packet", shown.received);
    assert!(shown.received > Some(LONG));
}

/// Nor does it get checksums to complete that a nic left.
#[test]
fn checksums_left_by_a_nic_are_completed_for_a_guest() {
    if skipped() {
        return;
    }
    let shown = streams(Backend::VirtioNic { lro: false }, &format!("packed=off,{TAKES_NOTHING}"));
    shown.assert_finished_at_guest();
}

/// The kernel finishes what it hands out at a tap.
#[test]
fn a_guest_that_takes_nothing_gets_finished_frames_tap() {
    if !skipped() {
        streams(Backend::Tap, &format!("packed=on,{TAKES_NOTHING}")).assert_finished_at_guest();
    }
}

/// Out of a raw socket come frames as they were sent: ringwire finishes them.
#[test]
fn a_guest_that_takes_nothing_gets_finished_frames_raw() {
    if skipped() {
        return;
    }
    let shown = streams(Backend::Raw, &format!("packed=off,{TAKES_NOTHING}"));
    shown.assert_finished_at_guest();
    println!("{} frames came to the raw socket", shown.came);
    assert!(shown.came < shown.at_guest[0] / 3);
}

/// What the guest was told of each frame it tells again: it sends on what it receives, as long as it is. So frames are
/// cut as the guest was told to, and then, in frames that need no cutting, checksums completed where it was told to.
fn forwards(backend: Backend, device: &str) {
    if skipped() {
        return;
    }
    let mut stage = Stage::set(backend, FORWARDS, device);
    let third = Namespace::new(&format!("{THIRD}/24"));
    stage.lan.plug_in(&third.near);
    stage.peer.run(&["ip", "route", "add", THIRD, "via", GUEST]);
    let _server = third.spawn(&["iperf3", "-s", "-B", THIRD]);
    let capture = stage.capture(&third);
    let ready = stage.ports_at("ready");
    let stream = ["timeout", "60", "iperf3", "-c", THIRD, "-n", &STREAM.to_string()];
    stage.peer.run(&stream);
    let done = stage.daemon.status().ports;
    stage.peer.run(&["ethtool", "-K", &stage.peer.far, "tso", "off", "gso", "off"]);
    stage.peer.run(&stream);
    let at_third = Verdict::of(&capture.end(), PEER);
    stage.peer.run(&["timeout", "10", "bash", "-c", &format!("echo >/dev/tcp/{GUEST}/79")]);
    let (vm1, third_sums) = (Average::of("vm1", &ready, &done), bad_sums(&third));
    println!(
        "{}: {} bytes a frame into the guest, {} out of it; then {at_third:?}",
        backend.name(),
        vm1.tx(),
        vm1.rx()
    );
    at_third.assert_finished();
    assert_eq!(third_sums, 0);
    assert!(vm1.tx() > LONG && vm1.rx() > LONG);
    stage.end();
}

#[test]
fn segments_are_forwarded_by_the_guest_tap() {
    forwards(Backend::Tap, "packed=on");
}

#[test]
fn segments_are_forwarded_by_the_guest_raw() {
    forwards(Backend::Raw, "packed=off");
}

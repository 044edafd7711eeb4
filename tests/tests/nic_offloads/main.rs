//! Checksums and segments that a guest leaves to a NIC: to one whose driver sums in software (net_tap), and to one that
//! leaves them to the next (net_virtio_user). What comes out in the end is judged by tcpdump.

mod shape;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::child::Child;
use tests::daemon::{Daemon, assert_balanced, nic};
use tests::hostile::guest::{DATA, Hostile};
use tests::hostile::ring::Buf;
use tests::lan::{Lan, tap_device};
use tests::namespace::{Namespace, run};
use tests::scene::Scene;
use tests::{pcap, wait};

use shape::{HEADER, Shape};

/// CSUM, HOST_TSO4, HOST_TSO6, HOST_USO.
const FEATURES: u64 = 1 | 1 << 11 | 1 << 12 | 1 << 56;
/// VIRTIO_F_RING_PACKED.
const PACKED: u64 = 1 << 34;
const MTU: usize = 1500;

/// Every kind of frame, in one packet and in many.
fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (v6, tcp, tags, options) in [
        (false, true, 0, 0),
        (true, true, 0, 0),
        (false, false, 0, 0),
        (true, false, 0, 0),
        (false, true, 1, 0),
        (true, true, 2, 0),
        (false, false, 1, 0),
        (true, true, 0, 16),
        (true, false, 1, 8),
    ] {
        // The last segment is shorter; the longest frame is as long as IP allows.
        let longest = if v6 { 65_000 } else { 65_400 };
        for (payload, segment) in [(1, 0), (301, 0), (1400, 0), (1401, 1400), (20_000, 1400), (longest, 1399)]
        {
            let id = 1000 + shapes.len() as u16;
            shapes.push(Shape { v6, tcp, tags, options, payload, segment, id });
        }
    }
    shapes
}

/// A tcpdump that keeps what comes in at an interface.
struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    fn start(scene: &Scene, mut command: std::process::Command, name: &str) -> Capture {
        let file = scene.path(&format!("{name}.pcap"));
        command.args(["-U", "-B", "65536", "-Z", "root", "-w"]).arg(&file);
        let tcpdump = Child::start("tcpdump", command, &scene.path(&format!("{name}.log")));
        wait::until("tcpdump listens", 10, || {
            let log = tcpdump.log();
            if log.contains("listening on") { Ok(()) } else { Err(log) }
        });
        Capture { tcpdump, file }
    }

    /// Ends it once it has seen so many frames, and gives them.
    fn end(mut self, count: usize) -> (PathBuf, Vec<Vec<u8>>) {
        wait::until("all frames arrive", 30, || {
            let seen = pcap::read(&self.file).len();
            if seen >= count { Ok(()) } else { Err(format!("{seen} of {count}")) }
        });
        self.tcpdump.signal(Signal::SIGINT);
        assert!(self.tcpdump.wait(Duration::from_secs(20)).expect("tcpdump's end").success());
        let frames = pcap::read(&self.file);
        (self.file.clone(), frames)
    }
}

/// All that the guest sends, one after the other, through a ring of its own.
fn send(daemon: &Daemon, scene: &Scene, features: u64) {
    let mut guest = Hostile::running(&scene.socket("vm1"), features);
    daemon.wait_connected("vm1", true);
    for shape in shapes() {
        let bytes = [&shape.virtio_header()[..], &shape.frame()].concat();
        assert_eq!(shape.virtio_header().len(), HEADER);
        guest.ram.write(DATA, &bytes);
        guest.rings[1].post(&[Buf::readable(DATA, bytes.len() as u32)]);
        guest.wait_used(1);
    }
    assert!(guest.client.is_served());
}

/// Every frame arrived as the packets it should become, and tcpdump finds all checksums right.
fn assert_arrived(file: &Path, frames: &[Vec<u8>]) {
    let text = run(&["tcpdump", "-t", "-n", "-vv", "-r", file.to_str().expect("a path")]);
    let count = |what: &str| text.matches(what).count();
    let wrong = ["incorrect", "bad cksum", "bad udp cksum"].map(count);
    let (mut tcp, mut udp) = (0, 0);
    for shape in shapes() {
        let made: Vec<&Vec<u8>> = frames.iter().filter(|frame| shape.is_of(frame)).collect();
        assert_eq!(made.len(), shape.packets(), "{shape:?}");
        let content: Vec<u8> = made.iter().flat_map(|frame| frame[shape.header()..].to_vec()).collect();
        assert!(content == shape.content(), "{shape:?} carries something else");
        assert!(made.iter().all(|frame| frame.len() <= 14 + 4 * shape.tags + MTU), "{shape:?}");
        *(if shape.tcp { &mut tcp } else { &mut udp }) += made.len();
    }
    println!("{} frames: {tcp} of TCP, {udp} of UDP; tcpdump: {wrong:?} wrong", frames.len());
    assert_eq!(wrong, [0; 3], "{text}");
    assert_eq!((count("(correct)"), count("[udp sum ok]")), (tcp, udp), "{text}");
    assert_eq!(frames.len(), tcp + udp);
}

fn packets() -> usize {
    shapes().into_iter().map(Shape::packets).sum()
}

fn end(mut daemon: Daemon) {
    daemon.wait_connected("vm1", false);
    assert_balanced(&daemon, "vm1", "wire0");
    let (vm1, wire0) = (daemon.port("vm1"), daemon.port("wire0"));
    assert_eq!((tests::daemon::drops(&vm1), vm1.rx_packets), (0, wire0.tx_packets));
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

/// The driver sums in software, and is not let cut: it does that wrong.
#[test]
fn net_tap_sends_every_checksum_right() {
    for features in [FEATURES, FEATURES | PACKED] {
        let _lan = Lan::enter("10.79.9.254/24");
        let mut scene = Scene::new();
        scene.nic("wire0", &tap_device("rwt0"), 1, "");
        scene.guest("vm1", "wire0", 1);
        let daemon = scene.start();
        let mut command = std::process::Command::new("tcpdump");
        command.args(["-n", "-i", "rwt0", "-Q", "in"]);
        let capture = Capture::start(&scene, command, "rwt0");
        send(&daemon, &scene, features);
        let (file, frames) = capture.end(packets());
        let wire0 = daemon.port("wire0");
        println!("in force: {}", nic(&wire0).offloads.join(" "));
        assert!(!nic(&wire0).offloads.contains(&"TX_TCP_TSO".to_owned()));
        assert_arrived(&file, &frames);
        assert_eq!(wire0.tx_packets, packets() as u64);
        end(daemon);
    }
}

/// The driver is another ringwired's guest, which has a tap: checksums and segments are left to the kernel behind it.
#[test]
fn net_virtio_user_leaves_them_to_the_next() {
    for features in [FEATURES, FEATURES | PACKED] {
        let lan = Lan::enter("10.79.9.254/24");
        let peer = Namespace::new("10.79.9.1/24");
        lan.plug_in(&peer.near);
        lan.tap("far0", &[]);
        let mut next = Scene::new();
        next.socket_port("tap", "far0", "far0", "");
        next.guest("near", "far0", 1);
        let next_daemon = next.start();
        let mut scene = Scene::new();
        // Hugepages would be too many regions for a table.
        scene.add("\n[eal]\nhugepages = \"never\"\n");
        let device = format!("net_virtio_user0,path={},queue_size=256", next.socket("near").display());
        scene.nic("wire0", &device, 1, "");
        scene.guest("vm1", "wire0", 1);
        let daemon = scene.start();
        let wire0 = daemon.port("wire0");
        println!("in force: {}", nic(&wire0).offloads.join(" "));
        for offload in ["TX_TCP_CKSUM", "TX_UDP_CKSUM", "TX_TCP_TSO", "RX_TCP_CKSUM"] {
            assert!(nic(&wire0).offloads.contains(&offload.to_owned()), "{offload}");
        }
        let at_peer =
            peer.command(&["tcpdump", "-n", "-i", &peer.far, "-Q", "in", "ether src 02:00:00:00:00:02"]);
        let at_peer = Capture::start(&scene, at_peer, "peer");
        send(&daemon, &scene, features);
        let (file, frames) = at_peer.end(packets());
        assert_arrived(&file, &frames);
        // TCP without extension headers went whole, all else in segments.
        let whole = |shape: &Shape| if shape.tcp && shape.options == 0 { 1 } else { shape.packets() };
        let expected: usize = shapes().iter().map(whole).sum();
        assert_eq!(daemon.port("wire0").tx_packets, expected as u64);
        assert_eq!(next_daemon.port("near").rx_packets, expected as u64);
        end(daemon);
        drop(next_daemon);
    }
}

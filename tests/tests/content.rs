//! Ten thousand frames each way between a virtio-user guest and a pcap NIC arrive
//! unchanged and in order, whatever their layout in the guest's memory, and every counter on the way agrees.

use std::path::PathBuf;
use std::time::Duration;

use tests::daemon::{self, Daemon, assert_balanced};
use tests::frames::{Frames, number};
use tests::pcap;
use tests::relay::Relay;
use tests::scene::{Scene, pcap_device};
use tests::testpmd::{Setup, Stats, Testpmd, virtio_user};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

/// Frames each way, over all queues.
const FRAMES: u64 = 10_000;
const LONGEST: usize = 9000;
/// Entries of each of the guest's rings.
const RING: usize = 256;
/// What all of them have at most.
const SECONDS: u64 = 60;

/// One way for a guest to lay out its buffers.
#[derive(Clone, Copy)]
struct Case {
    packed: bool,
    mergeable: bool,
    indirect: bool,
    /// Bytes of data in a guest's mbuf: 1024, so that a long frame has nine of them (the first seven or less
    /// go into one indirect descriptor, if the guest may; more are chained), or enough for any frame.
    room: usize,
    queues: usize,
}

const SMALL: usize = 1024;
const LARGE: usize = 9216;

fn paths(scene: &Scene, name: &str, queues: usize) -> Vec<PathBuf> {
    (0..queues).map(|queue| scene.path(&format!("{name}-{queue}.pcap"))).collect()
}

fn sequences(seed: u64, queues: usize, longest: usize) -> Vec<Frames> {
    let count = FRAMES / queues as u64;
    (0..queues as u64).map(|queue| Frames { count, lengths: 60..=longest, seed: seed + queue }).collect()
}

fn write(paths: &[PathBuf], frames: &[Frames]) {
    paths.iter().zip(frames).for_each(|(path, frames)| pcap::write(path, frames.iter()));
}

fn setup(case: Case, port: String, files: &(Vec<PathBuf>, Vec<PathBuf>)) -> Setup {
    let mergeable = u8::from(case.mergeable);
    let packed = u8::from(case.packed);
    let port = format!("{port},mrg_rxbuf={mergeable},packed_vq={packed}");
    let mbufs = if case.room == SMALL { 24576 } else { 6144 };
    Setup {
        vdevs: vec![port, pcap_device("net_pcap0", &files.0, &files.1)],
        queues: case.queues,
        memory: 192,
        mbufs,
        mbuf_size: case.room + 128,
        // What its virtio port must be able to receive; what it sends is not held against that.
        max_frame: if case.mergeable { LONGEST + 18 } else { case.room.min(LONGEST + 18) },
        scatter: case.mergeable,
        more: Vec::new(),
    }
}

fn run(case: Case) {
    let queues = case.queues;
    let mut scene = Scene::new();
    let to_guest = paths(&scene, "to-guest", queues);
    let at_guest = paths(&scene, "at-guest", queues);
    let to_nic = paths(&scene, "to-nic", queues);
    let at_nic = paths(&scene, "at-nic", queues);
    // A buffer that cannot be merged with others must hold a whole frame.
    let longest = if case.mergeable { LONGEST } else { LONGEST.min(case.room) };
    let (into, out) = (sequences(100, queues, longest), sequences(200, queues, LONGEST));
    write(&to_guest, &into);
    write(&to_nic, &out);

    scene.nic("wire0", &pcap_device("net_pcap0", &to_guest, &at_nic), queues, "mtu = 9000");
    scene.guest("vm1", "wire0", queues);
    let mut daemon = scene.start();
    let mask = if case.indirect { 0 } else { 1 << VIRTIO_RING_F_INDIRECT_DESC };
    let socket = scene.socket("relay");
    let relay = Relay::start(&socket, &scene.socket("vm1"), mask);
    let setup = setup(case, virtio_user(&socket, queues, RING), &(to_nic, at_guest.clone()));
    let mut guest = Testpmd::start("guest", &setup, &scene.path("guest.log"));
    relay.open();
    guest.forward();

    daemon.wait_count("wire0", "tx", SECONDS, FRAMES, |port| port.tx_packets);
    daemon.wait_count("vm1", "tx", SECONDS, FRAMES, |port| port.tx_packets);
    tests::wait::until("the guest has written what it got", 10, || {
        let stats = guest.stats(1);
        if stats.tx_packets >= FRAMES { Ok(()) } else { Err(format!("{stats:?}")) }
    });
    let stats = (guest.stats(0), guest.stats(1));
    assert_negotiated(&daemon, case);
    assert_counters(&daemon, &into, &out, stats);
    guest.quit();
    daemon.wait_connected("vm1", false);
    assert_balanced(&daemon, "vm1", "wire0");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_came_to_guest(&into, &at_guest);
    for (queue, (frames, path)) in out.iter().zip(&at_nic).enumerate() {
        frames.assert_is(&format!("guest to NIC, queue {queue}"), &pcap::read(path));
    }
    assert_eq!(daemon.complaints(), [""; 0]);
}

/// NIC queue k goes to guest queue k. But a guest enables its queues one by one, and until queue k is there,
/// what comes from NIC queue k goes to one that is: at most what their buffers hold, since a guest that has
/// not enabled all does not look into any.
fn assert_came_to_guest(into: &[Frames], at_guest: &[PathBuf]) {
    let arrived: Vec<_> = at_guest.iter().map(|path| pcap::read(path)).collect();
    for (queue, frames) in into.iter().enumerate() {
        let mut early = Vec::new();
        for (_, other) in arrived.iter().enumerate().filter(|(other, _)| *other != queue) {
            let part = frames.pick(other);
            frames.assert_has_in_order(&format!("NIC queue {queue} to another guest queue"), &part);
            early.extend(part);
        }
        assert!(early.len() <= into.len() * RING, "NIC queue {queue}: {} to other guest queues", early.len());
        early.sort_by_key(|frame| number(frame));
        let all = [early, frames.pick(&arrived[queue])].concat();
        frames.assert_is(&format!("NIC queue {queue} to guest"), &all);
    }
}

fn assert_negotiated(daemon: &Daemon, case: Case) {
    let port = daemon.port("vm1");
    let features = &daemon::guest(&port).features;
    let has = |name: &str| features.iter().any(|feature| feature == name);
    assert_eq!(has("VIRTIO_F_RING_PACKED"), case.packed, "{features:?}");
    assert_eq!(has("VIRTIO_NET_F_MRG_RXBUF"), case.mergeable, "{features:?}");
    assert_eq!(has("VIRTIO_RING_F_INDIRECT_DESC"), case.indirect, "{features:?}");
}

/// The guest's port, the datapath's two ports and the NIC's own all count the same.
fn assert_counters(daemon: &Daemon, into: &[Frames], out: &[Frames], (virtio, file): (Stats, Stats)) {
    let bytes = |frames: &[Frames]| frames.iter().map(Frames::bytes).sum::<u64>();
    let (into, out) = ((FRAMES, bytes(into)), (FRAMES, bytes(out)));
    assert_eq!((virtio.tx_packets, virtio.tx_bytes), out, "sent by the guest");
    assert_eq!((virtio.rx_packets, virtio.rx_bytes), into, "received by the guest");
    assert_eq!((file.rx_packets, file.rx_bytes), out, "read by the guest");
    assert_eq!((file.tx_packets, file.tx_bytes), into, "written by the guest");
    assert_eq!(virtio.rx_missed + virtio.rx_errors + virtio.rx_nombuf + virtio.tx_errors, 0);
    let (guest, wire) = (daemon.port("vm1"), daemon.port("wire0"));
    assert_eq!((guest.rx_packets, guest.rx_bytes), out, "vm1 rx");
    assert_eq!((guest.tx_packets, guest.tx_bytes), into, "vm1 tx");
    assert_eq!((wire.rx_packets, wire.rx_bytes), into, "wire0 rx");
    assert_eq!((wire.tx_packets, wire.tx_bytes), out, "wire0 tx");
    for port in [&guest, &wire] {
        assert_eq!((daemon::drops(port), port.held), (0, 0), "{port:?}");
    }
    let device = &daemon::nic(&wire).device_stats;
    assert_eq!((device["ipackets"], device["ibytes"]), into, "the NIC's own rx");
    assert_eq!((device["opackets"], device["obytes"]), out, "the NIC's own tx");
}

macro_rules! cases {
    ($($name:ident: $format:ident $mergeable:literal $indirect:literal $room:ident $queues:literal;)*) => {
        $(#[test]
        fn $name() {
            run(Case {
                packed: stringify!($format) == "packed",
                mergeable: $mergeable,
                indirect: $indirect,
                room: $room,
                queues: $queues,
            });
        })*
    };
}

cases! {
    split_mergeable_indirect_large_1: split true true LARGE 1;
    split_mergeable_indirect_large_4: split true true LARGE 4;
    split_mergeable_indirect_small_1: split true true SMALL 1;
    split_mergeable_indirect_small_4: split true true SMALL 4;
    split_mergeable_direct_large_1: split true false LARGE 1;
    split_mergeable_direct_large_4: split true false LARGE 4;
    split_mergeable_direct_small_1: split true false SMALL 1;
    split_mergeable_direct_small_4: split true false SMALL 4;
    split_single_indirect_large_1: split false true LARGE 1;
    split_single_indirect_large_4: split false true LARGE 4;
    split_single_indirect_small_1: split false true SMALL 1;
    split_single_indirect_small_4: split false true SMALL 4;
    split_single_direct_large_1: split false false LARGE 1;
    split_single_direct_large_4: split false false LARGE 4;
    split_single_direct_small_1: split false false SMALL 1;
    split_single_direct_small_4: split false false SMALL 4;
    // No packed ring with indirect tables of many segments: DPDK's driver, without IN_ORDER, writes the buffer
    // id into the table instead of the ring (virtqueue_enqueue_xmit_packed), so that no device can return the
    // chain under its id, and it soon waits for ever. A Linux guest does use such tables.
    packed_mergeable_indirect_large_1: packed true true LARGE 1;
    packed_mergeable_indirect_large_4: packed true true LARGE 4;
    packed_mergeable_direct_large_1: packed true false LARGE 1;
    packed_mergeable_direct_large_4: packed true false LARGE 4;
    packed_mergeable_direct_small_1: packed true false SMALL 1;
    packed_mergeable_direct_small_4: packed true false SMALL 4;
    packed_single_indirect_large_1: packed false true LARGE 1;
    packed_single_indirect_large_4: packed false true LARGE 4;
    packed_single_direct_large_1: packed false false LARGE 1;
    packed_single_direct_large_4: packed false false LARGE 4;
    packed_single_direct_small_1: packed false false SMALL 1;
    packed_single_direct_small_4: packed false false SMALL 4;
}

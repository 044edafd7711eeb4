//! Frames both ways at once between a virtio-user guest and a pcap NIC, whose content, order and counters are
//! then compared with what was sent.

use std::path::PathBuf;
use std::time::Duration;

use snapshot::Queue;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use crate::daemon::{self, Daemon, assert_balanced};
use crate::frames::{Frames, number};
use crate::relay::Relay;
use crate::scene::{Scene, pcap_device};
use crate::testpmd::{Setup, Testpmd, virtio_path, virtio_user};
use crate::{pcap, wait};

/// Shortest frame.
const SHORTEST: usize = 60;
/// Within these all are through the datapath.
const SECONDS: u64 = 60;

/// What is sent, and how the guest lays it out.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Frames each way, over all queues.
    pub frames: u64,
    /// Bytes of the longest frame, and the NIC's MTU.
    pub longest: usize,
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_NET_F_MRG_RXBUF.
    pub mergeable: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC.
    pub indirect: bool,
    /// The guest's driver is asked for its vectorised functions; see [`Exchange::can_be_vectorized`].
    pub vectorized: bool,
    /// Bytes of data in an mbuf of the guest, and so in a receive buffer. A longer frame has several of them;
    /// the guest receives one only if it is mergeable, so others are not sent to it.
    pub room: usize,
    /// Queue pairs of the guest and of the NIC.
    pub queues: usize,
    /// Entries of each of the guest's rings.
    pub ring: usize,
}

/// What came of it; as far as it got, if it failed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Names of the features the guest acknowledged.
    pub features: Vec<String>,
    /// How the guest's driver receives, in its own words: "vectorized", "mergeable buffer", ...
    pub receives: String,
    /// How it sends.
    pub sends: String,
    /// Frames, and their bytes, that ringwired brought to the guest.
    pub to_guest: (u64, u64),
    /// Those it brought to the NIC.
    pub to_nic: (u64, u64),
    /// Those it dropped.
    pub drops: u64,
}

/// What goes one way: queue k sends `frames[k]`, out of the file `sent[k]`; `arrived[k]` is where its peer
/// writes what it gets.
struct Way {
    frames: Vec<Frames>,
    sent: Vec<PathBuf>,
    arrived: Vec<PathBuf>,
}

impl Way {
    fn new(scene: &Scene, to: &str, seed: u64, exchange: &Exchange, longest: usize) -> Way {
        let queues = exchange.queues as u64;
        let count = exchange.frames / queues;
        let paths = |name| (0..queues).map(|k| scene.path(&format!("{name}-{to}-{k}.pcap"))).collect();
        let frames = |k| Frames { count, lengths: SHORTEST..=longest, seed: seed + k };
        let way = Way { frames: (0..queues).map(frames).collect(), sent: paths("to"), arrived: paths("at") };
        way.sent.iter().zip(&way.frames).for_each(|(path, frames)| pcap::write(path, frames.iter()));
        way
    }

    /// Frames, and their bytes.
    fn total(&self) -> (u64, u64) {
        let sum = |value: fn(&Frames) -> u64| self.frames.iter().map(value).sum();
        (sum(|frames| frames.count), sum(Frames::bytes))
    }

    fn arrived(&self) -> Vec<Vec<Vec<u8>>> {
        self.arrived.iter().map(|path| pcap::read(path)).collect()
    }
}

impl Exchange {
    /// Does it all; `outcome` is brought up to date on the way.
    ///
    /// # Panics
    /// If a single byte or count is not as it should be.
    pub fn run(&self, outcome: &mut Outcome) {
        let mut scene = Scene::new();
        let to_guest = if self.mergeable { self.longest } else { self.longest.min(self.room) };
        let into = Way::new(&scene, "guest", 100, self, to_guest);
        let out = Way::new(&scene, "nic", 200, self, self.longest);
        let device = pcap_device("net_pcap0", &into.sent, &out.arrived);
        scene.nic("wire0", &device, self.queues, &format!("mtu = {}", self.longest));
        scene.guest("vm1", "wire0", self.queues);
        let mut daemon = scene.start();
        let mask = if self.indirect { 0 } else { 1 << VIRTIO_RING_F_INDIRECT_DESC };
        let socket = scene.socket("relay");
        let relay = Relay::start(&socket, &scene.socket("vm1"), mask);
        let port = virtio_user(&socket, self.queues, self.ring);
        let file = pcap_device("net_pcap0", &out.sent, &into.arrived);
        let mut guest = Testpmd::start("guest", &self.setup(port, file), &scene.path("guest.log"));
        outcome.see_paths(&guest);
        relay.open();
        wait::until("all rings run", 20, || {
            let vm1 = daemon.port("vm1");
            let run = daemon::guest(&vm1).queues.iter().all(|queue| queue.owner.starts_with("worker:"));
            if run { Ok(()) } else { Err(format!("{vm1:?}")) }
        });
        guest.forward();

        let wanted = (into.total().0, out.total().0);
        wait::until("all frames are through the datapath", SECONDS, || {
            outcome.see(&daemon);
            let done = outcome.to_guest.0 >= wanted.0 && outcome.to_nic.0 >= wanted.1;
            if done { Ok(()) } else { Err(format!("{}; {:?}", daemon.summary(), daemon.status().workers)) }
        });
        wait::until("the guest has written what it got", 10, || {
            let stats = guest.stats(1);
            if stats.tx_packets >= wanted.0 { Ok(()) } else { Err(format!("{stats:?}")) }
        });
        self.assert_negotiated(&daemon, outcome);
        assert_counters(&daemon, &mut guest, into.total(), out.total());
        guest.quit();
        daemon.wait_connected("vm1", false);
        assert_balanced(&daemon, "vm1", "wire0");
        assert!(daemon.stop(Duration::from_secs(5)).success());
        assert_came_to_guest(&into, self.ring);
        for (queue, (frames, arrived)) in out.frames.iter().zip(out.arrived()).enumerate() {
            frames.assert_is(&format!("guest to NIC, queue {queue}"), &arrived);
        }
        assert_eq!(daemon.complaints(), [""; 0]);
    }

    fn setup(&self, port: String, file: String) -> Setup {
        let on = u8::from;
        let port = format!(
            "{port},packed_vq={},mrg_rxbuf={},in_order={},vectorized={}",
            on(self.packed),
            on(self.mergeable),
            on(self.in_order),
            on(self.vectorized)
        );
        let mut eal = vec!["--log-level=pmd.net.virtio.*:info".to_owned()];
        if self.vectorized {
            eal.push("--force-max-simd-bitwidth=512".to_owned());
        }
        // All rings full of the longest frames, and some on the way.
        let mbufs = self.queues * self.ring * (1 + self.longest.div_ceil(self.room)) + 2048;
        Setup {
            queues: self.queues,
            memory: 192,
            mbufs,
            mbuf_size: self.room + 128,
            // What its virtio port must be able to receive; what it sends is not held against that.
            max_frame: if self.mergeable { self.longest + 18 } else { self.room.min(self.longest + 18) },
            scatter: self.mergeable,
            eal,
            ..Setup::small([port, file])
        }
    }

    /// Whether DPDK's driver receives, and whether it sends, with vector instructions (`virtio_dev_configure`).
    /// What it is asked for is not enough, and what it chose it says only in its log.
    pub fn gets_vectorized(&self, avx512: bool) -> (bool, bool) {
        let sends = self.vectorized && self.packed && self.in_order && avx512;
        let receives = if self.packed { sends } else { self.vectorized && !self.in_order };
        (receives && !self.mergeable, sends)
    }

    fn assert_negotiated(&self, daemon: &Daemon, outcome: &Outcome) {
        let features = &outcome.features;
        let has = |name: &str| features.iter().any(|feature| feature == name);
        assert_eq!(has("VIRTIO_F_RING_PACKED"), self.packed, "{features:?}");
        assert_eq!(has("VIRTIO_NET_F_MRG_RXBUF"), self.mergeable, "{features:?}");
        assert_eq!(has("VIRTIO_F_IN_ORDER"), self.in_order, "{features:?}");
        assert_eq!(has("VIRTIO_RING_F_INDIRECT_DESC"), self.indirect, "{features:?}");
        assert_eq!(has("VIRTIO_NET_F_MQ"), self.queues > 1, "{features:?}");
        let format = if self.packed { "packed" } else { "split" };
        let as_set = |queue: &Queue| {
            queue.enabled && usize::from(queue.size) == self.ring && queue.format == format && queue.used > 0
        };
        let vm1 = daemon.port("vm1");
        let queues = &daemon::guest(&vm1).queues;
        assert!(queues.len() == 2 * self.queues && queues.iter().all(as_set), "{queues:?}");
    }
}

impl Outcome {
    /// Whether the guest received, and whether it sent, with vector instructions.
    pub fn vectorized(&self) -> (bool, bool) {
        (self.receives == "vectorized", self.sends == "vectorized")
    }

    fn see(&mut self, daemon: &Daemon) {
        let (vm1, wire0) = (daemon.port("vm1"), daemon.port("wire0"));
        self.features.clone_from(&daemon::guest(&vm1).features);
        self.to_guest = (vm1.tx_packets, vm1.tx_bytes);
        self.to_nic = (wire0.tx_packets, wire0.tx_bytes);
        self.drops = daemon::drops(&vm1) + daemon::drops(&wire0);
    }

    fn see_paths(&mut self, guest: &Testpmd) {
        let log = guest.child.log();
        self.receives = virtio_path(&log, "Rx");
        self.sends = virtio_path(&log, "Tx");
    }
}

/// The guest's ports, the datapath's two ports and the NIC's own all count the same.
fn assert_counters(daemon: &Daemon, guest: &mut Testpmd, into: (u64, u64), out: (u64, u64)) {
    let (virtio, file) = (guest.stats(0), guest.stats(1));
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

/// NIC queue k goes to guest queue k. But a guest enables its queues one by one, and until queue k is there,
/// what comes from NIC queue k goes to one that is: at most what their buffers hold, since the guest looks into
/// none before all run.
fn assert_came_to_guest(into: &Way, ring: usize) {
    let arrived = into.arrived();
    for (queue, frames) in into.frames.iter().enumerate() {
        let mut early = Vec::new();
        for (_, other) in arrived.iter().enumerate().filter(|(other, _)| *other != queue) {
            let part = frames.pick(other);
            frames.assert_has_in_order(&format!("NIC queue {queue} to another guest queue"), &part);
            early.extend(part);
        }
        assert!(early.len() <= arrived.len() * ring, "NIC queue {queue}: {} to other queues", early.len());
        early.sort_by_key(|frame| number(frame));
        let all = [early, frames.pick(&arrived[queue])].concat();
        frames.assert_is(&format!("NIC queue {queue} to guest"), &all);
    }
}

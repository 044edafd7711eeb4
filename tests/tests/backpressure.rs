//! A NIC that takes nothing for a while loses nothing of the guest's. The NIC is a memif,
//! whose other end is a process that can be stopped, or not be there yet; or a veth that is down.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use snapshot::Sizes;
use tests::daemon::{Daemon, assert_balanced, drops};
use tests::frames::Frames;
use tests::namespace::{self, Namespace};
use tests::scene::{Scene, pcap_device};
use tests::testpmd::{Setup, Testpmd, virtio_user};
use tests::{pcap, wait};

/// What the guest sends: some times what its own ring and the NIC's hold together.
const SENT: Frames = Frames { count: 20_000, lengths: 60..=1500, seed: 5 };
/// How long the NIC takes nothing.
const PAUSE: Duration = Duration::from_secs(2);
/// Entries of the guest's rings.
const RING: u64 = 256;

/// A guest that sends, and a NIC that does not take it.
struct Stage {
    daemon: Daemon,
    scene: Scene,
}

impl Stage {
    fn with(mut scene: Scene, device: &str) -> Stage {
        pcap::write(&scene.path("sent.pcap"), SENT.iter());
        scene.nic("wire0", device, 1, "");
        scene.guest("vm1", "wire0", 1);
        Stage { daemon: scene.start(), scene }
    }

    fn memif() -> Stage {
        let scene = Scene::new();
        let socket = scene.path("memif");
        let device = format!("net_memif0,role=server,socket-abstract=no,socket={}", socket.display());
        Stage::with(scene, &device)
    }

    fn arrived(&self) -> PathBuf {
        self.scene.path("arrived.pcap")
    }

    /// The NIC's other end: writes what arrives into a file.
    fn peer(&self) -> Testpmd {
        let socket = self.scene.path("memif");
        let memif = format!("net_memif0,role=client,socket-abstract=no,socket={}", socket.display());
        let nothing = self.scene.path("nothing.pcap");
        pcap::write(&nothing, [[0; 0]; 0]);
        let file = pcap_device("net_pcap0", &[nothing], &[self.arrived()]);
        let mut peer = Testpmd::start("peer", &Setup::small([memif, file]), &self.scene.path("peer.log"));
        peer.forward();
        peer
    }

    fn guest(&self) -> Testpmd {
        let port = virtio_user(&self.scene.socket("vm1"), 1, RING as usize);
        let (sent, got) = (self.scene.path("sent.pcap"), self.scene.path("got.pcap"));
        let setup = Setup::small([port, pcap_device("net_pcap0", &[sent], &[got])]);
        let mut guest = Testpmd::start("guest", &setup, &self.scene.path("guest.log"));
        guest.forward();
        guest
    }

    fn wait_state(&self, state: &str) {
        wait::until(&format!("wire0 is {state}"), 10, || {
            let now = self.daemon.port("wire0").state;
            if now == state { Ok(()) } else { Err(now) }
        });
    }

    /// Nothing moves, nothing is dropped, and one can see where it all waits. Returns how many are held.
    fn assert_stuck(&self, guest: &mut Testpmd) -> u64 {
        let held = wait::until("packets are held", 10, || match self.daemon.port("vm1").held {
            0 => Err(self.daemon.summary()),
            held => Ok(held),
        });
        // What the guest has put into its ring, less what was taken out: full, when the guest had time to.
        let in_ring = wait::until("the guest's ring is full", 10, || {
            let in_ring = guest.stats(0).tx_packets - self.daemon.port("vm1").rx_packets;
            if in_ring == RING { Ok(in_ring) } else { Err(format!("{in_ring} of {RING}")) }
        });
        println!("held {held}, in the guest's ring {in_ring}: {}", self.daemon.summary());
        let before = self.daemon.port("vm1");
        let end = Instant::now() + PAUSE;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(250));
            let now = self.daemon.port("vm1");
            assert_eq!((now.rx_packets, now.held, drops(&now)), (before.rx_packets, held, 0));
            assert_balanced(&self.daemon, "vm1", "wire0");
        }
        assert!(before.rx_packets < SENT.count);
        assert_eq!(guest.stats(0).tx_packets - before.rx_packets, RING);
        held
    }

    /// All of it leaves through the NIC in the end, and nothing else; then all stop.
    fn assert_all_leave(&mut self, mut guest: Testpmd) {
        self.daemon.wait_count("wire0", "tx", 60, SENT.count, |port| port.tx_packets);
        let (vm1, wire0) = (self.daemon.port("vm1"), self.daemon.port("wire0"));
        assert_eq!((vm1.rx_packets, vm1.held, drops(&vm1)), (SENT.count, 0, 0));
        assert_eq!((wire0.tx_packets, wire0.tx_bytes), (SENT.count, SENT.bytes()));
        // Through however many bursts that the NIC took a part of.
        let mut sizes = [0; snapshot::SIZE_CLASSES];
        for frame in SENT.iter() {
            sizes[Sizes::LAST.iter().filter(|last| frame.len() + 4 > **last as usize).count()] += 1;
        }
        assert_eq!(vm1.pairs[0].rx.sizes.classes(), sizes);
        assert_eq!(wire0.pairs[0].tx.sizes.classes(), sizes);
        assert_balanced(&self.daemon, "vm1", "wire0");
        let sent = guest.stats(0);
        assert_eq!((sent.tx_packets, sent.tx_bytes), (SENT.count, SENT.bytes()));
        guest.quit();
    }

    fn assert_all_arrive(mut self, guest: Testpmd, mut peer: Testpmd) {
        self.assert_all_leave(guest);
        wait::until("the peer has written all", 20, || {
            let written = peer.stats(1).tx_packets;
            if written == SENT.count { Ok(()) } else { Err(format!("{written}: {}", self.daemon.summary())) }
        });
        peer.quit();
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        SENT.assert_is("guest to peer", &pcap::read(&self.arrived()));
        assert_eq!(self.daemon.complaints(), [""; 0]);
    }
}

#[test]
fn nothing_is_lost_while_the_nics_ring_is_full() {
    let stage = Stage::memif();
    let peer = stage.peer();
    stage.wait_state("up");
    peer.child.signal(Signal::SIGSTOP);
    let mut guest = stage.guest();
    stage.assert_stuck(&mut guest);
    assert!(stage.daemon.port("wire0").tx_packets > 0, "the NIC's ring took some before it was full");
    peer.child.signal(Signal::SIGCONT);
    stage.assert_all_arrive(guest, peer);
}

#[test]
fn nothing_is_lost_while_the_link_is_down() {
    let stage = Stage::memif();
    stage.wait_state("down");
    let mut guest = stage.guest();
    stage.assert_stuck(&mut guest);
    assert_eq!(stage.daemon.port("wire0").tx_packets, 0);
    let peer = stage.peer();
    stage.wait_state("up");
    stage.assert_all_arrive(guest, peer);
}

/// Stopped while it still holds packets, ringwired does not wait for ever, and says what became of them.
#[test]
fn sigterm_while_the_nics_ring_is_full() {
    let mut stage = Stage::memif();
    let peer = stage.peer();
    stage.wait_state("up");
    peer.child.signal(Signal::SIGSTOP);
    let mut guest = stage.guest();
    let held = stage.assert_stuck(&mut guest);
    let (vm1, wire0) = (stage.daemon.port("vm1"), stage.daemon.port("wire0"));
    assert!(stage.daemon.stop(Duration::from_secs(2)).success());
    let (rx, tx) = (vm1.rx_packets, wire0.tx_packets);
    let expected = format!("rx {rx}, tx 0, held 0, drops {held} packets port=\"vm1\"");
    let log = stage.daemon.child.log();
    assert!(log.contains(&expected), "not in the log: {expected}");
    assert_eq!(rx, tx + held);
}

/// A veth whose near or far end is down: the driver says its link is up, but its ring stays full.
fn veth_down(take_down: impl Fn(&Namespace), bring_up: impl Fn(&Namespace)) {
    let namespace = Namespace::new("10.79.1.1/24");
    let near = &namespace.near;
    let device = format!("net_af_packet0,iface={near},framesz=2048,blocksz=4096,framecnt=512,qpairs=1");
    let mut stage = Stage::with(Scene::new(), &device);
    take_down(&namespace);
    let before = ["rx_packets", "rx_bytes"].map(|counter| namespace.count(counter));
    let mut guest = stage.guest();
    stage.assert_stuck(&mut guest);
    bring_up(&namespace);
    stage.assert_all_leave(guest);
    wait::until("all have come through the veth", 10, || {
        let [packets, bytes] = ["rx_packets", "rx_bytes"].map(|counter| namespace.count(counter));
        let came = (packets - before[0], bytes - before[1]);
        if came == (SENT.count, SENT.bytes()) { Ok(()) } else { Err(format!("{came:?}")) }
    });
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
}

#[test]
fn nothing_is_lost_while_a_veths_near_end_is_down() {
    let set = |state: &'static str| {
        move |namespace: &Namespace| {
            namespace::run(&["ip", "link", "set", &namespace.near, state]);
        }
    };
    veth_down(set("down"), set("up"));
}

#[test]
fn nothing_is_lost_while_a_veths_far_end_is_down() {
    let set = |state: &'static str| {
        move |namespace: &Namespace| {
            namespace.run(&["ip", "link", "set", &namespace.far, state]);
        }
    };
    veth_down(set("down"), set("up"));
}

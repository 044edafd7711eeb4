//! Where frames come from and go to: a daemon, what it connects, and who is at the ends.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tests::balance::drops_by_name;
use tests::child::Child;
use tests::daemon::Daemon;
use tests::lan::{BRIDGE, Lan, nic_device, tap_device};
use tests::namespace::run;
use tests::offload_guest::{LEAVES_ALL, MERGEABLE, NetHeader, OffloadGuest, Packet, TAKES_ALL};
use tests::pcap;
use tests::scene::{Scene, pcap_device};
use tests::tap::Tap;
use tests::testpmd::{Setup, Testpmd, virtio_user};

use crate::cells::{Cell, JUMBO, Size, TO_MAC, USUAL};
use crate::verdict::{PYTHON, script, write_packets};
use crate::want::{TESTPMD_TSO, Want};

/// The one that sends, or is sent to by the kernel.
const GUEST: &str = "vm1";
/// The other.
const OTHER: &str = "vm2";
/// The interface that shows what arrived in the network.
const FAR: &str = "far0";
/// Ends a capture: a frame that no other is like.
const MARK_TYPE: [u8; 2] = [0x88, 0xb5];
/// After the mark, nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// A port of ringwire's that a network is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A NIC without offloads.
    AfPacket,
    /// One that writes a file.
    Pcap,
    /// One that has offloads.
    NetTap,
    Tap,
    Raw,
}

/// A guest, by what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// Everything, in one buffer.
    Whole,
    /// Everything, in as many buffers as there must be.
    Merged,
    /// Checksums.
    Sums,
    /// Nothing.
    Nothing,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::AfPacket => "wire0",
            Backend::Pcap => "file0",
            Backend::NetTap => "dtap0",
            Backend::Tap => "tap0",
            Backend::Raw => "raw0",
        }
    }

    /// What is plugged into the bridge; `Pcap` has no such.
    fn plugged(self) -> &'static str {
        match self {
            Backend::AfPacket => "wire0b",
            Backend::Raw => "raw0b",
            other => other.name(),
        }
    }

    /// Bytes of IP that a frame of its may have.
    pub fn mtu(self) -> usize {
        match self {
            // These drivers have no larger one: they receive into one mbuf.
            Backend::AfPacket | Backend::NetTap => USUAL,
            Backend::Pcap | Backend::Tap | Backend::Raw => JUMBO,
        }
    }

    /// Makes its interface, and adds it to the configuration.
    pub fn add(self, lan: &Lan, scene: &mut Scene) {
        let name = self.name();
        match self {
            Backend::AfPacket => {
                lan.veth(name);
                scene.nic(name, &nic_device(0, name), 1, "");
            }
            Backend::Pcap => {
                let [from, to] = [scene.path("empty"), to_file(scene)];
                pcap::write(&from, [[0; 0]; 0]);
                scene.nic(name, &pcap_device("net_pcap0", &[from], &[to]), 1, "mtu = 9000");
            }
            Backend::NetTap => scene.nic(name, &tap_device(name), 1, ""),
            Backend::Tap => {
                lan.tap(name, &[]);
                scene.socket_port("tap", name, name, "");
            }
            Backend::Raw => {
                lan.veth(name);
                // What is left to be done goes through this pair, as it does through a tap.
                for end in [name, self.plugged()] {
                    run(&["ethtool", "-K", end, "tx", "on", "tso", "on", "gso", "on"]);
                }
                scene.socket_port("raw", name, name, "");
            }
        }
    }

    /// Lets frames of its MTU through to the bridge, and waits until it forwards them.
    fn plug_in(self, lan: &Lan) {
        if self == Backend::NetTap {
            lan.plug_in(self.name());
        }
        for interface in [self.name(), self.plugged()] {
            set_mtu(interface, self.mtu());
        }
        lan.expect_at("02:00:00:00:00:01", self.plugged());
    }
}

impl Taker {
    fn connect(self, scene: &Scene, name: &str) -> OffloadGuest {
        let sums = 1 << 1; // VIRTIO_NET_F_GUEST_CSUM
        let (features, room) = match self {
            Taker::Whole => (TAKES_ALL, 70_000),
            Taker::Merged => (TAKES_ALL | MERGEABLE, 2048),
            Taker::Sums => (sums | MERGEABLE, 1536),
            Taker::Nothing => (0, 10_000),
        };
        OffloadGuest::connect(&scene.socket(name), features, room)
    }
}

fn to_file(scene: &Scene) -> PathBuf {
    scene.path("at-nic.pcap")
}

fn set_mtu(interface: &str, mtu: usize) {
    run(&["ip", "link", "set", interface, "mtu", &mtu.to_string()]);
}

/// A network with a bridge for frames of that MTU.
fn lan_with(mtu: usize) -> Lan {
    let lan = Lan::enter("10.79.10.1/24");
    set_mtu(BRIDGE, mtu);
    lan
}

/// Who leaves work to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A guest of our own, whose headers say what the cells say.
    Prepared,
    /// DPDK's virtio-user, told by testpmd to offload checksums and TSO, which makes the headers.
    VirtioUser,
}

/// Sends frames from a guest that leaves everything to the device to `backend`, and gives what arrives there.
pub fn guest_to(sender: Sender, backend: Backend, wants: &[(Cell, Want)]) -> (Scene, Vec<Packet>) {
    let lan = lan_with(backend.mtu());
    let mut scene = Scene::new();
    backend.add(&lan, &mut scene);
    scene.guest(GUEST, backend.name(), 1);
    let mut daemon = scene.start();
    let mut far = (backend != Backend::Pcap).then(|| far(&lan, backend));
    let mut receive = |limit| far.as_mut().and_then(|far| far.receive(limit));
    let arrived = match sender {
        Sender::Prepared => {
            let mut guest = OffloadGuest::connect(&scene.socket(GUEST), LEAVES_ALL, 2048);
            let arrived =
                send_each(&mut |header, frame| guest.send(header, frame), wants, &scene, &mut receive);
            let sent = daemon.port(GUEST).rx_packets;
            daemon.wait_count(backend.name(), "tx", 20, sent, |port| port.tx_packets);
            arrived
        }
        Sender::VirtioUser => {
            let testpmd = start_testpmd(wants, &scene);
            let arrived = until_mark(Vec::new(), &mut receive);
            testpmd.quit();
            arrived
        }
    };
    if backend == Backend::Pcap {
        finish(&mut daemon);
        let frames = pcap::read(&to_file(&scene)).into_iter();
        return (scene, frames.map(|frame| (NetHeader::default(), frame)).collect());
    }
    let arrived = until_mark(arrived, &mut receive);
    finish(&mut daemon);
    (scene, arrived)
}

/// The interface that shows what arrives behind `backend`.
fn far(lan: &Lan, backend: Backend) -> Tap {
    let far = Tap::make(FAR);
    set_mtu(FAR, backend.mtu());
    run(&["ip", "link", "set", FAR, "txqueuelen", "10000"]);
    lan.plug_in(FAR);
    lan.expect_at("02:00:00:00:00:02", FAR);
    backend.plug_in(lan);
    far
}

/// testpmd, which sends the frames of which something is wanted, and then the mark.
fn start_testpmd(wants: &[(Cell, Want)], scene: &Scene) -> Testpmd {
    let mut all = packets(wants, scene);
    for ((header, _), (cell, _)) in all.iter_mut().zip(wants) {
        if cell.size == Size::Cut {
            header[4..6].copy_from_slice(&(TESTPMD_TSO as u16).to_le_bytes());
        }
    }
    write_packets(&scene.path(""), "sent", &all);
    let asked = all.iter().zip(wants).filter(|(_, (_, want))| want.is_asked()).map(|((_, frame), _)| frame);
    let [from, to] = ["to-testpmd", "from-testpmd"].map(|name| scene.path(name));
    pcap::write(&from, asked.chain([&mark()]));
    let file = pcap_device("net_pcap0", &[from], &[to]);
    let user = virtio_user(&scene.socket(GUEST), 1, 1024) + ",mac=02:00:00:00:00:01";
    let mut testpmd = Testpmd::start("testpmd", &Setup::small([file, user]), &scene.path("testpmd.log"));
    let offloads = ["csum set tcp hw 1", "csum set udp hw 1", &format!("tso set {TESTPMD_TSO} 1")];
    let before = ["port stop 1"].into_iter().chain(offloads);
    for command in before.chain(["port start 1", "set eth-peer 1 02:00:00:00:00:02", "set fwd csum", "start"])
    {
        testpmd.say(command);
    }
    testpmd
}

/// The same to another guest.
pub fn guest_to_guest(taker: Taker, wants: &[(Cell, Want)]) -> (Scene, Vec<Packet>) {
    let mut scene = Scene::new();
    scene.guest(GUEST, OTHER, 1);
    scene.guest(OTHER, GUEST, 1);
    let mut daemon = scene.start();
    let mut other = taker.connect(&scene, OTHER);
    let mut guest = OffloadGuest::connect(&scene.socket(GUEST), LEAVES_ALL, 2048);
    let mut receive = |limit| other.receive(limit);
    let arrived = send_each(&mut |header, frame| guest.send(header, frame), wants, &scene, &mut receive);
    let arrived = until_mark(arrived, &mut receive);
    drop((guest, other));
    finish(&mut daemon);
    (scene, arrived)
}

/// Where frames come from that go through a backend to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linux {
    /// Its own stack sends them, from a bridge.
    Sends,
    /// It forwards them through the bridge, as it got them from a tap.
    Forwards,
}

/// Has the kernel send or forward frames through `backend` to a guest.
pub fn linux_to_guest(
    linux: Linux,
    backend: Backend,
    taker: Taker,
    wants: &[(Cell, Want)],
) -> (Scene, Vec<Packet>) {
    let lan = lan_with(backend.mtu());
    let mut scene = Scene::new();
    backend.add(&lan, &mut scene);
    scene.guest(GUEST, backend.name(), 1);
    let mut daemon = scene.start();
    let mut far = far(&lan, backend);
    lan.expect_at("02:00:00:00:00:02", backend.plugged());
    let mut guest = taker.connect(&scene, GUEST);
    daemon.wait_connected(GUEST, true);
    let mut receive = |limit| guest.receive(limit);
    let arrived = match linux {
        Linux::Sends => stack_sends(wants, &scene, &mut receive),
        Linux::Forwards => {
            let arrived =
                send_each(&mut |header, frame| far.send(header, frame), wants, &scene, &mut receive);
            until_mark(arrived, &mut receive)
        }
    };
    drop(guest);
    finish(&mut daemon);
    (scene, arrived)
}

/// Has the kernel's stack send what is in the frames of which something is wanted, and gives what arrives.
fn stack_sends(
    wants: &[(Cell, Want)],
    scene: &Scene,
    receive: &mut dyn FnMut(Duration) -> Option<Packet>,
) -> Vec<Packet> {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "0")
        .expect("IPv6 on the bridge");
    packets(wants, scene);
    let asked =
        wants.iter().enumerate().filter(|(_, (_, want))| want.is_asked()).map(|(at, _)| at.to_string());
    let mut source = Command::new(PYTHON);
    source
        .arg(script("kernel_source.py"))
        .arg(scene.path(""))
        .args([BRIDGE, "02:00:00:00:00:02"])
        .args(asked);
    let mut source = Child::start("kernel_source.py", source, &scene.path("source.log"));
    let arrived = until_mark(Vec::new(), receive);
    assert!(source.wait(PATIENCE).is_some_and(|status| status.success()), "{}", source.log());
    arrived
}

/// All frames, which are put into the directory as well.
fn packets(wants: &[(Cell, Want)], scene: &Scene) -> Vec<Packet> {
    let packets: Vec<Packet> = wants.iter().map(|(cell, _)| cell.packet()).collect();
    write_packets(&scene.path(""), "sent", &packets);
    packets
}

/// Sends the frames of which something is wanted, and the mark. Gives what has arrived meanwhile.
fn send_each(
    send: &mut dyn FnMut(&NetHeader, &[u8]),
    wants: &[(Cell, Want)],
    scene: &Scene,
    receive: &mut dyn FnMut(Duration) -> Option<Packet>,
) -> Vec<Packet> {
    let mut arrived = Vec::new();
    for ((header, frame), _) in
        packets(wants, scene).iter().zip(wants).filter(|(_, (_, want))| want.is_asked())
    {
        send(header, frame);
        arrived.extend(std::iter::from_fn(|| receive(Duration::ZERO)));
    }
    send(&NetHeader::default(), &mark());
    arrived
}

fn mark() -> Vec<u8> {
    [&TO_MAC[..], &[2, 0, 0, 0, 0, 1], &MARK_TYPE, &[0; 46]].concat()
}

/// Goes on until the mark has arrived, and then nothing more.
fn until_mark(mut arrived: Vec<Packet>, receive: &mut dyn FnMut(Duration) -> Option<Packet>) -> Vec<Packet> {
    let is_mark = |(_, frame): &Packet| frame[12..14] == MARK_TYPE;
    let mut marked = arrived.iter().any(is_mark);
    while let Some(packet) = receive(if marked { QUIET } else { PATIENCE }) {
        marked |= is_mark(&packet);
        arrived.push(packet);
    }
    assert!(marked, "the last frame has not arrived; {} have", arrived.len());
    arrived
}

/// Nothing was lost, and nothing to complain of.
fn finish(daemon: &mut Daemon) {
    let ports = daemon.status().ports;
    let mut drops = drops_by_name(&ports);
    // What the network says to a guest that is not there yet, or not any more.
    drops.retain(|name, _| !name.ends_with(" not_connected"));
    assert!(drops.is_empty(), "{drops:?}");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

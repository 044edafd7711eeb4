//! Every kind of port: what went through a guest and what is behind it, frame by frame.

use std::path::Path;
use std::time::Duration;

use snapshot::Port;
use tests::daemon::{Daemon, drops};
use tests::lan::Lan;
use tests::link_socket::LinkSocket;
use tests::namespace::run;
use tests::scene::{Scene, pcap_device};
use tests::testpmd::{Setup, Testpmd, virtio_user};
use tests::{pcap, wait};

use crate::frames::{frames, to_port_7};
use crate::recording::{self, Recording, packets, skipped, sum};

/// Frames each way.
const COUNT: u64 = 400;
/// Seconds for all to be through.
const SECONDS: u64 = 60;

/// A guest that sends `frames`, once it is told to, and writes what it gets.
fn guest(scene: &Scene, name: &str, frames: &[Vec<u8>], longest: usize, options: &str) -> Testpmd {
    let [sent, got, log] = ["sent", "got", "log"].map(|what| scene.path(&format!("{name}.{what}")));
    pcap::write(&sent, frames);
    let port = format!("{},mrg_rxbuf=1{options}", virtio_user(&scene.socket(name), 1, 256));
    let file = pcap_device("net_pcap0", &[sent], &[got]);
    let setup = Setup {
        memory: 128,
        mbufs: 4096,
        mbuf_size: longest + 256,
        max_frame: longest + 18,
        ..Setup::small([port, file])
    };
    Testpmd::start(name, &setup, &log)
}

fn wait_for(daemon: &Daemon, port: &str, rx: u64, tx: u64) -> Port {
    wait::until(&format!("all is through {port}"), SECONDS, || {
        let port = daemon.port(port);
        if port.rx_packets >= rx && port.tx_packets >= tx { Ok(port) } else { Err(daemon.summary()) }
    })
}

/// All frames that passed `port` are in the file, each in its direction, and no others; and the counters say the same.
fn assert_all(file: &Path, port: &Port, rx: &[Vec<u8>], tx: &[Vec<u8>]) {
    let found = packets(file, "");
    assert_eq!(sum(&found, 1), (port.rx_packets, port.rx_bytes), "{}: in", port.name);
    assert_eq!(sum(&found, 2), (port.tx_packets, port.tx_bytes), "{}: out", port.name);
    assert_eq!(drops(port), 0, "{port:?}");
    assert!(recording::frames(file, 1) == rx, "{}: not the frames that came in", port.name);
    assert!(recording::frames(file, 2) == tx, "{}: not the frames that went out", port.name);
    let name = format!("{}:0", port.name);
    assert!(found.iter().all(|packet| packet.interface == name && packet.kept == packet.len));
}

fn through_a_nic(options: &str) {
    if skipped() {
        return;
    }
    let longest = 9000;
    let (out, into) = (frames(1, COUNT, longest), frames(2, COUNT, longest));
    let mut scene = Scene::new();
    let [from, to] = ["nic.rx", "nic.tx"].map(|name| scene.path(name));
    pcap::write(&from, &into);
    scene.nic("wire0", &pcap_device("net_pcap0", &[from], &[to]), 1, &format!("mtu = {longest}"));
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let start = |name, arguments: &[&str]| Recording::start(&scene, &daemon, name, arguments);
    let all = start("all", &["vm1"]);
    let wire = start("wire", &["wire0:0"]);
    let filtered = start("filtered", &["wire0", "--direction", "tx", "udp", "port", "7"]);
    let short = start("short", &["vm1", "--direction", "tx", "--snaplen", "70"]);
    let fifth = daemon.client(&["capture", "vm1", "-w", scene.path("fifth").to_str().expect("letters")]);
    assert_eq!(fifth.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&fifth.stderr), "ringwire: 4 captures run already: end one first\n");
    assert!(!scene.path("fifth").exists());

    let mut guest = guest(&scene, "vm1", &out, longest, options);
    guest.forward();
    let vm1 = wait_for(&daemon, "vm1", COUNT, COUNT);
    let wire0 = wait_for(&daemon, "wire0", COUNT, COUNT);
    let (file, said) = all.stop();
    assert_eq!((said.captured, said.seen, said.dropped), (2 * COUNT, 2 * COUNT, 0));
    assert_eq!(recording::statistics(&file), [[2 * COUNT, 0, 2 * COUNT, 2 * COUNT]]);
    assert_all(&file, &vm1, &out, &into);
    assert_all(&wire.stop().0, &wire0, &into, &out);

    let (filtered, said) = filtered.stop();
    // What tshark finds in the whole of it. It looks behind the VLAN tags, too.
    let theirs = packets(&file, "udp.port == 7 and not vlan and frame.packet_flags_direction == 1");
    assert_eq!(sum(&packets(&filtered, ""), 2), sum(&theirs, 1));
    assert!(recording::frames(&filtered, 2) == to_port_7(&out));
    assert_eq!((said.captured, said.seen), (COUNT / 4, COUNT));
    assert_eq!(recording::statistics(&filtered), [[COUNT, 0, COUNT / 4, COUNT / 4]]);

    let short = packets(&short.stop().0, "");
    let lens: Vec<_> = short.iter().map(|packet| (packet.direction, packet.len, packet.kept)).collect();
    let expected: Vec<_> =
        into.iter().map(|frame| (2, frame.len() as u64, 70.min(frame.len() as u64))).collect();
    assert_eq!(lens, expected);

    guest.quit();
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn a_guest_and_a_nic_split() {
    through_a_nic("");
}

#[test]
fn a_guest_and_a_nic_packed_in_order() {
    through_a_nic(",packed_vq=1,in_order=1");
}

fn through_two_guests(options: &str) {
    if skipped() {
        return;
    }
    let longest = 1514;
    let (first, second) = (frames(1, COUNT, longest), frames(2, COUNT, longest));
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "vm1", 1);
    let mut daemon = scene.start();
    let recordings = ["vm1", "vm2"].map(|name| Recording::start(&scene, &daemon, name, &[name]));
    let arp = Recording::start(&scene, &daemon, "other", &["vm1", "ether proto 0x88b5"]);
    let guests = [("vm1", &first), ("vm2", &second)];
    let mut guests = guests.map(|(name, frames)| guest(&scene, name, frames, longest, options));
    guests.iter_mut().for_each(Testpmd::forward);
    let ports = ["vm1", "vm2"].map(|name| wait_for(&daemon, name, COUNT, COUNT));
    let [one, two] = recordings.map(|recording| recording.stop().0);
    assert_all(&one, &ports[0], &first, &second);
    assert_all(&two, &ports[1], &second, &first);
    let (other, said) = arp.stop();
    assert_eq!((said.captured, said.seen, said.dropped), (COUNT / 2, 2 * COUNT, 0));
    let kinds: Vec<_> = packets(&other, "eth.type == 0x88b5").iter().map(|packet| packet.direction).collect();
    assert_eq!(kinds.len() as u64, COUNT / 2);
    guests.into_iter().for_each(Testpmd::quit);
    for (name, frames) in [("vm1", &second), ("vm2", &first)] {
        assert!(
            pcap::read(&scene.path(&format!("{name}.got"))) == *frames,
            "{name} did not get what was sent"
        );
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn two_guests_split() {
    through_two_guests("");
}

#[test]
fn two_guests_packed() {
    through_two_guests(",packed_vq=1");
}

#[test]
fn a_guest_and_a_tap() {
    if skipped() {
        return;
    }
    let longest = 1514;
    let (out, into) = (frames(1, COUNT, longest), frames(2, COUNT, longest));
    let _lan = Lan::enter("10.79.9.1/24");
    run(&["ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"]);
    run(&["ip", "link", "set", "tap0", "up"]);
    let mut scene = Scene::new();
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.guest("vm1", "tap0", 1);
    let mut daemon = scene.start();
    let recordings = ["vm1", "tap0"].map(|name| Recording::start(&scene, &daemon, name, &[name]));
    let mut guest = guest(&scene, "vm1", &out, longest, "");
    guest.forward();
    let host = LinkSocket::bind("tap0");
    // The tap takes as many as its queue has room for, and the guest takes them out of there.
    for part in into.chunks(100) {
        part.iter().for_each(|frame| assert!(host.send(frame)));
        let sent = daemon.port("vm1").tx_packets;
        wait_for(&daemon, "vm1", 0, sent.max(part.len() as u64));
    }
    let vm1 = wait_for(&daemon, "vm1", COUNT, COUNT);
    let tap0 = wait_for(&daemon, "tap0", COUNT, COUNT);
    let [near, far] = recordings.map(|recording| recording.stop().0);
    assert_all(&near, &vm1, &out, &into);
    assert_all(&far, &tap0, &into, &out);
    guest.quit();
    assert!(pcap::read(&scene.path("vm1.got")) == into, "the guest did not get what was sent");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

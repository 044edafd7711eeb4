//! Where a guest is: what the switches of a network are told when it comes there, and what they make of it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use tests::balance::assert_adds_up;
use tests::bare_guest::{BareGuest, FROM, TO};
use tests::daemon::{Daemon, guest};
use tests::hostile::client::{Answer, Client, code, longs};
use tests::lan::{BRIDGE, Lan, nic_device, tap_device};
use tests::link_socket::LinkSocket;
use tests::namespace::run;
use tests::scene::Scene;
use tests::wait;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x21];
const MAC_TEXT: &str = "52:54:00:00:00:21";
/// MQ, RARP, REPLY_ACK.
const PROTOCOL: u64 = 1 | 1 << 2 | 1 << 3;

/// A network with a bridge, into which all ports lead, and a guest of the daemon's.
struct Stage {
    lan: Lan,
    daemon: Daemon,
    scene: Scene,
    /// What comes to the bridge's own host.
    host: OwnedFd,
}

impl Stage {
    /// Guest vm1; `more` is lines for it.
    fn set(backend: &str, more: &str) -> Stage {
        let lan = Lan::enter("10.79.6.1/24");
        ["raw0", "wire2"].into_iter().for_each(|name| lan.veth(name));
        lan.tap("tap0", &[]);
        let mut scene = Scene::new();
        scene.nic("wire0", &tap_device("wire0"), 1, "");
        scene.nic("wire2", &nic_device(2, "wire2"), 1, "");
        scene.socket_port("tap", "tap0", "tap0", "");
        scene.socket_port("raw", "raw0", "raw0", "");
        scene.guest("vm1", backend, 1);
        scene.add(more);
        let daemon = scene.start();
        lan.plug_in("wire0");
        // They forward, which the bridge allows a moment after the carrier is there.
        for plug in ["wire0", "wire2b", "tap0", "raw0b"] {
            lan.expect_at("52:54:00:00:00:22", plug);
        }
        Stage { lan, daemon, scene, host: LinkSocket::bind(BRIDGE).into_fd() }
    }

    fn connect(&self) -> Client {
        let mut client = Client::connect(&self.scene.socket("vm1"));
        assert!(client.is_served());
        assert!(client.send(code::SET_PROTOCOL_FEATURES, 0, &longs(&[PROTOCOL]), &[]));
        assert!(client.is_served());
        client
    }

    fn announced(&self) -> u64 {
        guest(&self.daemon.port("vm1")).announced
    }

    /// Waits until the bridge has learnt that the guest is behind `backend`.
    fn wait_learnt(&self, backend: &str) {
        let plug =
            if ["raw0", "wire2"].contains(&backend) { format!("{backend}b") } else { backend.to_owned() };
        wait::until(&format!("the bridge knows the guest at {plug}"), 10, || {
            let known = run(&["bridge", "fdb", "show", "br", BRIDGE]);
            let lines: Vec<&str> = known.lines().filter(|line| line.contains(MAC_TEXT)).collect();
            let found = lines.iter().any(|line| line.contains(&format!("dev {plug} ")));
            if found { Ok(()) } else { Err(format!("{lines:?}")) }
        });
    }

    /// Announcements that have come to the bridge's host by now.
    fn heard(&self) -> usize {
        let mut heard = 0;
        let mut frame = [0; 2048];
        let fd = self.host.as_raw_fd();
        while let Ok(len) = recv(fd, &mut frame, MsgFlags::MSG_DONTWAIT) {
            if frame[12..14] == [0x80, 0x35] {
                let expected = [&[0xff; 6], &MAC[..], &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], &MAC].concat();
                assert_eq!((&frame[..28], len), (&expected[..], 60));
                heard += 1;
            }
        }
        heard
    }

    fn end(mut self, expected: &str) {
        assert!(self.daemon.stop(Duration::from_secs(5)).success());
        let complaints = self.daemon.complaints();
        let known = |line: &String| !expected.is_empty() && line.contains(expected);
        assert!(complaints.iter().all(known), "{complaints:?}");
    }
}

#[test]
fn a_guest_with_a_mac_is_announced_to_each_network_it_comes_to() {
    let stage = Stage::set("none", &format!("mac = {MAC_TEXT:?}\n"));
    // Nobody is there yet.
    stage.daemon.set_backend("vm1", "tap0");
    stage.daemon.set_backend("vm1", "none");
    assert_eq!(stage.announced(), 0);
    let client = stage.connect();
    let ways = ["tap0", "raw0", "wire2", "tap0", "wire0", "raw0"];
    for (done, backend) in (1..).zip(ways) {
        stage.daemon.set_backend("vm1", backend);
        stage.wait_learnt(backend);
        assert_eq!(stage.announced(), done);
        // To where it is already: nothing changes.
        stage.daemon.set_backend("vm1", backend);
        assert_eq!(stage.announced(), done);
    }
    stage.daemon.set_backend("vm1", "none");
    assert_eq!(stage.heard(), ways.len());
    let ports = stage.daemon.status().ports;
    assert_eq!(stage.daemon.port("vm1").rx_packets, ways.len() as u64);
    assert_adds_up(&ports);
    drop(client);
    stage.daemon.wait_connected("vm1", false);
    stage.daemon.set_backend("vm1", "tap0");
    assert_eq!(stage.announced(), ways.len() as u64, "nobody is there any more");
    stage.end("");
}

#[test]
fn a_guest_that_falls_back_is_announced() {
    let more = format!("mac = {MAC_TEXT:?}\nfallback = \"tap0\"\nfallback_hold = 1\n");
    let stage = Stage::set("wire0", &more);
    let _client = stage.connect();
    stage.lan.set_up("wire0", false);
    stage.wait_learnt("tap0");
    stage.lan.set_up("wire0", true);
    stage.wait_learnt("wire0");
    assert_adds_up(&stage.daemon.status().ports);
    stage.end("connected: wire0 is");
}

#[test]
fn send_rarp_announces_a_guest_and_says_its_address() {
    let stage = Stage::set("tap0", "");
    let mut client = stage.connect();
    stage.daemon.set_backend("vm1", "raw0");
    assert_eq!(stage.announced(), 0, "its address is not known");
    let payload = [&MAC[..], &[0, 0]].concat();
    for (done, backend) in (1..).zip(["raw0", "tap0", "wire2", "wire0"]) {
        if done > 1 {
            // Without being asked: its address is known now.
            stage.daemon.set_backend("vm1", backend);
            stage.wait_learnt(backend);
        }
        assert_eq!(client.tell(code::SEND_RARP, &payload, &[]), Answer::Done);
        stage.wait_learnt(backend);
        assert_eq!(stage.announced(), 2 * done - 1);
    }
    stage.daemon.set_backend("vm1", "none");
    assert_eq!(client.tell(code::SEND_RARP, &payload, &[]), Answer::Done);
    assert_eq!((stage.announced(), stage.heard()), (7, 7), "there is nobody to tell");
    assert_adds_up(&stage.daemon.status().ports);
    // The next frontend may be another guest's.
    drop(client);
    stage.daemon.wait_connected("vm1", false);
    let _next = stage.connect();
    stage.daemon.set_backend("vm1", "tap0");
    assert_eq!(stage.announced(), 7);
    stage.end("");
}

#[test]
fn a_guest_hears_where_the_other_one_is() {
    let mut scene = Scene::new();
    scene.guest("vm1", "vm2", 1);
    scene.guest("vm2", "none", 1);
    let mut daemon = scene.start();
    let mut other = BareGuest::connect(&scene.socket("vm2"), 60);
    [TO, FROM].into_iter().for_each(|index| other.start_ring(index, 0));
    let mut client = Client::connect(&scene.socket("vm1"));
    assert!(client.is_served());
    assert!(client.send(code::SET_PROTOCOL_FEATURES, 0, &longs(&[PROTOCOL]), &[]));
    assert!(client.is_served());
    let payload = [&MAC[..], &[0, 0]].concat();
    // It has posted no buffer: the frame is never sent, and counts nowhere.
    assert_eq!(client.tell(code::SEND_RARP, &payload, &[]), Answer::Done);
    assert_eq!(daemon.port("vm1").rx_packets, 0);
    other.post(TO);
    assert_eq!(client.tell(code::SEND_RARP, &payload, &[]), Answer::Done);
    assert!(other.rings[TO].collect());
    assert_eq!((other.rings[TO].total, &other.rings[TO].wrong), (1, &Vec::new()));
    let [vm1, vm2] = ["vm1", "vm2"].map(|name| daemon.port(name));
    assert_eq!((vm1.rx_packets, vm1.rx_bytes, guest(&vm1).announced), (1, 60, 1));
    assert_eq!((vm2.tx_packets, vm2.tx_bytes, vm2.rx_packets), (1, 60, 0));
    drop((client, other));
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert!(daemon.complaints().is_empty(), "{:?}", daemon.complaints());
}

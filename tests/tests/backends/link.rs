//! The link that a guest's frontend reads in the config space, and what it is told when that changes.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tests::daemon::guest;
use tests::hostile::client::{Answer, Client, code, longs, words};
use tests::scene::Scene;

/// REPLY_ACK, NET_MTU, BACKEND_REQ, CONFIG, STATUS.
const PROTOCOL: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 16;
/// BACKEND_CONFIG_CHANGE_MSG, version 1, without payload.
const CHANGED: [u32; 3] = [2, 1, 0];

/// The config space's status, and speed and duplex mode.
fn link(client: &mut Client) -> (u16, u32, u8) {
    let mut question = words(&[0, 20, 0]);
    question.extend([0; 20]);
    let reply = client.ask(code::GET_CONFIG, &question).expect("the config space");
    let space = &reply[12..];
    let speed = u32::from_le_bytes(space[12..16].try_into().expect("four bytes"));
    (u16::from_le_bytes([space[6], space[7]]), speed, space[16])
}

fn told(channel: &mut UnixStream) {
    let mut message = [0; 12];
    channel.read_exact(&mut message).expect("to be told of it");
    assert_eq!(message[..], words(&CHANGED));
}

#[test]
fn a_frontend_is_told_that_its_guests_link_has_changed() {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0", 1, "");
    scene.guest("vm1", "wire0", 1);
    let mut daemon = scene.start();
    let mut client = Client::connect(&scene.socket("vm1"));
    assert!(client.is_served());
    assert!(client.send(code::SET_PROTOCOL_FEATURES, 0, &longs(&[PROTOCOL]), &[]));
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    assert_eq!(client.tell(code::SET_BACKEND_REQ_FD, &[], &[theirs.as_raw_fd()]), Answer::Done);
    drop(theirs);
    ours.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");

    let unknown = (0, u32::MAX, u8::MAX);
    // Whatever it has read before it could be told may be out of date.
    told(&mut ours);
    assert_eq!(link(&mut client), (1, 10_000, 1), "DPDK's null driver says 10 Gb/s");
    for _ in 0..3 {
        daemon.set_backend("vm1", "none");
        told(&mut ours);
        assert_eq!(link(&mut client), unknown);
        daemon.set_backend("vm1", "wire0");
        told(&mut ours);
        assert_eq!(link(&mut client), (1, 10_000, 1));
    }
    // Where nothing changes, nothing is said: several looks of the watch later.
    ours.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    assert!(ours.read(&mut [0]).is_err());

    // What else a frontend says, as it is shown.
    assert_eq!(client.tell(code::NET_SET_MTU, &longs(&[1400]), &[]), Answer::Done);
    assert_eq!(client.tell(code::NET_SET_MTU, &longs(&[9000]), &[]), Answer::Refused(1));
    assert_eq!(client.tell(code::SET_STATUS, &longs(&[7]), &[]), Answer::Done);
    let port = daemon.port("vm1");
    assert_eq!(guest(&port).frontend_mtu, Some(1400));
    assert_eq!(guest(&port).device_status, ["ACKNOWLEDGE", "DRIVER", "DRIVER_OK"]);
    let text = daemon.client(&["port", "show", "vm1"]).stdout;
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains("1400, set by the frontend") && text.contains("DRIVER_OK"), "{text}");
    drop(client);
    assert_eq!(ours.read(&mut [0]).expect("the end of the channel"), 0);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    let complaints = daemon.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("an MTU of 9000 bytes"), "{complaints:?}");
}

#[test]
fn offloads_are_in_force_from_the_next_frontend_on() {
    let mut scene = Scene::new();
    scene.guest("vm1", "none", 1);
    let daemon = scene.start();
    const CSUM: u64 = 1;
    const HOST_TSO4: u64 = 1 << 11;
    let offered = |client: &mut Client| {
        let reply = client.ask(code::GET_FEATURES, &[]).expect("features");
        u64::from_ne_bytes(reply.try_into().expect("64 bits"))
    };
    let mut first = Client::connect(&scene.socket("vm1"));
    let all = offered(&mut first);
    assert_eq!(all & (CSUM | HOST_TSO4), CSUM | HOST_TSO4);
    let said = daemon.client(&["guest", "offloads", "vm1", "csum"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("in force from the frontend's next connection: CSUM\n"), "{said}");
    assert_eq!(offered(&mut first), all, "it has been offered something already");
    let names = guest(&daemon.port("vm1")).offered.clone();
    assert!(names.contains(&"VIRTIO_NET_F_CSUM".to_owned()));
    assert!(!names.contains(&"VIRTIO_NET_F_HOST_TSO4".to_owned()));
    drop(first);
    daemon.wait_connected("vm1", false);
    for (wanted, expected) in [("csum", CSUM), ("off", 0), ("auto", CSUM | HOST_TSO4)] {
        assert!(daemon.client(&["guest", "offloads", "vm1", wanted]).status.success());
        let mut next = Client::connect(&scene.socket("vm1"));
        assert_eq!(offered(&mut next) & (CSUM | HOST_TSO4), expected, "{wanted}");
        drop(next);
        daemon.wait_connected("vm1", false);
    }
}

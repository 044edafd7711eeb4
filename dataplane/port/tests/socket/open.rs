//! Opening: what is created, what is taken as it is, and that frames pass both ways.

use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag};
use port::socket::{LinkState, SocketKind, SocketOptions, SocketPair, SocketPort};

use crate::stage::{
    PLAIN, alone, by_name, cable, collect, discard, frame, handed_in, open, receive, run, send, try_run,
};

/// Frames of several lengths from either to the other, byte by byte the same.
fn both_ways(a: &mut SocketPair, b: &mut SocketPair) {
    for len in [60, 61, 1514, 300] {
        let (there, back) = (frame(1, len), frame(2, len));
        send(a, PLAIN, &there);
        assert_eq!(receive(b).1, there);
        send(b, PLAIN, &back);
        assert_eq!(receive(a).1, back);
    }
}

#[test]
fn a_tap_is_created_set_up_and_gone_with_its_last_descriptor() {
    if !alone() {
        return;
    }
    let options = SocketOptions {
        user: Some(1234),
        group: Some(4321),
        mtu: Some(1600),
        ..by_name(SocketKind::Tap, "t0", 1)
    };
    let (port, mut pairs) = SocketPort::open(&options).unwrap();
    assert!(port.created);
    let status = port.status();
    assert_eq!((status.state, status.mtu, status.driver.as_str()), (LinkState::Up, 1600, "tun"));
    let shown = run("ip -details link show t0");
    for part in ["UP", "mtu 1600", "type tap", "vnet_hdr on", "persist off", "user 1234", "group 4321"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let mac = status.mac.map(|byte| format!("{byte:02x}")).join(":");
    assert!(shown.contains(&mac), "{mac}: {shown}");
    let (_raw, mut raw) = open(SocketKind::Raw, "t0");
    pairs[0].discard();
    raw.discard();
    both_ways(&mut pairs[0], &mut raw);
    drop(pairs);
    run("ip link show t0");
    drop(port);
    assert!(!try_run("ip link show t0").0);
}

#[test]
fn a_persistent_tap_is_taken_and_left_as_it_was() {
    if !alone() {
        return;
    }
    run("ip tuntap add t0 mode tap && ip tuntap add t1 mode tap multi_queue");
    for interface in ["t0", "t1"] {
        let (port, pair) = open(SocketKind::Tap, interface);
        assert!(!port.created);
        assert_eq!(port.status().state, LinkState::Down);
        run(&format!("ip link set {interface} up"));
        assert_eq!(port.refresh_link(), (true, true));
        let mut pair = pair;
        let (_raw, mut raw) = open(SocketKind::Raw, interface);
        pair.discard();
        both_ways(&mut pair, &mut raw);
        drop((port, pair));
        run(&format!("ip link show {interface}"));
        // And can be taken again.
        open(SocketKind::Tap, interface);
    }
}

#[test]
fn a_tap_of_many_queues_delivers_each_frame_to_one_of_them() {
    if !alone() {
        return;
    }
    let (port, mut pairs) = SocketPort::open(&by_name(SocketKind::Tap, "t0", 4)).unwrap();
    assert_eq!((port.counters.len(), pairs.len()), (4, 4));
    let indices: Vec<u16> = pairs.iter().map(|pair| pair.index).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    let (_raw, mut raw) = open(SocketKind::Raw, "t0");
    discard(&mut pairs);
    raw.discard();
    for pair in &mut pairs {
        both_ways_any(pair, &mut raw);
    }
    flows().for_each(|flow| send(&mut raw, PLAIN, &flow));
    assert_each_once(&collect(&mut pairs, 64));
}

/// What the pair sends arrives.
fn both_ways_any(pair: &mut SocketPair, raw: &mut SocketPair) {
    let there = frame(pair.index as u8, 100);
    send(pair, PLAIN, &there);
    assert_eq!(receive(raw).1, there);
}

/// 64 UDP frames, each of another flow.
fn flows() -> impl Iterator<Item = Vec<u8>> {
    (0..64).map(|port| {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
        // IPv4, 40 bytes, UDP, 10.0.0.1 to 10.0.0.2.
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0x66, 0xc3, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([port, 1, 0, 99, 0, 20, 0, 0]);
        frame.extend([port; 12]);
        frame
    })
}

/// Each flow is at one queue, once, and more than one queue has some.
#[track_caller]
fn assert_each_once(got: &[Vec<Vec<u8>>]) {
    let mut ports: Vec<u8> = got.iter().flatten().map(|frame| frame[34]).collect();
    ports.sort();
    assert_eq!(ports, (0..64).collect::<Vec<u8>>());
    assert!(got.iter().flatten().all(|frame| flows().any(|flow| flow == *frame)));
    assert!(got.iter().filter(|queue| !queue.is_empty()).count() > 1);
}

#[test]
fn a_macvtap_is_recognised_by_its_name() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ip link add link va name m0 type macvtap mode passthru && ip link set m0 up");
    let (port, mut pair) = open(SocketKind::Tap, "m0");
    assert_eq!((port.kind, port.created), (SocketKind::Macvtap, false));
    assert_eq!((port.status().state, port.status().driver.as_str()), (LinkState::Up, "macvtap"));
    let (_raw, mut raw) = open(SocketKind::Raw, "vb");
    both_ways(&mut pair, &mut raw);
    drop((port, pair));
    let (_port, mut pairs) = SocketPort::open(&by_name(SocketKind::Tap, "m0", 2)).unwrap();
    flows().for_each(|flow| send(&mut raw, PLAIN, &flow));
    assert_each_once(&collect(&mut pairs, 64));
}

/// As in a container.
#[test]
fn a_macvtap_is_opened_where_dev_has_no_node_for_it() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ip link add link va name m0 type macvtap mode passthru && ip link set m0 up");
    run("mount -t tmpfs none /dev");
    let (port, mut pair) = open(SocketKind::Tap, "m0");
    assert_eq!(port.kind, SocketKind::Macvtap);
    assert_eq!(std::fs::read_dir("/dev").unwrap().count(), 0);
    let (_raw, mut raw) = open(SocketKind::Raw, "vb");
    both_ways(&mut pair, &mut raw);
    let node = format!("/dev/tap{}", port.status().index);
    drop((port, pair));
    // In another network namespace an interface may have the same index: then the node is that one's.
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(node.as_str(), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, null).unwrap();
    let (_port, mut pair) = open(SocketKind::Tap, "m0");
    both_ways(&mut pair, &mut raw);
}

#[test]
fn a_raw_socket_reads_what_arrives_and_nothing_that_leaves() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (port, mut a) = open(SocketKind::Raw, "va");
    assert_eq!((port.kind, port.status().driver.as_str()), (SocketKind::Raw, "veth"));
    // A guest's address is not the interface's.
    assert!(run("ip -details link show va").contains(" promiscuity 1 "));
    let (_second, mut second) = open(SocketKind::Raw, "va");
    let (_b, mut b) = open(SocketKind::Raw, "vb");
    both_ways(&mut a, &mut b);
    second.discard();
    // Neither what it sends itself, nor what another program of the host sends there.
    send(&mut a, PLAIN, &frame(1, 100));
    send(&mut second, PLAIN, &frame(2, 100));
    run("ip addr add 10.9.0.1/24 dev va && ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev va");
    try_run("ping -c 1 -W 0.1 10.9.0.2");
    let arrived = collect(std::slice::from_mut(&mut b), 3).concat();
    assert_eq!((arrived.len(), arrived[0][11], arrived[1][11]), (3, 1, 2), "and the ping");
    send(&mut b, PLAIN, &frame(3, 100));
    for pair in [&mut a, &mut second] {
        assert_eq!(receive(pair).1, frame(3, 100));
    }
}

#[test]
fn several_raw_sockets_share_what_arrives() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (_a, mut pairs) = SocketPort::open(&by_name(SocketKind::Raw, "va", 4)).unwrap();
    let (_b, mut b) = open(SocketKind::Raw, "vb");
    discard(&mut pairs);
    flows().for_each(|flow| send(&mut b, PLAIN, &flow));
    assert_each_once(&collect(&mut pairs, 64));
    // What one of them sends, or another program, none of them reads.
    let (_other, mut other) = open(SocketKind::Raw, "va");
    flows().for_each(|flow| send(&mut pairs[0], PLAIN, &flow));
    flows().for_each(|flow| send(&mut other, PLAIN, &flow));
    assert_eq!(collect(std::slice::from_mut(&mut b), 128)[0].len(), 128);
    flows().for_each(|flow| send(&mut b, PLAIN, &flow));
    assert_each_once(&collect(&mut pairs, 64));
}

#[test]
fn descriptors_that_are_open_already_are_taken() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (_b, mut b) = open(SocketKind::Raw, "vb");
    // As somebody else would open them: by ringwire itself, in another port, is as good.
    for (kind, interface) in [(SocketKind::Raw, "va"), (SocketKind::Tap, "t0")] {
        let (opened, pair) = open(kind, interface);
        let fd = pair.fd().try_clone_to_owned().unwrap();
        drop((opened, pair));
        let (port, mut pairs) = SocketPort::open(&handed_in(vec![fd])).unwrap();
        assert_eq!((port.kind, port.status().interface.as_str()), (kind, interface));
        let mut on_tap;
        let peer = if kind == SocketKind::Tap {
            on_tap = open(SocketKind::Raw, "t0").1;
            &mut on_tap
        } else {
            &mut b
        };
        pairs[0].discard();
        peer.discard();
        both_ways(&mut pairs[0], peer);
    }
    let (opened, pairs) = SocketPort::open(&by_name(SocketKind::Tap, "t1", 3)).unwrap();
    let fds = pairs.iter().map(|pair| pair.fd().try_clone_to_owned().unwrap()).collect();
    drop((opened, pairs));
    let (port, pairs) = SocketPort::open(&handed_in(fds)).unwrap();
    assert_eq!((port.kind, pairs.len()), (SocketKind::Tap, 3));
}

/// A descriptor works from anywhere, so its interface is looked for where it is.
#[test]
fn a_descriptor_from_another_namespace_is_taken() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ip link set va mtu 1300");
    let mut fds = Vec::new();
    for (kind, interface) in [(SocketKind::Raw, "va"), (SocketKind::Tap, "t0")] {
        let (_port, pair) = open(kind, interface);
        fds.push(pair.fd().as_fd().try_clone_to_owned().unwrap());
    }
    run("ip link set t0 mtu 1300");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for (fd, interface) in fds.into_iter().zip(["va", "t0"]) {
        let (port, _pairs) = SocketPort::open(&handed_in(vec![fd])).unwrap();
        let status = port.status();
        assert_eq!((status.state, status.interface.as_str(), status.mtu), (LinkState::Up, interface, 1300));
    }
}

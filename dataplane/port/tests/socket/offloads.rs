//! What the guest can take is what the kernel hands out.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use port::socket::{SocketKind, SocketPair};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
};

use crate::stage::{alone, collect, discard, open, receive, run, send, try_receive};

const CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
const TSO4: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4;
const USO: u64 = 1 << VIRTIO_NET_F_GUEST_USO4 | 1 << VIRTIO_NET_F_GUEST_USO6;
const STREAM: usize = 4 << 20;
const NEEDS_CSUM: u8 = 1;

/// What passed from one tap to the other.
#[derive(Debug, Default)]
struct Passed {
    longest: usize,
    segmented: usize,
    partial: usize,
}

/// A TCP stream from a host behind one tap to a host behind another one, and what its frames were like.
fn stream(features: u64) -> Passed {
    let (_near, mut near) = open(SocketKind::Tap, "t0");
    run("ip addr add 10.0.0.1/24 dev t0");
    near.set_offloads(features).unwrap();
    let (give, given) = std::sync::mpsc::channel();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let (port, mut pair) = open(SocketKind::Tap, "t0");
            run("ip addr add 10.0.0.2/24 dev t0");
            pair.set_offloads(0).unwrap();
            let listener = TcpListener::bind("10.0.0.2:99").unwrap();
            give.send((port, pair)).unwrap();
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            assert!(all.len() == STREAM && all.iter().enumerate().all(|(i, byte)| *byte == (i / 3) as u8));
        });
        let (_far, mut far) = given.recv().unwrap();
        let relay = scope.spawn({
            let done = &done;
            move || {
                let mut passed = Passed::default();
                while !done.load(Ordering::Relaxed) {
                    forward(&mut near, &mut far, |header, len| {
                        passed.longest = passed.longest.max(len);
                        passed.segmented += usize::from(header[1] != 0);
                        passed.partial += usize::from(header[0] & NEEDS_CSUM != 0);
                    });
                    forward(&mut far, &mut near, |header, len| {
                        assert!((header[0] & NEEDS_CSUM, header[1]) == (0, 0) && len <= 1514);
                    });
                    let mut readable = [&near, &far].map(|pair| PollFd::new(pair.fd(), PollFlags::POLLIN));
                    poll(&mut readable, PollTimeout::from(10u16)).unwrap();
                }
                passed
            }
        });
        let mut sender = TcpStream::connect("10.0.0.2:99").unwrap();
        sender.write_all(&(0..STREAM).map(|i| (i / 3) as u8).collect::<Vec<u8>>()).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
        // The other side closes when it has read all.
        assert_eq!(sender.read(&mut [0]).unwrap(), 0);
        done.store(true, Ordering::Relaxed);
        relay.join().unwrap()
    })
}

fn forward(from: &mut SocketPair, to: &mut SocketPair, mut see: impl FnMut(&[u8; 10], usize)) {
    while let Ok((header, frame)) = try_receive(from) {
        see(&header, frame.len());
        send(to, header, &frame);
    }
}

#[test]
fn a_tcp_stream_is_handed_out_as_the_guest_can_take_it() {
    if !alone() {
        return;
    }
    let whole = stream(CSUM | TSO4);
    assert!(whole.longest > 10_000 && whole.segmented > 0 && whole.partial > 0, "{whole:?}");
    let segments = stream(CSUM);
    assert!(segments.longest == 1514 && segments.segmented == 0 && segments.partial > 0, "{segments:?}");
    let plain = stream(0);
    assert!(plain.longest == 1514 && plain.segmented == 0 && plain.partial == 0, "{plain:?}");
}

#[test]
fn udp_is_segmented_for_a_guest_that_cannot_do_so() {
    if !alone() {
        return;
    }
    let (_port, pair) = open(SocketKind::Tap, "t0");
    run("ip addr add 10.0.0.1/24 dev t0 && ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev t0");
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    let segment: libc::c_int = 1000;
    // SAFETY: reads one number.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), 4)
    };
    assert_eq!(status, 0);
    let mut pairs = [pair];
    for (features, lengths) in
        [(CSUM | USO, vec![42 + 5000]), (CSUM, vec![42 + 1000; 5]), (0, vec![42 + 1000; 5])]
    {
        pairs[0].set_offloads(features).unwrap();
        discard(&mut pairs);
        socket.send_to(&[7; 5000], "10.0.0.2:99").unwrap();
        let got = collect(&mut pairs, lengths.len()).remove(0);
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{features:#x}");
    }
}

/// What was put into the queue before is as it was then.
#[test]
fn what_is_queued_already_is_not_changed() {
    if !alone() {
        return;
    }
    let (_port, mut pair) = open(SocketKind::Tap, "t0");
    run("ip addr add 10.0.0.1/24 dev t0 && ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev t0");
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    pair.set_offloads(CSUM).unwrap();
    pair.discard();
    socket.send_to(&[7; 100], "10.0.0.2:99").unwrap();
    pair.set_offloads(0).unwrap();
    socket.send_to(&[7; 100], "10.0.0.2:99").unwrap();
    assert_eq!([receive(&mut pair).0[0], receive(&mut pair).0[0]], [NEEDS_CSUM, 0]);
}

//! What is in a frame, and in the header in front of it, is what was sent.

use std::time::Duration;

use port::socket::{Fault, SocketKind, SocketPair};

use crate::stage::{
    Header, PLAIN, alone, cable, collect, discard, frame, open, receive, run, send, to_one, try_send,
    wait_for, writable,
};

/// Headers of Ethernet, IPv4 and TCP in a frame.
const HEADERS: usize = 14 + 20 + 20;
const SEGMENT: u16 = 1000;
const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x64];
const OUTER: [u8; 4] = [0x88, 0xa8, 0x00, 0x07];

/// A TCP segment of so many times 1000 bytes, behind tags; whoever gets it is to cut it up and to complete its checksum.
fn large(segments: usize, tags: &[u8]) -> (Header, Vec<u8>) {
    let payload = segments * usize::from(SEGMENT);
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(tags);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((20 + 20 + payload) as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 98, 0, 99, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|i| (i / 5) as u8));
    let [a, b] = ((HEADERS + tags.len()) as u16).to_le_bytes();
    let [c, d] = SEGMENT.to_le_bytes();
    let [e, f] = (34 + tags.len() as u16).to_le_bytes();
    ([1, 1, a, b, c, d, e, f, 16, 0], frame)
}

/// All that means the same wherever it is read. (The kernel's length of the headers is a hint.)
fn meaning(header: &Header) -> (u8, u8, &[u8]) {
    (header[0], header[1], &header[4..])
}

/// What is sent at one end is what is read at the other.
#[track_caller]
fn same(from: &mut SocketPair, to: &mut SocketPair, (header, frame): (Header, Vec<u8>)) {
    send(from, header, &frame);
    let (got, read) = receive(to);
    assert_eq!(meaning(&got), meaning(&header));
    assert!(read == frame, "{} bytes, {}; {:x?}, {:x?}", frame.len(), read.len(), &frame[..40], &read[..40]);
    let hdr_len = usize::from(u16::from_le_bytes([got[2], got[3]]));
    assert!(hdr_len <= read.len());
}

#[test]
fn a_frame_to_be_segmented_keeps_its_header_and_every_tag() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    cable("vc", "vd");
    run("ip link add link vc name m0 type macvtap mode passthru && ip link set m0 up");
    let (_a, va) = open(SocketKind::Raw, "va");
    let (_b, vb) = open(SocketKind::Raw, "vb");
    let (_t, mut t0) = open(SocketKind::Tap, "t0");
    let (_r, on_t0) = open(SocketKind::Raw, "t0");
    let (_m, mut m0) = open(SocketKind::Tap, "m0");
    let (_d, vd) = open(SocketKind::Raw, "vd");
    // GUEST_CSUM, GUEST_TSO4.
    t0.set_offloads(1 << 1 | 1 << 7).unwrap();
    m0.set_offloads(1 << 1 | 1 << 7).unwrap();
    for [mut a, mut b] in [[va, vb], [t0, on_t0], [m0, vd]] {
        a.discard();
        b.discard();
        for tags in [vec![], TAG.to_vec(), [OUTER, TAG].concat()] {
            // Without anything to be done.
            let tagged = [&frame(1, 12)[..12], &tags, &frame(1, 100)[12..]].concat();
            same(&mut a, &mut b, (PLAIN, tagged.clone()));
            same(&mut b, &mut a, (PLAIN, tagged));
            for segments in [4, 60] {
                // A device may decline to take it in one piece if it has two tags: then it is cut up on the way.
                if tags.len() == 8 {
                    continue;
                }
                same(&mut a, &mut b, large(segments, &tags));
                same(&mut b, &mut a, large(segments, &tags));
            }
        }
    }
}

/// An interface that cannot segment has the kernel do it.
#[test]
fn a_frame_to_be_segmented_is_so_where_the_interface_cannot() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run("ethtool -K va tso off gso off tx off");
    let (_a, mut va) = open(SocketKind::Raw, "va");
    let (_b, vb) = open(SocketKind::Raw, "vb");
    let (header, frame) = large(4, &[]);
    send(&mut va, header, &frame);
    let got = collect(&mut [vb], 4).remove(0);
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [HEADERS + usize::from(SEGMENT); 4]);
    let payload: Vec<u8> = got.iter().flat_map(|frame| frame[HEADERS..].to_vec()).collect();
    assert!(payload == frame[HEADERS..]);
}

#[test]
fn a_frame_that_cannot_be_sent_is_refused_alone() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (_a, mut va) = open(SocketKind::Raw, "va");
    let (_b, mut vb) = open(SocketKind::Raw, "vb");
    let (_t, mut t0) = open(SocketKind::Tap, "t0");
    // No such kind of segmentation; a checksum beyond the end.
    let unknown = [0, 0x0f, 54, 0, 100, 0, 0, 0, 0, 0];
    let beyond = [1, 0, 0, 0, 0, 0, 200, 0, 16, 0];
    for header in [unknown, beyond] {
        assert_eq!(try_send(&mut va, header, &frame(1, 100)), Err(Fault::Frame));
        assert_eq!(try_send(&mut t0, header, &frame(1, 100)), Err(Fault::Frame));
    }
    // Longer than the MTU; with a tag it may be that much longer.
    assert_eq!(try_send(&mut va, PLAIN, &frame(1, 1515)), Err(Fault::Frame));
    assert_eq!((va.counters.tx.packets.get(), t0.counters.tx.packets.get()), (0, 0));
    let tagged = [&frame(2, 12)[..12], &TAG, &frame(2, 1514)[12..]].concat();
    send(&mut va, PLAIN, &tagged);
    assert_eq!(receive(&mut vb).1, tagged);
    assert_eq!(va.counters.tx.packets.get(), 1);
}

/// What is on its way is bounded; what is not taken is not lost, and there is room again later.
#[test]
fn a_full_socket_takes_no_more_until_there_is_room() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    run(
        "ip link add bridge0 type bridge mcast_snooping 0 && ip link set bridge0 up && ip link set va master bridge0",
    );
    run("tc qdisc add dev va root tbf rate 100mbit burst 16k limit 100m");
    let (_t, t0) = open(SocketKind::Tap, "t0");
    run("ip link set t0 master bridge0");
    // A bridge's port learns for a while where what is, unless it is told otherwise.
    run("bridge link set dev t0 learning off");
    wait_for(|| run("bridge link show dev t0").contains("state forwarding").then_some(()));
    wait_for(|| run("bridge link show dev va").contains("state forwarding").then_some(()));
    let (_a, va) = open(SocketKind::Raw, "va");
    let (_b, vb) = open(SocketKind::Raw, "vb");
    let mut read = [vb];
    for mut pair in [va, t0] {
        discard(&mut read);
        let [one, two] = [to_one(1, 1500), to_one(2, 1500)];
        let mut sent = 0u64;
        let mut fault = Ok(());
        while fault.is_ok() && sent < 10_000 {
            fault = try_send(&mut pair, PLAIN, &one);
            sent += u64::from(fault.is_ok());
        }
        assert_eq!(fault, Err(Fault::Again), "{sent}");
        // 1 MiB, as the kernel counts; what left meanwhile comes on top.
        assert!((200..5000).contains(&sent), "{sent}");
        assert!(!writable(&pair, Duration::ZERO));
        assert!(writable(&pair, Duration::from_secs(20)));
        send(&mut pair, PLAIN, &two);
        let mut got = collect(&mut read, sent as usize + 1).remove(0);
        assert_eq!(got.pop(), Some(two));
        assert!(got.len() as u64 == sent && got.iter().all(|got| *got == one));
        assert_eq!(pair.counters.tx.packets.get(), sent + 1);
    }
}

//! On a socket that keeps messages apart, which is all that a pair needs of a tap.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::*;
use crate::counters::shared;

const HEADER: [u8; HEADER_LEN] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

fn pair() -> (SocketPair, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
    (SocketPair::new(0, SocketKind::Tap, Arc::new(ours), shared()), theirs)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn deliver(theirs: &OwnedFd, frame: &[u8]) {
    let message = [&HEADER, frame].concat();
    assert_eq!(send(theirs.as_raw_fd(), &message, MsgFlags::empty()), Ok(message.len()));
}

fn counted(pair: &SocketPair) -> [u64; 4] {
    let PairCounters { rx, tx, .. } = &**pair.counters;
    [rx.packets.get(), rx.bytes.get(), tx.packets.get(), tx.bytes.get()]
}

/// Reads into pieces of these lengths.
fn receive(pair: &mut SocketPair, pieces: &mut [Vec<u8>]) -> io::Result<Arrived> {
    let pieces: Vec<iovec> = pieces.iter_mut().map(|bytes| piece(bytes)).collect();
    // SAFETY: the vectors outlive the call.
    unsafe { pair.receive(pieces) }
}

fn send_pieces(pair: &mut SocketPair, pieces: &mut [Vec<u8>]) -> io::Result<()> {
    let pieces: Vec<iovec> = pieces.iter_mut().map(|bytes| piece(bytes)).collect();
    // SAFETY: the vectors outlive the call.
    unsafe { pair.send(&HEADER, pieces) }
}

#[test]
fn a_frame_that_fits_is_in_the_pieces_and_one_that_does_not_is_held() {
    for (len, pieces, fits) in [
        (100, vec![100], true),
        (100, vec![30, 30, 1000], true),
        (100, vec![30, 30, 40], true),
        (100, vec![30, 30, 39], false),
        (100, vec![], false),
        (MAX_FRAME, vec![1], false),
        (MAX_FRAME, vec![MAX_FRAME], true),
        (MAX_FRAME, vec![64; 1100], true),
    ] {
        let (mut pair, theirs) = pair();
        let frame = frame(len);
        deliver(&theirs, &frame);
        let mut room: Vec<Vec<u8>> = pieces.iter().map(|len| vec![0; *len]).collect();
        match receive(&mut pair, &mut room).unwrap() {
            Arrived::Placed { header, len: placed } => {
                assert!(fits, "{len} {pieces:?}");
                assert_eq!((header, placed), (HEADER, len));
                assert_eq!(room.concat()[..len], frame);
                assert!(pair.held.is_empty());
            }
            Arrived::Held => {
                assert!(!fits || pieces.len() > MAX_PIECES, "{len} {pieces:?}");
                assert_eq!((pair.held.header(), pair.held.frame()), (&HEADER, &frame[..]));
                assert_eq!(pair.counters.rx_held.get(), 1);
                pair.release_held();
                assert_eq!(pair.counters.rx_held.get(), 0);
            }
        }
        assert_eq!(counted(&pair), [1, len as u64, 0, 0]);
        assert_eq!(Fault::of(&receive(&mut pair, &mut []).unwrap_err()), Fault::Again);
    }
}

#[test]
fn a_frame_longer_than_any_is_refused_and_the_next_one_read() {
    let (mut pair, theirs) = pair();
    deliver(&theirs, &frame(MAX_FRAME + 1));
    deliver(&theirs, &frame(60));
    let mut room = [vec![0; 1000]];
    assert_eq!(Fault::of(&receive(&mut pair, &mut room).unwrap_err()), Fault::Frame);
    assert!(matches!(receive(&mut pair, &mut room), Ok(Arrived::Placed { len: 60, .. })));
    assert_eq!(counted(&pair), [1, 60, 0, 0]);
}

#[test]
fn a_frame_in_any_number_of_pieces_is_sent_as_one() {
    for pieces in [1, 2, MAX_PIECES - 1, MAX_PIECES, MAX_PIECES + 1, 1088] {
        let (mut pair, theirs) = pair();
        let frame = frame(pieces * 40);
        let mut parts: Vec<Vec<u8>> = frame.chunks(40).map(<[u8]>::to_vec).collect();
        send_pieces(&mut pair, &mut parts).unwrap();
        let mut got = vec![0; frame.len() + 100];
        let len = recv(theirs.as_raw_fd(), &mut got, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!((&got[..HEADER_LEN], &got[HEADER_LEN..len]), (&HEADER[..], &frame[..]), "{pieces}");
        assert_eq!(counted(&pair), [0, 0, 1, frame.len() as u64]);
    }
}

#[test]
fn a_full_socket_says_so_and_what_it_did_not_take_is_not_counted() {
    let (mut pair, theirs) = pair();
    let mut sent = 0;
    let fault = loop {
        match send_pieces(&mut pair, &mut [frame(1000)]) {
            Ok(()) => sent += 1,
            Err(error) => break Fault::of(&error),
        }
    };
    assert_eq!(fault, Fault::Again);
    assert_eq!(counted(&pair)[2..], [sent, 1000 * sent]);
    drop(theirs);
}

#[test]
fn what_nobody_waited_for_is_read_and_counted_as_dropped() {
    let (mut pair, theirs) = pair();
    for len in [60, 2000, MAX_FRAME + 1, 61] {
        deliver(&theirs, &frame(len));
    }
    receive(&mut pair, &mut []).unwrap();
    assert!(!pair.held.is_empty());
    assert_eq!(pair.discard(), 3);
    assert!(pair.held.is_empty());
    assert_eq!(counted(&pair), [4, 2121, 0, 0]);
    assert_eq!(pair.counters.drops[DropReason::NotConnected as usize].get(), 4);
    assert_eq!(pair.counters.rx_held.get(), 0);
    assert_eq!(pair.discard(), 0);
}

#[test]
fn a_tag_goes_behind_the_addresses_and_the_header_follows() {
    let frame = frame(100);
    // (flags, hdr_len, csum_start) before and after; in a header as a raw socket gives it.
    for (flags, before, after) in [
        (NEEDS_CSUM, (54u16, 34u16), (58u16, 38u16)),
        (NEEDS_CSUM, (0, 34), (0, 38)),
        (0, (0, 0), (0, 0)),
        (2, (54, 0), (58, 0)),
    ] {
        let mut held = Held::new();
        held.frame[..100].copy_from_slice(&frame);
        held.len = 100;
        held.header[0] = flags;
        held.header[2..4].copy_from_slice(&before.0.to_le_bytes());
        held.header[6..8].copy_from_slice(&before.1.to_le_bytes());
        held.insert_tag([0x81, 0x00, 0x20, 0x64]);
        assert_eq!(held.frame(), [&frame[..12], &[0x81, 0x00, 0x20, 0x64], &frame[12..]].concat());
        assert_eq!(held.header()[2..4], after.0.to_le_bytes());
        assert_eq!(held.header()[6..8], after.1.to_le_bytes());
    }
}

#[test]
fn errors_say_whether_to_wait_to_go_on_or_to_stop() {
    for (errno, fault) in [
        (Errno::EAGAIN, Fault::Again),
        (Errno::ENOBUFS, Fault::Later),
        (Errno::EINTR, Fault::Later),
        (Errno::EMSGSIZE, Fault::Frame),
        (Errno::EINVAL, Fault::Frame),
        (Errno::EFAULT, Fault::Frame),
        (Errno::EIO, Fault::Down),
        (Errno::ENETDOWN, Fault::Down),
        (Errno::EBADFD, Fault::Gone),
        (Errno::ENXIO, Fault::Gone),
    ] {
        assert_eq!(Fault::of(&errno.into()), fault, "{errno}");
    }
}

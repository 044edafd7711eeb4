//! Guest -> socket.

use nix::libc::{ENETDOWN, ENOBUFS};
use nix::sys::socket::{setsockopt, sockopt};

use super::*;

/// A header that means nothing to a device which negotiated nothing.
const NOISE: [u8; 12] = [0xa5; 12];

#[test]
fn frames_arrive_whole_in_every_cell() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        let header = setup.header();
        let layouts =
            [vec![], vec![header], vec![3, header + 5], vec![header + 14, header + 15, header + 1000]];
        let mut sent = 0;
        for (len, cuts) in [14, 60, 1514, 9014, MAX_FRAME]
            .into_iter()
            .flat_map(|len| layouts.iter().map(move |cuts| (len, cuts)))
        {
            let frame = pattern(len as u64, len);
            assert!(bench.guest_sends(&NOISE, &frame, cuts));
            let turn = bench.send_to(TURN);
            assert_eq!((turn.stop, turn.moved.packets, turn.moved.bytes), (Stop::GuestEmpty, 1, len as u64));
            assert!(turn.moved.cost >= len as u64);
            assert!(bench.far_receives() == Some(([0; HEADER_LEN], frame)), "{setup:?}: {len} in {cuts:?}");
            sent += len as u64;
        }
        assert_eq!(bench.far_receives(), None);
        assert_eq!((bench.counters.tx.packets.get(), bench.counters.tx.bytes.get()), (20, sent));
        assert_eq!(bench.guest.pair.rx.bytes.get(), sent);
        assert_eq!(bench.send_to(TURN), Turn { moved: Moved::default(), stop: Stop::GuestEmpty });
    }
}

/// More pieces than the kernel takes in one call, across the seam of two memory regions.
#[test]
fn a_frame_in_more_pieces_than_one_call_takes() {
    for format in [Format::Split, Format::Packed] {
        for n in [1000, 1021, 1022, 1023, 1024] {
            let mut bench = Bench::new(Setup { size: 2048, ..Setup::new(format, F_VERSION_1) });
            bench.sends.next = DATA + 0xff00;
            let frame = pattern(9, 12 * n - 12);
            let cuts: Vec<usize> = (1..n).map(|i| 12 * i).collect();
            assert!(bench.guest_sends(&NOISE, &frame, &cuts));
            assert_eq!(bench.send_to(TURN).moved.packets, 1);
            assert!(bench.far_receives() == Some(([0; HEADER_LEN], frame)), "{n}");
        }
    }
}

#[test]
fn frames_that_are_none_are_dropped_and_counted() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        for len in [0, 1, 13, MAX_FRAME + 1] {
            assert!(bench.guest_sends(&NOISE, &pattern(1, len), &[]));
            assert_eq!(bench.send_to(TURN).moved.packets, 1);
        }
        // A chain that ends within its header.
        bench.sends.post(&[4], out).unwrap();
        assert_eq!(bench.send_to(TURN).moved.packets, 1);
        let rx = &bench.guest.pair;
        assert_eq!((Bench::drops(rx, DropReason::Runt), Bench::drops(rx, DropReason::Oversize)), (4, 1));
        assert_eq!((bench.counters.tx.packets.get(), bench.far_receives()), (0, None));
    }
}

/// What the socket does not take stays with the guest; later it is sent once, and in order.
#[test]
fn a_full_socket_loses_nothing() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        setsockopt(&bench.socket.fd(), sockopt::SndBuf, &20_000).unwrap();
        let frame = |seed: usize| pattern(seed as u64, 60 + seed * 37 % 1400);
        let (mut posted, mut arrived, mut full) = (0, 0, 0);
        while arrived < 300 {
            while posted < 300 && posted - arrived < 60 && bench.guest_sends(&NOISE, &frame(posted), &[20]) {
                posted += 1;
            }
            let before = bench.counters.tx.packets.get();
            let turn = bench.send_to(TURN);
            assert_eq!(turn.moved.packets, bench.counters.tx.packets.get() - before);
            match turn.stop {
                Stop::SocketFull => full += 1,
                stop => assert_eq!(stop, Stop::GuestEmpty),
            }
            // As many as it takes to have room again, and sometimes all.
            for _ in 0..if full % 3 == 0 { usize::MAX } else { 4 } {
                let Some((_, found)) = bench.far_receives() else { break };
                assert!(found == frame(arrived), "frame {arrived} is another one");
                arrived += 1;
            }
        }
        assert!(full > 3, "it was never full");
        assert_eq!((all_drops(&bench.guest.pair), bench.counters.tx.packets.get()), (0, 300));
    }
}

#[test]
fn a_turn_ends_with_its_budget() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        (0..10).for_each(|seed| assert!(bench.guest_sends(&NOISE, &pattern(seed, 1000), &[])));
        let turn = bench.send_to(2500);
        assert_eq!((turn.stop, turn.moved.packets, turn.moved.cost), (Stop::Budget, 3, 3000));
        assert_eq!(bench.send_to(0), Turn { moved: Moved::default(), stop: Stop::Budget });
        assert_eq!(bench.send_to(TURN).moved.packets, 7);
        // Small ones cost what their pieces do.
        (0..4).for_each(|seed| assert!(bench.guest_sends(&NOISE, &pattern(seed, 60), &[12, 30])));
        assert_eq!(bench.send_to(3 * 512 + 1).moved.packets, 2);
    }
}

/// Once for 64 chains, and before the turn ends.
#[test]
fn chains_are_published_together() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        (0..100).for_each(|seed| assert!(bench.guest_sends(&NOISE, &pattern(seed, 60), &[])));
        assert_eq!(bench.send_to(TURN).moved.packets, 100);
        let from = &bench.guest.from;
        assert_eq!(from.calls.get() + from.calls_suppressed.get(), 2);
        assert_eq!(from.used.get(), 100);
    }
}

/// A guest that negotiated CSUM is taken at its word as far as the frame allows it.
#[test]
fn offloads_pass_if_the_frame_allows_them() {
    for format in [Format::Split, Format::Packed] {
        let mut bench = Bench::new(Setup::new(format, F_VERSION_1 | F_CSUM | F_HOST_TSO4));
        let frame = tcp(2946);
        let tso = header(1, 1, [54, 1400, 34, 16]);
        let (bad_gso, bad_csum) = (header(1, 4, [54, 1400, 34, 16]), header(1, 0, [0, 0, 2990, 9]));
        let junk = header(0xf6, 0, [7, 7, 7, 7]);
        for asked in [tso, bad_gso, bad_csum, junk] {
            assert!(bench.guest_sends(&[&asked[..], &[7, 7]].concat(), &frame, &[12]));
        }
        assert_eq!(bench.send_to(TURN).moved.packets, 4);
        assert!(bench.far_receives() == Some((tso, frame.clone())));
        assert!(bench.far_receives() == Some(([0; HEADER_LEN], frame)));
        assert_eq!(
            (Bench::drops(&bench.guest.pair, DropReason::BadOffload), bench.far_receives()),
            (2, None)
        );
    }
}

/// Frames in front of the bad one are sent, and nothing after it.
#[test]
fn a_violation_stops_the_ring_and_no_more() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        assert!(bench.guest_sends(&NOISE, &pattern(1, 60), &[]));
        bench.sends.poster.post(&[out(HOLE, 60)], None).unwrap();
        let turn = bench.pair.send_to(&mut bench.socket, TURN);
        assert_eq!((turn.stop, turn.moved.packets), (Stop::Broken, 1));
        assert!(bench.far_receives().is_some());
        assert_eq!(bench.pair.send_to(&mut bench.socket, TURN).stop, Stop::Broken);
        assert_eq!(bench.guest.from.violations.lock().unwrap()["unmapped"], 1);
        assert!(!bench.pair.wait_for_sent());
        // The other ring goes on.
        bench.guest_posts(1, &[100]);
        bench.far_sends(&[0; HEADER_LEN], &pattern(2, 60));
        assert_eq!(bench.receive_from(TURN).moved.packets, 1);
    }
}

/// Whoever waits after asking is kicked, or is told that there is something.
#[test]
fn no_kick_is_lost() {
    for setup in
        cells().into_iter().flat_map(|setup| [setup, Setup { features: setup.features | 1 << 29, ..setup }])
    {
        let mut bench = Bench::new(setup);
        bench.pair.poll_sent();
        assert!(bench.guest_sends(&NOISE, &pattern(1, 60), &[]));
        assert!(!bench.sends.poster.would_kick());
        assert!(bench.pair.wait_for_sent(), "it sent before it was asked");
        assert_eq!(bench.send_to(TURN).stop, Stop::GuestEmpty);
        assert!(!bench.pair.wait_for_sent());
        assert!(bench.guest_sends(&NOISE, &pattern(2, 60), &[]));
        assert!(bench.sends.poster.would_kick());
        // What was put back is there still.
        setsockopt(&bench.socket.fd(), sockopt::SndBuf, &4_000).unwrap();
        while bench.guest_sends(&NOISE, &pattern(3, 500), &[]) && bench.sends.posted.len() < 40 {}
        assert_eq!(bench.send_to(TURN).stop, Stop::SocketFull);
        assert!(bench.pair.wait_for_sent());
    }
    let bench = Bench::new(cells()[0]);
    assert!(bench.pair.kicks().iter().all(Option::is_some));
}

/// What the kernel's answers mean: the frame's fault, the socket's, or nobody's.
#[test]
fn errors_are_told_apart() {
    let of = |errno| refused(&io::Error::from_raw_os_error(errno));
    for errno in [nix::libc::EINVAL, nix::libc::EMSGSIZE, nix::libc::EPERM] {
        assert!(matches!(of(errno), Refused::Drop(DropReason::SocketError)), "{errno}");
    }
    for errno in
        [ENETDOWN, ENOBUFS, nix::libc::ENOMEM, EIO, nix::libc::EBADFD, nix::libc::ENXIO, nix::libc::ENODEV]
    {
        assert!(matches!(of(errno), Refused::Stop(Stop::SocketFailed(told)) if told == errno), "{errno}");
    }
    assert!(matches!(of(nix::libc::EAGAIN), Refused::Stop(Stop::SocketFull)));
}

//! Socket -> guest.

use proptest::prelude::*;

use super::*;

const NOTHING: Bytes = [0; HEADER_LEN];

/// Posts chains of these lengths until there is room for `room` bytes, or one chain if they do not merge.
fn post_room(bench: &mut Bench, lens: &[u32], room: usize) -> usize {
    let one: u32 = lens.iter().sum();
    let chains = if bench.setup.mergeable() { room.div_ceil(one as usize) } else { 1 };
    bench.guest_posts(chains, lens);
    chains
}

#[test]
fn frames_arrive_whole_in_every_cell() {
    for setup in cells() {
        let mut bench = Bench::new(Setup { size: 512, ..setup });
        let header = setup.header();
        let layouts: &[&[u32]] = match setup.mergeable() {
            true => &[&[1526], &[12, 700, 1], &[70_000], &[4096]],
            false => &[&[MAX_FRAME as u32 + 12], &[12, 65600], &[5, 20_000, 12_345, 33_333]],
        };
        for (lens, len) in
            layouts.iter().flat_map(|lens| [14, 60, 1514, 9014, MAX_FRAME].map(|len| (lens, len)))
        {
            let frame = pattern(len as u64, len);
            let chains = post_room(&mut bench, lens, header + len);
            bench.far_sends(&NOTHING, &frame);
            let (before, turn) = (bench.used, bench.receive_from(TURN));
            assert_eq!((turn.stop, turn.moved.packets), (Stop::GuestEmpty, 1), "{setup:?} {lens:?} {len}");
            assert_eq!(turn.moved.bytes, len as u64);
            let mut frames = bench.guest_receives();
            assert_eq!(frames.len(), 1);
            let (found, content) = frames.remove(0);
            assert!(content == frame, "{setup:?} {lens:?} {len}");
            assert_eq!(found[..HEADER_LEN], NOTHING);
            assert_eq!(bench.used - before, chains as u64);
        }
        assert_eq!(all_drops(&bench.counters), 0);
    }
}

/// Of many buffers a frame takes those that it needs; the others are for the next ones.
#[test]
fn buffers_that_are_not_needed_stay_with_the_guest() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        bench.guest_posts(60, &[12, 900]);
        let lens = [60, 900, 901, 14, 1800, 64].map(|len| if setup.mergeable() { len } else { len.min(900) });
        for (seed, len) in lens.into_iter().enumerate() {
            bench.far_sends(&NOTHING, &pattern(seed as u64, len));
        }
        let turn = bench.receive_from(TURN);
        assert_eq!((turn.stop, turn.moved.packets), (Stop::SocketEmpty, 6));
        let frames = bench.guest_receives();
        assert!(
            frames.iter().zip(lens).enumerate().all(|(n, (frame, len))| frame.1 == pattern(n as u64, len))
        );
        let room = 912 - setup.header();
        assert_eq!(
            bench.used,
            lens.iter().map(|len| 1 + len.saturating_sub(room).div_ceil(912) as u64).sum::<u64>()
        );
        assert_eq!((bench.guest.pair.tx.packets.get(), frames.len()), (6, 6));
        let bytes: usize = lens.iter().sum();
        assert_eq!(
            (bench.guest.pair.tx.bytes.get(), bench.counters.rx.bytes.get()),
            (bytes as u64, bytes as u64)
        );
    }
}

/// The kernel's queue is where frames wait.
#[test]
fn without_buffers_the_socket_is_not_read() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        let frames: Vec<_> = (0..3).map(|seed| pattern(seed, 200)).collect();
        frames.iter().for_each(|frame| bench.far_sends(&NOTHING, frame));
        assert_eq!(bench.receive_from(TURN), Turn { moved: Moved::default(), stop: Stop::GuestEmpty });
        assert_eq!(bench.counters.rx.packets.get(), 0);
        let mut found = Vec::new();
        for n in 1..=3 {
            bench.guest_posts(1, &[300]);
            assert_eq!(bench.receive_from(TURN).stop, Stop::GuestEmpty);
            found.extend(bench.guest_receives().into_iter().map(|(_, frame)| frame));
            assert_eq!(bench.counters.rx.packets.get(), n);
        }
        assert_eq!(found, frames);
    }
}

/// Longer than what is posted now, and not than what may be: it waits, and nothing overtakes it.
#[test]
fn a_frame_waits_for_more_buffers() {
    for setup in cells().into_iter().filter(|setup| setup.mergeable()) {
        let mut bench = Bench::new(setup);
        let (long, short) = (pattern(1, 1400), pattern(2, 60));
        bench.guest_posts(1, &[500]);
        bench.far_sends(&NOTHING, &long);
        bench.far_sends(&NOTHING, &short);
        for chains in 1..=2 {
            assert_eq!(bench.receive_from(TURN), Turn { moved: Moved::default(), stop: Stop::GuestEmpty });
            assert_eq!((bench.counters.rx.packets.get(), bench.counters.rx_held.get()), (1, 1), "{chains}");
            assert!(bench.guest_receives().is_empty());
            assert!(!bench.pair.wait_for_room());
            bench.guest_posts(1, &[500]);
            assert!(bench.receives.poster.would_kick() && bench.pair.wait_for_room());
            bench.pair.poll_room();
        }
        bench.guest_posts(1, &[500]);
        assert_eq!(bench.receive_from(TURN).moved.packets, 2);
        assert_eq!((bench.counters.rx_held.get(), bench.used), (0, 0));
        let frames = bench.guest_receives();
        assert!(frames[0].1 == long && frames[1].1 == short && bench.used == 4);
    }
}

/// Longer than the guest can ever take: dropped, and its buffers are for the next frame.
#[test]
fn a_frame_that_never_fits_is_dropped() {
    for setup in cells() {
        let mut bench = Bench::new(Setup { size: 4, ..setup });
        let chains = if setup.mergeable() { 4 } else { 2 };
        bench.guest_posts(chains, &[500]);
        let most = if setup.mergeable() { 2000 } else { 500 } - setup.header();
        bench.far_sends(&NOTHING, &pattern(1, most + 1));
        bench.far_sends(&NOTHING, &pattern(2, most));
        assert_eq!(bench.receive_from(TURN).moved.packets, 2);
        assert_eq!(Bench::drops(&bench.counters, DropReason::GuestBufferTooSmall), 1);
        let frames = bench.guest_receives();
        assert!(frames.len() == 1 && frames[0].1 == pattern(2, most));
    }
}

#[test]
fn frames_that_are_none_are_dropped_and_counted() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        bench.guest_posts(1, &[80_000]);
        for len in [0, 1, 13, MAX_FRAME + 1] {
            bench.far_sends(&NOTHING, &pattern(1, len));
        }
        let turn = bench.receive_from(TURN);
        assert_eq!((turn.stop, turn.moved.packets), (Stop::SocketEmpty, 4));
        let drops =
            [DropReason::Runt, DropReason::SocketError].map(|reason| Bench::drops(&bench.counters, reason));
        assert_eq!((drops, bench.receives.collect().len()), ([3, 1], 0));
    }
}

#[test]
fn a_turn_ends_with_its_budget() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        bench.guest_posts(12, &[12, 1000]);
        (0..6).for_each(|seed| bench.far_sends(&NOTHING, &pattern(seed, 1000)));
        let turn = bench.receive_from(2049);
        // A frame in two pieces costs 1024.
        assert_eq!((turn.stop, turn.moved.packets, turn.moved.cost), (Stop::Budget, 3, 3072));
        assert_eq!(bench.receive_from(0), Turn { moved: Moved::default(), stop: Stop::Budget });
        // What is dropped costs something, too.
        assert_eq!(bench.receive_from(TURN).moved.packets, 3);
        (0..6).for_each(|_| bench.far_sends(&NOTHING, &[]));
        assert_eq!(bench.receive_from(1025).moved.packets, 3);
    }
}

/// The first of them is copied; then there is room for any, until a while after the last one.
#[test]
fn long_frames_come_in_trains() {
    for setup in cells().into_iter().filter(|setup| setup.mergeable()) {
        let mut bench = Bench::new(setup);
        let lens = [60, 5000, 20_000, ORDINARY, 4097, 60];
        for (seed, (len, expected)) in lens.into_iter().zip([0, 64, 64, 63, 64, 63]).enumerate() {
            bench.guest_posts(16, &[1526]);
            bench.far_sends(&NOTHING, &pattern(seed as u64, len));
            assert_eq!(bench.receive_from(TURN).moved.packets, 1);
            assert_eq!(bench.pair.to.long, expected, "after {len}");
            assert!(bench.guest_receives()[0].1 == pattern(seed as u64, len));
        }
        for left in (0..63).rev().chain([0, 0]) {
            bench.far_sends(&NOTHING, &pattern(1, 60));
            bench.receive_from(TURN);
            assert_eq!(bench.pair.to.long, left);
        }
    }
}

/// A ring that is stopped while a frame is held for it.
#[test]
fn a_held_frame_does_not_hide_a_violation() {
    for setup in cells().into_iter().filter(|setup| setup.mergeable()) {
        let mut bench = Bench::new(setup);
        bench.guest_posts(1, &[500]);
        bench.far_sends(&NOTHING, &pattern(1, 1000));
        assert_eq!(bench.receive_from(TURN).stop, Stop::GuestEmpty);
        bench.receives.poster.post(&[into(HOLE, 600)], None).unwrap();
        for _ in 0..2 {
            assert_eq!(bench.receive_from(TURN), Turn { moved: Moved::default(), stop: Stop::Broken });
            assert_eq!(bench.counters.rx_held.get(), 1);
        }
        bench.socket.drop_held(DropReason::BackendChanged);
        bench.check_rx();
    }
}

#[test]
fn chains_are_published_together() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        bench.guest_posts(100, &[100]);
        (0..100).for_each(|seed| bench.far_sends(&NOTHING, &pattern(seed, 60)));
        assert_eq!(bench.receive_from(TURN).moved.packets, 100);
        let to = &bench.guest.to;
        assert_eq!((to.calls.get() + to.calls_suppressed.get(), to.used.get()), (2, 100));
    }
}

#[test]
fn a_violation_stops_the_ring() {
    for setup in cells() {
        let mut bench = Bench::new(setup);
        bench.far_sends(&NOTHING, &pattern(1, 60));
        bench.receives.poster.post(&[into(HOLE, 60)], None).unwrap();
        for _ in 0..2 {
            assert_eq!(bench.receive_from(TURN), Turn { moved: Moved::default(), stop: Stop::Broken });
        }
        assert_eq!(
            (bench.counters.rx.packets.get(), bench.guest.to.violations.lock().unwrap()["unmapped"]),
            (0, 1)
        );
        assert!(!bench.pair.wait_for_room());
    }
}

/// What the guest negotiated is passed on; a checksum it has not, is completed.
#[test]
fn offloads_are_what_the_guest_negotiated() {
    let (sum, tso) = (header(1, 0, [0, 0, 34, 16]), header(1, 1, [54, 500, 34, 16]));
    let odd = header(1, 0, [0, 0, 40, 9]);
    for (format, held) in
        [Format::Split, Format::Packed].into_iter().flat_map(|format| [(format, false), (format, true)])
    {
        for (features, asked, passes, completed) in [
            (F_GUEST_CSUM, sum, Some(sum), false),
            (F_GUEST_CSUM, header(2, 0, [0; 4]), Some(header(2, 0, [0; 4])), false),
            (0, header(2, 0, [0; 4]), Some(NOTHING), false),
            (F_GUEST_CSUM, odd, Some(odd), false),
            (0, sum, Some(NOTHING), true),
            (F_GUEST_CSUM, header(1, 0, [0, 0, 1490, 10]), None, false),
            (0, header(1, 1, [54, 500, 36, 16]), None, false),
            (F_GUEST_CSUM | F_GUEST_TSO4, tso, Some(tso), false),
        ] {
            let mut bench = Bench::new(Setup::new(format, features | F_VERSION_1 | F_MERGEABLE));
            // Too little at first, so that it is held.
            bench.guest_posts(if held { 1 } else { 4 }, &[700]);
            let mut frame = tcp(1447);
            bench.far_sends(&asked, &frame);
            if held {
                bench.receive_from(TURN);
                bench.guest_posts(3, &[700]);
            }
            bench.receive_from(TURN);
            if completed {
                let complete = !sum_of(&frame[34..], 0);
                frame[50..52].copy_from_slice(&complete.to_be_bytes());
                assert!(is_complete(&frame));
            }
            let found = bench.guest_receives();
            match passes {
                Some(passed) => {
                    assert_eq!(found[0].0, [&passed[..], &[3, 0]].concat());
                    assert!(found[0].1 == frame, "{asked:?} {features:#x} {held}");
                }
                None => {
                    assert_eq!((found.len(), Bench::drops(&bench.counters, DropReason::BadOffload)), (0, 1))
                }
            }
        }
    }
}

/// A frame to be segmented is cut for a guest that does not take it whole: into complete segments, or into such whose
/// checksum it completes. However few buffers there are, none is lost, and each counts.
#[test]
fn what_the_guest_does_not_take_whole_is_cut() {
    let tso = header(1, 1, [54, 500, 34, 16]);
    for format in [Format::Split, Format::Packed] {
        for (features, flags) in [(0, 0), (F_GUEST_CSUM, 1)] {
            for merge in [0, F_MERGEABLE] {
                let mut bench = Bench::new(Setup::new(format, features | F_VERSION_1 | merge));
                let frame = tcp(1447);
                bench.guest_posts(1, &[1500]);
                bench.far_sends(&tso, &frame);
                let mut payload = Vec::new();
                for segment in 1..=3 {
                    bench.receive_from(TURN);
                    let found = bench.guest_receives();
                    assert_eq!(found.len(), 1, "one for each buffer");
                    let (header, content) = &found[0];
                    assert_eq!((header[0], header[1], header[10]), (flags, 0, 1));
                    assert!(flags == 1 || is_complete(content));
                    payload.extend_from_slice(&content[54..]);
                    assert_eq!(bench.counters.rx.packets.get(), segment);
                    bench.guest_posts(1, &[1500]);
                }
                assert!(payload == frame[54..]);
                assert_eq!(bench.counters.rx.bytes.get(), frame.len() as u64 + 2 * 54);
                assert_eq!(all_drops(&bench.counters), 0);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The guest posts so many chains.
    Post(usize),
    /// So many frames arrive.
    Arrive(usize),
    Turn(u64),
    /// The guest takes back what is used.
    Collect,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..8usize).prop_map(Step::Post),
        (1..6usize).prop_map(Step::Arrive),
        prop_oneof![Just(TURN), 1..4000u64].prop_map(Step::Turn),
        Just(Step::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Whatever happens in whatever order: each frame comes once, whole and in order, or is dropped for a reason.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        cell in 0..cells().len(), order in 2..5u32, lens in prop::collection::vec(12..900u32, 1..3),
        sizes in prop::collection::vec(prop_oneof![4 => 14..1600usize, 1 => 0..14usize, 1 => 1600..20_000usize], 1..40),
        steps in prop::collection::vec(steps(), 1..80),
    ) {
        let mut bench = Bench::new(Setup { size: 1 << order, ..cells()[cell] });
        let (mut arrived, mut got) = (0, Vec::new());
        let all = [Step::Arrive(40), Step::Post(16), Step::Turn(TURN), Step::Collect].into_iter().cycle().take(400);
        for step in steps.into_iter().chain(all) {
            match step {
                Step::Post(n) => (0..n).for_each(|_| _ = bench.receives.post(&lens, into)),
                Step::Arrive(n) => {
                    let more = sizes[arrived..].iter().zip(arrived as u64..).take(n);
                    let sent = more.take_while(|(len, seed)| bench.far_tries(&NOTHING, &pattern(*seed, **len)));
                    arrived += sent.count();
                }
                Step::Turn(budget) => _ = bench.receive_from(budget),
                Step::Collect => got.extend(bench.guest_receives().into_iter().map(|(_, frame)| frame)),
            }
        }
        prop_assert!(bench.socket.held.is_empty());
        prop_assert_eq!(bench.counters.rx.packets.get(), sizes.len() as u64);
        let dropped = (sizes.len() - got.len()) as u64;
        prop_assert_eq!(all_drops(&bench.counters), dropped);
        let runts = sizes.iter().filter(|size| **size < 14).count() as u64;
        prop_assert_eq!(Bench::drops(&bench.counters, DropReason::Runt), runts);
        prop_assert_eq!(Bench::drops(&bench.counters, DropReason::GuestBufferTooSmall), dropped - runts);
        // What is missing is longer than what came in its place could be, or a runt.
        let mut got = got.into_iter();
        let mut next = got.next();
        let one: u32 = lens.iter().sum();
        let descs = if bench.setup.table { 1 } else { lens.len() };
        let chains = if bench.setup.mergeable() { usize::from(bench.setup.size) / descs } else { 1 };
        let longest = (chains * one as usize).saturating_sub(bench.setup.header());
        for (n, size) in sizes.iter().enumerate() {
            if next.as_ref() == Some(&pattern(n as u64, *size)) {
                next = got.next();
            } else {
                prop_assert!(*size < 14 || *size > longest, "frame {} of {} is missing", n, size);
            }
        }
        prop_assert_eq!(next, None, "a frame that was not sent, or twice");
    }
}

use super::*;
use crate::nic::tests::pool;
use crate::outbox::Outbox;

fn wanted(queue: Option<u16>, direction: Option<Direction>) -> Wanted {
    Wanted { port: "wire0".to_owned(), queue, direction, filter: None, snaplen: u32::MAX }
}

/// What was read: pair, direction, length, and the bytes that were kept.
fn all(capture: &Capture) -> Vec<(u16, Direction, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while capture.read(&mut |record| {
        found.push((record.pair, record.direction, record.len, record.data.to_vec()));
    }) {}
    found
}

/// An outbox with packets of these lengths, in mbufs of 2048 bytes.
fn outbox(pool: &dpdk::mempool::Mempool, lens: &[usize]) -> Outbox {
    let mut outbox = Outbox::new(pool.clone());
    for len in lens {
        let bytes: Vec<u8> = (0..*len).map(|n| n as u8).collect();
        outbox.add(crate::guest::complete::packet(pool, &bytes[..14], &bytes[14..]).unwrap());
    }
    outbox
}

fn taps(captures: &[Arc<Capture>]) -> Box<Taps> {
    Taps::new(captures, "vm1", "wire0").unwrap()
}

#[test]
fn a_capture_is_of_one_port_and_what_is_wanted_of_it() {
    use Direction::{Rx, Tx};
    let pool = pool(63);
    let packets = outbox(&pool, &[60]);
    for (queue, direction, expected) in [
        (None, None, vec![(0, Rx), (0, Tx), (1, Rx), (1, Tx)]),
        (Some(1), None, vec![(1, Rx), (1, Tx)]),
        (None, Some(Tx), vec![(0, Tx), (1, Tx)]),
        (Some(0), Some(Rx), vec![(0, Rx)]),
        (Some(7), None, vec![]),
    ] {
        let capture = Capture::new(wanted(queue, direction), 2);
        let mut taps = taps(std::slice::from_ref(&capture));
        for (pair, direction) in [(0, Rx), (0, Tx), (1, Rx), (1, Tx)] {
            taps.outbox(Side::Near, pair, direction, &packets);
            taps.outbox(Side::Far, pair, direction, &packets);
        }
        let found: Vec<_> =
            all(&capture).into_iter().map(|(pair, direction, ..)| (pair, direction)).collect();
        assert_eq!(found, expected, "{queue:?} {direction:?}");
    }
    assert!(Taps::new(&[Capture::new(wanted(None, None), 1)], "vm1", "wire1").is_none());
}

#[test]
fn a_packet_in_pieces_is_kept_as_one_and_as_much_of_it_as_is_wanted() {
    let pool = pool(63);
    let lens = [60, 2048, 2049, 9000];
    let packets = outbox(&pool, &lens);
    for snaplen in [0, 14, 2048, 2050, u32::MAX] {
        let capture = Capture::new(Wanted { snaplen, ..wanted(None, None) }, 1);
        taps(std::slice::from_ref(&capture)).outbox(Side::Far, 0, Direction::Tx, &packets);
        let expected: Vec<_> = lens
            .map(|len| {
                let kept = len.min(snaplen as usize);
                (0, Direction::Tx, len as u32, (0..kept).map(|n| n as u8).collect())
            })
            .into();
        assert_eq!(all(&capture), expected);
    }
}

#[test]
fn the_filter_sees_all_of_a_frame_and_what_it_does_not_want_is_only_counted() {
    let byte_at_2500 = [(0x30, 0, 0, 2500), (0x15, 0, 1, 2500u32 as u8 as u32), (6, 0, 0, 1), (6, 0, 0, 0)];
    let program = byte_at_2500.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k });
    let filter = Some(Program::new(&program).unwrap());
    let capture = Capture::new(Wanted { filter, snaplen: 10, ..wanted(None, None) }, 1);
    let pool = pool(63);
    let packets = outbox(&pool, &[2500, 2501, 60]);
    taps(std::slice::from_ref(&capture)).outbox(Side::Far, 0, Direction::Rx, &packets);
    assert_eq!(all(&capture).iter().map(|(_, _, len, _)| *len).collect::<Vec<_>>(), [2501]);
    let counts = &capture.counts()[0];
    assert_eq!((counts.seen.get(), counts.matched.get(), counts.dropped.get()), (3, 1, 0));
}

#[test]
fn what_finds_no_room_is_counted_and_a_ring_goes_to_the_next_lane() {
    let pool = pool(63);
    let packets = outbox(&pool, &[9000]);
    let capture = Capture::new(wanted(None, None), u16::MAX);
    let mut written = 0;
    for _ in 0..100 {
        let mut taps = taps(std::slice::from_ref(&capture));
        for _ in 0..10 {
            taps.outbox(Side::Far, 3, Direction::Rx, &packets);
            written += 1;
        }
    }
    let counts = &capture.counts()[3];
    let found = all(&capture).len() as u64;
    assert_eq!((counts.seen.get(), counts.matched.get()), (written, written));
    assert_eq!(found + counts.dropped.get(), written);
    // Of one ring, however many lanes there were.
    assert_eq!(found, (RING.start() / 9024) as u64);
    assert_eq!(pool.in_use(), 5);
}

#[test]
fn what_a_capture_copies_in_a_turn_is_bounded_and_the_rest_counted() {
    let pool = pool(63);
    // In one piece, and in five: those are copied to be looked at, however little of them is kept.
    for (len, snaplen, cost) in
        [(2048, u32::MAX, 2048), (9000, u32::MAX, 9000), (9000, 64, 9000), (2048, 64, 64)]
    {
        let packets = outbox(&pool, &[len]);
        let capture = Capture::new(Wanted { snaplen, ..wanted(None, None) }, 1);
        let mut taps = taps(std::slice::from_ref(&capture));
        let (a_turn, most) = (TURN / cost, capture.ring_bytes / 2048);
        let shown = (a_turn + 7).min(most);
        for turn in 1..=2 {
            taps.turn();
            (0..shown).for_each(|_| taps.outbox(Side::Far, 0, Direction::Rx, &packets));
            assert_eq!(all(&capture).len(), a_turn.min(shown), "{len} {snaplen}");
            let (shown, dropped) = (turn * shown as u64, turn * (shown - a_turn.min(shown)) as u64);
            let counts = &capture.counts()[0];
            assert_eq!((counts.seen.get(), counts.matched.get()), (shown, shown));
            assert_eq!(counts.dropped.get(), dropped, "{len} {snaplen}");
        }
    }
}

#[test]
fn two_captures_of_one_port_do_not_disturb_each_other() {
    let pool = pool(63);
    let packets = outbox(&pool, &[60, 61]);
    let captures = [Capture::new(wanted(None, None), 1), Capture::new(wanted(None, Some(Direction::Tx)), 1)];
    let mut taps = taps(&captures);
    taps.outbox(Side::Far, 0, Direction::Rx, &packets);
    taps.outbox(Side::Far, 0, Direction::Tx, &packets);
    assert_eq!(captures.map(|capture| all(&capture).len()), [4, 2]);
}

//! Random guests that do not.

use proptest::prelude::*;

use super::*;
use crate::testing::*;

/// Guest addresses a hostile guest would think of.
fn addrs() -> impl Strategy<Value = u64> {
    let edges = prop::sample::select(vec![
        0,
        RINGS,
        RINGS + 16,
        RINGS + 128,
        DATA,
        SEAM,
        HOLE,
        DATA + USER,
        u64::MAX,
    ]);
    prop_oneof![
        4 => DATA..HOLE,
        4 => (edges, -70..70i64).prop_map(|(edge, off)| edge.wrapping_add_signed(off)),
        1 => any::<u64>(),
    ]
}

fn descs(size: u16) -> impl Strategy<Value = (Buf, u16)> {
    let lens = prop_oneof![
        4 => 0..200u32,
        3 => (0..10u32).prop_map(|n| n * 16),
        1 => prop::sample::select(vec![0xffff, 0x1_0000, 0x8000_0000, u32::MAX]),
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![9 => 0..8u16, 1 => any::<u16>()];
    let next = prop_oneof![9 => 0..size + 1, 1 => any::<u16>()];
    (addrs(), lens, flags, next).prop_map(|(addr, len, flags, next)| (Buf { addr, len, flags }, next))
}

#[derive(Clone, Debug)]
enum Mischief {
    Desc(u16, (Buf, u16)),
    /// A descriptor where indirect tables may be.
    TableEntry(u64, (Buf, u16)),
    Avail(u16, u16),
    Index(i16),
    UsedIndex(u16),
    Event(u16),
    /// Eight bytes anywhere in the ring's memory.
    Bytes(u64, u64),
    Take(u16),
    Reserve(u32, u16),
    Offer(u32, u16, Option<u32>),
    Publish,
    Kicks(bool),
}

fn mischief(size: u16) -> impl Strategy<Value = Mischief> {
    use Mischief::*;
    prop_oneof![
        8 => (0..size, descs(size)).prop_map(|(at, desc)| Desc(at, desc)),
        4 => (0..64u64, descs(size)).prop_map(|(at, desc)| TableEntry(at, desc)),
        4 => (0..size, prop_oneof![9 => 0..size, 1 => any::<u16>()]).prop_map(|(at, head)| Avail(at, head)),
        4 => prop_oneof![9 => 0..4i16, 1 => any::<i16>()].prop_map(Index),
        1 => any::<u16>().prop_map(UsedIndex),
        1 => any::<u16>().prop_map(Event),
        2 => (0..200u64, any::<u64>()).prop_map(|(at, bytes)| Bytes(at, bytes)),
        8 => (1..9u16).prop_map(Take),
        6 => (0..400u32, 0..9u16).prop_map(|(len, chains)| Reserve(len, chains)),
        6 => (0..400u32, 0..9u16, prop::option::of(0..400u32)).prop_map(|(len, n, used)| Offer(len, n, used)),
        2 => Just(Publish),
        1 => any::<bool>().prop_map(Kicks),
    ]
}

proptest! {
    #![proptest_config(runs(1024))]

    /// Whatever is in the ring's memory: no panic, nothing lent outside guest memory, what is lent has the
    /// length that was told, nothing but the used ring is written, and a violation is the last word.
    #[test]
    fn garbage_is_taken_or_refused_and_never_believed(
        size in prop::sample::select(vec![1u16, 2, 8]), features in 0..4u64, indirect_weight in 0..2u8,
        ops in prop::collection::vec(mischief(8), 1..100),
    ) {
        let features = if indirect_weight == 0 { F_INDIRECT } else { features << 28 };
        let mut driver = Driver::new(size, features);
        let mut ring = driver.start();
        let (mut taken, mut stopped) = (0u32, None);
        for op in ops {
            match op {
                Mischief::Desc(at, (buf, next)) => driver.set_desc(at % size, buf, next),
                Mischief::TableEntry(at, (buf, next)) => driver.set_desc_at(DATA + 8 * at, buf, next),
                Mischief::Avail(at, head) => driver.set_avail_entry(at, head),
                Mischief::Index(by) => {
                    driver.avail = driver.avail.wrapping_add_signed(by);
                    driver.set_avail_index(driver.avail);
                }
                Mischief::UsedIndex(index) => driver.set_used_index(index),
                Mischief::Event(index) => driver.set_used_event(index),
                Mischief::Bytes(at, bytes) => {
                    let at = at % (driver.used_addr() + 6 + 8 * u64::from(size) - RINGS - 8);
                    driver.guest.write(RINGS + at, &bytes.to_le_bytes());
                }
                _ => {}
            }
            let area = (driver.used_addr() - RINGS) as usize;
            let before = driver.guest.read(RINGS, area);
            let outcome = match op {
                Mischief::Take(n) => ring.available(n).and_then(|all| {
                    for _ in 0..all.min(n) {
                        let Taken { token, len, segments } = ring.take()?.expect("nothing was taken");
                        let sum: usize = segments.iter().map(Segment::len).sum();
                        assert_eq!(sum, len as usize);
                        assert!(token.id < size && segments.iter().all(|segment| segment.len() > 0));
                        driver.lent(&ring);
                        // Half of them are kept for ever.
                        taken += 1;
                        if taken % 2 == 0 {
                            ring.complete(token, len);
                        }
                    }
                    Ok(())
                }),
                Mischief::Reserve(len, chains) => ring.reserve(len, 12, chains).map(|outcome| {
                    let room: usize = driver.lent(&ring).iter().map(|(_, len)| len).sum();
                    match outcome {
                        Reservation::Ready(n) => assert!(n <= chains && room >= len as usize),
                        _ => assert_eq!(room, 0),
                    }
                }),
                Mischief::Offer(len, most, used) => ring.offer(len, 12, most).map(|offer| {
                    let room: usize = driver.lent(&ring).iter().map(|(_, len)| len).sum();
                    assert_eq!(room.min(u32::MAX as usize), offer.room as usize);
                    assert!(offer.chains <= most && (room == 0) == (offer.chains == 0));
                    let base = ring.base() as u16;
                    let taken = used.map_or(0, |len| ring.accept(len));
                    assert_eq!(ring.base() as u16, base.wrapping_add(taken));
                    assert!(taken <= offer.chains && (used.is_none() || offer.chains == 0 || taken > 0));
                }),
                Mischief::Publish => {
                    ring.publish();
                    Ok(())
                }
                Mischief::Kicks(wanted) => {
                    ring.set_kicks(wanted);
                    Ok(())
                }
                _ => Ok(()),
            };
            prop_assert_eq!(driver.guest.read(RINGS, area), before);
            if let Err(violation) = outcome {
                prop_assert_eq!(stopped, None, "a stopped ring spoke");
                stopped = Some(violation);
                prop_assert_eq!(driver.errors(1), 1);
            }
            prop_assert_eq!(ring.violation(), stopped);
            if stopped.is_some() && taken % 3 == 0 {
                ring = driver.start_at(driver.avail.into());
                stopped = None;
            }
        }
    }
}

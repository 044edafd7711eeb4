//! What a guest must not do, one test each.

use std::sync::Arc;

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

pub const SIZE: u16 = 5;
/// Where the ring of these tests is: at its last descriptor, so that every chain goes across its end.
pub const START: u64 = 2 * SIZE as u64 - 1;
/// The slot there: `head` in each violation.
pub const HEAD: u16 = SIZE - 1;

/// Runs `misdeed` against a ring the device takes from; checks all that holds after any violation.
pub fn sends(features: u64, misdeed: impl FnOnce(&mut Driver)) -> Violation {
    stops(features, misdeed, |ring| ring.take().map(drop))
}

/// The same for a ring the device reserves on: 60 bytes, with a header of 12.
pub fn receives(features: u64, misdeed: impl FnOnce(&mut Driver)) -> Violation {
    stops(features, misdeed, |ring| ring.reserve(60, 12, SIZE).map(drop))
}

fn stops(
    features: u64,
    misdeed: impl FnOnce(&mut Driver),
    mut turn: impl FnMut(&mut PackedRing) -> Result<(), Violation>,
) -> Violation {
    let mut driver = Driver::new(SIZE, features).at(START);
    let mut ring = driver.start();
    misdeed(&mut driver);
    assert_ne!(ring.available(1), Ok(0), "nothing happened");
    let before = driver.guest.read(RINGS, 16 * usize::from(SIZE) + 8);
    let violation = turn(&mut ring).expect_err("nothing was refused");
    assert_eq!(ring.violation(), Some(violation));
    assert_eq!(driver.errors(1), 1);
    // Stopped: whatever comes, nothing is taken, and the base is that of the chain that broke it.
    assert_eq!(ring.available(1), Ok(0));
    assert!(matches!(ring.take(), Ok(None)));
    assert_eq!(ring.reserve(1, 0, 1), Ok(Reservation::Short));
    assert!(!ring.has_news());
    assert_eq!(ring.base(), driver.base(START));
    assert_eq!(ring.publish(), Call::Nothing);
    assert_eq!(driver.guest.read(RINGS, 16 * usize::from(SIZE) + 8), before, "not a byte was written");
    assert_eq!(driver.errors(0), 0, "told once");
    // A new ring in its place runs.
    driver = driver.at(START + 8);
    driver.posted.clear();
    let mut ring = driver.start();
    driver.post(1, &[out(DATA, 3)]);
    assert_eq!(take(&mut ring).unwrap().0, Token { id: 1, descs: 1 });
    violation
}

/// All of a ring with NEXT: it would go round and round.
#[test]
fn a_ring_entirely_of_next() {
    for size in [1, 2, 3, 4, 1000, 32768] {
        for (start, way) in [(0, 0), (1, WRITE), (2 * u64::from(size) - 1, 0)] {
            let driver = Driver::new(size, 0).at(start);
            for count in start..start + u64::from(size) {
                driver.expose(count, Buf { addr: DATA, len: 1, flags: way | NEXT }, 0);
            }
            let too_long = Err(Violation::ChainTooLong { head: driver.slot(start) });
            let mut ring = driver.start();
            let outcome =
                if way == 0 { take(&mut ring).map(drop) } else { ring.reserve(60, 12, 9).map(drop) };
            assert_eq!(outcome, too_long, "{size}");
            assert_eq!(driver.errors(1), 1);
        }
    }
}

#[test]
fn a_chain_longer_than_1024_descriptors() {
    for n in [1024, 1025] {
        let mut driver = Driver::new(2000, 0).at(1990);
        driver.post(1, &vec![out(DATA, 1); n]);
        let taken = take(&mut driver.start()).map(|(token, _)| token);
        let too_long = Err(Violation::ChainTooLong { head: 1990 });
        assert_eq!(taken, if n == 1024 { Ok(Token { id: 1, descs: 1024 }) } else { too_long });
    }
}

/// A chain that goes on into descriptors which are in flight.
#[test]
fn a_chain_that_runs_into_what_is_in_flight() {
    for start in 0..10 {
        let mut driver = Driver::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(1, &[out(DATA, 5), out(DATA, 5)]);
        let (first, _) = take(&mut ring).unwrap();
        for count in start + 2..start + 5 {
            driver.expose(count, Buf { addr: DATA, len: 5, flags: NEXT }, 2);
        }
        let too_long = Violation::ChainTooLong { head: driver.slot(start + 2) };
        assert_eq!(take(&mut ring), Err(too_long));
        // What was taken before is returned all the same.
        ring.complete(first, 0);
        ring.publish();
        assert_eq!(driver.used(), [(1, 0)]);
    }
}

/// CVE-2016-5403: nothing was returned, and yet more is offered, by flags that are flipped early. Nobody
/// looks there.
#[test]
fn more_chains_in_flight_than_the_ring_has_entries() {
    for (start, hidden) in (0..10).flat_map(|start| [(start, false), (start, true)]) {
        let mut driver = Driver::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        let mut held = Vec::new();
        for id in 0..SIZE {
            driver.post(id, &[out(DATA, 5)]);
            held.push(take(&mut ring).unwrap().0);
        }
        if hidden {
            // Returned, but the guest cannot know yet.
            ring.complete(held.remove(0), 0);
        }
        driver.set_flags(start + 5, driver.available(start + 5));
        assert_eq!(ring.available(9), Ok(0));
        assert!(!ring.has_news());
        assert!(matches!(ring.take(), Ok(None)));
        assert_eq!(ring.reserve(1, 0, 9), Ok(Reservation::Short));
        held.into_iter().for_each(|token| ring.complete(token, 0));
        ring.publish();
        assert_eq!(driver.used().len(), 5, "the ring goes on");
        driver.post(9, &[out(DATA, 5)]);
        serve(&mut ring, 1);
        assert_eq!(ring.violation(), None);
    }
}

/// Flags of another lap, or of nobody, make nothing available: zero, used, and the wrong wrap counter.
#[test]
fn wrap_counter_games() {
    for start in 0..10 {
        let driver = Driver::new(SIZE, 0).at(start);
        let mut ring = driver.start();
        let wrong = if driver.wrap(start) { USED } else { AVAIL };
        for flags in [0, wrong, AVAIL | USED] {
            for count in start..start + 5 {
                driver.place(count, out(DATA, 5), 1);
                driver.set_flags(count, flags);
            }
            assert!(!ring.has_news());
            assert_eq!((ring.available(9), ring.reserve(1, 0, 1)), (Ok(0), Ok(Reservation::Short)));
        }
        // All of the ring flagged as in one lap: taken as far as that lap goes.
        for count in start..start + 5 {
            driver.set_flags(count, driver.available(start));
        }
        assert_eq!(ring.available(9), Ok(5 - driver.slot(start)));
    }
}

/// Made available, seen, and taken back before it was taken.
#[test]
fn a_descriptor_that_is_withdrawn() {
    type Turn = fn(&mut PackedRing) -> Result<(), Violation>;
    let turns: [Turn; 2] = [|ring| ring.take().map(drop), |ring| ring.reserve(5, 0, 1).map(drop)];
    for (flags, turn) in [0, AVAIL | USED].into_iter().flat_map(|flags| turns.map(|turn| (flags, turn))) {
        let mut driver = Driver::new(SIZE, 0).at(START);
        let mut ring = driver.start();
        driver.post(1, &[out(DATA, 5)]);
        assert_eq!(ring.available(1), Ok(1));
        driver.set_flags(START, flags);
        assert_eq!(turn(&mut ring), Err(Violation::Withdrawn { head: HEAD }));
        assert_eq!((driver.errors(1), ring.available(1)), (1, Ok(0)));
    }
}

/// The first made available before the rest is written: the rest is what there was, and is checked.
#[test]
fn a_chain_that_is_made_available_too_early() {
    let early = |driver: &mut Driver| {
        driver.expose(START, Buf { addr: DATA, len: 5, flags: NEXT }, 1);
        driver.place(START + 1, out(HOLE, 5), 1);
    };
    assert_eq!(sends(0, early), Violation::Unmapped { head: HEAD, addr: HOLE, len: 5 });
    let untouched = |driver: &mut Driver| driver.expose(START, Buf { addr: DATA, len: 5, flags: NEXT }, 1);
    assert_eq!(sends(0, untouched), Violation::EmptyDescriptor { head: HEAD });
}

/// An id means something to the guest only: one in use twice comes back twice.
#[test]
fn an_id_in_flight_twice() {
    let driver = Driver::new(SIZE, 0).at(START);
    let mut ring = driver.start();
    for count in START..START + 3 {
        driver.expose(count, out(DATA, 5), 0xffff);
    }
    serve(&mut ring, 3);
    ring.publish();
    for count in START..START + 3 {
        assert!(driver.is_used(count));
        assert_eq!(driver.guest.read_u16(driver.slot_addr(count) + 12), 0xffff);
    }
}

/// CVE-2020-10725: somewhere among four descriptors that lie across the ring's end, and of length zero, too.
#[test]
fn a_bad_address_in_a_batch_across_the_end() {
    for (start, bad) in (0..10).flat_map(|start| (0..4).map(move |bad| (start, bad))) {
        for len in [0, 1, 100] {
            let mut driver = Driver::new(SIZE, 0).at(start);
            let mut ring = driver.start();
            for id in 0..4 {
                driver.post(id, &[if id == bad { out(HOLE, len) } else { out(DATA, 100) }]);
            }
            serve(&mut ring, bad.into());
            let head = driver.slot(start + u64::from(bad));
            let violation = match len {
                0 => Violation::EmptyDescriptor { head },
                len => Violation::Unmapped { head, addr: HOLE, len },
            };
            assert_eq!(take(&mut ring), Err(violation));
            ring.publish();
            assert_eq!(driver.used().len(), usize::from(bad));
            assert_eq!(ring.base(), driver.base(start + u64::from(bad)));
        }
    }
}

#[test]
fn a_buffer_outside_memory() {
    let places = [
        (HOLE, 1),
        (HOLE - 1, 2),
        (0, 1),
        (RINGS - 1, 20),
        (DATA - 1, 1),
        (DATA + USER, 1),
        (SEAM, u32::MAX),
    ];
    for (addr, len) in places {
        // The first byte that is missing is named, with what is left from there on.
        let gone = match addr {
            _ if addr == HOLE - 1 => Violation::Unmapped { head: HEAD, addr: HOLE, len: 1 },
            SEAM => Violation::Unmapped { head: HEAD, addr: HOLE, len: u32::MAX - 0x1_0000 },
            _ => Violation::Unmapped { head: HEAD, addr, len },
        };
        for n in 1..=4 {
            let mut chain = vec![out(DATA, 9); n];
            chain[n - 1] = out(addr, len);
            assert_eq!(sends(0, |driver| driver.post(2, &chain)), gone);
        }
        assert_eq!(receives(0, |driver| driver.post(2, &[into(addr, len)])), gone);
    }
}

#[test]
fn a_buffer_whose_end_overflows() {
    for (addr, len) in [(u64::MAX, 1), (u64::MAX, 2), (u64::MAX - 9, 100), (u64::MAX - 0xffff_fffe, u32::MAX)]
    {
        let unmapped = Violation::Unmapped { head: HEAD, addr, len };
        assert_eq!(sends(0, |driver| driver.post(0, &[out(addr, len)])), unmapped);
        assert_eq!(receives(0, |driver| driver.post(0, &[into(addr, len)])), unmapped);
    }
}

/// Memory that ends just below 2^64, and memory that starts at 0: a range must not go on from one to the other.
#[test]
fn a_buffer_that_wraps_around_the_address_space() {
    let top = 0u64.wrapping_sub(0x1001);
    let guest = Guest::new(&[(0, 0x1000), (top - USER, 0x1000), (RINGS, 0x1000)]);
    let memory = Arc::new(guest.at_guest(&[0, top, RINGS]));
    let mut driver = Driver::new(SIZE, 0).over(guest);
    let mut ring = PackedRing::start(RingConfig { memory, ..driver.config() }).unwrap();
    driver.post(0, &[out(top + 0xff0, 0x10)]);
    driver.post(1, &[out(top + 0xff0, 0x12)]);
    assert_eq!(take(&mut ring).unwrap().1.len(), 0x10);
    assert_eq!(take(&mut ring), Err(Violation::Unmapped { head: 1, addr: u64::MAX, len: 2 }));
}

/// CVE-2016-6490, wherever it is, and wherever it points.
#[test]
fn a_zero_length_descriptor() {
    let empty = Violation::EmptyDescriptor { head: HEAD };
    for (nowhere, at) in [DATA, HOLE, u64::MAX].into_iter().flat_map(|addr| (0..5).map(move |at| (addr, at)))
    {
        for n in at + 1..=5 {
            let chain = |good: Buf| {
                let mut chain = vec![good; n];
                chain[at] = Buf { addr: nowhere, len: 0, ..good };
                chain
            };
            assert_eq!(sends(0, |driver| driver.post(3, &chain(out(DATA, 20)))), empty);
            assert_eq!(receives(0, |driver| driver.post(3, &chain(into(DATA, 5)))), empty);
        }
    }
}

#[test]
fn a_descriptor_of_the_wrong_direction() {
    for (n, at) in (1..=5).flat_map(|n| (0..n).map(move |at| (n, at))) {
        let chain = |good: Buf, bad: Buf| {
            let mut chain = vec![good; n];
            chain[at] = bad;
            chain
        };
        let wrong = Violation::Direction { head: HEAD };
        let (reads, writes) = (out(DATA, 5), into(DATA, 5));
        assert_eq!(sends(0, |driver| driver.post(3, &chain(reads, writes))), wrong);
        assert_eq!(receives(0, |driver| driver.post(3, &chain(writes, reads))), wrong);
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lengths_that_add_up_to_more_than_32_bits() {
    for (n, len) in [(2, 0x8000_0000u32), (512, 0x80_0000)] {
        for more in [0, 1] {
            // Untouched, and so never really there.
            let huge = Guest::new(&[(RINGS, 0x10_0000), (DATA, len as usize)]);
            let mut driver = Driver::new(512, 0).over(huge).at(700);
            driver.post(1, &vec![out(DATA, len); n - 1 + more]);
            let mut ring = driver.start();
            assert_eq!(ring.available(1), Ok(1));
            let taken = ring.take().map(|taken| taken.unwrap().len);
            let too_much = Err(Violation::Length { head: 188 });
            assert_eq!(taken, if more == 0 { Ok(0u32.wrapping_sub(len)) } else { too_much });
        }
    }
}

/// Each descriptor crosses from one region into the next.
#[test]
fn a_chain_of_crumbs() {
    let mut driver = Driver::new(2048, 0);
    let mut ring = driver.start();
    driver.post(1, &[out(SEAM - 1, 2); 544]);
    assert_eq!(take(&mut ring).unwrap().1.len(), 1088);
    driver.post(2, &[out(SEAM - 1, 2); 545]);
    assert_eq!(take(&mut ring), Err(Violation::TooManyPieces { head: 544 }));
}

/// CVE-2026-86566: the room left must not underflow.
#[test]
fn a_receive_buffer_too_small_for_the_header() {
    for room in [1, 11] {
        let violation = receives(0, |driver| driver.post(1, &[into(DATA, room)]));
        assert_eq!(violation, Violation::NoRoom { head: HEAD, room });
    }
    let split_up = |driver: &mut Driver| driver.post(1, &[into(DATA, 4), into(DATA, 4), into(DATA, 3)]);
    assert_eq!(receives(0, split_up), Violation::NoRoom { head: HEAD, room: 11 });
    // Of those behind the first, one byte is enough.
    let mut driver = Driver::new(SIZE, 0).at(START);
    let mut ring = driver.start();
    driver.post(0, &[into(DATA, 12)]);
    driver.post(1, &[into(DATA, 1)]);
    driver.post(2, &[into(DATA, 50)]);
    assert_eq!(ring.reserve(60, 12, 4), Ok(Reservation::Ready(3)));
}

/// A violation in a later chain of a packet gives the ones before it back, too.
#[test]
fn a_violation_behind_a_good_receive_buffer_takes_nothing() {
    let misdeed = |driver: &mut Driver| {
        driver.post(3, &[into(DATA, 12), into(DATA, 8)]);
        driver.post(4, &[into(HOLE, 20)]);
    };
    assert_eq!(receives(0, misdeed), Violation::Unmapped { head: 1, addr: HOLE, len: 20 });
}

/// What was taken before a violation is returned and published all the same.
#[test]
fn chains_before_the_bad_one_are_served() {
    let mut driver = Driver::new(SIZE, 0).at(START);
    let mut ring = driver.start();
    driver.post(0, &[out(DATA, 5)]);
    driver.post(1, &[out(HOLE, 5)]);
    assert_eq!(ring.available(4), Ok(2));
    let (token, _) = take(&mut ring).unwrap();
    assert!(take(&mut ring).is_err());
    ring.complete(token, 0);
    ring.publish();
    assert_eq!(driver.used(), [(0, 0)]);
    assert_eq!(ring.base(), driver.base(START + 1));
}

/// Not the guest's fault but ours: a token must not lead outside the ring.
#[test]
#[cfg(not(debug_assertions))]
fn tokens_of_another_ring() {
    let mut driver = Driver::new(SIZE, 0).at(START);
    let mut ring = driver.start();
    ring.complete(Token { id: 0, descs: 30000 }, 0);
    driver.post(0, &[out(DATA, 5)]);
    take(&mut ring).unwrap();
    ring.complete(Token { id: 0, descs: 30000 }, 0);
    ring.publish();
    assert_eq!(driver.used(), [(0, 0)]);
}

//! What a guest must not do on a packed ring, one test each.

use super::*;
use crate::testing::misdeed::*;
use crate::testing::packed::*;
use crate::testing::*;

const SIZE: u16 = Driver::SIZE;
/// A ring's last descriptor, so that every chain goes across its end.
const START: u64 = 2 * SIZE as u64 - 1;
/// The slot there: `head` in each violation.
pub const HEAD: u16 = SIZE - 1;

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
        driver.expose(driver.avail, Buf { addr: DATA, len: 5, flags: NEXT }, 1);
        driver.place(driver.avail + 1, out(HOLE, 5), 1);
    };
    assert_eq!(sends(0, early), Violation::Unmapped { head: HEAD, addr: HOLE, len: 5 });
    let untouched =
        |driver: &mut Driver| driver.expose(driver.avail, Buf { addr: DATA, len: 5, flags: NEXT }, 1);
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

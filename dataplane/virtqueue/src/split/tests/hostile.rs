//! What a guest must not do on a split ring, one test each.

use super::*;
use crate::testing::misdeed::*;
use crate::testing::*;

const SIZE: u16 = Driver::SIZE;

#[test]
fn a_head_beyond_the_queue() {
    for head in [SIZE, SIZE + 1, 0x8000, 0xffff] {
        for start in Driver::starts(SIZE) {
            let misdeed = |driver: &mut Driver| driver.offer(head);
            let violation = Violation::Head { at: start as u16, head, size: SIZE };
            assert_eq!(sends_at(start, 0, misdeed), violation);
            assert_eq!(receives_at(start, 0, misdeed), violation);
        }
    }
}

#[test]
fn a_next_beyond_the_queue() {
    for next in [SIZE, 0xffff] {
        let violation = Violation::Next { head: 1, next, size: SIZE };
        for way in [0, WRITE] {
            let misdeed = |driver: &mut Driver| {
                driver.set_desc(1, Buf { addr: DATA, len: 20, flags: way | NEXT }, next);
                driver.offer(1);
            };
            let stopped = if way == 0 { sends(0, misdeed) } else { receives(0, misdeed) };
            assert_eq!(stopped, violation);
        }
        // Not the first descriptor, but the second or third.
        for n in 2..=3u16 {
            let violation = Violation::Next { head: 0, next, size: SIZE };
            let misdeed = |driver: &mut Driver| {
                driver.chain(&[0, 1, 2], &[out(DATA, 9); 3]);
                driver.set_desc(n - 1, Buf { addr: DATA, len: 9, flags: NEXT }, next);
                driver.offer(0);
            };
            assert_eq!(sends(0, misdeed), violation);
        }
    }
}

#[test]
fn a_chain_that_loops() {
    for (from, to) in [(0, 0), (1, 0), (1, 1), (2, 0), (3, 2)] {
        for way in [0, WRITE] {
            let misdeed = |driver: &mut Driver| {
                driver.chain(&[0, 1, 2, 3], &[Buf { addr: DATA, len: 9, flags: way }; 4]);
                driver.set_desc(from, Buf { addr: DATA, len: 9, flags: way | NEXT }, to);
                driver.offer(0);
            };
            let stopped = if way == 0 { sends(0, misdeed) } else { receives(0, misdeed) };
            assert_eq!(stopped, Violation::ChainTooLong { head: 0 });
        }
    }
}

/// A ring of one entry has room for one descriptor.
#[test]
fn a_chain_longer_than_a_queue_of_one() {
    let mut driver = Driver::new(1, 0);
    let mut ring = driver.start();
    driver.set_desc(0, Buf { addr: DATA, len: 9, flags: NEXT }, 0);
    driver.offer(0);
    assert_eq!(take(&mut ring), Err(Violation::ChainTooLong { head: 0 }));
}

#[test]
fn an_avail_index_that_jumps() {
    for jump in [SIZE + 1, 100, 0x7fff, 0x8000, 0xffff] {
        for start in Driver::starts(SIZE) {
            let from = start as u16;
            let to = from.wrapping_add(jump);
            let misdeed = |driver: &mut Driver| driver.set_avail_index(to);
            let violation = Violation::AvailJump { from, to, size: SIZE };
            assert_eq!(sends_at(start, 0, misdeed), violation);
            assert_eq!(receives_at(start, 0, misdeed), violation);
        }
    }
}

#[test]
fn an_avail_index_that_jumps_on_the_largest_queue() {
    let mut driver = Driver::new(32768, 0);
    let mut ring = driver.start();
    driver.set_avail_index(32769);
    assert_eq!(ring.available(1), Err(Violation::AvailJump { from: 0, to: 32769, size: 32768 }));
    // All of it in flight: not one more.
    let mut ring = driver.start();
    driver.set_desc(0, out(DATA, 1), 0);
    driver.avail = 0;
    for _ in 0..if cfg!(miri) { 0 } else { 32768 } {
        driver.offer(0);
        take(&mut ring).unwrap();
    }
    driver.set_avail_index(driver.avail.wrapping_sub(1));
    assert!(ring.available(1).is_err());
}

/// CVE-2016-5403: nothing was returned, and yet more is offered. Whoever holds chains, or reserves many,
/// holds a ring full of them at most.
#[test]
fn more_chains_in_flight_than_the_ring_has_entries() {
    for start in [0u16, 0xfffd] {
        let mut driver = Driver::new(SIZE, 0).at(start.into());
        let mut ring = driver.start();
        for slot in 0..SIZE {
            driver.post(slot, &[out(DATA, 5)]);
            take(&mut ring).unwrap();
        }
        assert_eq!(ring.available(1), Ok(0));
        // One comes back: one more is fine, once it was shown to the guest.
        ring.complete(token(2), 0);
        ring.publish();
        driver.offer(2);
        take(&mut ring).unwrap();
        driver.offer(2);
        let from = start.wrapping_add(SIZE + 1);
        let to = start.wrapping_add(SIZE + 2);
        assert_eq!(ring.available(1), Err(Violation::AvailJump { from, to, size: SIZE }));
        assert_eq!(ring.base(), u32::from(from));
        // What was taken before can still be returned.
        ring.complete(token(0), 0);
        ring.publish();
        assert_eq!(driver.used(), [(2, 0), (0, 0)]);
    }
}

/// CVE-2016-6490: the first is refused.
#[test]
fn zero_length_descriptors_without_end() {
    let misdeed = |driver: &mut Driver| {
        driver.chain(&[0, 1, 2, 3], &[out(DATA, 0); 4]);
        driver.set_desc(3, Buf { addr: DATA, len: 0, flags: NEXT }, 0);
        driver.offer(0);
    };
    assert_eq!(sends(0, misdeed), Violation::EmptyDescriptor { head: 0 });
}

#[test]
fn a_writable_descriptor_in_a_table_where_the_guest_sends() {
    let chains: [&[Buf]; 5] = [
        &[into(DATA, 9)],
        &[out(DATA, 9), into(DATA, 9)],
        &[into(DATA, 9), out(DATA, 9)],
        &[out(DATA, 9), out(DATA, 9), into(DATA, 9)],
        &[out(DATA, 9), into(DATA, 0)],
    ];
    let wrong = Violation::Direction { head: 3 };
    for chain in chains {
        let inside = |driver: &mut Driver| {
            let table = driver.table(SEAM, chain);
            driver.post(3, &[table]);
        };
        assert_eq!(sends(F_INDIRECT, inside), wrong);
    }
    // And a direct one that is empty besides.
    assert_eq!(sends(0, |driver: &mut Driver| driver.post(3, chains[4])), wrong);
}

/// A violation in the second chain of a packet gives the first back, too.
#[test]
fn a_bad_head_behind_a_good_receive_buffer_takes_nothing() {
    for start in Driver::starts(SIZE) {
        let misdeed = |driver: &mut Driver| {
            driver.post(1, &[into(DATA, 20)]);
            driver.offer(0xabc);
        };
        let violation = Violation::Head { at: (start + 1) as u16, head: 0xabc, size: SIZE };
        assert_eq!(receives_at(start, 0, misdeed), violation);
    }
}

//! What a guest must not do, one test each.

use super::*;
use crate::testing::*;

pub const SIZE: u16 = 4;

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
    mut turn: impl FnMut(&mut SplitRing) -> Result<(), Violation>,
) -> Violation {
    let mut driver = Driver::new(SIZE, features).at_index(65535);
    let mut ring = driver.start();
    misdeed(&mut driver);
    let outcome = ring.available(1).and_then(|n| {
        assert_ne!(n, 0, "nothing happened");
        turn(&mut ring)
    });
    let violation = outcome.expect_err("nothing was refused");
    assert_eq!(ring.violation(), Some(violation));
    assert_eq!(driver.errors(1), 1);
    // Stopped: whatever comes, nothing is taken, and the base is that of the chain that broke it.
    driver.post(&[0], &[out(DATA, 100)]);
    assert_eq!(ring.available(1), Ok(0));
    assert_eq!(ring.reserve(1, 0, 1), Ok(Reservation::Short));
    assert!(!ring.has_news());
    assert_eq!(ring.base(), 65535);
    assert_eq!(ring.publish(), Call::Nothing);
    assert_eq!(driver.used(), []);
    assert_eq!(driver.errors(0), 0, "told once");
    // A new ring in its place runs.
    let mut ring = driver.start_at(driver.avail);
    driver.post(&[1], &[out(DATA, 3)]);
    assert_eq!(take(&mut ring).unwrap().0, 1);
    violation
}

#[test]
fn a_head_beyond_the_queue() {
    for head in [SIZE, SIZE + 1, 0x8000, 0xffff] {
        let violation = Violation::Head { at: 65535, head, size: SIZE };
        assert_eq!(sends(0, |driver| driver.offer(head)), violation);
        assert_eq!(receives(0, |driver| driver.offer(head)), violation);
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
            let stop = if way == 0 { sends } else { receives };
            assert_eq!(stop(0, misdeed), violation);
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
            let stop = if way == 0 { sends } else { receives };
            assert_eq!(stop(0, misdeed), Violation::ChainTooLong { head: 0 });
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
        let to = 65535u16.wrapping_add(jump);
        let violation = Violation::AvailJump { from: 65535, to, size: SIZE };
        assert_eq!(sends(0, |driver| driver.set_avail_index(to)), violation);
        assert_eq!(receives(0, |driver| driver.set_avail_index(to)), violation);
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
    for start in [0, 0xfffd] {
        let mut driver = Driver::new(SIZE, 0).at_index(start);
        let mut ring = driver.start();
        for slot in 0..SIZE {
            driver.post(&[slot], &[out(DATA, 5)]);
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
            _ if addr == HOLE - 1 => Violation::Unmapped { head: 2, addr: HOLE, len: 1 },
            SEAM => Violation::Unmapped { head: 2, addr: HOLE, len: u32::MAX - 0x1_0000 },
            _ => Violation::Unmapped { head: 2, addr, len },
        };
        assert_eq!(sends(0, |driver| driver.post(&[2], &[out(addr, len)])), gone);
        assert_eq!(receives(0, |driver| driver.post(&[2], &[into(addr, len)])), gone);
        assert_eq!(sends(0, |driver| driver.post(&[2, 1], &[out(DATA, 9), out(addr, len)])), gone);
        assert_eq!(
            sends(0, |driver| driver.post(&[2, 1, 0], &[out(DATA, 9), out(DATA, 9), out(addr, len)])),
            gone
        );
        let inside = |driver: &mut Driver| {
            let table = driver.table(SEAM, &[out(DATA, 9), out(addr, len)]);
            driver.post(&[2], &[table]);
        };
        assert_eq!(sends(F_INDIRECT, inside), gone);
    }
}

#[test]
fn a_buffer_whose_end_overflows() {
    for (addr, len) in [(u64::MAX, 1), (u64::MAX, 2), (u64::MAX - 9, 100), (u64::MAX - 0xffff_fffe, u32::MAX)]
    {
        let unmapped = Violation::Unmapped { head: 0, addr, len };
        assert_eq!(sends(0, |driver| driver.post(&[0], &[out(addr, len)])), unmapped);
        assert_eq!(receives(0, |driver| driver.post(&[0], &[into(addr, len)])), unmapped);
    }
}

/// Memory that ends just below 2^64, and memory that starts at 0: a range must not go on from one to the other.
#[test]
fn a_buffer_that_wraps_around_the_address_space() {
    let top = 0u64.wrapping_sub(0x1001);
    let guest = Guest::new(&[(0, 0x1000), (top - USER, 0x1000), (RINGS, 0x1000)]);
    let memory = guest.at_guest(&[0, top, RINGS]);
    let mut driver = Driver::new(SIZE, 0);
    driver.guest = guest;
    let mut ring = SplitRing::start(RingConfig { memory: Arc::new(memory), ..driver.config() }).unwrap();
    driver.post(&[0], &[out(top + 0xff0, 0x10)]);
    driver.post(&[1], &[out(top + 0xff0, 0x12)]);
    assert_eq!(take(&mut ring).unwrap().1, 0x10);
    assert_eq!(take(&mut ring), Err(Violation::Unmapped { head: 1, addr: u64::MAX, len: 2 }));
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

/// As QEMU ("virtio: zero sized buffers are not allowed"), wherever it is, and wherever it points.
#[test]
fn a_zero_length_descriptor() {
    for (nowhere, at) in [DATA, HOLE, u64::MAX].into_iter().flat_map(|addr| (0..4).map(move |at| (addr, at)))
    {
        for n in at + 1..=4 {
            let chain = |good: Buf| {
                let mut chain = vec![good; n];
                chain[at] = Buf { addr: nowhere, len: 0, ..good };
                chain
            };
            let empty = Violation::EmptyDescriptor { head: 3 };
            let slots = &[3, 1, 2, 0][..n];
            assert_eq!(sends(0, |driver| driver.post(slots, &chain(out(DATA, 20)))), empty);
            assert_eq!(receives(0, |driver| driver.post(slots, &chain(into(DATA, 5)))), empty);
            let inside = |driver: &mut Driver| {
                let table = driver.table(SEAM, &chain(out(DATA, 20)));
                driver.post(&[3], &[table]);
            };
            assert_eq!(sends(F_INDIRECT, inside), empty);
        }
    }
}

/// However large the queue, a chain costs us 1024 descriptors at most.
#[test]
fn a_chain_longer_than_1024_descriptors() {
    let slots: Vec<u16> = (0..2048).rev().collect();
    let bufs = vec![out(DATA, 1); 2048];
    for n in [1024, 1025, 2048] {
        let mut driver = Driver::new(2048, F_INDIRECT);
        driver.post(&slots[..n], &bufs[..n]);
        let table = driver.table(SEAM, &bufs[..n]);
        driver.post(&[0], &[table]);
        for (base, head) in [(0, 2047), (1, 0)] {
            let taken = take(&mut driver.start_at(base)).map(|(_, len, _)| len);
            let too_long = Err(Violation::ChainTooLong { head });
            assert_eq!(taken, if n == 1024 { Ok(1024) } else { too_long });
        }
    }
}

#[test]
fn a_writable_descriptor_where_the_guest_sends() {
    let chains: [&[Buf]; 5] = [
        &[into(DATA, 9)],
        &[out(DATA, 9), into(DATA, 9)],
        &[into(DATA, 9), out(DATA, 9)],
        &[out(DATA, 9), out(DATA, 9), into(DATA, 9)],
        &[out(DATA, 9), into(DATA, 0)],
    ];
    for chain in chains {
        let slots = &[3, 2, 1][..chain.len()];
        assert_eq!(sends(0, |driver| driver.post(slots, chain)), Violation::Direction { head: 3 });
        let inside = |driver: &mut Driver| {
            let table = driver.table(SEAM, chain);
            driver.post(&[3], &[table]);
        };
        assert_eq!(sends(F_INDIRECT, inside), Violation::Direction { head: 3 });
    }
}

#[test]
fn a_readable_descriptor_where_the_guest_receives() {
    let chains: [&[Buf]; 4] = [
        &[out(DATA, 90)],
        &[out(DATA, 9), into(DATA, 90)],
        &[into(DATA, 90), out(DATA, 9)],
        &[into(DATA, 90), into(DATA, 9), out(DATA, 9)],
    ];
    for chain in chains {
        let slots = &[3, 2, 1][..chain.len()];
        assert_eq!(receives(0, |driver| driver.post(slots, chain)), Violation::Direction { head: 3 });
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn lengths_that_add_up_to_more_than_32_bits() {
    let (size, len) = (512, 0x80_0000);
    let slots: Vec<u16> = (0..size).collect();
    let huge = Guest::new(&[(RINGS, 0x10_0000), (DATA, len as usize)]);
    let mut driver = Driver::new(size, 0).over(huge);
    driver.post(&slots[1..], &vec![out(DATA, len); usize::from(size) - 1]);
    let mut ring = driver.start();
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(take_unread(&mut ring).unwrap().1, u32::MAX - len + 1);
    driver.post(&slots, &vec![out(DATA, len); usize::from(size)]);
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(ring.take().map(drop), Err(Violation::Length { head: 0 }));
}

/// The sum of two, where the walk has no loop.
#[test]
#[cfg_attr(miri, ignore = "2 GiB")]
fn two_lengths_that_add_up_to_more_than_32_bits() {
    let len = 0x8000_0000u32;
    // Untouched, and so never really there.
    let huge = Guest::new(&[(RINGS, 0x1000), (DATA, len as usize)]);
    let mut driver = Driver::new(SIZE, 0).over(huge);
    let mut ring = driver.start();
    driver.post(&[0, 1], &[out(DATA, len), out(DATA, len)]);
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(ring.take().map(drop), Err(Violation::Length { head: 0 }));
}

/// Each descriptor crosses from one region into the next.
#[test]
fn a_chain_of_crumbs() {
    let mut driver = Driver::new(1024, 0);
    let mut ring = driver.start();
    let slots: Vec<u16> = (0..545).collect();
    driver.post(&slots[..544], &[out(SEAM - 1, 2); 544]);
    assert_eq!(take(&mut ring).unwrap().1, 1088);
    driver.post(&slots, &[out(SEAM - 1, 2); 545]);
    assert_eq!(take(&mut ring), Err(Violation::TooManyPieces { head: 0 }));
}

/// CVE-2026-86566: the room left must not underflow.
#[test]
fn a_receive_buffer_too_small_for_the_header() {
    for room in [1, 11] {
        let violation = receives(0, |driver| driver.post(&[1], &[into(DATA, room)]));
        assert_eq!(violation, Violation::NoRoom { head: 1, room });
    }
    let split_up =
        |driver: &mut Driver| driver.post(&[1, 2, 3], &[into(DATA, 4), into(DATA, 4), into(DATA, 3)]);
    assert_eq!(receives(0, split_up), Violation::NoRoom { head: 1, room: 11 });
}

/// A chain without a byte would take nothing of the packet, which could need chains without end.
#[test]
fn an_empty_receive_buffer_behind_the_first() {
    let misdeed = |driver: &mut Driver| {
        driver.post(&[1], &[into(DATA, 20)]);
        driver.post(&[2], &[into(DATA, 0)]);
    };
    assert_eq!(receives(0, misdeed), Violation::EmptyDescriptor { head: 2 });
    // One byte is enough to go on with.
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    driver.post(&[0], &[into(DATA, 12)]);
    driver.post(&[1], &[into(DATA, 1)]);
    driver.post(&[2], &[into(DATA, 50)]);
    assert_eq!(ring.reserve(60, 12, 4), Ok(Reservation::Ready(3)));
}

/// A violation in the second chain of a packet gives the first back, too.
#[test]
fn a_violation_behind_a_good_receive_buffer_takes_nothing() {
    let misdeed = |driver: &mut Driver| {
        driver.post(&[1], &[into(DATA, 20)]);
        driver.offer(0xabc);
    };
    assert_eq!(receives(0, misdeed), Violation::Head { at: 0, head: 0xabc, size: SIZE });
}

/// What was taken before a violation is returned and published all the same.
#[test]
fn chains_before_the_bad_one_are_served() {
    let mut driver = Driver::new(SIZE, 0);
    let mut ring = driver.start();
    driver.post(&[0], &[out(DATA, 5)]);
    driver.post(&[1], &[out(HOLE, 5)]);
    assert_eq!(ring.available(4), Ok(2));
    assert_eq!(take(&mut ring).unwrap().0, 0);
    assert!(take(&mut ring).is_err());
    ring.complete(token(0), 0);
    ring.publish();
    assert_eq!(driver.used(), [(0, 0)]);
    assert_eq!(ring.base(), 1);
}

/// And so is the caller: after that the ring is as good as empty.
#[test]
fn the_frontend_is_told_once() {
    let mut driver = Driver::new(SIZE, 0);
    let mut ring = driver.start();
    driver.offer(9);
    let violation = Violation::Head { at: 0, head: 9, size: SIZE };
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(ring.take().map(drop), Err(violation));
    for _ in 0..3 {
        assert!(matches!(ring.take(), Ok(None)));
        assert_eq!(ring.base(), 0);
    }
    assert_eq!((ring.violation(), driver.errors(1)), (Some(violation), 1));
}

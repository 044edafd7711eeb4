//! What a guest must not do on a ring of either format, one test each.

use std::sync::Arc;

use super::*;
use crate::testing::misdeed::*;

both_formats! {
    a_buffer_outside_memory
    a_buffer_whose_end_overflows
    a_buffer_that_wraps_around_the_address_space
    a_zero_length_descriptor
    a_bad_address_in_a_burst_across_the_wrap
    a_chain_longer_than_1024_descriptors
    a_descriptor_of_the_wrong_direction
    #[cfg_attr(miri, ignore = "slow")]
    lengths_that_add_up_to_more_than_32_bits
    a_chain_of_crumbs
    a_receive_buffer_too_small_for_the_header
    an_empty_receive_buffer_behind_the_first
    a_violation_behind_a_good_receive_buffer_takes_nothing
    chains_before_the_bad_one_are_served
    the_frontend_is_told_once
}

/// `n` buffers that are `good`, but for one that is `bad`.
fn all_but(n: usize, at: usize, good: Buf, bad: Buf) -> Vec<Buf> {
    let mut chain = vec![good; n];
    chain[at] = bad;
    chain
}

fn a_buffer_outside_memory<D: RingDriver>() {
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
        let head = head::<D>(0, 2);
        // The first byte that is missing is named, with what is left from there on.
        let gone = match addr {
            _ if addr == HOLE - 1 => Violation::Unmapped { head, addr: HOLE, len: 1 },
            SEAM => Violation::Unmapped { head, addr: HOLE, len: u32::MAX - 0x1_0000 },
            _ => Violation::Unmapped { head, addr, len },
        };
        for n in 1..=4 {
            let chain = all_but(n, n - 1, out(DATA, 9), out(addr, len));
            assert_eq!(sends(0, |driver: &mut D| driver.post(2, &chain)), gone);
            let inside = |driver: &mut D| {
                let table = driver.table(SEAM, &chain);
                driver.post(2, &[table]);
            };
            assert_eq!(sends(F_INDIRECT, inside), gone);
        }
        assert_eq!(receives(0, |driver: &mut D| driver.post(2, &[into(addr, len)])), gone);
    }
}

fn a_buffer_whose_end_overflows<D: RingDriver>() {
    for (addr, len) in [(u64::MAX, 1), (u64::MAX, 2), (u64::MAX - 9, 100), (u64::MAX - 0xffff_fffe, u32::MAX)]
    {
        let unmapped = Violation::Unmapped { head: head::<D>(0, 0), addr, len };
        assert_eq!(sends(0, |driver: &mut D| driver.post(0, &[out(addr, len)])), unmapped);
        assert_eq!(receives(0, |driver: &mut D| driver.post(0, &[into(addr, len)])), unmapped);
    }
}

/// Memory that ends just below 2^64, and memory that starts at 0: a range must not go on from one to the other.
fn a_buffer_that_wraps_around_the_address_space<D: RingDriver>() {
    let top = 0u64.wrapping_sub(0x1001);
    let guest = Guest::new(&[(0, 0x1000), (top - USER, 0x1000), (RINGS, 0x1000)]);
    let memory = Arc::new(guest.at_guest(&[0, top, RINGS]));
    let mut driver = D::new(D::SIZE, 0).over(guest);
    let mut ring = D::ring(RingConfig { memory, ..driver.config() }).unwrap();
    driver.post(0, &[out(top + 0xff0, 0x10)]);
    driver.post(1, &[out(top + 0xff0, 0x12)]);
    assert_eq!(take(&mut ring).unwrap().1.len(), 0x10);
    assert_eq!(take(&mut ring), Err(Violation::Unmapped { head: 1, addr: u64::MAX, len: 2 }));
}

/// As QEMU ("virtio: zero sized buffers are not allowed"), wherever it is, and wherever it points. CVE-2016-6490.
fn a_zero_length_descriptor<D: RingDriver>() {
    let empty = Violation::EmptyDescriptor { head: head::<D>(0, 3) };
    let most = usize::from(D::SIZE);
    for (addr, n) in [DATA, HOLE, u64::MAX].into_iter().flat_map(|addr| (1..=most).map(move |n| (addr, n))) {
        for at in 0..n {
            let chain = |good: Buf| all_but(n, at, good, Buf { addr, len: 0, ..good });
            assert_eq!(sends(0, |driver: &mut D| driver.post(3, &chain(out(DATA, 20)))), empty);
            assert_eq!(receives(0, |driver: &mut D| driver.post(3, &chain(into(DATA, 5)))), empty);
        }
    }
}

/// CVE-2020-10725: somewhere among four that lie across the wrap, and of length zero, too.
fn a_bad_address_in_a_burst_across_the_wrap<D: RingDriver>() {
    for (start, bad) in D::starts(D::SIZE).flat_map(|start| (0..4).map(move |bad| (start, bad))) {
        for len in [0, 1, 100] {
            let mut driver = D::new(D::SIZE, 0).at(start);
            let mut ring = driver.start();
            for id in 0..4 {
                driver.post(id, &[if id == bad { out(HOLE, len) } else { out(DATA, 100) }]);
            }
            serve(&mut ring, bad);
            let place = start + u64::from(bad);
            let head = D::head(D::SIZE, place, bad);
            let violation = match len {
                0 => Violation::EmptyDescriptor { head },
                len => Violation::Unmapped { head, addr: HOLE, len },
            };
            assert_eq!(take(&mut ring), Err(violation));
            ring.publish();
            assert_eq!(driver.used().len(), usize::from(bad));
            assert_eq!(ring.base(), driver.base(place));
        }
    }
}

/// However large the queue, a chain costs us 1024 descriptors at most; those of a table are as many.
fn a_chain_longer_than_1024_descriptors<D: RingDriver>() {
    for (size, start) in near_the_wrap::<D>(&[2000, 2048]) {
        for n in [1024, 1025, size.into()] {
            let bufs = vec![out(DATA, 1); n];
            for indirect in [false, true] {
                let mut driver = D::new(size, F_INDIRECT).at(start);
                match indirect {
                    true => driver.post(1, &[driver.table(SEAM, &bufs)]),
                    false => driver.post(1, &bufs),
                }
                let taken = take(&mut driver.start()).map(|(token, content)| (token.id, content.len()));
                let too_long = Err(Violation::ChainTooLong { head: D::head(size, start, 1) });
                assert_eq!(taken, if n == 1024 { Ok((1, 1024)) } else { too_long });
            }
        }
    }
}

/// Wherever it is; also behind room enough.
fn a_descriptor_of_the_wrong_direction<D: RingDriver>() {
    let wrong = Violation::Direction { head: head::<D>(0, 3) };
    for (n, len) in (1..=D::SIZE.into()).flat_map(|n| [(n, 5), (n, 90)]) {
        for at in 0..n {
            let sent = all_but(n, at, out(DATA, len), into(DATA, len));
            assert_eq!(sends(0, |driver: &mut D| driver.post(3, &sent)), wrong);
            let posted = all_but(n, at, into(DATA, len), out(DATA, len));
            assert_eq!(receives(0, |driver: &mut D| driver.post(3, &posted)), wrong);
        }
    }
}

/// Of many, and of two, where the walk has no loop.
fn lengths_that_add_up_to_more_than_32_bits<D: RingDriver>() {
    for (n, len) in [(2, 0x8000_0000u32), (512, 0x80_0000)] {
        for more in [0, 1] {
            // Untouched, and so never really there.
            let huge = Guest::new(&[(RINGS, 0x10_0000), (DATA, len as usize)]);
            let start = D::wraps_at(512) + 188;
            let mut driver = D::new(512, 0).over(huge).at(start);
            driver.post(1, &vec![out(DATA, len); n - 1 + more]);
            let mut ring = driver.start();
            assert_ne!(ring.available(1), Ok(0));
            let taken = ring.take().map(|taken| taken.unwrap().len);
            let too_much = Err(Violation::Length { head: D::head(512, start, 1) });
            assert_eq!(taken, if more == 0 { Ok(0u32.wrapping_sub(len)) } else { too_much });
        }
    }
}

/// Each descriptor crosses from one region into the next.
fn a_chain_of_crumbs<D: RingDriver>() {
    let mut driver = D::new(2048, 0);
    let mut ring = driver.start();
    driver.post(1, &[out(SEAM - 1, 2); 544]);
    assert_eq!(take(&mut ring).unwrap().1.len(), 1088);
    driver.post(2, &[out(SEAM - 1, 2); 545]);
    assert_eq!(take(&mut ring), Err(Violation::TooManyPieces { head: D::head(2048, 544, 2) }));
}

/// CVE-2026-86566: the room left must not underflow.
fn a_receive_buffer_too_small_for_the_header<D: RingDriver>() {
    let head = head::<D>(0, 1);
    for room in [1, 11] {
        let violation = receives(0, |driver: &mut D| driver.post(1, &[into(DATA, room)]));
        assert_eq!(violation, Violation::NoRoom { head, room });
    }
    let split_up = |driver: &mut D| driver.post(1, &[into(DATA, 4), into(DATA, 4), into(DATA, 3)]);
    assert_eq!(receives(0, split_up), Violation::NoRoom { head, room: 11 });
}

/// A chain without a byte would take nothing of the packet, which could need chains without end.
fn an_empty_receive_buffer_behind_the_first<D: RingDriver>() {
    let misdeed = |driver: &mut D| {
        driver.post(1, &[into(DATA, 20)]);
        driver.post(2, &[into(DATA, 0)]);
    };
    assert_eq!(receives(0, misdeed), Violation::EmptyDescriptor { head: head::<D>(1, 2) });
    // One byte is enough to go on with.
    for start in D::starts(D::SIZE) {
        let mut driver = D::new(D::SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(0, &[into(DATA, 12)]);
        driver.post(1, &[into(DATA, 1)]);
        driver.post(2, &[into(DATA, 50)]);
        assert_eq!(ring.reserve(60, 12, 4), Ok(Reservation::Ready(3)));
    }
}

/// A violation in a later chain of a packet gives the ones before it back, too.
fn a_violation_behind_a_good_receive_buffer_takes_nothing<D: RingDriver>() {
    let misdeed = |driver: &mut D| {
        driver.post(3, &[into(DATA, 12), into(DATA, 8)]);
        driver.post(1, &[into(HOLE, 20)]);
    };
    let head = head::<D>(2, 1);
    assert_eq!(receives(0, misdeed), Violation::Unmapped { head, addr: HOLE, len: 20 });
}

/// What was taken before a violation is returned and published all the same.
fn chains_before_the_bad_one_are_served<D: RingDriver>() {
    for start in D::starts(D::SIZE) {
        let mut driver = D::new(D::SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(0, &[out(DATA, 5)]);
        driver.post(1, &[out(HOLE, 5)]);
        assert_eq!(ring.available(4), Ok(2));
        let (token, _) = take(&mut ring).unwrap();
        assert!(take(&mut ring).is_err());
        ring.complete(token, 0);
        ring.publish();
        assert_eq!(driver.used(), [(0, 0)]);
        assert_eq!(ring.base(), driver.base(start + 1));
    }
}

/// And so is the caller: after that the ring is as good as empty.
fn the_frontend_is_told_once<D: RingDriver>() {
    for start in D::starts(D::SIZE) {
        let mut driver = D::new(D::SIZE, 0).at(start);
        let mut ring = driver.start();
        driver.post(1, &[out(HOLE, 5)]);
        let violation = Violation::Unmapped { head: D::head(D::SIZE, start, 1), addr: HOLE, len: 5 };
        assert_eq!(ring.available(1), Ok(1));
        assert_eq!(ring.take().map(drop), Err(violation));
        for _ in 0..3 {
            assert!(matches!(ring.take(), Ok(None)));
            assert_eq!(ring.base(), driver.base(start));
        }
        assert_eq!((ring.violation(), driver.errors(1)), (Some(violation), 1));
    }
}

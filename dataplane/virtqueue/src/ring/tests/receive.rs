//! Receive buffers: `reserve`.

use super::*;
use crate::Reservation::{Ready, Short, TooSmall};

both_formats! {
    a_packet_in_one_buffer
    a_packet_over_several_buffers
    used_lengths_add_up_to_the_packet
    chained_and_indirect_receive_buffers
    nothing_is_taken_unless_ready
    a_packet_larger_than_the_full_ring_is_too_small
    a_packet_larger_than_a_ring_full_of_chains_is_too_small
    a_packet_in_more_than_1024_buffers_is_too_small
    a_full_ring_half_taken_is_short
    a_burst_is_published_at_once
}

/// A ring of `size` entries, from `start` on, with a receive buffer of each of `rooms` bytes, 256 bytes apart.
fn posted<D: RingDriver>(start: u64, size: u16, rooms: &[u32]) -> (D, D::Ring) {
    let mut driver = D::new(size, 0).at(start);
    let ring = driver.start();
    for (id, room) in rooms.iter().enumerate() {
        driver.post(id as u16, &[into(DATA + 256 * id as u64, *room)]);
    }
    (driver, ring)
}

/// Reserves, fills and publishes; returns what the driver finds.
fn receive<D: RingDriver>(driver: &mut D, ring: &mut D::Ring, len: u32, max_chains: u16) -> Vec<(u16, u32)> {
    let Ready(_) = ring.reserve(len, 12, max_chains).unwrap() else { panic!("not ready") };
    let packet = pattern(2, len as usize);
    assert_eq!(Cursor::new(ring.segments()).write(&packet), len as usize);
    let mut found = Vec::new();
    for (addr, room) in driver.lent(ring) {
        found.extend(driver.guest().read(addr, room));
    }
    assert_eq!(found[..len as usize], packet);
    ring.publish();
    driver.used()
}

fn a_packet_in_one_buffer<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 4, &[100, 100]);
        assert_eq!(receive(&mut driver, &mut ring, 60, 1), [(0, 60)]);
        assert_eq!(receive(&mut driver, &mut ring, 100, 1), [(1, 100)]);
        assert_eq!(ring.base(), driver.base(start + 2));
    }
}

fn a_packet_over_several_buffers<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 4, &[100, 20, 30, 40]);
        assert_eq!(ring.reserve(150, 12, 4), Ok(Ready(3)));
        ring.publish();
        assert_eq!(driver.used(), [(0, 100), (1, 20), (2, 30)]);
        assert_eq!(receive(&mut driver, &mut ring, 12, 4), [(3, 12)]);
    }
}

/// Only what is written counts as used, and only the last chain may have room to spare.
fn used_lengths_add_up_to_the_packet<D: RingDriver>() {
    for (len, start) in (12..=250).zip(D::starts(D::SIZE).cycle()) {
        let (mut driver, mut ring) = posted::<D>(start, D::SIZE, &[50, 60, 70, 80]);
        let used = receive(&mut driver, &mut ring, len, 4);
        assert_eq!(used.iter().map(|(_, used)| used).sum::<u32>(), len);
        for ((_, used), room) in used.iter().zip([50, 60, 70, 80]).take(used.len() - 1) {
            assert_eq!(*used, room);
        }
    }
}

fn chained_and_indirect_receive_buffers<D: RingDriver>() {
    for start in D::starts(4) {
        let mut driver = D::new(4, F_INDIRECT).at(start);
        let mut ring = driver.start();
        driver.post(3, &[into(DATA, 12), into(SEAM - 8, 30)]);
        let inside = [into(DATA + 50, 10), into(DATA + 70, 10), into(DATA + 90, 10)];
        let table = driver.table(SEAM + 0x100, &inside);
        driver.post(0, &[table]);
        assert_eq!(receive(&mut driver, &mut ring, 60, 4), [(3, 42), (0, 18)]);
        let lent = [(DATA, 12), (SEAM - 8, 8), (SEAM, 22), (DATA + 50, 10), (DATA + 70, 10), (DATA + 90, 10)];
        assert_eq!(driver.lent(&ring), lent);
    }
}

/// Not a byte is written unless ready: a packed ring's used descriptor would take the place of an available one.
fn nothing_is_taken_unless_ready<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 4, &[20, 20]);
        let before = driver.bytes();
        for (len, max_chains, outcome) in
            [(41, 4, Short), (21, 1, TooSmall), (41, 2, TooSmall), (12, 0, TooSmall)]
        {
            assert_eq!(ring.reserve(len, 12, max_chains), Ok(outcome), "{len} in {max_chains}");
            assert_eq!((ring.base(), ring.segments().len()), (driver.base(start), 0));
            assert_eq!(ring.publish(), Call::Nothing);
            assert_eq!(driver.bytes(), before);
        }
        assert_eq!(driver.used(), []);
        assert_eq!(receive(&mut driver, &mut ring, 40, 2), [(0, 20), (1, 20)]);
        assert_eq!(ring.reserve(12, 12, 4), Ok(Short));
    }
}

/// The guest could never post enough: there is nothing to wait for.
fn a_packet_larger_than_the_full_ring_is_too_small<D: RingDriver>() {
    for start in D::starts(4) {
        let (_driver, mut ring) = posted::<D>(start, 4, &[20; 4]);
        assert_eq!(ring.reserve(81, 12, u16::MAX), Ok(TooSmall));
        assert_eq!(ring.reserve(80, 12, u16::MAX), Ok(Ready(4)));
        let (_driver, mut ring) = posted::<D>(start, 1, &[20]);
        assert_eq!(ring.reserve(21, 12, u16::MAX), Ok(TooSmall));
    }
}

/// Nor when the ring is full of fewer chains, of several descriptors each.
fn a_packet_larger_than_a_ring_full_of_chains_is_too_small<D: RingDriver>() {
    for start in D::starts(4) {
        let mut driver = D::new(4, 0).at(start);
        let mut ring = driver.start();
        driver.post(0, &[into(DATA, 10), into(DATA, 10)]);
        assert_eq!(ring.reserve(41, 12, u16::MAX), Ok(Short));
        driver.post(2, &[into(DATA, 10), into(DATA, 10)]);
        assert_eq!(ring.reserve(41, 12, u16::MAX), Ok(TooSmall));
        assert_eq!(ring.reserve(40, 12, u16::MAX), Ok(Ready(2)));
    }
}

/// However large the ring, a packet takes 1024 chains at most.
fn a_packet_in_more_than_1024_buffers_is_too_small<D: RingDriver>() {
    for (size, start) in near_the_wrap::<D>(&[1025, 2000, 2048, 32768]) {
        let mut driver = D::new(size, 0).at(start);
        driver.post(0, &[into(DATA, 12)]);
        (1..1025).for_each(|id| driver.post(id, &[into(DATA, 1)]));
        let mut ring = driver.start();
        assert_eq!(ring.reserve(12 + 1024, 12, u16::MAX), Ok(TooSmall));
        assert_eq!(ring.reserve(12 + 1023, 12, u16::MAX), Ok(Ready(1024)));
        ring.publish();
        assert_eq!(driver.used().len(), 1024);
    }
}

/// Taken but not yet published chains come back: it is worth waiting.
fn a_full_ring_half_taken_is_short<D: RingDriver>() {
    for start in D::starts(2) {
        let (mut driver, mut ring) = posted::<D>(start, 2, &[20; 2]);
        assert_eq!(ring.reserve(20, 12, 9), Ok(Ready(1)));
        assert_eq!(ring.reserve(40, 12, 9), Ok(Short));
        ring.publish();
        assert_eq!(driver.used(), [(0, 20)]);
        driver.post(0, &[into(DATA, 20)]);
        assert_eq!(ring.reserve(40, 12, 9), Ok(Ready(2)));
    }
}

fn a_burst_is_published_at_once<D: RingDriver>() {
    for start in D::starts(8) {
        let (mut driver, mut ring) = posted::<D>(start, 8, &[100; 8]);
        for _ in 0..3 {
            assert_eq!(ring.reserve(150, 12, 8), Ok(Ready(2)));
        }
        assert_eq!(driver.used(), []);
        ring.publish();
        assert_eq!(driver.used(), [(0, 100), (1, 50), (2, 100), (3, 50), (4, 100), (5, 50)]);
    }
}

//! Receive buffers: `reserve`.

use super::*;
use crate::Reservation::{Ready, Short, TooSmall};
use crate::testing::*;

/// A ring of `size` entries with a receive buffer of each of `rooms` bytes, 256 bytes apart.
fn posted(size: u16, rooms: &[u32]) -> (Driver, SplitRing) {
    let mut driver = Driver::new(size, 0);
    let ring = driver.start();
    for (slot, room) in rooms.iter().enumerate() {
        driver.post(&[slot as u16], &[into(DATA + 256 * slot as u64, *room)]);
    }
    (driver, ring)
}

/// Reserves, fills and publishes; returns what the driver finds.
fn receive(driver: &mut Driver, ring: &mut SplitRing, len: u32, max_chains: u16) -> Vec<(u32, u32)> {
    let Ready(_) = ring.reserve(len, 12, max_chains).unwrap() else { panic!("not ready") };
    let packet = pattern(2, len as usize);
    assert_eq!(Cursor::new(ring.segments()).write(&packet), len as usize);
    let mut found = Vec::new();
    for (addr, room) in ranges(driver, ring) {
        found.extend(driver.guest.read(addr, room));
    }
    assert_eq!(found[..len as usize], packet);
    ring.publish();
    driver.used()
}

#[test]
fn a_packet_in_one_buffer() {
    let (mut driver, mut ring) = posted(4, &[100, 100]);
    assert_eq!(receive(&mut driver, &mut ring, 60, 1), [(0, 60)]);
    assert_eq!(receive(&mut driver, &mut ring, 100, 1), [(1, 100)]);
    assert_eq!(ring.base(), 2);
}

#[test]
fn a_packet_over_several_buffers() {
    let (mut driver, mut ring) = posted(4, &[100, 20, 30, 40]);
    assert_eq!(ring.reserve(150, 12, 4), Ok(Ready(3)));
    ring.publish();
    assert_eq!(driver.used(), [(0, 100), (1, 20), (2, 30)]);
    assert_eq!(receive(&mut driver, &mut ring, 12, 4), [(3, 12)]);
}

/// Only what is written counts as used, and only the last chain may have room to spare.
#[test]
fn used_lengths_add_up_to_the_packet() {
    for len in 12..=250 {
        let (mut driver, mut ring) = posted(4, &[50, 60, 70, 80]);
        let used = receive(&mut driver, &mut ring, len, 4);
        assert_eq!(used.iter().map(|(_, used)| used).sum::<u32>(), len);
        for ((_, used), room) in used.iter().zip([50, 60, 70, 80]).take(used.len() - 1) {
            assert_eq!(*used, room);
        }
    }
}

#[test]
fn chained_and_indirect_receive_buffers() {
    let mut driver = Driver::new(4, F_INDIRECT);
    let mut ring = driver.start();
    driver.post(&[3, 1], &[into(DATA, 12), into(SEAM - 8, 30)]);
    let table = driver.table(SEAM + 0x100, &[into(DATA + 50, 10), into(DATA + 70, 10), into(DATA + 90, 10)]);
    driver.post(&[0], &[table]);
    assert_eq!(receive(&mut driver, &mut ring, 60, 4), [(3, 42), (0, 18)]);
    let lent = [(DATA, 12), (SEAM - 8, 8), (SEAM, 22), (DATA + 50, 10), (DATA + 70, 10), (DATA + 90, 10)];
    assert_eq!(ranges(&driver, &ring), lent);
}

#[test]
fn nothing_is_taken_unless_ready() {
    let (mut driver, mut ring) = posted(4, &[20, 20]);
    for (len, max_chains, outcome) in
        [(41, 4, Short), (21, 1, TooSmall), (41, 2, TooSmall), (12, 0, TooSmall)]
    {
        assert_eq!(ring.reserve(len, 12, max_chains), Ok(outcome), "{len} in {max_chains}");
        assert_eq!((ring.base(), ring.segments().len()), (0, 0));
        assert_eq!(ring.publish(), Call::Nothing);
    }
    assert_eq!(driver.used(), []);
    assert_eq!(receive(&mut driver, &mut ring, 40, 2), [(0, 20), (1, 20)]);
    assert_eq!(ring.reserve(12, 12, 4), Ok(Short));
}

/// The guest could never post enough: there is nothing to wait for.
#[test]
fn a_packet_larger_than_the_full_ring_is_too_small() {
    let (_, mut ring) = posted(4, &[20; 4]);
    assert_eq!(ring.reserve(81, 12, u16::MAX), Ok(TooSmall));
    assert_eq!(ring.reserve(80, 12, u16::MAX), Ok(Ready(4)));
    let (_, mut ring) = posted(1, &[20]);
    assert_eq!(ring.reserve(21, 12, u16::MAX), Ok(TooSmall));
}

/// Nor when the ring is full of fewer chains, of several descriptors each.
#[test]
fn a_packet_larger_than_a_ring_full_of_chains_is_too_small() {
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    driver.post(&[0, 1], &[into(DATA, 10), into(DATA, 10)]);
    assert_eq!(ring.reserve(41, 12, u16::MAX), Ok(Short));
    driver.post(&[2, 3], &[into(DATA, 10), into(DATA, 10)]);
    assert_eq!(ring.reserve(41, 12, u16::MAX), Ok(TooSmall));
    assert_eq!(ring.reserve(40, 12, u16::MAX), Ok(Ready(2)));
}

/// However large the ring, a packet takes 1024 chains at most.
#[test]
fn a_packet_in_more_than_1024_buffers_is_too_small() {
    let mut driver = Driver::new(2048, 0);
    driver.post(&[0], &[into(DATA, 12)]);
    for slot in 1..1025 {
        driver.post(&[slot], &[into(DATA, 1)]);
    }
    let mut ring = driver.start();
    assert_eq!(ring.reserve(12 + 1024, 12, u16::MAX), Ok(TooSmall));
    assert_eq!(ring.reserve(12 + 1023, 12, u16::MAX), Ok(Ready(1024)));
}

/// Taken but not yet published chains come back: it is worth waiting.
#[test]
fn a_full_ring_half_taken_is_short() {
    let (mut driver, mut ring) = posted(2, &[20; 2]);
    assert_eq!(ring.reserve(20, 12, 9), Ok(Ready(1)));
    assert_eq!(ring.reserve(40, 12, 9), Ok(Short));
    ring.publish();
    driver.offer(0);
    assert_eq!(ring.reserve(40, 12, 9), Ok(Ready(2)));
}

#[test]
fn a_burst_is_published_at_once() {
    let (mut driver, mut ring) = posted(8, &[100; 8]);
    for _ in 0..3 {
        assert_eq!(ring.reserve(150, 12, 8), Ok(Ready(2)));
    }
    assert_eq!(driver.used(), []);
    ring.publish();
    assert_eq!(driver.used(), [(0, 100), (1, 50), (2, 100), (3, 50), (4, 100), (5, 50)]);
}

//! Receive buffers for a packet whose length is not known before: `offer`, `accept`, `decline`.

use super::*;
use crate::Offer;
use crate::testing::*;

/// A ring from `start` on, with a receive buffer of each of `rooms` bytes, 256 bytes apart.
fn posted(start: u16, features: u64, rooms: &[u32]) -> (Driver, SplitRing) {
    let mut driver = Driver::new(4, features).at_index(start);
    let ring = driver.start();
    for (slot, room) in rooms.iter().enumerate() {
        driver.post(&[slot as u16], &[into(DATA + 256 * slot as u64, *room)]);
    }
    (driver, ring)
}

#[test]
fn what_is_left_over_stays_with_the_guest() {
    for start in [0, 2, 65533, 65535] {
        let (mut driver, mut ring) = posted(start, 0, &[50, 60, 70]);
        assert_eq!(ring.offer(1000, 12, 9), Ok(Offer { chains: 3, room: 180, all: false }));
        assert_eq!(ranges(&driver, &ring), [(DATA, 50), (DATA + 256, 60), (DATA + 512, 70)]);
        assert_eq!(ring.base(), u32::from(start), "nothing is taken by looking");
        assert_eq!(ring.accept(51), 2);
        assert_eq!(ring.base(), u32::from(start.wrapping_add(2)));
        assert_eq!(driver.used(), []);
        ring.publish();
        assert_eq!(driver.used(), [(0, 50), (1, 1)]);
        assert_eq!(ring.offer(70, 12, 9), Ok(Offer { chains: 1, room: 70, all: false }));
        assert_eq!((ring.accept(70), ring.publish()), (1, Call::Sent));
        assert_eq!(driver.used(), [(2, 70)]);
    }
}

/// Neither by an offer, nor by declining it, nor by forgetting about it.
#[test]
fn nothing_happens_unless_accepted() {
    let (mut driver, mut ring) = posted(65535, 0, &[50, 60]);
    let before = driver.guest.read(RINGS, 118);
    for _ in 0..3 {
        assert_eq!(ring.offer(1000, 12, 9).unwrap().chains, 2);
        ring.decline();
        assert_eq!((ring.segments().len(), ring.accept(10)), (0, 0), "nothing is offered any more");
        ring.offer(1000, 12, 9).unwrap();
        assert_eq!(ring.publish(), Call::Nothing);
        assert_eq!((ring.base(), driver.used()), (65535, vec![]));
        assert!(driver.guest.read(RINGS, 118) == before, "not a byte is written");
    }
    assert_eq!(ring.accept(110), 2);
    assert_eq!(ring.accept(110), 0, "an offer is good for once");
    ring.publish();
    assert_eq!(driver.used(), [(0, 50), (1, 60)]);
}

/// Every length within the room; of none, one chain is taken.
#[test]
fn used_lengths_add_up_to_what_was_written() {
    for (len, start) in (0..=180).flat_map(|len| [0, 65534].map(|start| (len, start))) {
        let (mut driver, mut ring) = posted(start, 0, &[50, 60, 70]);
        ring.offer(180, 12, 9).unwrap();
        let packet = pattern(3, len as usize);
        assert_eq!(Cursor::new(ring.segments()).write(&packet), len as usize);
        let chains = ring.accept(len);
        assert_eq!(chains, 1 + u16::from(len > 50) + u16::from(len > 110));
        ring.publish();
        let used = driver.used();
        assert_eq!(used.len(), usize::from(chains));
        let mut found = Vec::new();
        for (id, len) in used {
            found.extend(driver.guest.read(DATA + 256 * u64::from(id), len as usize));
        }
        assert_eq!(found, packet);
    }
}

#[test]
fn an_offer_ends_with_enough_room_or_as_many_chains_as_allowed() {
    let (_, mut ring) = posted(0, 0, &[50, 60, 70, 80]);
    for (len, most, chains, room, all) in [
        (0, 9, 1, 50, false),
        (50, 9, 1, 50, false),
        (51, 9, 2, 110, false),
        (260, 9, 4, 260, false),
        (261, 9, 4, 260, true),
        (261, 4, 4, 260, true),
        (111, 2, 2, 110, true),
        (51, 1, 1, 50, true),
        (50, 1, 1, 50, false),
        (1, 0, 0, 0, true),
    ] {
        assert_eq!(ring.offer(len, 12, most), Ok(Offer { chains, room, all }), "{len} in {most}");
    }
}

/// An empty ring offers nothing; what the guest posts meanwhile is none of the offer.
#[test]
fn an_offer_is_what_was_there() {
    let (mut driver, mut ring) = posted(0, 0, &[]);
    assert_eq!(ring.offer(1000, 12, 9), Ok(Offer::default()));
    assert_eq!(ring.accept(10), 0);
    driver.post(&[0], &[into(DATA, 50)]);
    ring.offer(1000, 12, 9).unwrap();
    driver.post(&[1], &[into(DATA + 256, 60)]);
    assert_eq!(ring.accept(1000), 1);
    ring.publish();
    assert_eq!(driver.used(), [(0, 50)]);
    ring.set_kicks(true);
    assert!(ring.has_news());
}

/// The guest changes what it has posted while we write: what was read once counts.
#[test]
fn descriptors_that_change_under_an_offer() {
    let (mut driver, mut ring) = posted(65535, 0, &[50, 60]);
    ring.offer(110, 12, 9).unwrap();
    for slot in 0..4 {
        driver.set_desc(slot, Buf { addr: HOLE, len: u32::MAX, flags: NEXT }, 0xffff);
        driver.set_avail_entry(slot, 0xffff);
    }
    assert_eq!(Cursor::new(ring.segments()).write(&[7; 110]), 110);
    assert_eq!((ring.accept(110), ring.violation()), (2, None));
    ring.publish();
    assert_eq!(driver.used(), [(0, 50), (1, 60)]);
    assert_eq!(driver.guest.read(DATA + 256, 60), [7; 60]);
}

/// Room beyond 32 bits is not told, and does no harm.
#[test]
#[cfg_attr(miri, ignore = "slow")]
fn room_beyond_32_bits() {
    let huge = Guest::new(&[(RINGS, 0x1000), (DATA, 0xffff_0000)]);
    let mut driver = Driver::new(4, 0).over(huge);
    let mut ring = driver.start();
    driver.post(&[0], &[into(DATA, 0xffff_0000)]);
    driver.post(&[1], &[into(DATA, 0xffff_0000)]);
    assert_eq!(ring.offer(u32::MAX, 12, 9), Ok(Offer { chains: 2, room: u32::MAX, all: false }));
    assert_eq!(ring.accept(100), 1);
}

/// A violation behind a good chain: nothing is offered.
#[test]
fn a_violation_in_an_offer_stops_the_ring() {
    let (mut driver, mut ring) = posted(0, 0, &[50]);
    driver.post(&[1], &[into(HOLE, 60)]);
    assert_eq!(ring.offer(1000, 12, 9), Err(Violation::Unmapped { head: 1, addr: HOLE, len: 60 }));
    assert_eq!((ring.segments().len(), ring.accept(50), ring.base()), (0, 0, 0));
    assert_eq!(ring.offer(1000, 12, 9), Ok(Offer::default()));
    assert_eq!((ring.publish(), driver.used()), (Call::Nothing, vec![]));
    let (_, mut ring) = posted(0, 0, &[11]);
    assert_eq!(ring.offer(1000, 12, 9), Err(Violation::NoRoom { head: 0, room: 11 }));
}

/// What was walked and is left over may not stand in the way of the next kick.
#[test]
fn a_kick_comes_for_what_is_behind_an_offer() {
    for (features, accepted) in [(0, 0), (0, 10), (F_EVENT_IDX, 0), (F_EVENT_IDX, 10)] {
        let (mut driver, mut ring) = posted(65534, features, &[50, 60]);
        ring.offer(1000, 12, 9).unwrap();
        if accepted > 0 {
            ring.accept(accepted);
        }
        ring.set_kicks(true);
        assert!(!ring.has_news());
        let old = driver.avail;
        driver.post(&[2], &[into(DATA, 9)]);
        assert!(driver.would_kick(old) && ring.has_news());
    }
}

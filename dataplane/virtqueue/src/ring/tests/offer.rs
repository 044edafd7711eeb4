//! Receive buffers for a packet whose length is not known before: `offer`, `accept`, `decline`.

use super::*;

both_formats! {
    what_is_left_over_stays_with_the_guest
    nothing_happens_unless_accepted
    used_lengths_add_up_to_what_was_written
    an_offer_ends_with_enough_room_or_as_many_chains_as_allowed
    an_offer_is_what_was_there
    descriptors_that_change_under_an_offer
    #[cfg_attr(miri, ignore = "slow")]
    room_beyond_32_bits
    a_violation_in_an_offer_stops_the_ring
    a_kick_comes_for_what_is_behind_an_offer
}

/// A ring from `start` on, with a receive buffer of each of `rooms` bytes, 256 bytes apart.
fn posted<D: RingDriver>(start: u64, features: u64, rooms: &[u32]) -> (D, D::Ring) {
    let mut driver = D::new(4, features).at(start);
    let ring = driver.start();
    for (id, room) in rooms.iter().enumerate() {
        driver.post(id as u16, &[into(DATA + 256 * id as u64, *room)]);
    }
    (driver, ring)
}

fn what_is_left_over_stays_with_the_guest<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 0, &[50, 60, 70]);
        assert_eq!(ring.offer(1000, 12, 9), Ok(Offer { chains: 3, room: 180, all: false }));
        assert_eq!(driver.lent(&ring), [(DATA, 50), (DATA + 256, 60), (DATA + 512, 70)]);
        assert_eq!(ring.base(), driver.base(start), "nothing is taken by looking");
        assert_eq!(ring.accept(51), 2);
        assert_eq!(ring.base(), driver.base(start + 2));
        assert_eq!(driver.used(), []);
        ring.publish();
        assert_eq!(driver.used(), [(0, 50), (1, 1)]);
        assert_eq!(ring.offer(70, 12, 9), Ok(Offer { chains: 1, room: 70, all: false }));
        assert_eq!((ring.accept(70), ring.publish()), (1, Call::Sent));
        assert_eq!(driver.used(), [(2, 70)]);
    }
}

/// Neither by an offer, nor by declining it, nor by forgetting about it.
fn nothing_happens_unless_accepted<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 0, &[50, 60]);
        let before = driver.bytes();
        for _ in 0..3 {
            assert_eq!(ring.offer(1000, 12, 9).unwrap().chains, 2);
            ring.decline();
            assert_eq!((ring.segments().len(), ring.accept(10)), (0, 0), "nothing is offered any more");
            ring.offer(1000, 12, 9).unwrap();
            assert_eq!(ring.publish(), Call::Nothing);
            assert_eq!((ring.base(), driver.used()), (driver.base(start), vec![]));
            assert!(driver.bytes() == before, "not a byte is written");
        }
        assert_eq!(ring.accept(110), 2);
        assert_eq!(ring.accept(110), 0, "an offer is good for once");
        ring.publish();
        assert_eq!(driver.used(), [(0, 50), (1, 60)]);
    }
}

/// Every length within the room; of none, one chain is taken.
fn used_lengths_add_up_to_what_was_written<D: RingDriver>() {
    for (len, start) in (0..=180).flat_map(|len| D::starts(4).map(move |start| (len, start))) {
        let (mut driver, mut ring) = posted::<D>(start, 0, &[50, 60, 70]);
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
            found.extend(driver.guest().read(DATA + 256 * u64::from(id), len as usize));
        }
        assert_eq!(found, packet);
    }
}

fn an_offer_ends_with_enough_room_or_as_many_chains_as_allowed<D: RingDriver>() {
    let (_driver, mut ring) = posted::<D>(0, 0, &[50, 60, 70, 80]);
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
fn an_offer_is_what_was_there<D: RingDriver>() {
    let (mut driver, mut ring) = posted::<D>(0, 0, &[]);
    assert_eq!(ring.offer(1000, 12, 9), Ok(Offer::default()));
    assert_eq!(ring.accept(10), 0);
    driver.post(0, &[into(DATA, 50)]);
    ring.offer(1000, 12, 9).unwrap();
    driver.post(1, &[into(DATA + 256, 60)]);
    assert_eq!(ring.accept(1000), 1);
    ring.publish();
    assert_eq!(driver.used(), [(0, 50)]);
    ring.set_kicks(true);
    assert!(ring.has_news());
}

/// The guest changes all that it has posted while we write: what was read once counts.
fn descriptors_that_change_under_an_offer<D: RingDriver>() {
    for (start, byte) in D::starts(4).flat_map(|start| [(start, 0), (start, 0xff)]) {
        let (mut driver, mut ring) = posted::<D>(start, 0, &[50, 60]);
        ring.offer(110, 12, 9).unwrap();
        driver.guest().write(RINGS, &vec![byte; driver.areas()]);
        assert_eq!(Cursor::new(ring.segments()).write(&[7; 110]), 110);
        assert_eq!((ring.accept(110), ring.violation()), (2, None));
        ring.publish();
        assert_eq!(driver.used(), [(0, 50), (1, 60)]);
        assert_eq!(driver.guest().read(DATA + 256, 60), [7; 60]);
    }
}

/// Room beyond 32 bits is not told, and does no harm.
fn room_beyond_32_bits<D: RingDriver>() {
    let huge = Guest::new(&[(RINGS, 0x1000), (DATA, 0xffff_0000)]);
    let mut driver = D::new(4, 0).over(huge);
    let mut ring = driver.start();
    driver.post(0, &[into(DATA, 0xffff_0000)]);
    driver.post(1, &[into(DATA, 0xffff_0000)]);
    assert_eq!(ring.offer(u32::MAX, 12, 9), Ok(Offer { chains: 2, room: u32::MAX, all: false }));
    assert_eq!(ring.accept(100), 1);
}

/// A violation behind a good chain: nothing is offered.
fn a_violation_in_an_offer_stops_the_ring<D: RingDriver>() {
    for start in D::starts(4) {
        let (mut driver, mut ring) = posted::<D>(start, 0, &[50]);
        driver.post(1, &[into(HOLE, 60)]);
        let head = D::head(4, start + 1, 1);
        assert_eq!(ring.offer(1000, 12, 9), Err(Violation::Unmapped { head, addr: HOLE, len: 60 }));
        assert_eq!((ring.segments().len(), ring.accept(50), ring.base()), (0, 0, driver.base(start)));
        assert_eq!(ring.offer(1000, 12, 9), Ok(Offer::default()));
        assert_eq!((ring.publish(), driver.used()), (Call::Nothing, vec![]));
        let (_driver, mut ring) = posted::<D>(start, 0, &[11]);
        let head = D::head(4, start, 0);
        assert_eq!(ring.offer(1000, 12, 9), Err(Violation::NoRoom { head, room: 11 }));
    }
}

/// What was walked and is left over may not stand in the way of the next kick.
fn a_kick_comes_for_what_is_behind_an_offer<D: RingDriver>() {
    let kinds = [(0, 0), (0, 10), (F_EVENT_IDX, 0), (F_EVENT_IDX, 10)];
    for (start, (features, accepted)) in D::starts(4).flat_map(|start| kinds.map(|kind| (start, kind))) {
        let (mut driver, mut ring) = posted::<D>(start, features, &[50, 60]);
        ring.offer(1000, 12, 9).unwrap();
        if accepted > 0 {
            ring.accept(accepted);
        }
        ring.set_kicks(true);
        assert!(!ring.has_news());
        let old = driver.avail();
        driver.post(2, &[into(DATA, 9)]);
        assert!(driver.would_kick(old) && ring.has_news());
    }
}

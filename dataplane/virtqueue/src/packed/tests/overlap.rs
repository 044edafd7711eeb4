//! Memory that is more than one thing at once, and memory that changes while we look.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

const SIZE: u16 = 4;

/// The three areas on top of each other: whatever is read is checked, whatever is written stays inside.
#[test]
fn areas_that_overlap() {
    for (desc, avail, used) in [(0, 0, 0), (0, 12, 12), (64, 0, 4), (0, 4, 60), (32, 32, 0), (0, 60, 60)] {
        let driver = Driver::new(SIZE, F_INDIRECT | F_EVENT_IDX);
        let at = |offset: u64| DATA + USER + offset;
        let config = RingConfig { desc: at(desc), avail: at(avail), used: at(used), ..driver.config() };
        let mut ring = PackedRing::start(config).unwrap();
        for round in 0..200u64 {
            driver.guest.write(DATA, &pattern(round, 128));
            if ring.available(1).is_ok_and(|n| n > 0)
                && let Ok(Some(Taken { token, .. })) = ring.take()
            {
                ring.complete(token, 0xffff_ffff);
            }
            ring.publish();
            ring.set_kicks(round % 2 == 0);
            if ring.violation().is_some() {
                ring = PackedRing::start(ring.config.clone()).unwrap();
            }
        }
        assert_eq!(driver.guest.read(DATA + 128, 64), [0; 64]);
    }
}

/// A buffer that is the ring: the guest harms itself only.
#[test]
fn a_receive_buffer_that_is_the_ring_itself() {
    for byte in [0, 0xff] {
        let mut driver = Driver::new(SIZE, 0);
        let mut ring = driver.start();
        let all = 16 * u32::from(SIZE) + 8;
        (0..4).for_each(|id| driver.post(id, &[into(RINGS, all)]));
        for _ in 0..4 {
            if ring.reserve(all, 12, 1) == Ok(Reservation::Ready(1)) {
                Cursor::new(ring.segments()).write(&vec![byte; all as usize]);
            }
            ring.publish();
        }
        assert_eq!(ring.base(), driver.base(1));
    }
}

/// Two rings over the same descriptors: each checks for itself.
#[test]
fn two_queues_on_one_ring() {
    let mut driver = Driver::new(SIZE, 0);
    let (mut one, mut two) = (driver.start(), driver.start());
    driver.post(0, &[out(DATA, 5)]);
    serve(&mut one, 1);
    assert_eq!(two.available(1), Ok(1));
    one.publish();
    assert_eq!(two.take().map(drop), Err(Violation::Withdrawn { head: 0 }));
    assert_eq!(driver.used(), [(0, 0)]);
}

/// The guest turns descriptors and tables over while they are walked: each word is read once, so what was
/// checked is what is used.
#[test]
#[cfg_attr(miri, ignore = "a race on purpose")]
fn descriptors_that_change_between_two_reads() {
    let driver = Driver::new(SIZE, F_INDIRECT).at(3);
    let guest = driver.guest.clone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let scribe = Driver::new(SIZE, 0).over(guest);
            while !stop.load(Ordering::Relaxed) {
                scribe.expose(3, out(DATA, 16), 0);
                scribe.expose(3, Buf { addr: SEAM - 5, len: 60, flags: NEXT }, 1);
                scribe.expose(4, out(HOLE - 10, 10), 0);
                scribe.expose(4, out(HOLE - 10, 11), 0);
                scribe.set_flags(3, AVAIL | USED);
                scribe.expose(3, Buf { addr: SEAM, len: 48, flags: INDIRECT }, 1);
                scribe.table(SEAM, &[out(DATA, 0x1_0000), out(SEAM, 9), out(DATA, 1)]);
                scribe.table(SEAM, &[out(DATA, 0x1_0001), out(HOLE, 9), into(DATA, 1)]);
                scribe.expose(3, Buf { addr: SEAM, len: 1 << 20, flags: INDIRECT }, 9);
            }
        });
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut ring = driver.start();
            if ring.available(1) == Ok(0) {
                continue;
            }
            match ring.take() {
                Ok(taken) => {
                    good += 1;
                    let len = taken.unwrap().len as usize;
                    assert_eq!(driver.lent(&ring).iter().map(|(_, len)| len).sum::<usize>(), len);
                }
                Err(_) => bad += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(good > 0 && bad > 0, "{good} {bad}");
    });
}

//! Memory that is more than one thing at once, and memory that changes while we look.

use super::*;
use crate::testing::*;

const SIZE: u16 = 4;

/// The three areas on top of each other: whatever is read is checked, whatever is written stays inside.
#[test]
fn areas_that_overlap() {
    for (desc, avail, used) in [(0, 0, 0), (0, 16, 16), (64, 0, 4), (0, 4, 60), (32, 32, 0)] {
        let mut driver = Driver::new(SIZE, F_INDIRECT | F_EVENT_IDX);
        let config = driver.config();
        let config = RingConfig {
            desc: DATA + USER + desc,
            avail: DATA + USER + avail,
            used: DATA + USER + used,
            ..config
        };
        let mut ring = SplitRing::start(config).unwrap();
        for round in 0..200u64 {
            driver.guest.write(DATA, &pattern(round, 8));
            driver.guest.write_u16(DATA + avail + 2, (ring.base() as u16).wrapping_add(1));
            if ring.available(1).is_ok_and(|n| n > 0) && ring.take().is_ok() {
                ring.complete(token(3), 0xffff_ffff);
            }
            ring.publish();
            ring.set_kicks(round % 2 == 0);
            if ring.violation().is_some() {
                ring = SplitRing::start(ring.config.clone()).unwrap();
            }
        }
        assert_eq!(driver.guest.read(DATA + 256, 64), [0; 64]);
        driver.avail = 0;
    }
}

/// A buffer that is the used ring: the guest harms itself only.
#[test]
fn a_receive_buffer_that_is_the_ring_itself() {
    let mut driver = Driver::new(SIZE, 0);
    let mut ring = driver.start();
    let all = (driver.used_addr() + 6 + 8 * u64::from(SIZE) - RINGS) as u32;
    driver.post(0, &[into(RINGS, all)]);
    driver.post(1, &[into(DATA, all)]);
    assert_eq!(ring.reserve(all, 12, 1), Ok(Reservation::Ready(1)));
    Cursor::new(ring.segments()).write(&vec![0xff; all as usize]);
    ring.publish();
    assert_eq!(driver.used_index(), 1);
    assert_eq!(ring.reserve(all, 12, 1), Err(Violation::Head { at: 1, head: 0xffff, size: SIZE }));
}

/// Two rings over the same areas: each checks for itself.
#[test]
fn two_queues_on_one_ring() {
    let mut driver = Driver::new(SIZE, 0);
    let (mut one, mut two) = (driver.start(), driver.start());
    driver.post(0, &[out(DATA, 5)]);
    for ring in [&mut one, &mut two] {
        let (token, _) = take(ring).unwrap();
        assert_eq!(token.id, 0);
        ring.complete(token, 0);
        ring.publish();
    }
    assert_eq!(driver.used(), [(0, 0)]);
}

/// The guest turns descriptors, tables and heads over while they are walked: each word is read once, so what
/// was checked is what is used.
#[test]
#[cfg_attr(miri, ignore = "a race on purpose")]
fn descriptors_that_change_between_two_reads() {
    let mut driver = Driver::new(SIZE, F_INDIRECT);
    let guest = driver.guest.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let scribe = Driver::new(SIZE, 0).over(guest);
            while !stop.load(Ordering::Relaxed) {
                scribe.set_desc(0, out(DATA, 16), 0);
                scribe.set_desc(0, Buf { addr: SEAM - 5, len: 60, flags: NEXT }, 1);
                scribe.set_desc(1, out(HOLE - 10, 10), 0);
                scribe.set_desc(1, out(HOLE - 10, 11), 0);
                scribe.set_desc(0, Buf { addr: SEAM, len: 64, flags: INDIRECT }, 1);
                scribe.table(SEAM, &[out(DATA, 0x1_0000), out(SEAM, 9), out(DATA, 1)]);
                scribe.table(SEAM, &[out(DATA, 0x1_0001), out(HOLE, 9), into(DATA, 1)]);
                scribe.set_desc(0, Buf { addr: SEAM, len: 1 << 20, flags: INDIRECT }, 9);
            }
        });
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut ring = driver.start_at(driver.avail.into());
            driver.offer(0);
            match take(&mut ring) {
                Ok((token, content)) => {
                    good += 1;
                    let lent = driver.lent(&ring);
                    assert_eq!((token.id, lent.iter().map(|(_, len)| len).sum()), (0, content.len()));
                }
                Err(_) => bad += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(good > 0 && bad > 0, "{good} {bad}");
    });
}

//! Kicks and calls (virtio 1.2, 2.8.10).

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

const SENT: Call = if cfg!(miri) { Call::Suppressed } else { Call::Sent };

/// Posts, takes, completes and publishes `n` chains of `descs` descriptors.
fn round(driver: &mut Driver, ring: &mut PackedRing, n: u16, descs: usize) -> Call {
    for id in 0..n {
        driver.post(id, &vec![out(DATA, 1); descs]);
    }
    serve(ring, n.into());
    let call = ring.publish();
    assert_eq!(driver.used().len(), usize::from(n));
    call
}

#[test]
fn kicks_by_flag() {
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    assert_eq!(driver.device_wish().1, ENABLE, "a ring starts with kicks on");
    ring.set_kicks(false);
    assert_eq!(driver.device_wish().1, DISABLE);
    driver.post(0, &[out(DATA, 1)]);
    assert!(!driver.would_kick(0));
    ring.set_kicks(true);
    assert!(ring.has_news(), "a look after asking finds what came before");
    driver.post(1, &[out(DATA, 1)]);
    assert!(driver.would_kick(1));
}

#[test]
fn kicks_by_event_anywhere() {
    for start in 0..10 {
        let mut driver = Driver::new(5, F_EVENT_IDX).at(start);
        let mut ring = driver.start();
        assert_eq!(driver.device_wish(), (driver.bits(start), AT_DESC));
        driver.post(0, &[out(DATA, 1), out(DATA, 1)]);
        assert!(driver.would_kick(start));
        take(&mut ring).unwrap();
        ring.set_kicks(false);
        for id in 1..4 {
            let old = driver.avail;
            driver.post(id, &[out(DATA, 1)]);
            assert!(!driver.would_kick(old));
        }
        ring.set_kicks(true);
        assert!(ring.has_news());
        assert_eq!(ring.available(9), Ok(3));
        // All of the ring is seen: the event is a lap ahead.
        ring.set_kicks(true);
        assert!(!ring.has_news());
        assert_eq!(driver.device_wish(), (driver.bits(start + 5), AT_DESC));
    }
}

/// A receive ring with too little in it for the packet that waits: more must wake us, and nothing else may.
#[test]
fn chains_seen_but_not_taken_do_not_swallow_the_next_kick() {
    for (features, start) in (0..10).flat_map(|start| [(0, start), (F_EVENT_IDX, start)]) {
        for looked in [false, true] {
            let mut driver = Driver::new(5, features).at(start);
            let mut ring = driver.start();
            driver.post(0, &[into(DATA, 10), into(DATA, 10)]);
            if looked {
                assert_eq!(ring.available(1), Ok(1));
            }
            assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Short));
            ring.set_kicks(true);
            assert!(!ring.has_news());
            let old = driver.avail;
            driver.post(1, &[into(DATA, 20)]);
            assert!(driver.would_kick(old));
            assert!(ring.has_news());
            assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Ready(2)));
        }
    }
}

#[test]
fn calls_by_flag() {
    for features in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(7, features);
        let mut ring = driver.start();
        assert_eq!(ring.publish(), Call::Nothing);
        assert_eq!(round(&mut driver, &mut ring, 3, 1), SENT);
        assert_eq!(driver.calls(1), 1, "once a burst");
        driver.set_wish(0, DISABLE);
        assert_eq!(round(&mut driver, &mut ring, 3, 2), Call::Suppressed);
        driver.set_wish(0, ENABLE);
        assert_eq!(round(&mut driver, &mut ring, 3, 2), SENT);
        assert_eq!(driver.calls(1), 1);
        assert_eq!(ring.publish(), Call::Nothing);
        assert_eq!(driver.calls(0), 0);
    }
}

#[test]
fn no_call_without_an_eventfd() {
    let mut driver = Driver::new(4, 0);
    let mut ring = PackedRing::start(RingConfig { call: None, ..driver.config() }).unwrap();
    assert_eq!(round(&mut driver, &mut ring, 1, 1), Call::Suppressed);
}

/// Every place of the event on two laps, relative to every burst that fits, everywhere on the ring.
#[test]
#[cfg_attr(miri, ignore = "no eventfds")]
fn calls_by_event() {
    for size in [1u16, 2, 5, 8] {
        let laps = 2 * u64::from(size);
        let bursts = (1..=size).flat_map(|chains| (1..=size / chains).map(move |descs| (chains, descs)));
        for (start, (chains, descs)) in
            (0..laps).flat_map(|start| bursts.clone().map(move |burst| (start, burst)))
        {
            let mut driver = Driver::new(size, F_EVENT_IDX).at(start + laps - 1);
            let mut ring = driver.start();
            driver.set_wish(start + laps + u64::from(size), AT_DESC);
            assert_eq!(round(&mut driver, &mut ring, 1, 1), Call::Sent, "the first always calls");
            assert_eq!(driver.calls(0), 1);
            for event in 0..laps {
                // On to where the burst is to start.
                driver.set_wish(0, DISABLE);
                while driver.avail % laps != start {
                    assert_eq!(round(&mut driver, &mut ring, 1, 1), Call::Suppressed);
                }
                driver.set_wish(event, AT_DESC);
                let used = driver.avail..driver.avail + u64::from(chains * descs);
                let wanted = used.clone().any(|count| driver.bits(count) == driver.bits(event));
                let call = if wanted { Call::Sent } else { Call::Suppressed };
                assert_eq!(
                    round(&mut driver, &mut ring, chains, descs.into()),
                    call,
                    "{size} {used:?} {event}"
                );
                assert_eq!(driver.calls(0), u64::from(wanted));
            }
        }
    }
}

/// A ring that needs the 15 bits of a slot to the last one.
#[test]
#[cfg_attr(miri, ignore = "no eventfds")]
fn calls_by_event_on_the_largest_queue() {
    for start in [32760, 65530] {
        let mut driver = Driver::new(32768, F_EVENT_IDX).at(start);
        let mut ring = driver.start();
        round(&mut driver, &mut ring, 1, 1);
        for event in start..start + 16 {
            let old = driver.avail;
            driver.set_wish(event, AT_DESC);
            let wanted = (old..old + 3).contains(&event);
            assert_eq!(round(&mut driver, &mut ring, 3, 1) == Call::Sent, wanted);
        }
    }
}

/// Without EVENT_IDX no event can be asked for, and the flags' value 3 is reserved: rather a call too many.
#[test]
fn wishes_that_mean_nothing_call() {
    for (features, flags) in [(0, AT_DESC), (0, 3), (F_EVENT_IDX, 3), (0, 0xfffc), (F_EVENT_IDX, 0xfffc)] {
        let mut driver = Driver::new(4, features);
        let mut ring = driver.start();
        for event in 0..9 {
            driver.set_wish(event, flags);
            assert_eq!(round(&mut driver, &mut ring, 1, 1), SENT);
        }
    }
}

/// An event beyond the ring is nowhere: no panic, and one call a burst at most.
#[test]
fn events_beyond_the_ring() {
    let mut driver = Driver::new(5, F_EVENT_IDX);
    let mut ring = driver.start();
    round(&mut driver, &mut ring, 1, 1);
    driver.calls(0);
    for event in (5..9).chain([0x7fff]).flat_map(|slot| [slot, slot | 0x8000]) {
        driver.set_raw_wish(event, AT_DESC);
        round(&mut driver, &mut ring, 3, 1);
        assert!(driver.calls(0) <= 1);
    }
}

/// Whatever a guest wishes, it gets one call a burst at most.
#[test]
fn a_guest_that_always_wants_calls_gets_one_a_burst() {
    let mut driver = Driver::new(256, F_EVENT_IDX);
    let mut ring = driver.start();
    for _ in 0..5 {
        driver.set_wish(driver.avail, AT_DESC);
        round(&mut driver, &mut ring, 200, 1);
        assert_eq!(driver.calls(1), 1);
    }
}

/// The guest writes its wish, then looks; we publish, then look: one sees the other.
#[test]
#[cfg_attr(miri, ignore = "slow, and no eventfds")]
fn no_call_is_lost_between_threads() {
    const ROUNDS: u16 = 5_000;
    for features in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(3, features);
        let mut ring = driver.start();
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                driver.post(0, &[out(DATA, 1)]);
                driver.post(1, &[out(DATA, 1), out(DATA, 1)]);
                let mut used = 0;
                while used < ROUNDS {
                    for (id, _) in driver.used() {
                        driver.post(id, &vec![out(DATA, 1); 1 + usize::from(id)]);
                        used += 1;
                    }
                    // As Linux: wish for a call, look once more, and sleep.
                    let wish = if features == 0 { ENABLE } else { AT_DESC };
                    driver.set_wish(driver.seen, wish);
                    fence(Ordering::SeqCst);
                    if used < ROUNDS && !driver.is_used(driver.seen) {
                        assert!(driver.sleep(), "a call was lost after {used}");
                    }
                    driver.set_wish(driver.seen, DISABLE);
                }
            });
            let mut done = 0;
            while done < ROUNDS && Instant::now() < deadline {
                if ring.available(1).unwrap() > 0 {
                    serve(&mut ring, 1);
                    ring.publish();
                    done += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
    }
}

/// We write our wish, then look; the guest publishes, then looks: one sees the other.
#[test]
#[cfg_attr(miri, ignore = "slow, and no eventfds")]
fn no_kick_is_lost_between_threads() {
    const ROUNDS: u16 = 5_000;
    for features in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(3, features);
        let mut ring = driver.start();
        let wires = Wires::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..ROUNDS {
                    while driver.avail - driver.seen > 1 {
                        driver.used();
                        std::thread::yield_now();
                    }
                    let old = driver.avail;
                    driver.post(id, &vec![out(DATA, 1); 1 + usize::from(id % 2)]);
                    fence(Ordering::SeqCst);
                    if driver.would_kick(old) {
                        wires.kick();
                    }
                }
            });
            let mut done = 0;
            while done < ROUNDS {
                ring.set_kicks(true);
                if !ring.has_news() {
                    assert!(wires.sleep_until_kicked(), "a kick was lost after {done}");
                }
                ring.set_kicks(false);
                while ring.available(1).unwrap() > 0 {
                    serve(&mut ring, 1);
                    ring.publish();
                    done += 1;
                }
            }
        });
    }
}

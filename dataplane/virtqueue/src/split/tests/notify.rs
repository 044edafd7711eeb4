//! Kicks and calls (virtio 1.2, 2.7.7 and 2.7.10).

use std::time::{Duration, Instant};

use super::*;
use crate::testing::*;

/// Posts, takes, completes and publishes `n` one-byte chains.
fn round(driver: &mut Driver, ring: &mut SplitRing, n: u16) -> Call {
    for slot in 0..n {
        driver.post(&[slot], &[out(DATA, 1)]);
    }
    for _ in 0..n {
        let (head, ..) = take(ring).unwrap();
        ring.complete(token(head), 0);
    }
    ring.publish()
}

#[test]
fn kicks_by_flag() {
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    assert_eq!(driver.used_flags(), 0, "a ring starts with kicks on");
    ring.set_kicks(false);
    assert_eq!(driver.used_flags(), 1);
    driver.post(&[0], &[out(DATA, 1)]);
    assert!(!driver.would_kick(0));
    ring.set_kicks(true);
    assert!(ring.has_news(), "a look after asking finds what came before");
    driver.post(&[1], &[out(DATA, 1)]);
    assert!(driver.would_kick(1));
}

/// Virtio 1.2, 2.7.10.1: with EVENT_IDX "the device MUST set flags to 0".
#[test]
fn event_idx_leaves_the_flags_alone() {
    let driver = Driver::new(4, F_EVENT_IDX);
    let mut ring = driver.start();
    for wanted in [false, true, false] {
        ring.set_kicks(wanted);
        assert_eq!(driver.used_flags(), 0);
    }
}

#[test]
fn kicks_by_event_index_at_any_index() {
    for start in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
        let mut driver = Driver::new(4, F_EVENT_IDX).at_index(start);
        let mut ring = driver.start();
        assert_eq!(driver.avail_event(), start);
        driver.post(&[0], &[out(DATA, 1)]);
        assert!(driver.would_kick(start));
        take(&mut ring).unwrap();
        ring.set_kicks(false);
        for i in 1..4 {
            let old = driver.avail;
            driver.post(&[i], &[out(DATA, 1)]);
            assert!(!driver.would_kick(old));
        }
        ring.set_kicks(true);
        assert!(ring.has_news());
    }
}

/// A receive ring with too little in it for the packet that waits: more must wake us.
#[test]
fn chains_seen_but_not_taken_do_not_swallow_the_next_kick() {
    for features in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(4, features);
        let mut ring = driver.start();
        driver.post(&[0], &[into(DATA, 20)]);
        assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Short));
        ring.set_kicks(true);
        assert!(!ring.has_news());
        let old = driver.avail;
        driver.post(&[1], &[into(DATA, 20)]);
        assert!(driver.would_kick(old));
        assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Ready(2)));
    }
}

#[test]
fn unwanted_kicks_are_one_in_65536_at_most() {
    let mut driver = Driver::new(256, F_EVENT_IDX).at_index(12345);
    let mut ring = driver.start();
    ring.set_kicks(false);
    let old = driver.avail;
    round(&mut driver, &mut ring, 256);
    assert!(!driver.would_kick(old), "a whole ring right after asking");
    let mut kicks = 0;
    for _ in 0..if cfg!(miri) { 10 } else { 1 << 16 } {
        let old = driver.avail;
        round(&mut driver, &mut ring, 1);
        kicks += u32::from(driver.would_kick(old));
    }
    assert!(kicks <= 1);
}

#[test]
fn calls_by_flag() {
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    assert_eq!(ring.publish(), Call::Nothing);
    let sent = if cfg!(miri) { Call::Suppressed } else { Call::Sent };
    assert_eq!(round(&mut driver, &mut ring, 3), sent);
    assert_eq!(driver.calls(1), 1, "once a burst");
    driver.set_avail_flags(1);
    assert_eq!(round(&mut driver, &mut ring, 3), Call::Suppressed);
    driver.set_avail_flags(0xfffe);
    assert_eq!(round(&mut driver, &mut ring, 3), sent);
    assert_eq!(driver.calls(1), 1);
    assert_eq!(ring.publish(), Call::Nothing);
    assert_eq!(driver.calls(0), 0);
}

#[test]
fn no_call_without_an_eventfd() {
    let mut driver = Driver::new(4, 0);
    let mut ring = SplitRing::start(RingConfig { call: None, ..driver.config() }).unwrap();
    assert_eq!(round(&mut driver, &mut ring, 1), Call::Suppressed);
}

/// Every place of the event relative to the burst, everywhere on the lap.
#[test]
#[cfg_attr(miri, ignore = "no eventfds")]
fn calls_by_event_index() {
    for start in [0u16, 3, 0x7ffe, 0xfffa, 0xfffd, 0xffff] {
        for (burst, event) in (1..=4u16).flat_map(|burst| (-6..6i16).map(move |event| (burst, event))) {
            let mut driver = Driver::new(4, F_EVENT_IDX).at_index(start.wrapping_sub(1));
            let mut ring = driver.start();
            driver.set_used_event(start.wrapping_add(0x4000));
            assert_eq!(round(&mut driver, &mut ring, 1), Call::Sent, "the first always calls");
            driver.set_used_event(start.wrapping_add_signed(event));
            // The guest wants a call when the entry at `event` is used.
            let wanted = (0..burst as i16).contains(&event);
            let call = if wanted { Call::Sent } else { Call::Suppressed };
            assert_eq!(round(&mut driver, &mut ring, burst), call, "{start} {burst} {event}");
            assert_eq!(driver.calls(0), 1 + u64::from(wanted));
        }
    }
}

/// The flags are not looked at with EVENT_IDX (virtio 1.2, 2.7.7.2), nor the event without it.
#[test]
#[cfg_attr(miri, ignore = "no eventfds")]
fn the_other_way_of_suppression_means_nothing() {
    let mut driver = Driver::new(4, F_EVENT_IDX);
    let mut ring = driver.start();
    driver.set_avail_flags(1);
    for used in 0..5 {
        driver.set_used_event(used);
        assert_eq!(round(&mut driver, &mut ring, 1), Call::Sent);
    }
    let mut driver = Driver::new(4, 0);
    let mut ring = driver.start();
    driver.set_used_event(0x4000);
    assert_eq!(round(&mut driver, &mut ring, 1), Call::Sent);
    assert_eq!(round(&mut driver, &mut ring, 1), Call::Sent);
}

/// Whatever a guest wishes, it gets one call a burst at most.
#[test]
fn a_guest_that_always_wants_calls_gets_one_a_burst() {
    let mut driver = Driver::new(256, F_EVENT_IDX);
    let mut ring = driver.start();
    for bursts in 0..5 {
        driver.set_used_event(bursts * 200);
        round(&mut driver, &mut ring, 200);
        assert_eq!(driver.calls(1), 1);
    }
}

/// The guest writes its wish, then looks; we publish, then look: one sees the other.
#[test]
#[cfg_attr(miri, ignore = "slow, and no eventfds")]
fn no_call_is_lost_between_threads() {
    const ROUNDS: u16 = 5_000;
    for features in [0, F_EVENT_IDX] {
        let mut driver = Driver::new(2, features);
        let mut ring = driver.start();
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                driver.post(&[0], &[out(DATA, 1)]);
                driver.post(&[1], &[out(DATA, 1)]);
                let mut used = 0;
                while used < ROUNDS {
                    for (head, _) in driver.used() {
                        driver.offer(head as u16);
                        used += 1;
                    }
                    // As Linux: wish for a call, look once more, and sleep.
                    driver.set_avail_flags(0);
                    driver.set_used_event(driver.seen);
                    fence(Ordering::SeqCst);
                    if used < ROUNDS && driver.used_index() == driver.seen {
                        assert!(driver.sleep(), "a call was lost after {used}");
                    }
                    driver.set_avail_flags(1);
                }
            });
            let mut done = 0;
            while done < ROUNDS && Instant::now() < deadline {
                if ring.available(1).unwrap() > 0 {
                    let (head, _) = take_unread(&mut ring).unwrap();
                    ring.complete(token(head), 0);
                    ring.publish();
                    done += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
    }
}

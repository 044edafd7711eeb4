//! Kicks and calls (virtio 1.2, 2.7.7, 2.7.10 and 2.8.10), on a ring of either format.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::*;

both_formats! {
    kicks_by_flag
    kicks_by_event_anywhere
    chains_seen_but_not_taken_do_not_swallow_the_next_kick
    no_call_without_an_eventfd
    a_guest_that_always_wants_calls_gets_one_a_burst
    #[cfg_attr(miri, ignore = "slow, and no eventfds")]
    no_call_is_lost_between_threads
    #[cfg_attr(miri, ignore = "slow, and no eventfds")]
    no_kick_is_lost_between_threads
}

/// Posts, takes, completes and publishes `n` one-byte chains.
fn round<D: RingDriver>(driver: &mut D, ring: &mut D::Ring, n: u16) -> Call {
    (0..n).for_each(|id| driver.post(id, &[out(DATA, 1)]));
    serve(ring, n);
    let call = ring.publish();
    assert_eq!(driver.used().len(), usize::from(n));
    call
}

fn kicks_by_flag<D: RingDriver>() {
    for start in D::starts(4) {
        let mut driver = D::new(4, 0).at(start);
        let mut ring = driver.start();
        assert!(driver.would_kick(start), "a ring starts with kicks on");
        ring.set_kicks(false);
        assert!(!driver.would_kick(start));
        driver.post(0, &[out(DATA, 1)]);
        assert!(!driver.would_kick(start));
        ring.set_kicks(true);
        assert!(ring.has_news(), "a look after asking finds what came before");
        driver.post(1, &[out(DATA, 1)]);
        assert!(driver.would_kick(start + 1));
    }
}

/// Asked for at one place: what is posted there kicks, what comes behind does not.
fn kicks_by_event_anywhere<D: RingDriver>() {
    let starts = D::starts(D::SIZE).chain([0x7fff, 0x8000]);
    for (start, descs) in starts.flat_map(|start| [(start, 1), (start, 2)]) {
        let mut driver = D::new(D::SIZE, F_EVENT_IDX).at(start);
        let mut ring = driver.start();
        driver.post(0, &vec![out(DATA, 1); descs]);
        assert!(driver.would_kick(start));
        let (first, _) = take(&mut ring).unwrap();
        ring.complete(first, 0);
        ring.set_kicks(false);
        let others = D::SIZE - descs as u16;
        for id in 1..=others {
            let old = driver.avail();
            driver.post(id, &[out(DATA, 1)]);
            assert!(!driver.would_kick(old));
        }
        ring.set_kicks(true);
        assert!(ring.has_news());
        assert_eq!(ring.available(9), Ok(others));
        // All of the ring is seen: the event is where the next lap goes on.
        ring.set_kicks(true);
        assert!(!ring.has_news());
        serve(&mut ring, others);
        ring.publish();
        driver.used();
        for (id, kicks) in [(0, true), (1, false)] {
            let old = driver.avail();
            driver.post(id, &[out(DATA, 1)]);
            assert_eq!(driver.would_kick(old), kicks);
        }
    }
}

/// A receive ring with too little in it for the packet that waits: more must wake us, and nothing else may.
fn chains_seen_but_not_taken_do_not_swallow_the_next_kick<D: RingDriver>() {
    for (features, start) in D::starts(D::SIZE).flat_map(|start| [(0, start), (F_EVENT_IDX, start)]) {
        for (looked, descs) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
            let mut driver = D::new(D::SIZE, features).at(start);
            let mut ring = driver.start();
            driver.post(0, &vec![into(DATA, 20 / descs); descs as usize]);
            if looked {
                assert_eq!(ring.available(1), Ok(1));
            }
            assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Short));
            ring.set_kicks(true);
            assert!(!ring.has_news());
            let old = driver.avail();
            driver.post(1, &[into(DATA, 20)]);
            assert!(driver.would_kick(old));
            assert!(ring.has_news());
            assert_eq!(ring.reserve(30, 12, 4), Ok(Reservation::Ready(2)));
        }
    }
}

fn no_call_without_an_eventfd<D: RingDriver>() {
    let mut driver = D::new(4, 0);
    let mut ring = D::ring(RingConfig { call: None, ..driver.config() }).unwrap();
    assert_eq!(round(&mut driver, &mut ring, 1), Call::Suppressed);
}

/// Whatever a guest wishes, it gets one call a burst at most.
fn a_guest_that_always_wants_calls_gets_one_a_burst<D: RingDriver>() {
    let mut driver = D::new(256, F_EVENT_IDX);
    let mut ring = driver.start();
    for _ in 0..5 {
        driver.want_calls(true);
        round(&mut driver, &mut ring, 200);
        assert_eq!(driver.calls(1), 1);
    }
}

/// The two chains of the tests below: ids 0 and 2, of one descriptor and of two.
fn chain(id: u16) -> Vec<Buf> {
    vec![out(DATA, 1); 1 + usize::from(id / 2)]
}

/// The guest writes its wish, then looks; we publish, then look: one sees the other.
fn no_call_is_lost_between_threads<D: RingDriver>() {
    const ROUNDS: u16 = 5_000;
    for features in [0, F_EVENT_IDX] {
        let mut driver = D::new(D::SIZE, features);
        let mut ring = driver.start();
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                driver.post(0, &chain(0));
                driver.post(2, &chain(2));
                let mut used = 0;
                while used < ROUNDS {
                    for (id, _) in driver.used() {
                        driver.post(id, &chain(id));
                        used += 1;
                    }
                    // As Linux: wish for a call, look once more, and sleep.
                    driver.want_calls(true);
                    fence(Ordering::SeqCst);
                    if used < ROUNDS && !driver.has_used() {
                        assert!(driver.sleep(), "a call was lost after {used}");
                    }
                    driver.want_calls(false);
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
fn no_kick_is_lost_between_threads<D: RingDriver>() {
    const ROUNDS: u16 = 5_000;
    for features in [0, F_EVENT_IDX] {
        let mut driver = D::new(D::SIZE, features);
        let mut ring = driver.start();
        let wires = Wires::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut out = 0;
                for n in 0..ROUNDS {
                    while out > 1 {
                        out -= driver.used().len();
                        std::thread::yield_now();
                    }
                    let (id, old) = (2 * (n % 2), driver.avail());
                    driver.post(id, &chain(id));
                    out += 1;
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

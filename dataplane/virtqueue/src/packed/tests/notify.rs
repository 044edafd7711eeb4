//! Kicks and calls (virtio 1.2, 2.8.10): a packed ring's own.

use super::*;
use crate::testing::packed::*;
use crate::testing::*;

const SENT: Call = if cfg!(miri) { Call::Suppressed } else { Call::Sent };

/// Posts, takes, completes and publishes `n` chains of `descs` descriptors.
fn round(driver: &mut Driver, ring: &mut PackedRing, n: u16, descs: usize) -> Call {
    for id in 0..n {
        driver.post(id, &vec![out(DATA, 1); descs]);
    }
    serve(ring, n);
    let call = ring.publish();
    assert_eq!(driver.used().len(), usize::from(n));
    call
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

//! Kicks and calls (virtio 1.2, 2.7.7 and 2.7.10): a split ring's own.

use super::*;
use crate::testing::*;

/// Posts, takes, completes and publishes `n` one-byte chains.
fn round(driver: &mut Driver, ring: &mut SplitRing, n: u16) -> Call {
    for slot in 0..n {
        driver.post(slot, &[out(DATA, 1)]);
    }
    serve(ring, n);
    ring.publish()
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
fn unwanted_kicks_are_one_in_65536_at_most() {
    let mut driver = Driver::new(256, F_EVENT_IDX).at(12345);
    let mut ring = driver.start();
    ring.set_kicks(false);
    let old = driver.avail;
    round(&mut driver, &mut ring, 256);
    assert!(!driver.would_kick(old.into()), "a whole ring right after asking");
    let mut kicks = 0;
    for _ in 0..if cfg!(miri) { 10 } else { 1 << 16 } {
        let old = driver.avail;
        round(&mut driver, &mut ring, 1);
        kicks += u32::from(driver.would_kick(old.into()));
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

/// Every place of the event relative to the burst, everywhere on the lap.
#[test]
#[cfg_attr(miri, ignore = "no eventfds")]
fn calls_by_event_index() {
    for start in [0u16, 3, 0x7ffe, 0xfffa, 0xfffd, 0xffff] {
        for (burst, event) in (1..=4u16).flat_map(|burst| (-6..6i16).map(move |event| (burst, event))) {
            let mut driver = Driver::new(4, F_EVENT_IDX).at(start.wrapping_sub(1).into());
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

//! What a guest must not do, done to a small ring: it stops.

use super::*;
use crate::{Call, Reservation};

/// The place before the wrap, so that all chains go across it.
pub fn place<D: RingDriver>() -> u64 {
    D::wraps_at(D::SIZE) - 1
}

/// How violations name chain `id`, `behind` descriptors (packed) behind [`place`].
pub fn head<D: RingDriver>(behind: u64, id: u16) -> u16 {
    D::head(D::SIZE, place::<D>() + behind, id)
}

/// Runs `misdeed` against a ring the device takes from; checks all that holds after any violation.
pub fn sends<D: RingDriver>(features: u64, misdeed: impl Fn(&mut D)) -> Violation {
    on_each_lap::<D>(|start| sends_at(start, features, &misdeed))
}

/// The same for a ring the device reserves on: 60 bytes, with a header of 12.
pub fn receives<D: RingDriver>(features: u64, misdeed: impl Fn(&mut D)) -> Violation {
    on_each_lap::<D>(|start| receives_at(start, features, &misdeed))
}

/// At [`place`], and a lap further on, where a packed ring's wrap counter is another: the same.
fn on_each_lap<D: RingDriver>(stops: impl Fn(u64) -> Violation) -> Violation {
    let [here, there] = [0, u64::from(D::SIZE)].map(|lap| stops(place::<D>() + lap));
    assert_eq!(here, there);
    here
}

/// As [`sends`], at `start` only.
pub fn sends_at<D: RingDriver>(start: u64, features: u64, misdeed: impl Fn(&mut D)) -> Violation {
    stops(start, features, misdeed, |ring| ring.take().map(drop))
}

/// As [`receives`], at `start` only.
pub fn receives_at<D: RingDriver>(start: u64, features: u64, misdeed: impl Fn(&mut D)) -> Violation {
    stops(start, features, misdeed, |ring| ring.reserve(60, 12, D::SIZE).map(drop))
}

fn stops<D: RingDriver>(
    start: u64,
    features: u64,
    misdeed: impl Fn(&mut D),
    turn: impl Fn(&mut D::Ring) -> Result<(), Violation>,
) -> Violation {
    let mut driver = D::new(D::SIZE, features).at(start);
    let mut ring = driver.start();
    misdeed(&mut driver);
    let before = driver.bytes();
    let outcome = ring.available(1).and_then(|n| {
        assert_ne!(n, 0, "nothing happened");
        turn(&mut ring)
    });
    let violation = outcome.expect_err("nothing was refused");
    assert_eq!(ring.violation(), Some(violation));
    assert_eq!(driver.errors(1), 1);
    assert_eq!(driver.bytes(), before, "not a byte was written");
    // Stopped: whatever comes, nothing is taken, and the base is that of the chain that broke it.
    let mut driver = driver.at(start + 8);
    driver.post(1, &[out(DATA, 3)]);
    let before = driver.bytes();
    assert_eq!(ring.available(1), Ok(0));
    assert!(matches!(ring.take(), Ok(None)));
    assert_eq!(ring.reserve(1, 0, 1), Ok(Reservation::Short));
    assert!(!ring.has_news());
    assert_eq!(ring.base(), driver.base(start));
    assert_eq!(ring.publish(), Call::Nothing);
    assert_eq!(driver.bytes(), before, "not a byte was written");
    assert_eq!(driver.errors(0), 0, "told once");
    // A new ring in its place runs.
    let (token, content) = take(&mut driver.start()).unwrap();
    assert_eq!((token.id, token.descs, content.len()), (1, 1, 3));
    violation
}

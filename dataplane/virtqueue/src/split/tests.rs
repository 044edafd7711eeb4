mod garbage;
mod hostile;
mod model;
mod normal;
mod notify;
#[cfg(not(miri))] // the oracle maps its memory
mod oracle;
mod overlap;
mod receive;
mod setup;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use proptest::prelude::ProptestConfig;

use crate::testing::Driver;
use crate::{Call, Cursor, Reservation, RingConfig, Segment, SetupError, SplitRing, Violation};

/// A chain taken from a ring: head, length, content.
fn take(ring: &mut SplitRing) -> Result<(u16, u32, Vec<u8>), Violation> {
    assert_ne!(ring.available(1)?, 0, "nothing to take");
    let (head, len, segments) = ring.take()?;
    let content = read(segments);
    assert_eq!(content.len(), len as usize);
    Ok((head, len, content))
}

fn read(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = vec![0; segments.iter().map(Segment::len).sum()];
    assert_eq!(Cursor::new(segments).read(&mut bytes), bytes.len());
    bytes
}

/// (guest address, length) of what the ring lent last.
fn ranges(driver: &Driver, ring: &SplitRing) -> Vec<(u64, usize)> {
    ring.segments().iter().map(|segment| (driver.guest.addr_of(segment), segment.len())).collect()
}

/// Bytes that tell where they are from.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (((seed * 31 + i) * 0x9e37_79b9) >> 8) as u8).collect()
}

/// So many cases of a property; few under Miri, which is a hundred times slower.
fn runs(cases: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 10 } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

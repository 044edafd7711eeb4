mod garbage;
mod hostile;
mod indirect;
mod model;
mod normal;
mod notify;
mod offer;
#[cfg(not(miri))] // the oracle maps its memory
mod oracle;
mod overlap;
mod receive;
mod setup;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::testing::split::Driver;
use crate::{
    Call, Cursor, Reservation, RingConfig, Segment, SetupError, SplitRing, Taken, Token, Violation, Virtqueue,
};

/// A chain taken from a ring: head, length, content.
fn take(ring: &mut SplitRing) -> Result<(u16, u32, Vec<u8>), Violation> {
    assert_ne!(ring.available(1)?, 0, "nothing to take");
    let taken = ring.take()?.expect("nothing was taken");
    let content = read(taken.segments);
    assert_eq!(content.len(), taken.len as usize);
    Ok((taken.token.id, taken.len, content))
}

/// Head and length of a chain that is known to be there.
fn take_unread(ring: &mut SplitRing) -> Result<(u16, u32), Violation> {
    ring.take().map(|taken| taken.map(|taken| (taken.token.id, taken.len)).expect("nothing was taken"))
}

/// Names the chain at `head`, however it was taken.
fn token(head: u16) -> Token {
    Token { id: head, descs: 1 }
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

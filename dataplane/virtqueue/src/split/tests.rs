mod garbage;
mod hostile;
mod indirect;
mod model;
mod normal;
mod notify;
#[cfg(not(miri))] // the oracle maps its memory
mod oracle;
mod overlap;
mod setup;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::testing::split::Driver;
use crate::{
    Call, Cursor, Reservation, RingConfig, Segment, SetupError, SplitRing, Taken, Token, Violation, Virtqueue,
};

/// Head and length of a chain that is known to be there.
fn take_unread(ring: &mut SplitRing) -> Result<(u16, u32), Violation> {
    ring.take().map(|taken| taken.map(|taken| (taken.token.id, taken.len)).expect("nothing was taken"))
}

/// Names the chain at `head`, however it was taken.
fn token(head: u16) -> Token {
    Token { id: head, descs: 1 }
}

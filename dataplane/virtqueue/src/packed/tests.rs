mod garbage;
mod hostile;
mod indirect;
mod model;
mod normal;
mod notify;
mod offer;
mod overlap;
mod receive;
mod setup;

use crate::testing::packed::Driver;
use crate::{
    Call, Cursor, PackedRing, Reservation, RingConfig, Segment, SetupError, Taken, Token, Violation,
    Virtqueue,
};

/// A chain taken from a ring, and its content.
fn take(ring: &mut PackedRing) -> Result<(Token, Vec<u8>), Violation> {
    assert_ne!(ring.available(1)?, 0, "nothing to take");
    let Taken { token, len, segments } = ring.take()?.expect("nothing was taken");
    let mut content = vec![0; segments.iter().map(Segment::len).sum()];
    assert_eq!(Cursor::new(segments).read(&mut content), content.len());
    assert_eq!(content.len(), len as usize);
    Ok((token, content))
}

/// Takes and completes what is known to be there.
fn serve(ring: &mut PackedRing, chains: usize) {
    for _ in 0..chains {
        let (token, _) = take(ring).unwrap();
        ring.complete(token, 0);
    }
}

/// (guest address, length) of what the ring lent last.
fn ranges(driver: &Driver, ring: &PackedRing) -> Vec<(u64, usize)> {
    ring.segments().iter().map(|segment| (driver.guest.addr_of(segment), segment.len())).collect()
}

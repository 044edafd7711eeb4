//! A frame of another guest's that ringwire sends in its name -> guest rx virtqueue.

use virtqueue::{Cursor, Reservation};

use super::{GuestPair, Side};
use crate::announce::LEN;

impl GuestPair {
    /// Gives the guest a frame, if it has room for it; whether it had.
    pub fn announce(&mut self, frame: &[u8; LEN]) -> bool {
        let Side { ring, header, counters, .. } = &mut self.to;
        let ring = ring.as_dyn();
        let most = if net::mergeable(ring.config().features) { ring.config().size } else { 1 };
        match ring.reserve(LEN as u32 + header.len(), header.len(), most) {
            Ok(Reservation::Ready(chains)) => {
                let mut cursor = Cursor::new(ring.segments());
                cursor.write(header.spanning(chains));
                cursor.write(frame);
                counters.published(chains.into(), ring.publish());
                self.counters.tx.add_frame(LEN);
                true
            }
            Ok(_) => false,
            Err(violation) => {
                self.to.report(&self.name, violation);
                false
            }
        }
    }
}

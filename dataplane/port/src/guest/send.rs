//! Burst -> guest rx virtqueue.

use dpdk::burst::Burst;
use net::Header;
use virtqueue::{Cursor, Reservation, Violation, Virtqueue};

/// What one burst to the guest came to.
#[derive(Default)]
pub(super) struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// Packets the guest can never take.
    pub too_long: u64,
    /// Chains used up: with mergeable buffers a packet may take several.
    pub chains: u64,
    /// The next packet needs more buffers than are posted.
    pub short: bool,
}

impl Sent {
    /// Packets that are done with.
    pub fn done(&self) -> usize {
        (self.packets + self.too_long) as usize
    }

    /// Copies packets from the front of `burst`, each behind `header`, into the guest's buffers.
    #[inline(always)]
    pub fn send<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: &mut Header,
        burst: &Burst,
    ) -> Result<(), Violation> {
        let config = ring.config();
        let max_chains = if net::mergeable(config.features) { config.size } else { 1 };
        for mbuf in burst.as_slice() {
            let frame = mbuf.pkt_len();
            match ring.reserve(frame + header.len(), header.len(), max_chains)? {
                Reservation::Ready(chains) => {
                    let mut cursor = Cursor::new(ring.segments());
                    cursor.write(header.spanning(chains));
                    for segment in mbuf.segments() {
                        cursor.write(segment);
                    }
                    self.packets += 1;
                    self.bytes += u64::from(frame);
                    self.chains += u64::from(chains);
                }
                Reservation::TooSmall => self.too_long += 1,
                Reservation::Short => {
                    self.short = true;
                    break;
                }
            }
        }
        Ok(())
    }
}

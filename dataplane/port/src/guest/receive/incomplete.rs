//! Guest tx virtqueue -> burst, from a guest that may leave something to complete.

use dpdk::mbuf::Mbuf;
use virtqueue::{Violation, Virtqueue};

use super::Received;
use crate::counters::{DropReason, Sizes};
use crate::guest::Limits;
use crate::guest::complete::{Completed, Workbench};
use crate::outbox::Outbox;

/// What one burst from such a guest came to.
#[derive(Default)]
pub(in crate::guest) struct ReceivedIncomplete {
    pub received: Received,
    /// Frames whose header asks for what cannot be.
    pub bad_offload: u64,
    /// Packets that there are more than chains: frames were cut.
    pub cut: u64,
}

impl ReceivedIncomplete {
    /// Chains returned to the guest.
    pub fn chains(&self) -> u64 {
        self.received.chains() + self.bad_offload
    }

    /// As [`Received::receive`], on `workbench`. While packets wait behind the burst, nothing more is taken.
    #[inline(never)]
    pub fn receive<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        outbox: &mut Outbox,
        limits: Limits,
        workbench: &mut Workbench,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        loop {
            let left = self.left(outbox, limits);
            if left == 0 || ring.available(1)? == 0 {
                return Ok(());
            }
            let next = Limits { packets: left, cost: limits.cost - self.received.cost, ..limits };
            let Outbox { burst, pool, .. } = outbox;
            self.received.take_singles::<Q, true>(ring, header, burst, next, pool, sizes)?;
            if self.left(outbox, limits) == 0
                || !self.take_one(ring, header, outbox, limits, workbench, sizes)?
            {
                return Ok(());
            }
        }
    }

    /// How many more chains may be taken.
    fn left(&self, outbox: &Outbox, limits: Limits) -> usize {
        let room = if outbox.behind.is_empty() { outbox.burst.capacity_left() } else { 0 };
        self.received.left(limits).saturating_sub(self.bad_offload as usize).min(room)
    }

    /// Takes the next chain, whatever it is. `false` if there is none, or too few mbufs for it.
    fn take_one<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        outbox: &mut Outbox,
        limits: Limits,
        workbench: &mut Workbench,
        sizes: &Sizes,
    ) -> Result<bool, Violation> {
        let Some(taken) = ring.take()? else {
            return Ok(false);
        };
        let (token, frame) = (taken.token, taken.len.saturating_sub(header));
        let received = &mut self.received;
        received.cost += crate::guest::cost(frame, taken.segments);
        let (first, waiting) = (outbox.burst.len(), outbox.behind.len());
        let completed = match frame < net::MIN_FRAME {
            true => Completed::Dropped(DropReason::Runt),
            false => workbench.complete(taken.segments, (header, frame, limits.frame), outbox),
        };
        match completed {
            Completed::Packets(packets, bytes) => {
                received.filled += 1;
                received.bytes += bytes;
                self.cut += packets - 1;
                let made = outbox.burst.iter().skip(first).chain(outbox.behind.iter().skip(waiting));
                sizes.add_each(made.map(Mbuf::pkt_len));
            }
            Completed::Dropped(reason) => {
                received.bytes += u64::from(frame);
                sizes.add(frame);
                match reason {
                    DropReason::Runt => received.runts += 1,
                    DropReason::Oversize => received.oversize += 1,
                    _ => self.bad_offload += 1,
                }
            }
            Completed::Starved => {
                ring.untake();
                return Ok(false);
            }
        }
        ring.complete(token, 0);
        Ok(true)
    }
}

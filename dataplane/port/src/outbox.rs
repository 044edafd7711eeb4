//! Packets on their way to a NIC.

use std::collections::VecDeque;

use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;

/// What waits to be sent, and where mbufs for it come from.
pub struct Outbox {
    /// What goes next.
    pub burst: Burst,
    /// What the burst has no room for: the rest of a frame that was cut into many segments. Empty if the burst is.
    pub(crate) behind: VecDeque<Mbuf>,
    /// Where mbufs come from.
    pub pool: Mempool,
}

impl Outbox {
    /// Nothing waits.
    pub fn new(pool: Mempool) -> Outbox {
        Outbox { burst: Burst::new(), behind: VecDeque::new(), pool }
    }

    /// How many packets wait.
    pub fn len(&self) -> usize {
        self.burst.len() + self.behind.len()
    }

    /// Whether none does.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.burst.is_empty()
    }

    /// Adds a packet behind all others.
    pub(crate) fn add(&mut self, mbuf: Mbuf) {
        if self.behind.is_empty() {
            if let Err(mbuf) = self.burst.push(mbuf) {
                self.behind.push_back(mbuf);
            }
        } else {
            self.behind.push_back(mbuf);
        }
    }

    /// Moves up what waits behind an empty burst. Whether there is anything.
    #[cold]
    pub(crate) fn move_up(&mut self) -> bool {
        while self.burst.capacity_left() > 0
            && let Some(next) = self.behind.pop_front()
        {
            // There is room.
            let _ = self.burst.push(next);
        }
        !self.burst.is_empty()
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        self.burst.clear();
        self.behind.clear();
    }
}

//! Packets on their way to a NIC.

use std::collections::VecDeque;

use dpdk::burst::Burst;
use dpdk::ethdev::TxQueue;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;

use crate::nic::Sending;

/// What waits to be sent, and where mbufs for it come from.
pub struct Outbox {
    /// What goes next.
    pub burst: Burst,
    /// What the burst has no room for: the rest of a frame that was cut into many segments. Empty if the burst is.
    pub(crate) behind: VecDeque<Mbuf>,
    /// Where mbufs come from.
    pub pool: Mempool,
    /// What is left to the NIC.
    pub(crate) sending: Sending,
    /// Something is, in a packet that its driver has not seen yet: these have to be [prepared](Outbox::prepare).
    pub unprepared: bool,
}

impl Outbox {
    /// Nothing waits, and nothing is left to the NIC.
    pub fn new(pool: Mempool) -> Outbox {
        let sending = Sending::NOTHING;
        Outbox { burst: Burst::new(), behind: VecDeque::new(), pool, sending, unprepared: false }
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

    /// Lets the driver make fit what is left to the NIC (DPDK's rte_eth_tx_prepare: the pseudo header's checksum, and
    /// limits of its own), and throws away what it refuses. How many that are.
    #[cold]
    pub(crate) fn prepare(&mut self, queue: &mut TxQueue) -> u64 {
        self.unprepared = false;
        let mut refused = prepare(&mut self.burst, |burst| queue.prepare(burst));
        let mut behind = std::mem::take(&mut self.behind);
        while !behind.is_empty() {
            let mut part = Burst::new();
            behind.drain(..behind.len().min(part.capacity_left())).for_each(|mbuf| {
                // There is room.
                let _ = part.push(mbuf);
            });
            refused += prepare(&mut part, |burst| queue.prepare(burst));
            self.behind.extend(std::iter::from_fn(|| part.pop_front()));
        }
        if self.burst.is_empty() {
            self.move_up();
        }
        refused
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        self.burst.clear();
        self.behind.clear();
    }
}

/// Throws away those packets that do not get ready: `ready` tells how many from the front do, up to the first that does
/// not. How many that are.
fn prepare(burst: &mut Burst, mut ready: impl FnMut(&mut Burst) -> usize) -> u64 {
    let (mut fit, mut refused) = (Burst::new(), 0);
    loop {
        let count = ready(burst);
        if count == burst.len() {
            break;
        }
        for _ in 0..count {
            // There is room.
            let _ = burst.pop_front().map(|mbuf| fit.push(mbuf));
        }
        drop(burst.pop_front());
        refused += 1;
    }
    if refused > 0 {
        fit.append(burst);
        std::mem::swap(burst, &mut fit);
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::tests::pool;

    #[test]
    fn what_is_refused_goes_and_the_others_stay_in_order() {
        let pool = pool(127);
        for refused in [&[][..], &[0], &[7], &[0, 1, 5, 7], &[0, 1, 2, 3, 4, 5, 6, 7]] {
            let mut burst = Burst::new();
            for len in 0..8 {
                let mut mbuf = pool.alloc().unwrap();
                mbuf.set_single_len(len);
                burst.push(mbuf).unwrap();
            }
            let ready = |burst: &mut Burst| {
                burst.iter().take_while(|mbuf| !refused.contains(&mbuf.data_len())).count()
            };
            assert_eq!(prepare(&mut burst, ready), refused.len() as u64);
            let left: Vec<u16> = burst.iter().map(Mbuf::data_len).collect();
            let expected: Vec<u16> = (0..8).filter(|len| !refused.contains(len)).collect();
            assert_eq!(left, expected);
        }
        assert_eq!(pool.in_use(), 0);
    }
}

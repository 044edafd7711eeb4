//! Guest tx virtqueue -> burst.

use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use virtqueue::{Cursor, Violation, Virtqueue};

use super::Limits;

/// What one burst from the guest came to.
#[derive(Default)]
pub(super) struct Received {
    /// Packets added to the burst.
    filled: usize,
    /// Bytes of all frames taken, dropped ones included.
    pub bytes: u64,
    pub runts: u64,
    pub oversize: u64,
}

impl Received {
    /// Chains returned to the guest.
    pub fn chains(&self) -> u64 {
        self.filled as u64 + self.runts + self.oversize
    }

    /// Takes chains, with a header of `header` bytes each, and copies their frames into mbufs of `pool`
    /// behind those in `burst`.
    #[inline(always)]
    pub fn receive<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        burst: &mut Burst,
        limits: Limits,
        pool: &Mempool,
    ) -> Result<(), Violation> {
        let wanted = limits.packets.min(burst.capacity_left());
        let available = usize::from(ring.available(wanted as u16)?).min(wanted);
        let first = burst.len();
        if available == 0 || pool.alloc_bulk(burst, available).is_err() {
            return Ok(());
        }
        let outcome = self.fill_burst(ring, header, &mut burst.as_mut_slice()[first..], limits, pool);
        burst.truncate_free(first + self.filled);
        outcome
    }

    #[inline(always)]
    fn fill_burst<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        mbufs: &mut [Mbuf],
        limits: Limits,
        pool: &Mempool,
    ) -> Result<(), Violation> {
        for _ in 0..mbufs.len() {
            let Some(taken) = ring.take()? else {
                return Ok(());
            };
            let token = taken.token;
            let frame = taken.len.saturating_sub(header);
            if frame < net::MIN_FRAME {
                self.runts += 1;
            } else if frame > limits.frame {
                self.oversize += 1;
            } else {
                let mut cursor = Cursor::new(taken.segments);
                cursor.skip(header as usize);
                if !fill(&mut mbufs[self.filled], frame, &mut cursor, pool) {
                    ring.untake();
                    return Ok(());
                }
                self.filled += 1;
            }
            ring.complete(token, 0);
            self.bytes += u64::from(frame);
            if self.bytes >= limits.bytes {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Copies a frame of `len` bytes into a fresh mbuf, and into more of them if it is longer than one.
/// `false` if there are not enough; what was copied goes back to the pool with the mbuf.
#[inline(always)]
fn fill(mbuf: &mut Mbuf, len: u32, cursor: &mut Cursor, pool: &Mempool) -> bool {
    let first = len.min(u32::from(mbuf.room())) as u16;
    mbuf.set_single_len(first);
    cursor.read(mbuf.data_mut());
    u32::from(first) == len || fill_more(mbuf, len - u32::from(first), cursor, pool)
}

#[cold]
fn fill_more(mbuf: &mut Mbuf, mut left: u32, cursor: &mut Cursor, pool: &Mempool) -> bool {
    while left > 0 {
        let Some(mut segment) = pool.alloc() else {
            return false;
        };
        let len = left.min(u32::from(segment.room())) as u16;
        segment.set_single_len(len);
        cursor.read(segment.data_mut());
        mbuf.append_segment(segment, len);
        left -= u32::from(len);
    }
    true
}

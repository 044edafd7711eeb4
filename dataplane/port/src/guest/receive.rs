//! Guest tx virtqueue -> burst.

use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use virtqueue::{Cursor, Segment, Violation, Virtqueue};

use super::Limits;
use super::complete::Workbench;
use crate::counters::{Lengths, Sizes};

mod incomplete;

pub(super) use incomplete::ReceivedIncomplete;

/// What one burst from the guest came to.
#[derive(Default)]
pub(super) struct Received {
    /// Packets added to the burst.
    filled: usize,
    /// Bytes of all frames taken, dropped ones included.
    pub bytes: u64,
    /// What they cost, see [`Moved::cost`](super::Moved::cost).
    pub cost: u64,
    pub runts: u64,
    pub oversize: u64,
    /// There were not enough mbufs.
    starved: bool,
}

impl Received {
    /// Chains returned to the guest.
    #[inline(always)]
    pub fn chains(&self) -> u64 {
        self.filled as u64 + self.runts + self.oversize
    }

    /// Takes chains, with a header of `header` bytes each, and copies their frames into mbufs of `pool`
    /// behind those in `burst`. All frames taken are counted in `sizes`.
    #[inline(always)]
    pub fn receive<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        burst: &mut Burst,
        limits: Limits,
        pool: &Mempool,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        let limits = Limits { packets: limits.packets.min(burst.capacity_left()), ..limits };
        if limits.packets == 0 || ring.available(1)? == 0 {
            return Ok(());
        }
        self.take_singles::<Q, false>(ring, header, burst, limits, pool, sizes)?;
        if self.left(limits) == 0 {
            return Ok(());
        }
        let first = burst.len() - self.filled;
        let outcome = self.take_others(ring, header, burst, limits, pool, sizes);
        burst.truncate_free(first + self.filled);
        outcome
    }

    /// How many more chains may be taken.
    #[inline(always)]
    fn left(&self, limits: Limits) -> usize {
        let over = self.starved || self.cost >= limits.cost;
        if over { 0 } else { limits.packets - self.chains() as usize }
    }

    /// The chains of one piece, with frames that are neither too short nor too long: nearly all. If the guest may
    /// leave something to complete (`ASK`), up to the first that it did so with.
    #[inline(always)]
    fn take_singles<Q: Virtqueue, const ASK: bool>(
        &mut self,
        ring: &mut Q,
        header: u32,
        burst: &mut Burst,
        limits: Limits,
        pool: &Mempool,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        let lens = header + net::MIN_FRAME..=header.saturating_add(limits.frame);
        let segments = ring.take_singles(limits.packets as u16, lens)?;
        let (mut bytes, mut starved) = (0, false);
        let filled = pool.fill(burst, segments, |segment, mbuf| {
            let Some(frame) = segment.len().checked_sub(header as usize) else { return false };
            if bytes >= limits.cost || ASK && Workbench::is_needed(segment) {
                return false;
            }
            match mbuf.packet(frame) {
                Ok(to) => _ = segment.read_end(to),
                Err(mbuf) => starved = !fill_long(mbuf, frame as u32, header, segment, pool),
            }
            bytes += if starved { 0 } else { frame as u64 };
            !starved
        });
        self.starved = starved || filled.is_err();
        let filled = filled.unwrap_or(0);
        count_sizes(&segments[..filled], header, bytes, sizes);
        ring.return_singles(filled as u16);
        self.filled += filled;
        self.bytes += bytes;
        self.cost += bytes;
        Ok(())
    }

    /// Whatever else chains may be. Leaves mbufs that were not filled behind those that were.
    #[inline(never)]
    fn take_others<Q: Virtqueue>(
        &mut self,
        ring: &mut Q,
        header: u32,
        burst: &mut Burst,
        limits: Limits,
        pool: &Mempool,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        let left = self.left(limits);
        let available = usize::from(ring.available(left as u16)?).min(left);
        let mut next = burst.len();
        if pool.alloc_bulk(burst, available).is_err() {
            return Ok(());
        }
        for _ in 0..available {
            let Some(taken) = ring.take()? else {
                return Ok(());
            };
            let token = taken.token;
            let frame = taken.len.saturating_sub(header);
            self.cost += super::cost(frame, taken.segments);
            if !(net::MIN_FRAME..=limits.frame).contains(&frame) {
                self.count_drop(frame);
            } else if fill(&mut burst.as_mut_slice()[next], frame, header, taken.segments, pool) {
                next += 1;
                self.filled += 1;
            } else {
                ring.untake();
                return Ok(());
            }
            ring.complete(token, 0);
            self.bytes += u64::from(frame);
            sizes.add(frame);
            if self.cost >= limits.cost {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Counts a frame that is too short or too long.
    #[cold]
    fn count_drop(&mut self, frame: u32) {
        if frame < net::MIN_FRAME {
            self.runts += 1;
        } else {
            self.oversize += 1;
        }
    }
}

/// Counts the frames of `bytes` altogether that are behind headers in `segments`. (Not where they are copied: there are no
/// registers to spare there.)
#[inline(never)]
fn count_sizes(segments: &[Segment], header: u32, bytes: u64, sizes: &Sizes) {
    let packets = segments.len() as u64;
    if packets == 0 {
        return;
    }
    // Several at a time: else it would be as many instructions to count as to look.
    let (eights, rest) = segments.as_chunks::<8>();
    let any = eights.iter().fold(lengths(rest), |any, eight| any | lengths(eight));
    match (Lengths { packets, bytes: bytes + packets * u64::from(header), any }).each() {
        Some(len) => sizes.add_alike(packets, len - header),
        None => sizes.add_each(segments.iter().map(|segment| segment.len() as u32 - header)),
    }
}

/// The lengths of all, or'ed.
#[inline(always)]
fn lengths(segments: &[Segment]) -> u32 {
    segments.iter().fold(0, |any, segment| any | segment.len() as u32)
}

/// Copies the frame of `len` bytes that is behind the header in `segments` into a fresh mbuf, and into more of
/// them if it is longer than one. `false` if there are not enough; what was copied goes back to the pool with the
/// mbuf.
#[inline(always)]
fn fill(mbuf: &mut Mbuf, len: u32, header: u32, segments: &[Segment], pool: &Mempool) -> bool {
    let mut cursor = Cursor::new(segments);
    cursor.skip(header as usize);
    let first = len.min(u32::from(mbuf.room())) as u16;
    mbuf.set_single_len(first);
    cursor.read(mbuf.data_mut());
    u32::from(first) == len || fill_more(mbuf, len - u32::from(first), &mut cursor, pool)
}

/// A frame that is longer than an mbuf.
#[cold]
#[inline(never)]
fn fill_long(mbuf: &mut Mbuf, len: u32, header: u32, segment: &Segment, pool: &Mempool) -> bool {
    fill(mbuf, len, header, std::slice::from_ref(segment), pool)
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

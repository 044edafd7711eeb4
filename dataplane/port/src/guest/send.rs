//! Burst -> guest rx virtqueue.

use dpdk::BURST_MAX;
use dpdk::burst::Burst;
use dpdk::mbuf::Mbuf;
use net::{Header, Takes};
use virtqueue::{Cursor, Head, Reservation, Segment, Violation, Virtqueue};

use crate::counters::Sizes;
use crate::nic::said;

/// What one burst to the guest came to.
#[derive(Default)]
pub(super) struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// Packets the guest can never take.
    pub too_long: u64,
    /// Chains used up: with mergeable buffers a packet may take several.
    pub chains: u64,
    /// What it cost, see [`Moved::cost`](super::Moved::cost).
    pub cost: u64,
    /// The next packet needs more buffers than are posted.
    pub short: bool,
}

impl Sent {
    /// Packets that are done with.
    pub fn done(&self) -> usize {
        (self.packets + self.too_long) as usize
    }

    /// Copies packets from the front of `burst`, each behind `header`, into the guest's buffers, until that has
    /// cost `budget`. If they are from a NIC that says something about them (`JUDGED`), the header says it. Those copied are
    /// counted in `sizes`.
    #[inline(always)]
    pub fn send<Q: Virtqueue, const JUDGED: bool>(
        &mut self,
        ring: &mut Q,
        header: &mut Header,
        burst: &Burst,
        budget: u64,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        self.fill_singles::<Q, JUDGED>(ring, header, burst.as_slice(), sizes)?;
        match burst.as_slice().get(self.done()..) {
            None | Some([]) => Ok(()),
            Some(others) => self.fill_others::<Q, JUDGED>(ring, header, others, budget, sizes),
        }
    }

    /// Packets that fit buffers of one piece: nearly all.
    #[inline(always)]
    fn fill_singles<Q: Virtqueue, const JUDGED: bool>(
        &mut self,
        ring: &mut Q,
        header: &mut Header,
        packets: &[Mbuf],
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        let mut lens = [0; BURST_MAX];
        for (len, mbuf) in lens.iter_mut().zip(packets) {
            *len = mbuf.pkt_len() + header.len();
        }
        let takes = takes::<Q, JUDGED>(ring);
        let segments = ring.reserve_singles(&lens[..packets.len().min(BURST_MAX)])?;
        let plain = *header;
        let header = header.spanning(1);
        let head = Head::new(header);
        let bytes = if JUDGED {
            copy(segments, packets, &lens, header.len(), |segment, mbuf| {
                segment.write_head(Head::new(plain.with(said(mbuf, takes)).spanning(1)));
            })
        } else {
            copy(segments, packets, &lens, header.len(), |segment, _| _ = segment.write_head(head))
        };
        let count = segments.len() as u64;
        self.bytes += bytes - count * header.len() as u64;
        self.cost = self.bytes;
        self.packets += count;
        self.chains += count;
        sizes.add_lens(&lens[..segments.len()], header.len() as u32, bytes);
        Ok(())
    }

    /// Whatever else packets and buffers may be.
    #[inline(never)]
    fn fill_others<Q: Virtqueue, const JUDGED: bool>(
        &mut self,
        ring: &mut Q,
        header: &mut Header,
        packets: &[Mbuf],
        budget: u64,
        sizes: &Sizes,
    ) -> Result<(), Violation> {
        let takes = takes::<Q, JUDGED>(ring);
        let config = ring.config();
        let max_chains = if net::mergeable(config.features) { config.size } else { 1 };
        for mbuf in packets {
            if self.cost >= budget {
                break;
            }
            let frame = mbuf.pkt_len();
            match ring.reserve(frame + header.len(), header.len(), max_chains)? {
                Reservation::Ready(chains) => {
                    let mut cursor = Cursor::new(ring.segments());
                    if JUDGED {
                        cursor.write(header.with(said(mbuf, takes)).spanning(chains));
                    } else {
                        cursor.write(header.spanning(chains));
                    }
                    for data in mbuf.segments() {
                        cursor.write(data);
                    }
                    self.packets += 1;
                    self.bytes += u64::from(frame);
                    sizes.add(frame);
                    self.cost += super::cost(frame, ring.segments());
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

/// Copies packets into a segment each, whose lengths are `lens`, behind a header of `skip` bytes that `head` writes. The
/// bytes of both.
#[inline(always)]
fn copy(
    segments: &[Segment],
    packets: &[Mbuf],
    lens: &[u32],
    skip: usize,
    mut head: impl FnMut(&Segment, &Mbuf),
) -> u64 {
    let mut bytes = 0;
    for ((segment, mbuf), len) in segments.iter().zip(packets).zip(lens) {
        head(segment, mbuf);
        let mut at = skip;
        for data in mbuf.segments() {
            segment.write(at, data);
            at += data.len();
        }
        bytes += u64::from(*len);
    }
    bytes
}

/// What the guest takes, if that matters.
#[inline(always)]
fn takes<Q: Virtqueue, const JUDGED: bool>(ring: &Q) -> Takes {
    if JUDGED { Takes::to_guest(ring.config().features) } else { Takes::NOTHING }
}

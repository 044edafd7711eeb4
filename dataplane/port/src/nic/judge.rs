//! What a NIC says about the frames it received, on the way to a guest: a verdict on checksums is passed on; what a guest
//! does not take is done before.

use std::collections::VecDeque;

use dpdk::burst::Burst;
use dpdk::ethdev::RxQueue;
use dpdk::mbuf::{Mbuf, flags};
use dpdk::mempool::Mempool;
use net::{Action, Offload, Plan, Segments, Sum, Takes};

use super::Verdicts;
use crate::counters::{Lengths, Sizes};
use crate::guest::complete::packet;

/// Longest frame that can be cut, in bytes: IP's longest packet, and Ethernet.
const LONGEST: usize = u16::MAX as usize + net::FRAME_OVERHEAD as usize;

/// What stands between a NIC that says something and a guest.
pub(super) struct Judge {
    /// What the guest takes.
    takes: Takes,
    verdicts: Verdicts,
    /// Received, but not looked at yet.
    arrived: VecDeque<Mbuf>,
    /// Segments of a frame for which a burst had no room.
    behind: VecDeque<Mbuf>,
    pool: Mempool,
    /// Where frames are cut; empty where there are none to be.
    frame: Box<[u8]>,
}

/// What one burst came to.
#[derive(Default)]
pub(super) struct Judged {
    /// Packets that can be sent to the guest now.
    pub ready: u64,
    /// Packets and bytes that came in, with each frame that was cut counted as the packets it became.
    pub packets: u64,
    pub bytes: u64,
    /// Packets that what the NIC says of them cannot be true of.
    pub bad: u64,
}

/// As many packets of up to 64 KiB are received at once.
const LRO_BURST: usize = 8;

/// There are not enough mbufs.
struct Starved;

impl Judge {
    /// For a guest that takes so much, if there is anything to pass on to it, or to do for it.
    pub fn new(verdicts: Verdicts, takes: Takes, pool: &Mempool) -> Option<Judge> {
        let wanted = verdicts.partial || verdicts.lro || takes.contains(Takes::DATA_VALID);
        let frame = if verdicts.lro { vec![0; LONGEST] } else { Vec::new() };
        wanted.then(|| Judge {
            takes,
            verdicts,
            arrived: VecDeque::new(),
            behind: VecDeque::new(),
            pool: pool.clone(),
            frame: frame.into(),
        })
    }

    /// The guest is another one, or takes something else: what waits is looked at again.
    pub fn retake(&mut self, held: &mut Burst, takes: Takes) {
        self.takes = takes;
        let mut all: VecDeque<Mbuf> = std::iter::from_fn(|| held.pop_front()).collect();
        all.append(&mut self.behind);
        all.append(&mut self.arrived);
        self.arrived = all;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.arrived.len() + self.behind.len()
    }

    /// Throws away what waits.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.behind.clear();
    }

    /// Receives up to `max` packets behind those in `held`, fit for the guest. They are counted in `sizes` as they came;
    /// of a frame that is cut, what it is more than one packet in addition.
    pub fn receive(&mut self, queue: &mut RxQueue, held: &mut Burst, max: usize, sizes: &Sizes) -> Judged {
        let (mut judged, first) = (Judged::default(), held.len());
        self.move_up(held);
        if self.len() == 0 {
            let old = held.len();
            // Long packets that wait for mbufs must not have them all.
            queue.receive(held, if self.verdicts.lro { max.min(LRO_BURST) } else { max });
            let new = &held.as_slice()[old..];
            let lengths = Lengths::of(new);
            (judged.packets, judged.bytes) = (lengths.packets, lengths.bytes);
            sizes.add_burst(lengths, new.iter().map(Mbuf::pkt_len));
            self.set_aside(held, old);
        }
        while self.behind.is_empty()
            && let Some(mbuf) = self.arrived.pop_front()
        {
            if let Err((mbuf, Starved)) = self.fit(mbuf, held, &mut judged, sizes) {
                self.arrived.push_front(mbuf);
                break;
            }
        }
        judged.ready = (held.len() - first) as u64;
        judged
    }

    /// Moves what may have to be changed for the guest, and all behind it, to what has arrived.
    fn set_aside(&mut self, held: &mut Burst, first: usize) {
        const ASKS: u64 = flags::RX_LRO | flags::RX_L4_CKSUM_BAD;
        // Two flags at once say "none", so that one of them is "bad".
        let asks = held.iter().skip(first).position(|mbuf| mbuf.ol_flags() & ASKS != 0);
        let Some(asks) = asks else { return };
        let mut kept = Burst::new();
        for _ in 0..first + asks {
            // There is room.
            let _ = held.pop_front().map(|mbuf| kept.push(mbuf));
        }
        self.arrived.extend(std::iter::from_fn(|| held.pop_front()));
        std::mem::swap(held, &mut kept);
    }

    /// Does what the guest does not take, and adds what becomes of the packet.
    fn fit(
        &mut self,
        mut mbuf: Mbuf,
        held: &mut Burst,
        judged: &mut Judged,
        sizes: &Sizes,
    ) -> Result<(), (Mbuf, Starved)> {
        let ol_flags = mbuf.ol_flags();
        if !self.verdicts.partial && ol_flags & flags::RX_L4_CKSUM_MASK == flags::RX_L4_CKSUM_NONE {
            // The driver means something else with it.
            mbuf.set_ol_flags(ol_flags & !flags::RX_L4_CKSUM_MASK);
        }
        match decide(&mbuf, self.takes) {
            Some((_, Action::PassOn(_))) => self.add(mbuf, held),
            Some((_, Action::Checksum(checksum))) => {
                let value = checksum.value(mbuf.segments());
                let Some(field) = mbuf.data_mut().get_mut(checksum.at()..checksum.at() + 2) else {
                    judged.bad += 1;
                    return Ok(());
                };
                field.copy_from_slice(&value);
                mbuf.set_ol_flags(0);
                self.add(mbuf, held);
            }
            Some((plan, Action::Segment { partial })) if plan.frame_len() <= self.frame.len() => {
                let Some((packets, bytes)) = self.cut(&mbuf, &plan, partial) else {
                    return Err((mbuf, Starved));
                };
                judged.packets += packets - 1;
                judged.bytes += bytes - u64::from(mbuf.pkt_len());
                sizes.add_each(self.behind.iter().skip(1).map(Mbuf::pkt_len));
                self.move_up(held);
            }
            _ => judged.bad += 1,
        }
        Ok(())
    }

    /// Puts a frame's segments behind, where nothing is; how many packets and bytes they are. `None`, and nothing is done,
    /// if there are not enough mbufs for all of them.
    fn cut(&mut self, mbuf: &Mbuf, plan: &Plan, partial: bool) -> Option<(u64, u64)> {
        let Judge { frame, behind, pool, .. } = self;
        let frame = &mut frame[..plan.frame_len()];
        let mut rest = &mut *frame;
        for piece in mbuf.segments() {
            let (now, later) = rest.split_at_mut(piece.len());
            now.copy_from_slice(piece);
            rest = later;
        }
        let (frame, mut bytes) = (&*frame, 0);
        let mut segments = Segments::new(plan, [frame]);
        loop {
            let segment = match partial {
                true => segments.next_partial(),
                false => segments.next_complete(|part| Sum::of(&frame[part])),
            };
            let Some(segment) = segment else { return Some((behind.len() as u64, bytes)) };
            let Some(mut made) = packet(pool, segment.header, &frame[segment.payload]) else {
                behind.clear();
                return None;
            };
            made.set_ol_flags(if partial { flags::RX_L4_CKSUM_NONE } else { 0 });
            bytes += u64::from(made.pkt_len());
            behind.push_back(made);
        }
    }

    fn add(&mut self, mbuf: Mbuf, held: &mut Burst) {
        if !self.behind.is_empty() {
            self.behind.push_back(mbuf);
        } else if let Err(mbuf) = held.push(mbuf) {
            self.behind.push_back(mbuf);
        }
    }

    fn move_up(&mut self, held: &mut Burst) {
        while held.capacity_left() > 0
            && let Some(mbuf) = self.behind.pop_front()
        {
            // There is room.
            let _ = held.push(mbuf);
        }
    }
}

/// What must be done with a packet of which a NIC says something, for a guest that takes so much; none if what it says
/// cannot be.
fn decide(mbuf: &Mbuf, takes: Takes) -> Option<(Plan, Action)> {
    let (ol_flags, front) = (mbuf.ol_flags(), mbuf.data());
    let offload = match ol_flags & flags::RX_L4_CKSUM_MASK {
        flags::RX_L4_CKSUM_NONE => Offload::partial(front)?,
        flags::RX_L4_CKSUM_GOOD => Offload::VALID,
        // It would not have made one of packets that it did not find right.
        _ if ol_flags & flags::RX_LRO != 0 => Offload::VALID,
        _ => Offload::default(),
    };
    let offload = match ol_flags & flags::RX_LRO {
        0 => offload,
        _ => offload.coalesced(front, mbuf.tx_offload().tso_segsz)?,
    };
    let plan = offload.check(front, mbuf.pkt_len() as usize, Takes::ALL).ok()?;
    let action = net::decide(&plan, takes);
    Some((plan, action))
}

/// What is said to a guest that takes so much of a packet that is fit for it.
#[inline]
pub(crate) fn said(mbuf: &Mbuf, takes: Takes) -> Offload {
    const ASKS: u64 = flags::RX_LRO | flags::RX_L4_CKSUM_MASK;
    match mbuf.ol_flags() & ASKS {
        0 => Offload::default(),
        flags::RX_L4_CKSUM_GOOD if takes.contains(Takes::DATA_VALID) => Offload::VALID,
        flags::RX_L4_CKSUM_GOOD | flags::RX_L4_CKSUM_BAD => Offload::default(),
        _ => match decide(mbuf, takes) {
            Some((_, Action::PassOn(offload))) => offload,
            _ => Offload::default(),
        },
    }
}

//! Guest tx virtqueue -> another guest's rx virtqueue: one copy, and no mbuf.

use net::Header;
use virtqueue::{Cursor, Head, Reservation, Ring, Taken, Violation, Virtqueue};

use super::{GuestPair, Limits, Moved, with_ring};
use crate::counters::{DropReason, Lengths, Sizes};

mod incomplete;

/// As many chains as a ring takes together.
const SINGLES: usize = 64;

impl Limits {
    /// Whether a frame is neither too short nor too long.
    #[inline(always)]
    fn takes(&self, frame: u32) -> bool {
        (net::MIN_FRAME..=self.frame).contains(&frame)
    }
}

/// What one burst from guest to guest came to.
struct Forwarded<'a> {
    /// Where frames are counted that were taken from the sender.
    rx: &'a Sizes,
    /// And those that were delivered.
    tx: &'a Sizes,
    /// Packets delivered.
    packets: u64,
    /// Bytes of all frames taken, dropped ones included.
    bytes: u64,
    /// What they cost, see [`Moved::cost`].
    cost: u64,
    runts: u64,
    oversize: u64,
    /// Packets that the receiving guest can never take.
    too_long: u64,
    /// Bytes of the dropped ones.
    dropped_bytes: u64,
    /// Chains of the receiving guest used up.
    chains: u64,
    /// The next packet needs more buffers than are posted.
    short: bool,
    /// Frames whose header asks for what cannot be.
    bad_offload: u64,
    /// Chains returned to a sender that may leave something to complete: a frame may become many packets.
    returned: u64,
}

/// Which of the two guests broke the rules.
enum Fault {
    Sender(Violation),
    Receiver(Violation),
}

impl GuestPair {
    /// Moves packets that this guest sent straight into the receive buffers of `to`. What there is no room for stays
    /// in this guest's ring, so nothing is ever held in between. What can never be delivered is dropped, and counted
    /// here, where it came in.
    #[inline(always)]
    pub fn forward(&mut self, to: &mut GuestPair, limits: Limits) -> Moved {
        let was_short = to.to.short;
        let idle = with_ring!(&self.from.ring, ring => ring.is_idle());
        if (idle && self.workbench.as_ref().is_none_or(|workbench| workbench.next_segment().is_none()))
            || to.to.is_short()
        {
            return Moved::default();
        }
        // Where buffers are scarce, no more chains are looked at than there are buffers for. Elsewhere, to count
        // them first would only cost more.
        let most = if was_short { to.room(SINGLES as u16) } else { SINGLES };
        self.forward_burst(to, limits, most)
    }

    #[inline(never)]
    fn forward_burst(&mut self, to: &mut GuestPair, limits: Limits, most: usize) -> Moved {
        let mut forwarded = Forwarded::new(&self.counters.rx.sizes, &to.counters.tx.sizes);
        let (from, into) = (&mut self.from, &mut to.to);
        let (skip, header) = (from.header.len(), &mut into.header);
        let outcome = if let Some(workbench) = &mut self.workbench {
            let (sender, receiver) = (from.ring.as_dyn(), into.ring.as_dyn());
            let outcome = forwarded.forward_incomplete(sender, receiver, skip, header, limits, workbench);
            into.counters.published(forwarded.chains, receiver.publish());
            from.counters.published(forwarded.returned, sender.publish());
            outcome
        } else {
            with_ring!(&mut from.ring, sender => with_ring!(&mut into.ring, receiver => {
                let outcome = forwarded.forward(sender, receiver, skip, header, limits, most);
                into.counters.published(forwarded.chains, receiver.publish());
                from.counters.published(forwarded.done(), sender.publish());
                outcome
            }))
        };
        into.short = forwarded.short;
        if forwarded.done() > 0 {
            self.counters.rx.add(forwarded.done(), forwarded.bytes);
        }
        if forwarded.packets > 0 {
            to.counters.tx.add(forwarded.packets, forwarded.bytes - forwarded.dropped_bytes);
        }
        if forwarded.dropped() > 0 {
            self.counters.dropped(DropReason::Runt, forwarded.runts);
            self.counters.dropped(DropReason::Oversize, forwarded.oversize);
            self.counters.dropped(DropReason::GuestBufferTooSmall, forwarded.too_long);
            self.counters.dropped(DropReason::BadOffload, forwarded.bad_offload);
        }
        match outcome {
            Ok(()) => {}
            Err(Fault::Sender(violation)) => self.from.report(&self.name, violation),
            Err(Fault::Receiver(violation)) => to.to.report(&to.name, violation),
        }
        Moved { packets: forwarded.done(), bytes: forwarded.bytes, cost: forwarded.cost }
    }
}

impl<'a> Forwarded<'a> {
    #[inline(always)]
    fn new(rx: &'a Sizes, tx: &'a Sizes) -> Forwarded<'a> {
        Forwarded {
            rx,
            tx,
            packets: 0,
            bytes: 0,
            cost: 0,
            runts: 0,
            oversize: 0,
            too_long: 0,
            dropped_bytes: 0,
            chains: 0,
            short: false,
            bad_offload: 0,
            returned: 0,
        }
    }

    #[inline(always)]
    fn dropped(&self) -> u64 {
        self.runts + self.oversize + self.too_long + self.bad_offload
    }

    /// Chains returned to the sending guest.
    #[inline(always)]
    fn done(&self) -> u64 {
        self.packets + self.dropped()
    }

    /// How many more chains may be taken.
    #[inline(always)]
    fn left(&self, limits: Limits) -> usize {
        if self.cost >= limits.cost { 0 } else { limits.packets.saturating_sub(self.done() as usize) }
    }

    /// Takes chains of `sender`, with a header of `skip` bytes each, and copies their frames behind `header` into
    /// buffers of `receiver`; of those that are easy, `most` at most. A function for each pair of formats: together
    /// they would be short of registers.
    #[inline(never)]
    fn forward<S: Virtqueue, R: Virtqueue>(
        &mut self,
        sender: &mut S,
        receiver: &mut R,
        skip: u32,
        header: &mut Header,
        limits: Limits,
        most: usize,
    ) -> Result<(), Fault> {
        // So that a frame with its header cannot be longer than 32 bits say.
        let limits = Limits { frame: limits.frame.min(u32::MAX - header.len()), ..limits };
        if receiver.available(1).map_err(Fault::Receiver)? == 0 {
            self.short = true;
            return Ok(());
        }
        let most = limits.packets.min(most);
        self.forward_singles(sender, receiver, skip, header, Limits { packets: most, ..limits })?;
        match self.left(limits) {
            0 => Ok(()),
            _ => self.forward_others(sender, receiver, skip, header, limits),
        }
    }

    /// Chains of one piece that fit buffers of one piece: nearly all.
    #[inline(always)]
    fn forward_singles<S: Virtqueue, R: Virtqueue>(
        &mut self,
        sender: &mut S,
        receiver: &mut R,
        skip: u32,
        header: &mut Header,
        limits: Limits,
    ) -> Result<(), Fault> {
        let takes = skip + net::MIN_FRAME..=skip.saturating_add(limits.frame);
        let sent = sender.take_singles(limits.packets as u16, takes).map_err(Fault::Sender)?;
        let (mut lens, mut wanted, mut cost, mut any) = ([0; SINGLES], 0, 0, 0);
        for (len, segment) in lens.iter_mut().zip(sent) {
            if cost >= limits.cost {
                break;
            }
            let frame = segment.len() as u32 - skip;
            *len = frame + header.len();
            cost += u64::from(frame);
            any |= frame;
            wanted += 1;
        }
        let rooms = match receiver.reserve_singles(&lens[..wanted]) {
            Ok(rooms) => rooms,
            Err(violation) => {
                sender.return_singles(0);
                return Err(Fault::Receiver(violation));
            }
        };
        let header = header.spanning(1);
        let head = Head::new(header);
        for ((room, segment), len) in rooms.iter().zip(sent).zip(&lens) {
            room.write_head(head);
            segment.copy_to(skip as usize, room, header.len(), *len as usize - header.len());
            self.bytes += u64::from(*len) - header.len() as u64;
        }
        self.cost = self.bytes;
        self.packets = rooms.len() as u64;
        self.chains = self.packets;
        let frames = sent.iter().take(rooms.len()).map(|segment| segment.len() as u32 - skip);
        let lengths = Lengths { packets: self.packets, bytes: self.bytes, any };
        self.rx.add_burst(lengths, frames.clone());
        self.tx.add_burst(lengths, frames);
        sender.return_singles(rooms.len() as u16);
        Ok(())
    }

    /// Whatever else chains and buffers may be.
    #[inline(never)]
    fn forward_others<S: Virtqueue, R: Virtqueue>(
        &mut self,
        sender: &mut S,
        receiver: &mut R,
        skip: u32,
        header: &mut Header,
        limits: Limits,
    ) -> Result<(), Fault> {
        let config = receiver.config();
        let max_chains = if net::mergeable(config.features) { config.size } else { 1 };
        let left = self.left(limits);
        let wanted = u16::try_from(left).unwrap_or(u16::MAX);
        let available = usize::from(sender.available(wanted).map_err(Fault::Sender)?).min(left);
        for _ in 0..available {
            let Some(taken) = sender.take().map_err(Fault::Sender)? else {
                return Ok(());
            };
            let Taken { token, len, segments } = taken;
            let frame = len.saturating_sub(skip);
            let mut cost = super::cost(frame, segments);
            if !limits.takes(frame) {
                self.count_drop(frame);
            } else {
                match receiver.reserve(frame + header.len(), header.len(), max_chains) {
                    Ok(Reservation::Ready(chains)) => {
                        let (mut from, mut to) = (Cursor::new(segments), Cursor::new(receiver.segments()));
                        from.skip(skip as usize);
                        to.write(header.spanning(chains));
                        from.copy_to(&mut to, frame as usize);
                        cost = cost.max(super::cost(frame, receiver.segments()));
                        self.packets += 1;
                        self.chains += u64::from(chains);
                        self.tx.add(frame);
                    }
                    Ok(Reservation::TooSmall) => {
                        self.too_long += 1;
                        self.dropped_bytes += u64::from(frame);
                    }
                    Ok(Reservation::Short) => {
                        self.short = true;
                        sender.untake();
                        return Ok(());
                    }
                    Err(violation) => {
                        sender.untake();
                        return Err(Fault::Receiver(violation));
                    }
                }
            }
            sender.complete(token, 0);
            self.bytes += u64::from(frame);
            self.rx.add(frame);
            self.cost += cost;
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
        self.dropped_bytes += u64::from(frame);
    }
}

#[cfg(test)]
mod tests;

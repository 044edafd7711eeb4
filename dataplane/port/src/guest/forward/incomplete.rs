//! What a guest left to complete, on its way to another guest: passed on as it is to one that takes it, completed for one
//! that does not.

use net::{Action, HEADER_MAX, Header, Offload, Takes};
use virtqueue::{Cursor, Reservation, Segment, Taken, Virtqueue};

use super::{Fault, Forwarded};
use crate::counters::DropReason;
use crate::guest::Limits;
use crate::guest::complete::Workbench;

/// A receiving guest.
struct Receiver<'a> {
    ring: &'a mut dyn Virtqueue,
    header: &'a mut Header,
    max_chains: u16,
    takes: Takes,
}

/// What became of a frame.
enum Fate {
    /// It is with the receiver, or on the workbench to be cut; or it was dropped, and counted.
    Done,
    /// The receiver has too few buffers for it now.
    Waits,
}

impl Forwarded<'_> {
    /// Does the same as `forward` for a sender that may leave something to complete.
    pub(super) fn forward_incomplete(
        &mut self,
        sender: &mut dyn Virtqueue,
        ring: &mut dyn Virtqueue,
        skip: u32,
        header: &mut Header,
        limits: Limits,
        workbench: &mut Workbench,
    ) -> Result<(), Fault> {
        let config = ring.config();
        let max_chains = if net::mergeable(config.features) { config.size } else { 1 };
        let takes = Takes::to_guest(config.features);
        let mut receiver = Receiver { ring, header, max_chains, takes };
        while self.left(limits) > 0 {
            if !self.deliver_segments(&mut receiver, workbench)? {
                self.short = true;
                return Ok(());
            }
            // The segments may have been more packets than were allowed.
            if self.left(limits) == 0 || sender.available(1).map_err(Fault::Sender)? == 0 {
                return Ok(());
            }
            let Some(Taken { token, len, segments }) = sender.take().map_err(Fault::Sender)? else {
                return Ok(());
            };
            let frame = len.saturating_sub(skip);
            let cost = crate::guest::cost(frame, segments);
            let fate = if limits.takes(frame) {
                self.forward_one(segments, skip as usize, frame, &mut receiver, workbench)
            } else {
                self.count_drop(frame);
                self.bytes += u64::from(frame);
                self.rx.add(frame);
                Ok(Fate::Done)
            };
            match fate {
                Ok(Fate::Done) => {
                    sender.complete(token, 0);
                    self.returned += 1;
                    self.cost += cost;
                }
                Ok(Fate::Waits) => {
                    sender.untake();
                    self.short = true;
                    return Ok(());
                }
                Err(fault) => {
                    sender.untake();
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    fn forward_one(
        &mut self,
        segments: &[Segment],
        skip: usize,
        frame: u32,
        receiver: &mut Receiver<'_>,
        workbench: &mut Workbench,
    ) -> Result<Fate, Fault> {
        let mut offload = [0; Offload::LEN];
        Cursor::new(segments).read(&mut offload);
        let offload = Offload::from_bytes(&offload);
        let mut cursor = Cursor::new(segments);
        cursor.skip(skip);
        if offload.asks_nothing() {
            return self.deliver(receiver, Offload::default(), &[], &mut cursor, frame);
        }
        // What was checked is what goes on, whatever the guest does meanwhile.
        let mut front = [0; HEADER_MAX];
        let front = &mut front[..HEADER_MAX.min(frame as usize)];
        cursor.read(front);
        let Ok(plan) = offload.check(front, frame as usize, workbench.allowed()) else {
            self.drop_frame(DropReason::BadOffload, frame);
            return Ok(Fate::Done);
        };
        if let Action::PassOn(offload) = net::decide(&plan, receiver.takes) {
            return self.deliver(receiver, offload, front, &mut cursor, frame);
        }
        if frame as usize > workbench.room() {
            self.drop_frame(DropReason::Oversize, frame);
            return Ok(Fate::Done);
        }
        match workbench.lay(front, &mut cursor, frame as usize, &plan, receiver.takes) {
            Some(complete) => {
                let piece: &[u8] = complete;
                let mut rest = Cursor::new(&[]);
                self.deliver(receiver, Offload::default(), piece, &mut rest, frame)
            }
            // It is cut from now on, a segment at a time.
            None => Ok(Fate::Done),
        }
    }

    /// Delivers the segments of the frame that is being cut. `false` if there are not enough buffers for the next.
    fn deliver_segments(
        &mut self,
        receiver: &mut Receiver<'_>,
        workbench: &mut Workbench,
    ) -> Result<bool, Fault> {
        while let Some((header, payload, offload)) = workbench.next_segment() {
            let bytes = (header.len() + payload.len()) as u32;
            let taken = receiver.take(bytes)?;
            match taken {
                Reservation::Ready(chains) => {
                    let mut to = receiver.start(offload, chains);
                    to.write(header);
                    to.write(payload);
                    self.delivered(chains, bytes);
                    self.cost += u64::from(bytes);
                }
                Reservation::TooSmall => self.drop_frame(DropReason::GuestBufferTooSmall, bytes),
                Reservation::Short => return Ok(false),
            }
            workbench.segment_done();
        }
        Ok(true)
    }

    /// Delivers a frame of `len` bytes: `front`, and what follows at `rest`.
    fn deliver(
        &mut self,
        receiver: &mut Receiver<'_>,
        offload: Offload,
        front: &[u8],
        rest: &mut Cursor<'_>,
        len: u32,
    ) -> Result<Fate, Fault> {
        match receiver.take(len)? {
            Reservation::Ready(chains) => {
                let mut to = receiver.start(offload, chains);
                to.write(front);
                rest.copy_to(&mut to, len as usize - front.len());
                self.delivered(chains, len);
                Ok(Fate::Done)
            }
            Reservation::TooSmall => {
                self.drop_frame(DropReason::GuestBufferTooSmall, len);
                Ok(Fate::Done)
            }
            Reservation::Short => Ok(Fate::Waits),
        }
    }

    fn delivered(&mut self, chains: u16, bytes: u32) {
        self.packets += 1;
        self.chains += u64::from(chains);
        self.bytes += u64::from(bytes);
        self.rx.add(bytes);
        self.tx.add(bytes);
    }

    fn drop_frame(&mut self, reason: DropReason, bytes: u32) {
        match reason {
            DropReason::BadOffload => self.bad_offload += 1,
            DropReason::Oversize => self.oversize += 1,
            _ => self.too_long += 1,
        }
        self.bytes += u64::from(bytes);
        self.rx.add(bytes);
        self.dropped_bytes += u64::from(bytes);
    }
}

impl Receiver<'_> {
    /// Takes buffers for a frame of `len` bytes.
    fn take(&mut self, len: u32) -> Result<Reservation, Fault> {
        let skip = self.header.len();
        self.ring.reserve(len.saturating_add(skip), skip, self.max_chains).map_err(Fault::Receiver)
    }

    /// Writes the header, and says where the frame goes.
    fn start(&mut self, offload: Offload, chains: u16) -> Cursor<'_> {
        let mut to = Cursor::new(self.ring.segments());
        to.write(&offload.to_bytes());
        to.write(&self.header.spanning(chains)[Offload::LEN..]);
        to
    }
}

//! What goes from ring to ring, or between a ring and a socket, is never in our own memory: while somebody looks, it is
//! copied there first. Then it goes its ordinary way.

use virtqueue::{Cursor, Segment, Violation, Virtqueue};

use super::socket::{self, Refused};
use super::{GuestPair, Limits, Moved, Stop, Turn};
use crate::counters::DropReason;
use crate::socket::{Arrived, MAX_FRAME, SocketPair};

/// Frames copied at a time, at most: as many as a ring takes together.
const MOST: usize = 64;
/// Bytes for them.
const SPACE: usize = 2 * MAX_FRAME;

/// Copies of frames that the guest has sent, and that are still in its ring.
pub struct Frames {
    bytes: Box<[u8]>,
    /// Where each ends in there, and how long it is in the ring: what is longer than any frame is cut.
    ends: Vec<(usize, u32)>,
}

impl Frames {
    /// None.
    pub(crate) fn new() -> Frames {
        Frames { bytes: vec![0; SPACE].into(), ends: Vec::with_capacity(MOST) }
    }

    /// Each of them, and its length in the ring.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        starts.zip(&self.ends).map(|(start, (end, len))| (&self.bytes[start..*end], *len))
    }

    /// Adds the frame of `len` bytes behind a header of `skip` bytes. Whether there was room.
    fn add(&mut self, segments: &[Segment], skip: u32, len: u32) -> bool {
        let start = self.ends.last().map_or(0, |(end, _)| *end);
        let kept = MAX_FRAME.min(len as usize);
        let Some(space) = self.bytes.get_mut(start..start + kept) else { return false };
        let mut cursor = Cursor::new(segments);
        cursor.skip(skip as usize);
        cursor.read(space);
        self.ends.push((start + kept, len));
        true
    }

    /// Copies the frames that a ring takes next, up to `most` of them, and leaves them there.
    fn copy(&mut self, ring: &mut dyn Virtqueue, skip: u32, most: usize) -> Result<(), Violation> {
        self.ends.clear();
        if ring.available(most as u16)? == 0 {
            return Ok(());
        }
        for segment in ring.take_singles(most as u16, skip..=u32::MAX)? {
            if !self.add(std::slice::from_ref(segment), skip, segment.len() as u32 - skip) {
                break;
            }
        }
        ring.return_singles(0);
        if self.ends.is_empty()
            && let Some(taken) = ring.take()?
        {
            self.add(taken.segments, skip, taken.len.saturating_sub(skip));
            ring.untake();
        }
        Ok(())
    }
}

impl GuestPair {
    /// Copies what this guest sends next.
    fn copy_sent(&mut self, frames: &mut Frames, most: usize) {
        let skip = self.from.header.len();
        if let Err(violation) = frames.copy(self.from.ring.as_dyn(), skip, most) {
            self.from.report(&self.name, violation);
        }
    }

    /// [`GuestPair::forward`], of what is in `frames` then. How many of them are gone from the ring.
    pub(crate) fn forward_seen(
        &mut self,
        to: &mut GuestPair,
        limits: Limits,
        frames: &mut Frames,
    ) -> (Moved, usize) {
        // A frame may become many, so these go one by one.
        let cutting = |pair: &GuestPair| {
            pair.workbench.as_ref().is_some_and(|workbench| workbench.next_segment().is_some())
        };
        let most = if self.workbench.is_some() { 1 } else { MOST.min(limits.packets) };
        self.copy_sent(frames, most);
        if frames.ends.is_empty() && !cutting(self) {
            return (Moved::default(), 0);
        }
        let before = self.from.counters.used.get();
        let moved = self.forward(to, Limits { packets: frames.ends.len().max(1), ..limits });
        (moved, (self.from.counters.used.get() - before) as usize)
    }

    /// [`GuestPair::send_to`], shown frame by frame: `see` is also told whether the socket took it.
    pub(crate) fn send_to_seen(
        &mut self,
        socket: &mut SocketPair,
        budget: u64,
        frames: &mut Frames,
        mut see: impl FnMut((&[u8], u32), bool),
    ) -> Turn {
        let mut moved = Moved::default();
        loop {
            self.copy_sent(frames, 1);
            let (used, sent) = (self.from.counters.used.get(), socket.counters.tx.packets.get());
            // A frame costs something: this is one, and none if the guest has sent none.
            let turn = self.send_to(socket, frames.ends.len() as u64);
            moved.add(turn.moved);
            if self.from.counters.used.get() > used {
                let sent = socket.counters.tx.packets.get() > sent;
                frames.iter().for_each(|frame| see(frame, sent));
            }
            let stop = match turn.stop {
                Stop::Budget if frames.ends.is_empty() => Stop::GuestEmpty,
                Stop::Budget if moved.cost < budget => continue,
                stop => stop,
            };
            return Turn { moved, stop };
        }
    }

    /// [`GuestPair::receive_from`], shown frame by frame: each is held before it goes on.
    pub(crate) fn receive_from_seen(
        &mut self,
        socket: &mut SocketPair,
        budget: u64,
        mut see: impl FnMut(&[u8]),
    ) -> Turn {
        let mut moved = Moved::default();
        while moved.cost < budget {
            let cutting = socket.cutter.as_ref().is_some_and(|cutter| cutter.next_segment().is_some());
            if socket.held.is_empty() && !cutting {
                if self.room(1) == 0 {
                    return Turn { moved, stop: self.no_room() };
                }
                match hold(socket) {
                    Ok(true) => see(socket.held.frame()),
                    Ok(false) => {
                        moved.add(Moved { packets: 1, bytes: 0, cost: super::PIECE });
                        continue;
                    }
                    Err(stop) => return Turn { moved, stop },
                }
            }
            let turn = self.receive_from(socket, 1);
            moved.add(turn.moved);
            if turn.stop != Stop::Budget {
                return Turn { moved, stop: turn.stop };
            }
        }
        Turn { moved, stop: Stop::Budget }
    }

    fn no_room(&mut self) -> Stop {
        socket::idle(self.to.ring.as_dyn())
    }
}

/// Reads a frame, all of which is held. `false` if there was one that the kernel did not hand out.
fn hold(socket: &mut SocketPair) -> Result<bool, Stop> {
    match socket.receive_whole() {
        Ok(Arrived::Held) => Ok(true),
        // A frame without a byte.
        Ok(Arrived::Placed { .. }) => {
            socket.counters.dropped(DropReason::Runt, 1);
            Ok(false)
        }
        Err(error) => match socket::refused(&error) {
            Refused::Drop(reason) => {
                socket.counters.rx.add_frame(0);
                socket.counters.dropped(reason, 1);
                Ok(false)
            }
            Refused::Stop(Stop::SocketFull) => Err(Stop::SocketEmpty),
            Refused::Stop(stop) => Err(stop),
        },
    }
}

impl Moved {
    fn add(&mut self, more: Moved) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.cost += more.cost;
    }
}

//! Guest virtqueues <-> a kernel socket: the kernel copies from and to the guest's own buffers.
//!
//! Nothing is taken from either side before the other one has room for it, but for one case: the socket tells a
//! frame's length only by handing it out. One that is longer than the buffers that were held out to it is copied to
//! [`SocketPair::held`], and goes on from there once the guest has posted enough; nothing is read meanwhile.
#![allow(unsafe_code)] // the kernel is told where in guest memory it may read and write

use std::io;

use net::{Header, Takes};
use nix::libc::{EFAULT, EIO};
use virtqueue::{Cursor, Notifier, Reservation, Segment, Taken, Violation, Virtqueue, iovecs};

use super::{GuestPair, Moved, Side};
use crate::counters::{DropReason, RingCounters, Sizes};
use crate::socket::{Arrived, Fault, HEADER_LEN, MAX_FRAME, SocketPair};
use offload::{Bytes, Checksum, Passage};

mod offload;

/// Chains returned that are published together.
const BATCH: u64 = 64;
/// Room for most frames, in bytes: so much is looked for in the guest's ring, as long as no frame is longer.
const ORDINARY: usize = 4096;
/// So many frames after a longer one, there is room for any.
const AFTER_LONG: u8 = 64;

/// What a turn came to, and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What was done with: sent on or dropped.
    pub moved: Moved,
    /// Why no more.
    pub stop: Stop,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is spent.
    Budget,
    /// The guest has sent nothing more, or posted no or not enough receive buffers.
    GuestEmpty,
    /// The socket takes no more for now; it says when it does.
    SocketFull,
    /// The socket has nothing more for now; it says when it has.
    SocketEmpty,
    /// The socket does not work, with this errno: its interface is down or gone, or the kernel is short of memory
    /// (ENOBUFS, ENOMEM). Nothing was lost; whether it works again is found out by trying again after a while.
    SocketFailed(i32),
    /// The guest broke the rules, and its ring is stopped.
    Broken,
}

/// What became of one frame that is not sent on.
pub(super) enum Refused {
    /// It is done with.
    Drop(DropReason),
    /// It stays where it is.
    Stop(Stop),
}

/// What has happened in a turn so far.
struct Progress<'a> {
    /// Where the guest's frames are counted: those it sent, or those it was delivered.
    sizes: &'a Sizes,
    /// Done with: sent on or dropped.
    moved: Moved,
    /// Delivered to the guest, and their bytes.
    delivered: (u64, u64),
    /// Returned to the guest, and not published.
    chains: u64,
    /// How many more frames are expected to be as long as any.
    long: u8,
}

impl GuestPair {
    /// Hands what the guest sent to `socket`, until that has cost `budget` (see [`Moved::cost`]). What the socket
    /// does not take stays with the guest.
    pub fn send_to(&mut self, socket: &mut SocketPair, budget: u64) -> Turn {
        let mut progress = Progress::new(&self.counters.rx.sizes);
        let Side { ring, header, counters, .. } = &mut self.from;
        let ring = ring.as_dyn();
        let outcome = progress.send(ring, header.len(), socket, budget, counters, |reason| {
            self.counters.dropped(reason, 1);
        });
        progress.publish(ring, counters);
        if progress.moved.packets > 0 {
            self.counters.rx.add(progress.moved.packets, progress.moved.bytes);
        }
        let stop = outcome.unwrap_or_else(|violation| {
            self.from.report(&self.name, violation);
            Stop::Broken
        });
        Turn { moved: progress.moved, stop }
    }

    /// Hands what `socket` has received to the guest, until that has cost `budget` (see [`Moved::cost`]). Without
    /// receive buffers the socket is not read.
    pub fn receive_from(&mut self, socket: &mut SocketPair, budget: u64) -> Turn {
        let Side { ring, header, counters, long, .. } = &mut self.to;
        let mut progress = Progress { long: *long, ..Progress::new(&self.counters.tx.sizes) };
        let ring = ring.as_dyn();
        let outcome = progress.receive(ring, header, socket, budget, counters);
        progress.publish(ring, counters);
        *long = progress.long;
        if progress.delivered.0 > 0 {
            self.counters.tx.add(progress.delivered.0, progress.delivered.1);
        }
        let stop = outcome.unwrap_or_else(|violation| {
            self.to.report(&self.name, violation);
            Stop::Broken
        });
        Turn { moved: progress.moved, stop }
    }

    /// Asks the guest for a kick when it sends, and says whether it has already, and would not kick for that.
    pub fn wait_for_sent(&mut self) -> bool {
        let ring = self.from.ring.as_dyn();
        ring.set_kicks(true);
        ring.seen() > 0 || ring.has_news()
    }

    /// Asks the guest for a kick when it posts receive buffers, and says whether it has already, and would not kick
    /// for that. (Buffers that were there before, and were too few, do not count.)
    pub fn wait_for_room(&mut self) -> bool {
        let ring = self.to.ring.as_dyn();
        ring.set_kicks(true);
        ring.has_news()
    }

    /// No kicks when the guest sends: it will be looked at.
    pub fn poll_sent(&mut self) {
        self.from.ring.as_dyn().set_kicks(false);
    }

    /// No kicks when the guest posts receive buffers: it will be looked at.
    pub fn poll_room(&mut self) {
        self.to.ring.as_dyn().set_kicks(false);
    }

    /// The kick eventfds: of the ring the guest sends on, and of the one it receives on.
    pub fn kicks(&self) -> [Option<&Notifier>; 2] {
        [&self.from, &self.to].map(|side| side.ring.config().kick.as_ref())
    }

    /// The counters of the rings that they are for.
    pub fn kicked(&self) -> [&RingCounters; 2] {
        [&self.from, &self.to].map(|side| &**side.counters)
    }
}

impl<'a> Progress<'a> {
    fn new(sizes: &'a Sizes) -> Progress<'a> {
        Progress { sizes, moved: Moved::default(), delivered: (0, 0), chains: 0, long: 0 }
    }

    /// Counts a frame that is done with.
    fn done(&mut self, bytes: usize, cost: u64) {
        self.moved.packets += 1;
        self.moved.bytes += bytes as u64;
        self.moved.cost += cost;
    }

    fn publish(&mut self, ring: &mut dyn Virtqueue, counters: &RingCounters) {
        counters.published(self.chains, ring.publish());
        self.chains = 0;
    }

    fn publish_batch(&mut self, ring: &mut dyn Virtqueue, counters: &RingCounters) {
        if self.chains >= BATCH {
            self.publish(ring, counters);
        }
    }

    /// Takes chains, with a header of `skip` bytes each, and sends their frames.
    fn send(
        &mut self,
        ring: &mut dyn Virtqueue,
        skip: u32,
        socket: &mut SocketPair,
        budget: u64,
        counters: &RingCounters,
        dropped: impl Fn(DropReason),
    ) -> Result<Stop, Violation> {
        let allowed = Takes::from_guest(ring.config().features);
        while self.moved.cost < budget {
            if ring.available(1)? == 0 {
                return Ok(idle(ring));
            }
            let Some(Taken { token, len, segments }) = ring.take()? else {
                return Ok(idle(ring));
            };
            let frame = len.saturating_sub(skip);
            let cost = super::cost(frame, segments);
            match send_frame(socket, segments, skip as usize, frame as usize, allowed) {
                Ok(()) => {}
                Err(Refused::Drop(reason)) => dropped(reason),
                Err(Refused::Stop(stop)) => {
                    ring.untake();
                    return Ok(stop);
                }
            }
            ring.complete(token, 0);
            self.chains += 1;
            self.sizes.add(frame);
            self.done(frame as usize, cost);
            self.publish_batch(ring, counters);
        }
        Ok(Stop::Budget)
    }

    /// Reads frames into the guest's buffers, each behind `header`.
    fn receive(
        &mut self,
        ring: &mut dyn Virtqueue,
        header: &mut Header,
        socket: &mut SocketPair,
        budget: u64,
        counters: &RingCounters,
    ) -> Result<Stop, Violation> {
        let config = ring.config();
        let max_chains = if net::mergeable(config.features) { config.size } else { 1 };
        let skip = header.len();
        while self.moved.cost < budget {
            self.publish_batch(ring, counters);
            if socket.cutter.as_ref().is_some_and(|cutter| cutter.next_segment().is_some()) {
                if !self.deliver_segment(ring, header, socket, max_chains)? {
                    return Ok(idle(ring));
                }
                continue;
            }
            if !socket.held.is_empty() {
                if !self.deliver_held(ring, header, socket, max_chains)? {
                    return Ok(idle(ring));
                }
                continue;
            }
            let most = if self.long > 0 { MAX_FRAME } else { ORDINARY };
            if ring.offer(skip + most as u32, skip, max_chains)?.chains == 0 {
                return Ok(idle(ring));
            }
            let room = iovecs(ring.segments(), skip as usize, MAX_FRAME);
            // SAFETY: the ring lends its segments, mapped and writable, until it is used again.
            match unsafe { socket.receive(room) } {
                Ok(Arrived::Placed { header: from, len }) => {
                    self.expect_like(len);
                    self.placed(ring, header, socket, &from, len);
                }
                Ok(Arrived::Held) => {
                    self.expect_like(socket.held.frame().len());
                    ring.decline();
                }
                Err(error) => match refused(&error) {
                    Refused::Drop(reason) => {
                        if error.raw_os_error() == Some(EFAULT) {
                            touch(ring.segments());
                        }
                        ring.decline();
                        socket.counters.rx.add_frame(0);
                        socket.counters.dropped(reason, 1);
                        self.done(0, super::PIECE);
                    }
                    Refused::Stop(stop) => {
                        ring.decline();
                        return Ok(if stop == Stop::SocketFull { Stop::SocketEmpty } else { stop });
                    }
                },
            }
        }
        Ok(Stop::Budget)
    }

    /// Long frames come in trains. (Room for one is many chains to walk, and to tell the kernel of, for each frame.)
    fn expect_like(&mut self, len: usize) {
        self.long = if len > ORDINARY { AFTER_LONG } else { self.long.saturating_sub(1) };
    }

    /// A frame of `len` bytes is in the chains offered, behind where `header` goes; the kernel's own is `from`.
    fn placed(
        &mut self,
        ring: &mut dyn Virtqueue,
        header: &mut Header,
        socket: &mut SocketPair,
        from: &Bytes,
        len: usize,
    ) {
        let skip = header.len() as usize;
        let passed = offload::to_guest(from, len, Takes::to_guest(ring.config().features), |front| {
            let mut cursor = Cursor::new(ring.segments());
            cursor.skip(skip);
            cursor.read(front)
        });
        match passed {
            Ok(Passage::Whole(passed, checksum)) => {
                let chains = ring.accept(header.len() + len as u32);
                self.delivered(ring.segments(), header.spanning(chains), (passed, checksum), chains, len);
            }
            // It is looked at again where the guest cannot change it.
            Ok(Passage::Cut(_)) => {
                socket.hold(from, len, |frame| {
                    let mut cursor = Cursor::new(ring.segments());
                    cursor.skip(skip);
                    cursor.read(frame);
                });
                ring.decline();
            }
            Err(reason) => {
                ring.decline();
                socket.counters.dropped(reason, 1);
                self.done(len, super::PIECE.max(len as u64));
            }
        }
    }

    /// Copies the frame that is held into the guest's buffers, or drops it if the guest can never take it. `false` if
    /// it has to wait for more buffers.
    fn deliver_held(
        &mut self,
        ring: &mut dyn Virtqueue,
        header: &mut Header,
        socket: &mut SocketPair,
        max_chains: u16,
    ) -> Result<bool, Violation> {
        let (frame, skip) = (socket.held.frame(), header.len());
        let len = frame.len();
        let takes = Takes::to_guest(ring.config().features);
        let passed = offload::to_guest(socket.held.header(), len, takes, |front| {
            let known = len.min(front.len());
            front[..known].copy_from_slice(&frame[..known]);
            known
        });
        let dropped = match passed {
            Err(reason) => reason,
            Ok(Passage::Cut(plan)) => {
                socket.cut_held(&plan, takes);
                return Ok(true);
            }
            Ok(Passage::Whole(passed, checksum)) => {
                match ring.reserve(skip + len as u32, skip, max_chains)? {
                    Reservation::Short => return Ok(false),
                    Reservation::TooSmall => DropReason::GuestBufferTooSmall,
                    Reservation::Ready(chains) => {
                        let mut cursor = Cursor::new(ring.segments());
                        cursor.skip(skip as usize);
                        cursor.write(frame);
                        let passed = (passed, checksum);
                        self.delivered(ring.segments(), header.spanning(chains), passed, chains, len);
                        socket.release_held();
                        return Ok(true);
                    }
                }
            }
        };
        socket.drop_held(dropped);
        self.done(len, super::PIECE.max(len as u64));
        Ok(true)
    }

    /// Delivers the next segment of the frame that is being cut. `false` if there are not enough buffers for it.
    fn deliver_segment(
        &mut self,
        ring: &mut dyn Virtqueue,
        header: &mut Header,
        socket: &mut SocketPair,
        max_chains: u16,
    ) -> Result<bool, Violation> {
        let SocketPair { cutter: Some(cutter), counters: socket_counters, .. } = socket else {
            return Ok(true);
        };
        let Some((head, payload, offload)) = cutter.next_segment() else { return Ok(true) };
        let (skip, len) = (header.len(), head.len() + payload.len());
        match ring.reserve(skip + len as u32, skip, max_chains)? {
            Reservation::Short => return Ok(false),
            Reservation::TooSmall => {
                socket_counters.dropped(DropReason::GuestBufferTooSmall, 1);
                self.done(len, super::PIECE.max(len as u64));
            }
            Reservation::Ready(chains) => {
                let mut cursor = Cursor::new(ring.segments());
                cursor.skip(skip as usize);
                cursor.write(head);
                cursor.write(payload);
                let passed = (offload.to_bytes(), None);
                self.delivered(ring.segments(), header.spanning(chains), passed, chains, len);
            }
        }
        // The frame was counted when it was read: as the first.
        if !cutter.is_first() {
            socket_counters.rx.packets.add(1);
            socket_counters.rx.bytes.add(head.len() as u64);
            socket_counters.rx.sizes.add(len as u32);
        }
        cutter.segment_done();
        Ok(true)
    }

    /// A frame of `len` bytes is in `segments`, which are `chains` chains. What it still needs is in front of it:
    /// `header`, but for what it asks for, which is `passed`; and its checksum.
    fn delivered(
        &mut self,
        segments: &[Segment],
        header: &[u8],
        (passed, checksum): (Bytes, Option<Checksum>),
        chains: u16,
        len: usize,
    ) {
        if let Some(checksum) = checksum {
            offload::complete(segments, header.len(), len, checksum);
        }
        let mut cursor = Cursor::new(segments);
        cursor.write(&passed);
        cursor.write(&header[HEADER_LEN..]);
        self.chains += u64::from(chains);
        self.delivered.0 += 1;
        self.delivered.1 += len as u64;
        self.sizes.add(len as u32);
        let filled = iovecs(segments, 0, header.len() + len).count();
        self.done(len, super::cost(len as u32, &segments[..filled]));
    }
}

/// Sends the frame of `frame` bytes that is behind a header of `skip` bytes in `segments`.
fn send_frame(
    socket: &mut SocketPair,
    segments: &[Segment],
    skip: usize,
    frame: usize,
    allowed: Takes,
) -> Result<(), Refused> {
    if frame < net::MIN_FRAME as usize {
        return Err(Refused::Drop(DropReason::Runt));
    }
    if frame > MAX_FRAME {
        return Err(Refused::Drop(DropReason::Oversize));
    }
    let header = offload::from_guest(segments, skip, frame, allowed).map_err(Refused::Drop)?;
    // SAFETY: the ring lends its segments, mapped, until it is used again.
    let sent = unsafe { socket.send(&header, iovecs(segments, skip, frame)) };
    match sent {
        Err(error) if error.raw_os_error() == Some(EFAULT) => {
            send_copy(socket, segments, skip, frame, &header)
        }
        sent => sent,
    }
    .map_err(|error| refused(&error))
}

/// The kernel could not read the guest's memory: the frontend has truncated the file behind it. Reading it here
/// raises the SIGBUS by which the frontend's session ends; what is found in its place is sent.
#[cold]
fn send_copy(
    socket: &mut SocketPair,
    segments: &[Segment],
    skip: usize,
    frame: usize,
    header: &Bytes,
) -> io::Result<()> {
    let mut copy = vec![0; frame];
    let mut cursor = Cursor::new(segments);
    cursor.skip(skip);
    cursor.read(&mut copy);
    let piece = nix::libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: frame };
    // SAFETY: all of a vector that lives on.
    unsafe { socket.send(header, [piece]) }
}

/// Reads all the kernel could have written to, for the same reason.
#[cold]
fn touch(segments: &[Segment]) {
    let (mut cursor, mut bytes) = (Cursor::new(segments), vec![0; MAX_FRAME]);
    cursor.read(&mut bytes);
}

/// What becomes of a frame that the kernel did not take or give.
pub(super) fn refused(error: &io::Error) -> Refused {
    match Fault::of(error) {
        Fault::Again => Refused::Stop(Stop::SocketFull),
        Fault::Frame => Refused::Drop(DropReason::SocketError),
        Fault::Later | Fault::Down | Fault::Gone => {
            Refused::Stop(Stop::SocketFailed(error.raw_os_error().unwrap_or(EIO)))
        }
    }
}

/// Why there is nothing to take.
pub(super) fn idle(ring: &dyn Virtqueue) -> Stop {
    if ring.violation().is_some() { Stop::Broken } else { Stop::GuestEmpty }
}

#[cfg(test)]
mod tests;

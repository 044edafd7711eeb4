//! Socket -> guest: the kernel puts frames into the buffers that the guest has posted.
#![allow(unsafe_code)] // the kernel is told where in guest memory it may write

use net::{Header, Takes};
use nix::libc::EFAULT;
use virtqueue::{Cursor, Reservation, Segment, Violation, Virtqueue, iovecs};

use super::offload::{self, Bytes, Checksum, Passage};
use super::{Progress, Refused, Stop, idle, refused};
use crate::counters::{DropReason, RingCounters};
use crate::guest::{PIECE, cost};
use crate::socket::{Arrived, HEADER_LEN, MAX_FRAME, SocketPair};

/// Room for most frames, in bytes: so much is looked for in the guest's ring, as long as no frame is longer.
pub(super) const ORDINARY: usize = 4096;
/// So many frames after a longer one, there is room for any.
const AFTER_LONG: u8 = 64;

impl Progress<'_> {
    /// Reads frames into the guest's buffers, each behind `header`.
    pub(super) fn receive(
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
                        self.done(0, PIECE);
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
                self.done(len, PIECE.max(len as u64));
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
        self.done(len, PIECE.max(len as u64));
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
                self.done(len, PIECE.max(len as u64));
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
        self.done(len, cost(len as u32, &segments[..filled]));
    }
}

/// Reads all the kernel could have written to, for the same reason.
#[cold]
fn touch(segments: &[Segment]) {
    let (mut cursor, mut bytes) = (Cursor::new(segments), vec![0; MAX_FRAME]);
    cursor.read(&mut bytes);
}

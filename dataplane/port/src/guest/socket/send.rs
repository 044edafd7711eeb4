//! Guest -> socket: the kernel takes frames out of the guest's buffers.
#![allow(unsafe_code)] // the kernel is told where in guest memory it may read

use std::io;

use net::Takes;
use nix::libc::EFAULT;
use virtqueue::{Cursor, Segment, Taken, Violation, Virtqueue, iovecs};

use super::offload::{self, Bytes};
use super::{Progress, Refused, Stop, idle, refused};
use crate::counters::{DropReason, RingCounters};
use crate::guest::cost;
use crate::socket::{MAX_FRAME, SocketPair};

impl Progress<'_> {
    /// Takes chains, with a header of `skip` bytes each, and sends their frames.
    pub(super) fn send(
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
            let cost = cost(frame, segments);
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

//! One queue pair of a socket port: reads and writes whole frames, straight in guest memory.
#![allow(unsafe_code)] // the kernel reads and writes guest memory, which is raw pointers to us

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use net::{Plan, Takes};
use nix::errno::Errno;
use nix::libc::{self, iovec};
use virtio_bindings::virtio_net::VIRTIO_NET_HDR_F_NEEDS_CSUM;
use virtqueue::Cursor;

use super::{HEADER_LEN, MAX_FRAME, SocketKind, offloads, raw, tap};
use crate::counters::{DropReason, PairCounters, Shared};
use crate::guest::complete::Workbench;

/// Pieces that one system call takes (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;
/// Where in a frame a VLAN tag is: behind both addresses. And its length.
const TAG_AT: usize = 12;
const TAG_LEN: usize = 4;
const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
/// More than a queue in the kernel has: a tap's 1000 by default, a raw socket's memory full of the shortest frames.
const DISCARD_AT_MOST: u64 = 16384;

/// Room for one frame that was read and cannot go on yet.
pub struct Held {
    header: [u8; HEADER_LEN],
    /// One byte more than a frame can have, to tell one that is longer still.
    frame: Box<[u8]>,
    len: usize,
}

impl Held {
    fn new() -> Held {
        Held { header: [0; HEADER_LEN], frame: vec![0; MAX_FRAME + 1].into(), len: 0 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frame, without header; empty if there is none.
    pub fn frame(&self) -> &[u8] {
        &self.frame[..self.len]
    }

    /// The virtio-net header of the frame.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// Puts a VLAN tag where it belongs, and moves on what the header says about places behind it.
    fn insert_tag(&mut self, tag: [u8; TAG_LEN]) {
        self.frame.copy_within(TAG_AT..self.len, TAG_AT + TAG_LEN);
        self.frame[TAG_AT..TAG_AT + TAG_LEN].copy_from_slice(&tag);
        self.len += TAG_LEN;
        let [flags, _, hdr_len_low, hdr_len_high, _, _, start_low, start_high, _, _] = &mut self.header;
        let move_on = |low: &mut u8, high: &mut u8| {
            [*low, *high] = (u16::from_le_bytes([*low, *high]).saturating_add(TAG_LEN as u16)).to_le_bytes();
        };
        if (*hdr_len_low, *hdr_len_high) != (0, 0) {
            move_on(hdr_len_low, hdr_len_high);
        }
        if *flags & NEEDS_CSUM != 0 {
            move_on(start_low, start_high);
        }
    }
}

/// Where a frame that was read is now.
#[derive(Debug)]
pub enum Arrived {
    /// In the pieces given, from their first byte on.
    Placed {
        /// Its virtio-net header.
        header: [u8; HEADER_LEN],
        /// Its bytes, without header.
        len: usize,
    },
    /// In [`SocketPair::held`], all of it: it is longer than the pieces, or had to be rewritten (a raw socket's
    /// VLAN tag). What the pieces have in them now means nothing.
    Held,
}

/// What an error of [`SocketPair::send`] or [`SocketPair::receive`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The socket is full (send) or empty (receive): epoll says when to try again.
    Again,
    /// Momentary: out of memory or interrupted. Try again later; nothing is lost.
    Later,
    /// This one frame is refused: too long for the interface, or its header asks for what cannot be. One that was
    /// to be received is lost.
    Frame,
    /// The interface is down, or has just been: try again when it is up.
    Down,
    /// The interface is no more, or the descriptor is of no more use.
    Gone,
}

impl Fault {
    /// What `error` means.
    pub fn of(error: &io::Error) -> Fault {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Fault::Again,
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EINTR) => Fault::Later,
            // A raw socket says so once, and on sending; a tap (EIO) on sending.
            Some(libc::ENETDOWN | libc::EIO) => Fault::Down,
            // A tap that was detached; a raw socket whose interface was removed; a macvtap's file.
            Some(libc::EBADFD | libc::EBADF | libc::ENXIO | libc::ENODEV | libc::ENOLINK) => Fault::Gone,
            _ => Fault::Frame,
        }
    }
}

/// The pieces of one call. Kept for their memory alone.
struct Pieces(Vec<iovec>);

// SAFETY: between two calls there are no pieces in it, and what they point to is not owned.
unsafe impl Send for Pieces {}

/// One queue pair of a socket port: a value with one owner.
pub struct SocketPair {
    /// Pair number.
    pub index: u16,
    /// What it is.
    pub kind: SocketKind,
    /// A frame that was read and that the guest has had no room for yet. Counted in `rx_held`.
    pub held: Held,
    /// A frame that is being cut into segments for the guest.
    pub(crate) cutter: Option<Box<Workbench>>,
    /// The pair's counters: `rx` is what was read, `tx` what was written. Counted here, by [`SocketPair::receive`]
    /// and [`SocketPair::send`], where they succeed.
    pub counters: Shared<PairCounters>,
    fd: Arc<OwnedFd>,
    pieces: Pieces,
    /// As last seen by the control side.
    pub(super) link_up: Arc<AtomicBool>,
}

impl SocketPair {
    /// A pair on an interface that is up.
    pub(crate) fn new(
        index: u16,
        kind: SocketKind,
        fd: Arc<OwnedFd>,
        counters: Shared<PairCounters>,
    ) -> SocketPair {
        let (pieces, link_up) = (Pieces(Vec::with_capacity(MAX_PIECES)), Arc::new(true.into()));
        SocketPair { index, kind, held: Held::new(), cutter: None, counters, fd, pieces, link_up }
    }

    /// What to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads one frame into the first bytes of `pieces`, its header beside it. What does not fit them is in
    /// [`SocketPair::held`], which must be empty before. Never blocks; see [`Fault`] for what an error means.
    ///
    /// # Safety
    /// Each piece must be mapped and writable for the duration of the call.
    pub unsafe fn receive(&mut self, pieces: impl IntoIterator<Item = iovec>) -> io::Result<Arrived> {
        debug_assert!(self.held.is_empty());
        let Held { header, frame, .. } = &mut self.held;
        let iov = &mut self.pieces.0;
        iov.push(piece(header));
        // Room for the header, and behind them for all that they have no room for.
        iov.extend(pieces.into_iter().take(MAX_PIECES - 2));
        iov.push(piece(frame));
        // SAFETY: the header and the frame's room are our own, and the caller vouches for the other pieces.
        let read = unsafe { read(self.kind, self.fd.as_fd(), iov) };
        // SAFETY: as just before; the first piece and the last are left out.
        let arrived = read.and_then(|(len, tag)| unsafe { self.arrived(len, tag) });
        self.pieces.0.clear();
        arrived
    }

    /// Reads one frame into [`SocketPair::held`], which must be empty before; as [`SocketPair::receive`] otherwise.
    pub fn receive_whole(&mut self) -> io::Result<Arrived> {
        // SAFETY: there are no pieces.
        unsafe { self.receive([]) }
    }

    /// A message of `len` bytes is in the pieces.
    ///
    /// # Safety
    /// As long as those of [`SocketPair::receive`] are mapped.
    unsafe fn arrived(&mut self, len: usize, tag: Option<[u8; TAG_LEN]>) -> io::Result<Arrived> {
        let [_, pieces @ .., _] = self.pieces.0.as_slice() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let len = len.checked_sub(HEADER_LEN).ok_or(io::ErrorKind::InvalidData)?;
        let longest = if tag.is_some() { MAX_FRAME - TAG_LEN } else { MAX_FRAME };
        if len > longest {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let room: usize = pieces.iter().map(|piece| piece.iov_len).sum();
        if len <= room && tag.is_none() {
            self.counters.rx.add_frame(len);
            return Ok(Arrived::Placed { header: self.held.header, len });
        }
        let frame = &mut self.held.frame;
        frame.copy_within(..len.saturating_sub(room), room.min(len));
        // SAFETY: the caller's pieces.
        unsafe { gather(pieces, &mut frame[..room.min(len)]) };
        self.held.len = len;
        if let Some(tag) = tag.filter(|_| len >= TAG_AT) {
            self.held.insert_tag(tag);
        }
        self.counters.rx.add_frame(self.held.len);
        self.counters.rx_held.set(1);
        Ok(Arrived::Held)
    }

    /// Writes one frame, `header` in front. Never blocks; see [`Fault`] for what an error means. While the interface
    /// is known to let nothing pass, nothing is written: without a carrier the kernel takes frames and drops them.
    ///
    /// # Safety
    /// Each piece must be mapped and readable for the duration of the call.
    pub unsafe fn send(
        &mut self,
        header: &[u8; HEADER_LEN],
        pieces: impl IntoIterator<Item = iovec>,
    ) -> io::Result<()> {
        if !self.link_up.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        let mut header = *header;
        let iov = &mut self.pieces.0;
        iov.push(piece(&mut header));
        iov.extend(pieces);
        let len: usize = iov[1..].iter().map(|piece| piece.iov_len).sum();
        let mut rest = Vec::new();
        if iov.len() > MAX_PIECES && len <= MAX_FRAME {
            // Only somebody who wants to see what happens sends a frame in so many pieces.
            let too_many = iov.split_off(MAX_PIECES - 1);
            rest.resize(too_many.iter().map(|piece| piece.iov_len).sum(), 0);
            // SAFETY: the caller vouches for them.
            unsafe { gather(&too_many, &mut rest) };
            iov.push(piece(&mut rest));
        }
        // SAFETY: the header and the rest are our own, and the caller vouches for the other pieces.
        let written = unsafe { libc::writev(self.fd.as_raw_fd(), iov.as_ptr(), iov.len() as libc::c_int) };
        iov.clear();
        Errno::result(written)?;
        self.counters.tx.add_frame(len);
        Ok(())
    }

    /// Lets go of the frame in `held`: it went on.
    pub fn release_held(&mut self) {
        self.held.len = 0;
        self.counters.rx_held.set(0);
    }

    /// Keeps a frame of `len` bytes that was read, and counted, already; `read` writes it.
    pub(crate) fn hold(&mut self, header: &[u8; HEADER_LEN], len: usize, read: impl FnOnce(&mut [u8])) {
        self.held.header = *header;
        self.held.len = len;
        read(&mut self.held.frame[..len]);
        self.counters.rx_held.set(1);
    }

    /// Cuts the frame in `held` into segments from now on.
    pub(crate) fn cut_held(&mut self, plan: &Plan, takes: Takes) {
        let cutter = self.cutter.get_or_insert_with(|| Box::new(Workbench::for_socket()));
        let frame = self.held.frame();
        cutter.lay(frame, &mut Cursor::new(&[]), frame.len(), plan, takes);
        self.release_held();
    }

    /// Drops what is held, if anything is, under `reason`.
    pub fn drop_held(&mut self, reason: DropReason) {
        if let Some(cutter) = &mut self.cutter {
            let first = cutter.is_first();
            let rx = &self.counters.rx;
            // The first was counted when the frame was read.
            if first {
                cutter.undelivered(|_| {});
                self.counters.dropped(reason, 1);
            } else {
                let (packets, bytes) = cutter.undelivered(|len| rx.sizes.add(len));
                rx.packets.add(packets);
                rx.bytes.add(bytes);
                self.counters.dropped(reason, packets);
            }
        }
        if !self.held.is_empty() {
            self.counters.dropped(reason, 1);
            self.release_held();
        }
    }

    /// Tells the kernel what the guest may receive, by the virtio features that it acknowledged. All queues of a tap
    /// have that in common. (A raw socket's frames are as the interface hands them out.)
    pub fn set_offloads(&mut self, features: u64) -> io::Result<()> {
        if self.kind == SocketKind::Raw {
            return Ok(());
        }
        let wanted = offloads::accepted(features);
        match tap::set_offloads(self.fd(), wanted) {
            // Before 6.2 there was no segmentation of UDP.
            Err(Errno::EINVAL) => Ok(tap::set_offloads(self.fd(), wanted & !offloads::UDP_SEGMENTATION)?),
            other => Ok(other?),
        }
    }

    /// Reads and throws away what has queued up while nobody used the pair, at most a queue's length; how many.
    /// Counted as read, and as dropped under [`DropReason::NotConnected`].
    pub fn discard(&mut self) -> u64 {
        self.drop_held(DropReason::NotConnected);
        for discarded in 0..DISCARD_AT_MOST {
            match self.receive_whole() {
                Ok(_) => self.drop_held(DropReason::NotConnected),
                Err(error) if Fault::of(&error) == Fault::Frame => {
                    self.counters.rx.add_frame(0);
                    self.counters.dropped(DropReason::NotConnected, 1);
                }
                Err(_) => return discarded,
            }
        }
        DISCARD_AT_MOST
    }
}

fn piece(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// Reads one message: its length, and the VLAN tag that is missing in it. (A tap's frames have theirs.)
///
/// # Safety
/// Each piece must be mapped and writable.
unsafe fn read(
    kind: SocketKind,
    fd: BorrowedFd<'_>,
    pieces: &[iovec],
) -> io::Result<(usize, Option<[u8; TAG_LEN]>)> {
    if kind == SocketKind::Raw {
        // SAFETY: the caller's pieces.
        return unsafe { raw::receive(fd, pieces) };
    }
    // SAFETY: the caller's pieces.
    let len = unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
    Ok((Errno::result(len)? as usize, None))
}

/// Copies the first bytes of `pieces`, as many as fit.
///
/// # Safety
/// Each piece must be mapped.
unsafe fn gather(pieces: &[iovec], mut to: &mut [u8]) {
    for piece in pieces {
        let (now, later) = to.split_at_mut(piece.iov_len.min(to.len()));
        // SAFETY: the piece has so many bytes, and guest memory and our own do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(piece.iov_base.cast(), now.as_mut_ptr(), now.len()) };
        to = later;
    }
}

#[cfg(test)]
mod tests;

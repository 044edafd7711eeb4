//! What a virtio-net header asks for, between a guest and the kernel: only what was negotiated passes, and only if the
//! frame allows it (see [`net`]).

use net::{Action, HEADER_MAX, MIN_FRAME, Offload, Plan, Sum, Takes};
use virtqueue::{Cursor, Segment};

use crate::counters::DropReason;
use crate::socket::HEADER_LEN;

/// A header without the number of buffers, little endian.
pub(super) type Bytes = [u8; HEADER_LEN];

/// A checksum that the guest would not complete by itself: of the frame's bytes from `start` on, to be written at `at`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checksum {
    start: usize,
    at: usize,
}

/// The header for the kernel, of a frame of `len` bytes behind a header of `skip` bytes, which a guest sent that may
/// leave so much to do. (The guest may change the frame yet: the kernel checks once more.)
pub(super) fn from_guest(
    segments: &[Segment],
    skip: usize,
    len: usize,
    allowed: Takes,
) -> Result<Bytes, DropReason> {
    let mut header = [0; HEADER_LEN];
    Cursor::new(segments).read(&mut header);
    let offload = Offload::from_bytes(&header);
    if allowed.is_nothing() || offload.asks_nothing() {
        return Ok([0; HEADER_LEN]);
    }
    let mut front = [0; HEADER_MAX];
    let mut cursor = Cursor::new(segments);
    cursor.skip(skip);
    let known = cursor.read(&mut front);
    let plan = offload.check(&front[..known], len, allowed).map_err(|_| DropReason::BadOffload)?;
    Ok(plan.offload().to_bytes())
}

/// How a guest gets a frame from the kernel.
#[derive(Debug)]
pub(super) enum Passage {
    /// Behind this header, once the checksum is completed.
    Whole(Bytes, Option<Checksum>),
    /// In segments.
    Cut(Plan),
}

/// How a guest that takes so much gets a frame of `len` bytes which came from the kernel behind `header`; or why it
/// does not get it. `front` reads the frame's first bytes.
pub(super) fn to_guest(
    header: &Bytes,
    len: usize,
    takes: Takes,
    front: impl FnOnce(&mut [u8]) -> usize,
) -> Result<Passage, DropReason> {
    if len < MIN_FRAME as usize {
        return Err(DropReason::Runt);
    }
    let offload = Offload::from_bytes(header);
    let mut bytes = [0; HEADER_MAX];
    let known = if offload.asks_nothing() { 0 } else { front(&mut bytes) };
    let plan = offload.check(&bytes[..known], len, Takes::ALL).map_err(|_| DropReason::BadOffload)?;
    match net::decide(&plan, takes) {
        Action::PassOn(offload) => Ok(Passage::Whole(offload.to_bytes(), None)),
        Action::Checksum(checksum) => {
            let start = plan.offload().csum_start.into();
            Ok(Passage::Whole([0; HEADER_LEN], Some(Checksum { start, at: checksum.at() })))
        }
        Action::Segment { .. } => Ok(Passage::Cut(plan)),
    }
}

/// Completes the checksum of a frame of `len` bytes that is behind the first `skip` in `segments`.
pub(super) fn complete(segments: &[Segment], skip: usize, len: usize, checksum: Checksum) {
    let mut cursor = Cursor::new(segments);
    cursor.skip(skip + checksum.start);
    let (mut piece, mut left, mut sum) = ([0; 2048], len - checksum.start, Sum::default());
    while left > 0 {
        let n = left.min(piece.len());
        cursor.read(&mut piece[..n]);
        sum.add(&piece[..n]);
        left -= n;
    }
    // To UDP, 0 says that there is none; to the others both are the same.
    let value = match !sum.fold() {
        0 => 0xffff,
        value => value,
    };
    let mut cursor = Cursor::new(segments);
    cursor.skip(skip + checksum.at);
    cursor.write(&value.to_be_bytes());
}

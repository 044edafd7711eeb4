//! The measured process: one kind of work after the other, each on one frame, again and again.
//!
//! valgrind is told to count while [`counted_call`] runs, and to write out what it counted at [`part_done`].

use std::hint::black_box;

use net::{Action, HEADER_MAX, Offload, Plan, Segments, Sum, Takes, decide};
use ringwire_bench::Failure;
use ringwire_bench::callgrind::{counted_call, part_done};
use serde::{Deserialize, Serialize};

use crate::frame::{Kind, frame};

/// Before counting: by then the frame is in the caches, and the processor's features are known.
const WARM: u64 = 4;
/// Times that are counted.
const COUNT: u64 = 16;
/// Bytes of IP packets whose checksum is completed. (All but the IP header is summed.)
const SUMMED: [usize; 3] = [64, 1500, LONGEST];
/// Longest IP packet.
const LONGEST: usize = u16::MAX as usize;
/// Of the network that frames are cut for.
const MTU: usize = 1500;

/// What this process says about each part of valgrind's output, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What was done.
    pub work: String,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Segments it became, if it was cut.
    pub segments: usize,
    /// How often it was counted.
    pub count: u64,
}

/// Runs all of them.
pub fn run() -> Result<(), Failure> {
    let (offload, whole) = frame(Kind::Tcp4, LONGEST, Some(MTU));
    part("verify a header, TCP4", whole.len(), || {
        black_box(plan(black_box(offload), black_box(&whole)).is_ok());
        0
    })?;
    for bytes in SUMMED {
        let (offload, mut frame) = frame(Kind::Tcp4, bytes, None);
        let Action::Checksum(checksum) = decide(&plan(offload, &frame)?, Takes::NOTHING) else {
            return Err(Failure("no checksum is left to complete".into()));
        };
        part("complete a checksum", frame.len(), || {
            black_box(checksum).complete(black_box(&mut frame));
            0
        })?;
    }
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp4] {
        let (offload, frame) = frame(kind, LONGEST, Some(MTU));
        let plan = plan(offload, &frame)?;
        part(&format!("cut {kind:?}"), frame.len(), || cut(black_box(&plan), black_box(&frame)))?;
        part(&format!("cut {kind:?}, checksums left"), frame.len(), || {
            cut_partial(black_box(&plan), black_box(&frame))
        })?;
    }
    Ok(())
}

fn plan(offload: Offload, frame: &[u8]) -> Result<Plan, Failure> {
    Ok(offload.check(&frame[..frame.len().min(HEADER_MAX)], frame.len(), Takes::ALL)?)
}

/// Makes all segments' headers, with their checksums, as `port::guest` does it; but the payload is not copied.
fn cut(plan: &Plan, frame: &[u8]) -> usize {
    let mut segments = Segments::new(plan, [frame]);
    let mut count = 0;
    while let Some(segment) = segments.next_complete(|part| Sum::of(&frame[part])) {
        black_box(segment);
        count += 1;
    }
    count
}

/// The same for a destination that completes checksums itself.
fn cut_partial(plan: &Plan, frame: &[u8]) -> usize {
    let mut segments = Segments::new(plan, [frame]);
    let mut count = 0;
    while let Some(segment) = segments.next_partial() {
        black_box(segment);
        count += 1;
    }
    count
}

/// Does `work`, which says how many segments came of it, and says what it was.
fn part(name: &str, bytes: usize, mut work: impl FnMut() -> usize) -> Result<(), Failure> {
    for _ in 0..WARM {
        work();
    }
    let segments = (0..COUNT).map(|_| counted_call(&mut work)).last().unwrap_or_default();
    part_done(&Part { work: name.into(), bytes, segments, count: COUNT })
}

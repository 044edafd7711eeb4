//! A frame that is cut on the way becomes more packets than a burst has.

use virtqueue::testing::Format;

use super::ALL;
use crate::guest::Limits;
use crate::guest::seen::Frames;
use crate::nic::tests::{CSUM, Guest, HOST_TSO, Shape, TCP4};

/// Segments of 100 bytes, and how many of them a frame becomes.
const SIZE: u16 = 100;
const SEGMENTS: u64 = 15;
const SHAPE: Shape = Shape { payload: SIZE as usize * SEGMENTS as usize, ..TCP4 };

/// A guest that has left two frames to be cut, and one that does not take them whole.
fn guests(format: Format) -> (Guest, Guest) {
    let (mut from, mut to) = (Guest::new(format, CSUM | HOST_TSO), Guest::new(format, 0));
    (0..2).for_each(|_| from.send(&SHAPE.leaves(SIZE), &SHAPE.partial()));
    to.post(2 * SEGMENTS);
    (from, to)
}

#[test]
fn a_burst_ends_with_the_frame_that_made_it_too_long() {
    for format in [Format::Split, Format::Packed] {
        let (mut from, mut to) = guests(format);
        for _ in 0..2 {
            let moved = from.pair.forward(&mut to.pair, Limits { packets: 4, ..ALL });
            assert_eq!(moved.packets, SEGMENTS);
            assert_eq!(to.received().len() as u64, SEGMENTS);
        }
        assert_eq!(from.pair.forward(&mut to.pair, ALL).packets, 0);
    }
}

/// It is seen as it was sent, and once.
#[test]
fn what_is_cut_is_seen_whole() {
    for format in [Format::Split, Format::Packed] {
        let (mut from, mut to) = guests(format);
        let mut frames = Frames::new();
        for _ in 0..2 {
            let (moved, gone) = from.pair.forward_seen(&mut to.pair, ALL, &mut frames);
            assert_eq!((moved.packets, gone), (SEGMENTS, 1));
            let seen: Vec<_> = frames.iter().collect();
            assert_eq!(seen, [(&*SHAPE.partial(), SHAPE.partial().len() as u32)]);
        }
        assert_eq!(from.pair.forward_seen(&mut to.pair, ALL, &mut frames).1, 0);
        assert_eq!(to.received().len() as u64, 2 * SEGMENTS);
    }
}

//! A device on ringwire's `virtqueue`, as in `dataplane/port`. All chains here are one buffer each, in one piece.

use virtqueue::{Ring, Virtqueue};

use crate::guest::Path;
use crate::{BURST, Device, HEADER, ONE_BUFFER, Packets};

/// The device for a ring.
pub fn device(ring: Ring, path: Path, frame: usize) -> Box<dyn Device> {
    match (ring, path) {
        (Ring::Split(ring), Path::Dequeue) => Box::new(Dequeue(ring)),
        (Ring::Packed(ring), Path::Dequeue) => Box::new(Dequeue(ring)),
        (Ring::Split(ring), Path::Enqueue) => Box::new(Enqueue(ring, frame)),
        (Ring::Packed(ring), Path::Enqueue) => Box::new(Enqueue(ring, frame)),
    }
}

struct Dequeue<Q>(Q);

impl<Q: Virtqueue> Device for Dequeue<Q> {
    #[inline(never)]
    fn device_burst(&mut self, packets: &mut Packets) -> usize {
        let ring = &mut self.0;
        let segments = ring.take_singles(BURST as u16, HEADER as u32..=u32::MAX).unwrap();
        let done = segments.len();
        for (segment, packet) in segments.iter().zip(packets) {
            segment.read(HEADER, &mut packet[..segment.len() - HEADER]);
        }
        ring.return_singles(done as u16);
        ring.publish();
        done
    }
}

struct Enqueue<Q>(Q, usize);

impl<Q: Virtqueue> Device for Enqueue<Q> {
    #[inline(never)]
    fn device_burst(&mut self, packets: &mut Packets) -> usize {
        let Enqueue(ring, frame) = self;
        let lens = [(HEADER + *frame) as u32; BURST];
        let segments = ring.reserve_singles(&lens).unwrap();
        let done = segments.len();
        for (segment, packet) in segments.iter().zip(packets) {
            segment.write(0, &ONE_BUFFER);
            segment.write(HEADER, &packet[..*frame]);
        }
        ring.publish();
        done
    }
}

//! What a guest left to complete, on its way to a NIC: checksums, and frames to be cut into segments.

use std::ops::Range;

use dpdk::chain::ChainBuilder;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use net::{Action, Layers, Offload, Plan, Segments, Sum, Takes};
use virtqueue::{Cursor, Segment};

use crate::counters::DropReason;
use crate::outbox::Outbox;

/// Longest frame that a guest may leave to be cut, in bytes.
const LONGEST: usize = u16::MAX as usize + net::FRAME_OVERHEAD as usize;

/// Longest header of a segment: a frame's, and what an IPv6 fragment has in addition.
const SEGMENT_HEADER: usize = net::HEADER_MAX + 8;

/// Where frames are completed: the guest cannot change them there.
pub(crate) struct Workbench {
    frame: Box<[u8]>,
    /// What the guest may leave to us.
    allowed: Takes,
    /// The frame is being cut for another guest.
    cutting: Option<Cutting>,
}

/// A frame that is being cut, a segment at a time.
struct Cutting {
    segments: Segments,
    /// Bytes of the frame.
    len: usize,
    /// The receiver completes the checksum of each segment.
    partial: bool,
    /// Segments that are done with.
    done: u64,
    next: Option<Next>,
}

/// The segment that is next.
struct Next {
    header: [u8; SEGMENT_HEADER],
    header_len: usize,
    /// Where it is in the frame.
    payload: Range<usize>,
    /// What is left to do with it.
    offload: Offload,
}

/// What became of a frame.
pub(crate) enum Completed {
    /// It is so many packets, of so many bytes altogether.
    Packets(u64, u64),
    /// It is none.
    Dropped(DropReason),
    /// There were not enough mbufs; nothing has happened.
    Starved,
}

impl Workbench {
    /// `None` if a guest that acknowledged `features` completes its frames itself.
    pub fn new(features: u64) -> Option<Workbench> {
        let allowed = Takes::from_guest(features);
        let frame = || vec![0; LONGEST].into_boxed_slice();
        (!allowed.is_nothing()).then(|| Workbench { frame: frame(), allowed, cutting: None })
    }

    /// For frames from the kernel.
    pub fn for_socket() -> Workbench {
        Workbench { frame: vec![0; LONGEST].into_boxed_slice(), allowed: Takes::ALL, cutting: None }
    }

    /// Whether the header at the start of a chain leaves anything to do.
    #[inline(always)]
    pub fn is_needed(first: &Segment) -> bool {
        let mut header = [0; Offload::LEN];
        // A header in several pieces is looked at again.
        !first.read(0, &mut header) || !Offload::from_bytes(&header).asks_nothing()
    }

    /// What the guest may leave to us.
    pub fn allowed(&self) -> Takes {
        self.allowed
    }

    /// Longest frame that can be completed, in bytes.
    pub fn room(&self) -> usize {
        self.frame.len()
    }

    /// Takes in a frame of `len` bytes, `front` and what follows at `rest`, that is not to be passed on to a
    /// destination that `takes` so much. It is given back complete, or is cut from now on: then there is a
    /// [next segment](Workbench::next_segment).
    pub fn lay(
        &mut self,
        front: &[u8],
        rest: &mut Cursor<'_>,
        len: usize,
        plan: &Plan,
        takes: Takes,
    ) -> Option<&[u8]> {
        let frame = &mut self.frame[..len];
        let (begin, end) = frame.split_at_mut(front.len());
        begin.copy_from_slice(front);
        rest.read(end);
        let action = net::decide(plan, takes);
        if let Action::Checksum(checksum) = action {
            checksum.complete(frame);
        }
        if let Action::Segment { partial } = action {
            let segments = Segments::new(plan, [&*frame]);
            self.cutting = Some(Cutting { segments, len, partial, done: 0, next: None });
            self.prepare_next();
            return None;
        }
        Some(&self.frame[..len])
    }

    /// The segment to deliver next: headers, payload, and what is left to do with it.
    pub fn next_segment(&self) -> Option<(&[u8], &[u8], Offload)> {
        let next = self.cutting.as_ref()?.next.as_ref()?;
        Some((&next.header[..next.header_len], &self.frame[next.payload.clone()], next.offload))
    }

    /// Whether the next segment is the frame's first.
    pub fn is_first(&self) -> bool {
        self.cutting.as_ref().is_some_and(|cutting| cutting.done == 0)
    }

    /// The segment was delivered, or never will be.
    pub fn segment_done(&mut self) {
        self.cutting.iter_mut().for_each(|cutting| cutting.done += 1);
        self.prepare_next();
    }

    fn prepare_next(&mut self) {
        let Some(cutting) = &mut self.cutting else { return };
        let frame = &self.frame[..cutting.len];
        let next = match cutting.partial {
            true => cutting.segments.next_partial(),
            false => cutting.segments.next_complete(|part| Sum::of(&frame[part])),
        };
        cutting.next = next.map(|segment| {
            let (mut header, header_len) = ([0; SEGMENT_HEADER], segment.header.len());
            header[..header_len].copy_from_slice(segment.header);
            Next { header, header_len, payload: segment.payload, offload: segment.offload }
        });
        if cutting.next.is_none() {
            self.cutting = None;
        }
    }

    /// How many segments are not delivered yet, and their bytes: they are gone now. `gone` is told each one's length.
    pub fn undelivered(&mut self, mut gone: impl FnMut(u32)) -> (u64, u64) {
        let (mut packets, mut bytes) = (0, 0);
        while let Some((header, payload, _)) = self.next_segment() {
            packets += 1;
            let len = header.len() + payload.len();
            bytes += len as u64;
            gone(len as u32);
            self.segment_done();
        }
        (packets, bytes)
    }

    /// Completes the frame of `len` bytes that is behind a header of `skip` bytes in `segments`, into mbufs of `pool`
    /// of `longest` bytes at most. They go behind those in the outbox.
    pub fn complete(
        &mut self,
        segments: &[Segment],
        (skip, len, longest): (u32, u32, u32),
        outbox: &mut Outbox,
    ) -> Completed {
        let len = len as usize;
        let Some(frame) = self.frame.get_mut(..len) else {
            return Completed::Dropped(DropReason::Oversize);
        };
        let mut header = [0; Offload::LEN];
        Cursor::new(segments).read(&mut header);
        let mut cursor = Cursor::new(segments);
        cursor.skip(skip as usize);
        cursor.read(frame);
        let offload = Offload::from_bytes(&header);
        let Ok(plan) = offload.check(frame, len, self.allowed) else {
            return Completed::Dropped(DropReason::BadOffload);
        };
        let (first, waiting) = (outbox.burst.len(), outbox.behind.len());
        let mut out = Out { outbox, longest: longest as usize, packets: 0, bytes: 0 };
        match out.add_completed(&plan, frame) {
            Ok(()) => Completed::Packets(out.packets, out.bytes),
            Err(failed) => {
                outbox.burst.truncate_free(first);
                outbox.behind.truncate(waiting);
                failed
            }
        }
    }
}

/// Where packets go.
struct Out<'a> {
    outbox: &'a mut Outbox,
    longest: usize,
    packets: u64,
    bytes: u64,
}

impl Out<'_> {
    /// Adds what becomes of a frame.
    fn add_completed(&mut self, plan: &Plan, frame: &mut [u8]) -> Result<(), Completed> {
        match self.decide(plan) {
            Action::PassOn(offload) => self.pass_on(frame, plan, offload),
            Action::Checksum(checksum) => {
                checksum.complete(frame);
                self.add(&[], frame)
            }
            Action::Segment { partial } => {
                self.add_segments(Segments::new(plan, [&*frame]), plan, frame, partial)
            }
        }
    }

    /// What the NIC does not do. It has to have room for a frame that it is to cut.
    fn decide(&self, plan: &Plan) -> Action {
        let sending = &self.outbox.sending;
        // Some NICs complete a segment's checksum only if that was left to be done.
        let takes = if plan.offload().checksum().is_some() { sending.takes } else { Takes::NOTHING };
        match net::decide(plan, takes) {
            Action::PassOn(offload)
                if offload.gso_type != 0 && !sending.carries(plan.frame_len(), offload.gso_size) =>
            {
                net::decide(plan, takes.without(Takes::TSO4 | Takes::TSO6))
            }
            action => action,
        }
    }

    /// Adds a frame with which the NIC is to do what is left.
    fn pass_on(&mut self, frame: &[u8], plan: &Plan, offload: Offload) -> Result<(), Completed> {
        let Some(layers) = plan.layers().filter(|_| !offload.asks_nothing()) else {
            return self.add(&[], frame);
        };
        let longest = match offload.gso_type {
            0 => frame.len(),
            _ => usize::from(offload.hdr_len) + usize::from(offload.gso_size),
        };
        let mbuf = self.packet(&[], frame, longest)?;
        self.add_marked(mbuf, &layers, &offload);
        Ok(())
    }

    fn add_segments(
        &mut self,
        mut segments: Segments,
        plan: &Plan,
        frame: &[u8],
        partial: bool,
    ) -> Result<(), Completed> {
        let Some(layers) = plan.layers().filter(|_| partial) else {
            while let Some(segment) = segments.next_complete(|part| Sum::of(&frame[part])) {
                self.add(segment.header, &frame[segment.payload])?;
            }
            return Ok(());
        };
        while let Some(segment) = segments.next_partial() {
            let (header, payload) = (segment.header, &frame[segment.payload]);
            let mbuf = self.packet(header, payload, header.len() + payload.len())?;
            self.add_marked(mbuf, &layers, &segment.offload);
        }
        Ok(())
    }

    /// Adds one packet that is complete: `header`, and `payload` behind it.
    fn add(&mut self, header: &[u8], payload: &[u8]) -> Result<(), Completed> {
        let mbuf = self.packet(header, payload, header.len() + payload.len())?;
        self.add_packet(mbuf);
        Ok(())
    }

    fn add_marked(&mut self, mut mbuf: Mbuf, layers: &Layers, offload: &Offload) {
        self.outbox.sending.mark(&mut mbuf, layers, offload);
        self.outbox.unprepared = true;
        self.add_packet(mbuf);
    }

    fn add_packet(&mut self, mbuf: Mbuf) {
        self.packets += 1;
        self.bytes += u64::from(mbuf.pkt_len());
        self.outbox.add(mbuf);
    }

    /// `header`, and `payload` behind it, in mbufs: `longest` is what the NIC makes of it.
    fn packet(&self, header: &[u8], payload: &[u8], longest: usize) -> Result<Mbuf, Completed> {
        if longest > self.longest {
            return Err(Completed::Dropped(DropReason::Oversize));
        }
        packet(&self.outbox.pool, header, payload).ok_or(Completed::Starved)
    }
}

/// `header`, and `payload` behind it, in mbufs of `pool`; `None` if there are not enough.
pub(crate) fn packet(pool: &Mempool, header: &[u8], payload: &[u8]) -> Option<Mbuf> {
    let mut packet = pool.alloc()?;
    // Headers are at most 264 bytes, less than any mbuf has room for.
    let first = payload.len().min(usize::from(packet.room()) - header.len());
    packet.set_single_len((header.len() + first) as u16);
    let (in_front, rest) = packet.data_mut().split_at_mut(header.len());
    in_front.copy_from_slice(header);
    rest.copy_from_slice(&payload[..first]);
    let mut chain = ChainBuilder::new(packet);
    for piece in payload[first..].chunks(pool.data_room().into()) {
        let mut segment = pool.alloc()?;
        segment.set_single_len(piece.len() as u16);
        segment.data_mut().copy_from_slice(piece);
        chain.push(segment, piece.len() as u16);
    }
    Some(chain.finish())
}

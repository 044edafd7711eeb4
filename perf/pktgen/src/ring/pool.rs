//! One buffer for each descriptor of a ring. Frames are built in it once; a packet that is sent again needs
//! two stores.
#![allow(unsafe_code)]

use std::rc::Rc;

use super::{DESCRIPTOR, Descriptor, INDIRECT, NEXT, Slot};
use crate::frame::{SEQUENCE, TIMESTAMP};
use crate::memory::{GUEST_BASE, Layout, Shared};

/// Bytes of the virtio-net header (5.1.6; VERSION_1 always has `num_buffers`).
pub const HEADER_LEN: usize = 12;
/// The header ends, and the frame starts, on a cache line of its own.
const LINE: usize = 64;
/// Bytes at the start of a frame that [`Pool::write_head`] writes.
pub const HEAD: usize = 64;
/// Bytes of an indirect table: header and frame.
const TABLE: usize = 2 * DESCRIPTOR;

/// Buffers of one ring, in shared memory.
#[derive(Debug)]
pub struct Pool {
    _memory: Rc<Shared>,
    /// Frame of buffer 0.
    frames: *mut u8,
    /// Guest address of the same.
    guest: u64,
    stride: usize,
    room: usize,
    tables: Option<(*mut u8, u64)>,
}

/// Where a pool is to be.
#[derive(Clone, Copy, Debug)]
pub struct PoolArea {
    buffers: usize,
    tables: usize,
    size: u16,
    room: usize,
}

impl PoolArea {
    /// Places `size` buffers with room for frames of `room` bytes.
    pub fn place(layout: &mut Layout, size: u16, room: usize) -> PoolArea {
        let room = room.max(HEAD);
        let buffers = layout.take(usize::from(size) * stride(room));
        PoolArea { buffers, tables: layout.take(usize::from(size) * TABLE), size, room }
    }
}

/// From one buffer to the next: an odd number of cache lines, so that frames' first lines spread over all
/// sets of the caches.
fn stride(room: usize) -> usize {
    ((1 + room.div_ceil(LINE)) | 1) * LINE
}

impl Pool {
    /// The pool at `area`, with indirect tables if `indirect`. `None` if the area is not inside `memory`.
    pub fn new(memory: &Rc<Shared>, area: PoolArea, indirect: bool) -> Option<Pool> {
        let stride = stride(area.room);
        let bytes = usize::from(area.size) * stride;
        let first: *mut u8 = memory.pointer(area.buffers, bytes)?;
        let tables: *mut u8 = memory.pointer(area.tables, usize::from(area.size) * TABLE)?;
        Some(Pool {
            _memory: memory.clone(),
            // SAFETY: a stride is at least a line long, and the first one was found to be inside.
            frames: unsafe { first.add(LINE) },
            guest: GUEST_BASE + (area.buffers + LINE) as u64,
            stride,
            room: area.room,
            tables: indirect.then_some((tables, GUEST_BASE + area.tables as u64)),
        })
    }

    /// Bytes a frame may have.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The descriptor for a buffer: header and `length` bytes of frame; `flags` is `WRITE` or 0.
    pub fn describe(&self, slot: Slot, length: usize, flags: u16) -> Descriptor {
        let frame = self.guest + (slot.number() as usize * self.stride) as u64;
        let header = frame - HEADER_LEN as u64;
        let Some((tables, guest)) = self.tables else {
            return Descriptor { address: header, length: (HEADER_LEN + length) as u32, flags };
        };
        let offset = slot.number() as usize * TABLE;
        let entries = [(header, HEADER_LEN, flags | NEXT, 1u16), (frame, length, flags, 0)];
        for (i, (address, length, flags, next)) in entries.into_iter().enumerate() {
            // SAFETY: the tables were found to be inside for every slot below the ring's size.
            let entry = unsafe { tables.add(offset + i * DESCRIPTOR) };
            // The packed ring's indirect entries (2.8.7) put an unused id where `flags` is here, and `flags`
            // where `next` is; see `packed_tables`.
            // SAFETY: as above; entries are 16 bytes, aligned to 16.
            unsafe {
                entry.cast::<u64>().write_volatile(address);
                entry.add(8).cast::<u32>().write_volatile(length as u32);
                entry.add(12).cast::<u16>().write_volatile(flags);
                entry.add(14).cast::<u16>().write_volatile(next);
            }
        }
        Descriptor { address: guest + offset as u64, length: TABLE as u32, flags: INDIRECT }
    }

    /// Rearranges the indirect table of `slot` as a packed ring has it (2.8.7): id 0, then flags; `NEXT` is
    /// reserved there, all entries count.
    pub fn packed_table(&self, slot: Slot, flags: u16) {
        let Some((tables, _)) = self.tables else { return };
        for i in 0..2 {
            // SAFETY: as in `describe`.
            unsafe {
                let entry = tables.add(slot.number() as usize * TABLE + i * DESCRIPTOR);
                entry.add(12).cast::<u16>().write_volatile(0);
                entry.add(14).cast::<u16>().write_volatile(flags);
            }
        }
    }

    /// Says how long the frame in `slot` is, if that is said in an indirect table. Otherwise what the
    /// ring's descriptor must say.
    pub fn set_length(&self, slot: Slot, length: usize) -> Option<u32> {
        let Some((tables, _)) = self.tables else { return Some((HEADER_LEN + length) as u32) };
        // SAFETY: as in `describe`.
        unsafe {
            let entry = tables.add(slot.number() as usize * TABLE + DESCRIPTOR + 8);
            entry.cast::<u32>().write_volatile(length as u32);
        }
        None
    }

    #[inline(always)]
    fn frame(&self, slot: Slot) -> *mut u8 {
        // SAFETY: pools are made for a ring's size, and only that ring makes slots, all below its size.
        unsafe { self.frames.add(slot.number() as usize * self.stride) }
    }

    /// Writes timestamp and sequence number into `count` frames, starting with `first`, which must not go
    /// past the ring's end. Frame `k` gets `(base + k) >> shift` (its flow's sequence number).
    #[inline(always)]
    pub fn stamp(&self, first: Slot, count: u32, timestamp: u64, base: u64, shift: u32) {
        let mut frame = self.frame(first);
        for k in 0..u64::from(count) {
            // SAFETY: `count` slots from `first` are below the ring's size; HEAD bytes of each are inside.
            unsafe {
                frame.add(TIMESTAMP).cast::<u64>().write(timestamp);
                frame.add(SEQUENCE).cast::<u32>().write((base.wrapping_add(k) >> shift) as u32);
                frame = frame.add(self.stride);
            }
        }
    }

    /// Writes a frame's first 64 bytes.
    #[inline(always)]
    pub fn write_head(&self, slot: Slot, head: &[u8; HEAD]) {
        // SAFETY: the room of each slot is at least HEAD bytes.
        unsafe { self.frame(slot).cast::<[u8; HEAD]>().write(*head) };
    }

    /// Writes `bytes` into the frame, from byte `at` on. What does not fit is left out, and false returned.
    pub fn write(&self, slot: Slot, at: usize, bytes: &[u8]) -> bool {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.room);
        if fits {
            // SAFETY: it was found to be inside the slot's room; the source is ordinary memory elsewhere.
            unsafe { self.frame(slot).add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        fits
    }

    /// Writes the virtio-net header.
    pub fn write_header(&self, slot: Slot, header: &[u8; HEADER_LEN]) {
        // SAFETY: a line is in front of each frame.
        unsafe { self.frame(slot).sub(HEADER_LEN).copy_from_nonoverlapping(header.as_ptr(), HEADER_LEN) };
    }

    /// The 64-bit word at byte `at`, which must be below HEAD - 7, of the frame.
    #[inline(always)]
    pub fn u64(&self, slot: Slot, at: usize) -> u64 {
        debug_assert!(at + 8 <= HEAD);
        // SAFETY: inside the slot's first HEAD bytes. The device is done with the buffer.
        unsafe { self.frame(slot).add(at).cast::<u64>().read_unaligned() }
    }

    /// The 32-bit word there.
    #[inline(always)]
    pub fn u32(&self, slot: Slot, at: usize) -> u32 {
        debug_assert!(at + 4 <= HEAD);
        // SAFETY: as above.
        unsafe { self.frame(slot).add(at).cast::<u32>().read_unaligned() }
    }

    /// The header's `num_buffers`.
    #[inline(always)]
    pub fn buffers(&self, slot: Slot) -> u16 {
        // SAFETY: the header's last two bytes are in front of each frame.
        unsafe { self.frame(slot).sub(2).cast::<u16>().read() }
    }

    /// `length` bytes of a buffer the device filled: from the frame's start, or, for a packet's further
    /// buffers, from the buffer's.
    pub fn bytes(&self, slot: Slot, further: bool, length: usize) -> &[u8] {
        let (start, room) = if further { (HEADER_LEN, self.room + HEADER_LEN) } else { (0, self.room) };
        let length = length.min(room);
        // SAFETY: inside the slot. The device gave the buffer back, so nobody writes it meanwhile.
        unsafe { std::slice::from_raw_parts(self.frame(slot).sub(start), length) }
    }
}

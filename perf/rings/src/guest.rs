//! The guest's memory, and the driver's side of its ring. Nothing here is measured.
#![allow(unsafe_code)] // shows the guest's memory, mapped by `vm-memory`, to `virtqueue`

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use virtqueue::{Memory, Region, Ring, RingConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::{BURST, HEADER, Packets};

/// Entries of the ring; QEMU's default.
pub const ENTRIES: u16 = 256;
/// Room of a buffer in bytes, and how far buffers are apart.
const BUFFER: u64 = 2048;

const DESCS: u64 = 0x1000;
/// Avail ring, or driver event suppression.
const DRIVER: u64 = 0x2000;
/// Used ring, or device event suppression.
const DEVICE: u64 = 0x3000;
const BUFFERS: u64 = 0x10_0000;
const MEMORY: u64 = BUFFERS + BUFFER * ENTRIES as u64;

const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;
const F_PACKED: u64 = 1 << 34;
/// Flags of a descriptor.
const WRITE: u16 = 1 << 1;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Event suppression of a packed ring: a call at a descriptor.
const AT_DESC: u16 = 2;

/// Which way packets go, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Out of a ring that the guest sends on.
    Dequeue,
    /// Into a ring that the guest receives on.
    Enqueue,
}

/// A ring format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Split,
    Packed,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub path: Path,
    pub format: Format,
    /// Bytes of a frame, without the virtio-net header.
    pub frame: usize,
}

/// A guest whose ring is used by whoever is measured. One buffer a chain, all always at the same place.
pub struct Guest {
    pub memory: Arc<GuestMemoryMmap>,
    work: Work,
    /// How often all entries were posted.
    laps: u64,
}

impl Guest {
    /// A guest with an empty ring and full buffers, in memory that was used by another before.
    pub fn new(memory: Arc<GuestMemoryMmap>, work: Work) -> Guest {
        let guest = Guest { memory, work, laps: 0 };
        guest.write(DESCS, &[0; (BUFFERS - DESCS) as usize]);
        for entry in 0..ENTRIES {
            guest.write(buffer(entry), &[0; HEADER]);
            guest.write(buffer(entry) + HEADER as u64, &content(entry, work.frame));
            if work.format == Format::Split {
                guest.write_desc(entry, [guest.way(), 0]);
                guest.write(DRIVER + 4 + 2 * u64::from(entry), &entry.to_le_bytes());
            }
        }
        if work.format == Format::Packed {
            guest.write(DRIVER + 2, &AT_DESC.to_le_bytes());
        }
        guest
    }

    /// Memory for one.
    pub fn memory() -> Arc<GuestMemoryMmap> {
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap())
    }

    /// Posts all entries; those posted before must have come back.
    pub fn post(&mut self) {
        self.check_returned();
        let wrap = self.laps.is_multiple_of(2);
        self.laps += 1;
        match self.work.format {
            Format::Split => self.write(DRIVER + 2, &self.index().to_le_bytes()),
            Format::Packed => {
                let available = if wrap { AVAIL } else { USED };
                (0..ENTRIES).for_each(|entry| self.write_desc(entry, [entry, self.way() | available]));
            }
        }
    }

    /// The avail index, as many entries as were posted.
    fn index(&self) -> u16 {
        (self.laps * u64::from(ENTRIES)) as u16
    }

    fn check_returned(&self) {
        let returned = match self.work.format {
            Format::Split => self.read_u16(DEVICE + 2) == self.index(),
            // The wrap counter of the lap, or on the first one before that: all zero.
            Format::Packed => (0..ENTRIES).all(|entry| {
                let flags = self.read_u16(DESCS + 16 * u64::from(entry) + 14) & (AVAIL | USED);
                flags == if self.laps.is_multiple_of(2) { 0 } else { AVAIL | USED }
            }),
        };
        assert!(returned, "lap {}: the device has not returned all entries", self.laps);
    }

    /// Whether the last burst of a lap did what it should: the frames are now at both ends.
    pub fn check_content(&self, packets: &Packets) {
        self.check_returned();
        let last = ENTRIES - BURST as u16..ENTRIES;
        for (entry, packet) in last.zip(packets.iter()) {
            let mut bytes = vec![0; HEADER + self.work.frame];
            self.memory.read_slice(&mut bytes, GuestAddress(buffer(entry))).unwrap();
            let (header, frame) = bytes.split_at(HEADER);
            assert_eq!(frame, &packet[..self.work.frame], "frame {entry}");
            match self.work.path {
                Path::Dequeue => assert_eq!(frame, content(entry, self.work.frame)),
                // One buffer.
                Path::Enqueue => assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
            }
        }
    }

    fn way(&self) -> u16 {
        if self.work.path == Path::Enqueue { WRITE } else { 0 }
    }

    fn write_desc(&self, entry: u16, words: [u16; 2]) {
        let len = if self.work.path == Path::Enqueue { BUFFER as usize } else { HEADER + self.work.frame };
        let mut desc = buffer(entry).to_le_bytes().to_vec();
        desc.extend((len as u32).to_le_bytes());
        desc.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.write(DESCS + 16 * u64::from(entry), &desc);
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    fn read_u16(&self, addr: u64) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(addr)).unwrap())
    }

    /// The device's side for ringwire: EVENT_IDX, and nobody to call.
    pub fn ring(&self) -> Ring {
        let host = self.memory.get_host_address(GuestAddress(0)).unwrap();
        // SAFETY: the memory is mapped for as long as it is kept.
        let region = unsafe { Region::new(0, 0, MEMORY, host, self.memory.clone()) };
        let packed = if self.work.format == Format::Packed { F_PACKED } else { 0 };
        Ring::start(RingConfig {
            index: if self.work.path == Path::Dequeue { 1 } else { 0 },
            size: ENTRIES,
            desc: DESCS,
            avail: DRIVER,
            used: DEVICE,
            base: if packed == 0 { 0 } else { 0x8000_8000 },
            features: F_VERSION_1 | F_EVENT_IDX | packed,
            memory: Arc::new(Memory::new(vec![region]).unwrap()),
            kick: None,
            call: None,
            err: None,
        })
        .unwrap()
    }

    /// The same for virtio-queue.
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(ENTRIES).unwrap();
        queue.try_set_desc_table_address(GuestAddress(DESCS)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(DRIVER)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(DEVICE)).unwrap();
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&*self.memory));
        queue
    }
}

fn buffer(entry: u16) -> u64 {
    BUFFERS + BUFFER * u64::from(entry)
}

/// What the guest has in a buffer at first.
fn content(entry: u16, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + usize::from(entry) * 13) as u8).collect()
}

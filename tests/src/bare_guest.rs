//! A frontend of our own: one queue pair, split rings in a memfd, one descriptor a buffer. Descriptor `i`
//! is buffer `i`, and buffers are posted in order, so the k-th used entry must name descriptor `k mod size`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use vhost::vhost_user::Frontend;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::connection::{Areas, Connection, guest_memory};
use crate::cores;

/// Virtqueue to the guest.
pub const TO: usize = 0;
/// Virtqueue from the guest.
pub const FROM: usize = 1;
/// Entries of each ring, and buffers for it.
pub const SIZE: u16 = 4096;
/// Bytes of each buffer, virtio-net header included.
const BUFFER: u64 = 2048;
/// virtio-net header (virtio 1.2, 5.1.6).
const HEADER: u64 = 12;
/// Bytes of guest memory for one ring with its buffers.
const RING: u64 = 16 << 20;
/// Where in it the areas are.
const AVAIL: u64 = 0x1_0000;
const USED: u64 = 0x1_4000;
/// Behind the used ring: the avail index of which the device wants to be told (EVENT_IDX).
const AVAIL_EVENT: u64 = USED + 4 + 8 * SIZE as u64;
const BUFFERS: u64 = 0x2_0000;

/// One virtqueue, the driver's side.
pub struct BareRing {
    memory: Arc<GuestMemoryMmap>,
    base: u64,
    sends: bool,
    /// VIRTIO_RING_F_EVENT_IDX.
    event_idx: bool,
    /// Buffers posted, and used entries seen, modulo 2^16 as in the rings.
    posted: u16,
    seen: u16,
    /// Used entries seen.
    pub total: u64,
    /// Used entries that were not as expected.
    pub wrong: Vec<String>,
}

impl BareRing {
    /// A ring at `base`, whose buffers hold `frame` (it sends), or room for one (it receives). Frames are
    /// numbered as `frames` does, but by their buffer. Nothing of this changes any more: to post a buffer is
    /// to move the avail index, which is quick.
    fn new(memory: Arc<GuestMemoryMmap>, base: u64, event_idx: bool, frame: Option<&[u8]>) -> BareRing {
        let sends = frame.is_some();
        let ring =
            BareRing { memory, base, sends, event_idx, posted: 0, seen: 0, total: 0, wrong: Vec::new() };
        let length = frame.map_or(BUFFER, |frame| HEADER + frame.len() as u64) as u32;
        let flags = if sends { 0 } else { VRING_DESC_F_WRITE as u16 };
        for i in 0..u64::from(SIZE) {
            let buffer = BUFFERS + i * BUFFER;
            ring.store(16 * i, ring.base + buffer);
            ring.store(16 * i + 8, length);
            ring.store(16 * i + 12, flags);
            ring.store(AVAIL + 4 + 2 * i, i as u16);
            if let Some(frame) = frame {
                let write = |bytes, offset| {
                    let address = GuestAddress(ring.base + buffer + HEADER + offset);
                    ring.memory.write_slice(bytes, address).expect("a buffer");
                };
                write(frame, 0);
                write(&i.to_be_bytes(), 14);
            }
        }
        ring.store(AVAIL, VRING_AVAIL_F_NO_INTERRUPT as u16);
        ring
    }

    fn store<T: vm_memory::AtomicAccess>(&self, offset: u64, value: T) {
        let address = GuestAddress(self.base + offset);
        // Release: what an index stands for is there before the index.
        self.memory.store(value, address, Ordering::Release).expect("an address of a ring");
    }

    /// Posts every buffer that is free.
    pub fn post(&mut self) {
        let all = self.seen.wrapping_add(SIZE);
        if self.posted != all {
            self.posted = all;
            self.store(AVAIL + 2, all);
        }
    }

    /// Posts so many more buffers, all at once.
    pub fn post_some(&mut self, count: u16) {
        self.posted = self.posted.wrapping_add(count);
        self.store(AVAIL + 2, self.posted);
    }

    /// Posts one more buffer, and says whether the device wants to be told (virtio 1.2, 2.7.10).
    pub fn post_one(&mut self) -> bool {
        let before = self.posted;
        self.posted = before.wrapping_add(1);
        self.store(AVAIL + 2, self.posted);
        // The device asks to be told, and then looks once more: what we post is seen, or its wish is.
        fence(Ordering::SeqCst);
        let word = |at| -> u16 {
            self.memory.load(GuestAddress(self.base + at), Ordering::Relaxed).expect("a word of a ring")
        };
        if self.event_idx {
            word(AVAIL_EVENT) == before
        } else {
            word(USED) & VRING_USED_F_NO_NOTIFY as u16 == 0
        }
    }

    /// The used index.
    pub fn used(&self) -> u16 {
        // Acquire: what the index says is there is read after it.
        self.memory.load(GuestAddress(self.base + USED + 2), Ordering::Acquire).expect("the used index")
    }

    /// Looks at the used entries that are new. Whether there were any.
    pub fn collect(&mut self) -> bool {
        let used = self.used();
        let BareRing { posted, seen, .. } = *self;
        if used.wrapping_sub(seen) > posted.wrapping_sub(seen) {
            self.wrong.push(format!("used index {used}, posted {posted}, seen {seen}"));
            return false;
        }
        while self.seen != used {
            // As far as the ring goes before it starts anew.
            let first = self.seen % SIZE;
            let count = used.wrapping_sub(self.seen).min(SIZE - first);
            self.check(first, count);
            self.seen = self.seen.wrapping_add(count);
            self.total += u64::from(count);
        }
        used != seen
    }

    fn check(&mut self, first: u16, count: u16) {
        let mut entries = vec![0; 8 * usize::from(count)];
        let address = GuestAddress(self.base + USED + 4 + 8 * u64::from(first));
        self.memory.read_slice(&mut entries, address).expect("the used ring");
        for (slot, entry) in (u32::from(first)..).zip(entries.chunks_exact(8)) {
            let word = |at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().expect("four bytes"));
            let (id, length) = (word(0), word(4));
            let fits = if self.sends { length == 0 } else { u64::from(length) > HEADER };
            if id != slot || !fits {
                self.wrong.push(format!("used entry in slot {slot}: id {id}, length {length}"));
            }
        }
    }
}

/// A connected frontend.
pub struct BareGuest {
    connection: Connection,
    /// [`TO`] and [`FROM`].
    pub rings: [BareRing; 2],
    memory: Arc<GuestMemoryMmap>,
}

impl BareGuest {
    /// Connects, and sets up everything but the rings. Frames of `length` bytes are sent.
    pub fn connect(socket: &Path, length: usize) -> BareGuest {
        BareGuest::connect_with(socket, length, false)
    }

    /// The same, with or without VIRTIO_RING_F_EVENT_IDX.
    pub fn connect_with(socket: &Path, length: usize, event_idx: bool) -> BareGuest {
        let memory = Arc::new(guest_memory(2 * RING));
        let mut frame = vec![0x5a; length];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
        let rings = [
            BareRing::new(memory.clone(), TO as u64 * RING, event_idx, None),
            BareRing::new(memory.clone(), FROM as u64 * RING, event_idx, Some(&frame)),
        ];
        let features = u64::from(event_idx) << VIRTIO_RING_F_EVENT_IDX;
        BareGuest { connection: Connection::new(socket, &memory, features), rings, memory }
    }

    /// Starts ring `index` at `base`.
    pub fn start_ring(&mut self, index: usize, base: u16) {
        let at = self.rings[index].base;
        let areas = Areas { size: SIZE, desc: at, avail: at + AVAIL, used: at + USED };
        self.connection.start_ring(&self.memory, index, &areas, base);
    }

    /// Its connection, for messages of the test's own.
    pub fn frontend(&self) -> &Frontend {
        &self.connection.frontend
    }

    /// Posts every buffer of ring `index` that is free, and kicks: whether that is wanted is not looked at.
    pub fn post(&mut self, index: usize) {
        self.rings[index].post();
        self.connection.kick(index);
    }

    /// Posts one buffer of ring `index`, and kicks if that is wanted.
    pub fn post_one(&mut self, index: usize) {
        if self.rings[index].post_one() {
            self.connection.kick(index);
        }
    }

    /// Starts both rings at `bases`, and keeps them full on a thread of its own.
    pub fn load(mut self, bases: [u16; 2]) -> Load {
        [TO, FROM].into_iter().for_each(|index| self.start_ring(index, bases[index]));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut core = CpuSet::new();
            core.set(cores::other()).expect("a core");
            sched_setaffinity(Pid::from_raw(0), &core).expect("pinned");
            while !stopped.load(Ordering::Relaxed) {
                if !self.turn() {
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
            self
        });
        Load { stop, thread }
    }

    /// Collects what was used, and posts it again. Whether there was any.
    pub fn turn(&mut self) -> bool {
        let mut any = false;
        for ring in &mut self.rings {
            any |= ring.collect();
            ring.post();
        }
        any
    }
}

/// A guest that is kept busy.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BareGuest>,
}

impl Load {
    /// Leaves the rings as they are, and gives the guest back.
    pub fn end(self) -> BareGuest {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load")
    }
}

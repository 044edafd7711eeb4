//! A hostile guest and its frontend: memory in a memfd, two queue pairs, and every message by hand.
//!
//! The memory table has two regions, [`LOW`] and [`HIGH`], that follow each other in the guest but not in the
//! backend. In the first are the rings, ring `k` at `k * RING`; from [`DATA`] on there is room for buffers.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{AtomicAccess, Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::client::{Answer, Client, code, longs, words};
use super::ring::{Buf, Ring};

/// First guest address.
pub const GUEST: u64 = 0x4000_0000;
/// First address in the frontend, where it says its memory is.
pub const USER: u64 = 0x7000_0000_0000;
/// Bytes for each ring.
pub const RING: u64 = 0x1_0000;
/// Where in it the avail ring is, or the driver's event suppression.
pub const AVAIL: u64 = 0x4000;
/// Where in it the used ring is, or the device's event suppression.
pub const USED: u64 = 0x8000;
/// Where buffers are.
pub const DATA: u64 = 0x10_0000;
/// Where the second region starts.
pub const SEAM: u64 = 0x60_0000;
/// Where memory ends.
pub const END: u64 = 0x80_0000;
/// Entries of each ring, unless a case wants another size.
pub const SIZE: u16 = 256;
/// Virtqueues: two pairs.
pub const RINGS: u32 = 4;

/// Feature bits, by their names in the specification.
#[allow(missing_docs, reason = "the specification says what they are")]
pub mod feature {
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
}

/// Protocol features acknowledged: MQ, REPLY_ACK, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS.
pub const PROTOCOL: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16;

/// A memory region as in SET_MEM_TABLE: guest address, size, frontend address, offset in the file.
pub type Region = [u64; 4];

/// The region of the rings.
pub const LOW: Region = [GUEST, SEAM, USER, 0];
/// The other region.
pub const HIGH: Region = [GUEST + SEAM, END - SEAM, USER + SEAM, SEAM];

/// The guest's memory: addresses are offsets from [`GUEST`].
pub struct Ram {
    /// The file behind it.
    pub file: File,
    map: GuestMemoryMmap,
}

impl Ram {
    /// `len` bytes of zeroes.
    pub fn new(len: u64) -> Ram {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(c"hostile guest", flags).expect("a memfd"));
        file.set_len(len).expect("a memfd's size");
        let shared = file.try_clone().expect("a descriptor");
        let range = (GuestAddress(0), len as usize, Some(FileOffset::new(shared, 0)));
        let map = GuestMemoryMmap::from_ranges_with_files([range]).expect("guest memory");
        Ram { file, map }
    }

    /// Writes bytes.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.map.write_slice(bytes, GuestAddress(at)).expect("guest memory");
    }

    /// Reads bytes.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.map.read_slice(&mut bytes, GuestAddress(at)).expect("guest memory");
        bytes
    }

    /// Writes a word, after everything written before.
    pub fn store<T: AtomicAccess>(&self, at: u64, value: T) {
        self.map.store(value, GuestAddress(at), Ordering::Release).expect("guest memory");
    }

    /// Reads a word, before everything read later.
    pub fn load<T: AtomicAccess>(&self, at: u64) -> T {
        self.map.load(GuestAddress(at), Ordering::Acquire).expect("guest memory")
    }
}

/// What the eventfds of a ring are for.
pub struct Wires {
    /// Signalled by the guest.
    pub kick: EventFd,
    /// Signalled by the backend when buffers were used.
    pub call: EventFd,
    /// Signalled by the backend when the ring is broken.
    pub err: EventFd,
}

impl Wires {
    fn new() -> Wires {
        let wire =
            || EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).expect("an eventfd");
        Wires { kick: wire(), call: wire(), err: wire() }
    }
}

/// The guest, and its connection.
pub struct Hostile {
    /// The connection.
    pub client: Client,
    /// Its memory; shared, so that another thread can change it under the backend.
    pub ram: Arc<Ram>,
    /// Its rings, as drivers see them.
    pub rings: Vec<Ring>,
    /// Their eventfds.
    pub wires: Vec<Wires>,
}

impl Hostile {
    /// Connected, and nothing said yet.
    pub fn connect(socket: &Path) -> Hostile {
        let ram = Arc::new(Ram::new(END));
        let client = Client::connect(socket);
        let wires = (0..RINGS).map(|_| Wires::new()).collect();
        Hostile { client, ram, rings: Vec::new(), wires }
    }

    /// Connected, with these features and VERSION_1, and a memory table; no ring is set up.
    pub fn ready(socket: &Path, features: u64) -> Hostile {
        let mut hostile = Hostile::connect(socket);
        hostile.negotiate(features | feature::VERSION_1 | feature::PROTOCOL);
        assert_eq!(hostile.set_table(&[LOW, HIGH]), Answer::Done, "a good memory table");
        hostile
    }

    /// As `ready`, with the rings of the first pair running and empty.
    pub fn running(socket: &Path, features: u64) -> Hostile {
        let mut hostile = Hostile::ready(socket, features);
        (0..2).for_each(|ring| hostile.set_up(ring));
        hostile
    }

    /// Everything up to SET_FEATURES.
    pub fn negotiate(&mut self, features: u64) {
        assert!(self.client.is_served());
        self.client.send(code::SET_PROTOCOL_FEATURES, 0, &longs(&[PROTOCOL]), &[]);
        assert_eq!(self.client.tell(code::SET_OWNER, &[], &[]), Answer::Done);
        assert_eq!(self.client.tell(code::SET_FEATURES, &longs(&[features]), &[]), Answer::Done);
        let ring = |index| Ring::new(self.ram.clone(), index, SIZE, features & feature::PACKED != 0);
        self.rings = (0..RINGS).map(ring).collect();
    }

    /// Sends a memory table whose regions are all of the guest's own file.
    pub fn set_table(&mut self, regions: &[Region]) -> Answer {
        let fds = vec![self.ram.file.as_raw_fd(); regions.len()];
        self.client.tell(code::SET_MEM_TABLE, &table(regions), &fds)
    }

    /// Sends a message about a ring, with a number.
    pub fn tell_ring(&mut self, code: u32, ring: u32, value: u32) -> Answer {
        self.client.tell(code, &words(&[ring, value]), &[])
    }

    /// Sends a message about a ring, with an eventfd or without one.
    pub fn tell_fd(&mut self, code: u32, ring: u32, fd: Option<RawFd>) -> Answer {
        let none = if fd.is_none() { 0x100 } else { 0 };
        self.client.tell(code, &longs(&[u64::from(ring) | none]), fd.as_slice())
    }

    /// Sends everything a ring needs but SET_VRING_ENABLE.
    pub fn prepare(&mut self, ring: u32) {
        let Ring { size, packed, .. } = self.rings[ring as usize];
        let base = if packed { 0x8000_8000 } else { 0 };
        assert_eq!(self.tell_ring(code::SET_VRING_NUM, ring, size.into()), Answer::Done);
        assert_eq!(self.tell_ring(code::SET_VRING_BASE, ring, base), Answer::Done);
        let start = USER + u64::from(ring) * RING;
        assert_eq!(self.client.tell(code::SET_VRING_ADDR, &areas(ring, start), &[]), Answer::Done);
        let Wires { kick, call, err } = &self.wires[ring as usize];
        let fds = [(code::SET_VRING_KICK, kick), (code::SET_VRING_CALL, call), (code::SET_VRING_ERR, err)];
        for (code, fd) in fds.map(|(code, eventfd)| (code, eventfd.as_raw_fd())) {
            assert_eq!(self.tell_fd(code, ring, Some(fd)), Answer::Done);
        }
    }

    /// Starts a ring that is empty.
    pub fn set_up(&mut self, ring: u32) {
        self.prepare(ring);
        assert_eq!(self.tell_ring(code::SET_VRING_ENABLE, ring, 1), Answer::Done);
    }

    /// Stops ring `ring`, and starts it anew, empty.
    pub fn restart(&mut self, ring: u32) {
        assert!(self.client.ask(code::GET_VRING_BASE, &words(&[ring, 0])).is_some(), "GET_VRING_BASE");
        let Ring { base, size, packed, .. } = self.rings[ring as usize];
        self.ram.write(base, &[0; RING as usize]);
        self.rings[ring as usize] = Ring::new(self.ram.clone(), ring, size, packed);
        self.set_up(ring);
    }

    /// Posts one good chain on ring `ring`.
    pub fn post(&mut self, ring: usize) {
        self.rings[ring].post(&[good(ring)]);
    }

    /// Posts good chains on ring `ring` one by one; each is used.
    ///
    /// # Panics
    /// If one is not.
    pub fn assert_moves(&mut self, ring: usize) {
        for _ in 0..3 {
            self.post(ring);
            self.wait_used(ring);
        }
    }

    /// Waits until all that was posted on ring `ring` is used.
    ///
    /// # Panics
    /// If that is not so in time.
    pub fn wait_used(&mut self, ring: usize) {
        let ring = &mut self.rings[ring];
        let end = Instant::now() + Duration::from_secs(5);
        while ring.collect() != ring.chains() {
            assert!(Instant::now() < end, "{} of {} chains are used", ring.collect(), ring.chains());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The connection is served, and packets go both ways.
    ///
    /// # Panics
    /// If not.
    pub fn assert_serves(&mut self) {
        assert!(self.client.is_served(), "the connection is closed");
        (0..2).for_each(|ring| self.assert_moves(ring));
    }
}

/// A buffer as ring `ring` should have them: for a frame to be received, or with one to be sent.
pub fn good(ring: usize) -> Buf {
    let at = DATA + ring as u64 * 0x1000;
    if ring.is_multiple_of(2) { Buf::writable(at, 2048) } else { Buf::readable(at, 100) }
}

/// SET_MEM_TABLE's payload.
pub fn table(regions: &[Region]) -> Vec<u8> {
    let mut payload = words(&[regions.len() as u32, 0]);
    payload.extend(longs(regions.as_flattened()));
    payload
}

/// ADD_MEM_REG's and REM_MEM_REG's payload.
pub fn single(region: Region) -> Vec<u8> {
    [longs(&[0]), longs(&region)].concat()
}

/// SET_VRING_ADDR's payload for a ring whose areas lie from frontend address `start` on as [`AVAIL`] and
/// [`USED`] say.
pub fn areas(ring: u32, start: u64) -> Vec<u8> {
    addresses(ring, 0, [start, start + USED, start + AVAIL])
}

/// SET_VRING_ADDR's payload: flags, then descriptors, used ring, avail ring.
pub fn addresses(ring: u32, flags: u32, at: [u64; 3]) -> Vec<u8> {
    [words(&[ring, flags]), longs(&at), longs(&[0])].concat()
}

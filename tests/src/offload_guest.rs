//! A frontend of our own that leaves work to the device, and takes work: it sends prepared frames behind prepared
//! virtio-net headers, and shows what arrives with the header in front of it. One queue pair, split rings in a memfd.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryMmap};

use crate::bare_guest::{FROM, TO};
use crate::connection::{Areas, Connection, guest_memory};
use crate::wait;

/// What a virtio-net header says of its frame: all of it but how many buffers the frame spans.
pub type NetHeader = [u8; 10];
/// A frame, and the header in front of it.
pub type Packet = (NetHeader, Vec<u8>);

/// Feature bits of a guest that may leave everything to the device.
pub const LEAVES_ALL: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_HOST_UFO
    | 1 << VIRTIO_NET_F_HOST_USO;
/// Feature bits of a guest that takes everything as the sender left it.
pub const TAKES_ALL: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_GUEST_UFO
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6;
/// Feature bit of a guest whose frames may span receive buffers.
pub const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// Entries of each ring, and receive buffers.
const SIZE: u16 = 256;
/// virtio-net header (virtio 1.2, 5.1.6).
const HEADER: usize = 12;
/// Bytes of a descriptor's piece of a frame: an odd number, so that pieces begin anywhere.
const PIECE: usize = 4093;
/// Guest memory of a ring, and where in it the areas are.
const RING: u64 = 0x1_0000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x4000;
/// The frame that is sent, and the receive buffers.
const FRAME: u64 = 2 * RING;
const BUFFERS: u64 = 4 * RING;

/// A connected guest.
pub struct OffloadGuest {
    connection: Connection,
    memory: GuestMemoryMmap,
    /// Bytes of a receive buffer.
    room: u32,
    /// Frames sent, modulo 2^16 as in the ring.
    sent: u16,
    /// Used entries of the receive ring that were looked at, modulo 2^16.
    seen: u16,
}

impl OffloadGuest {
    /// Connects with `features`, posts receive buffers of `room` bytes, and starts both rings.
    pub fn connect(socket: &Path, features: u64, room: u32) -> OffloadGuest {
        let memory = guest_memory(BUFFERS + u64::from(SIZE) * u64::from(room));
        let connection = Connection::new(socket, &memory, features);
        let mut guest = OffloadGuest { connection, memory, room, sent: 0, seen: 0 };
        for i in 0..SIZE {
            let buffer = BUFFERS + u64::from(i) * u64::from(room);
            guest.describe(TO, i, (buffer, room), VRING_DESC_F_WRITE as u16);
            guest.make_available(TO, i, i);
        }
        for index in [TO, FROM] {
            let at = index as u64 * RING;
            let areas = Areas { size: SIZE, desc: at, avail: at + AVAIL, used: at + USED };
            guest.connection.start_ring(&guest.memory, index, &areas, 0);
        }
        guest
    }

    fn store<T: AtomicAccess>(&self, at: u64, value: T) {
        // Release: what an index stands for is there before the index.
        self.memory.store(value, GuestAddress(at), Ordering::Release).expect("an address of a ring");
    }

    fn load<T: AtomicAccess>(&self, at: u64) -> T {
        // Acquire: what an index says is there is read after it.
        self.memory.load(GuestAddress(at), Ordering::Acquire).expect("an address of a ring")
    }

    fn used(&self, index: usize) -> u16 {
        self.load(index as u64 * RING + USED + 2)
    }

    /// Writes descriptor `id`; the next of its chain, if it says that there is one, is the one behind it.
    fn describe(&self, index: usize, id: u16, (address, len): (u64, u32), flags: u16) {
        let at = index as u64 * RING + 16 * u64::from(id);
        self.store(at, address);
        self.store(at + 8, len);
        self.store(at + 12, flags);
        self.store(at + 14, id + 1);
    }

    /// Makes the chain that begins with `id` available, as number `number` of the ring.
    fn make_available(&self, index: usize, number: u16, id: u16) {
        let avail = index as u64 * RING + AVAIL;
        self.store(avail + 4 + 2 * u64::from(number % SIZE), id);
        self.store(avail + 2, number.wrapping_add(1));
    }

    /// Sends `frame` behind `header`, in several pieces, and waits until the device is done with it.
    pub fn send(&mut self, header: &NetHeader, frame: &[u8]) {
        let bytes = [&header[..], &[0; HEADER - size_of::<NetHeader>()], frame].concat();
        self.memory.write_slice(&bytes, GuestAddress(FRAME)).expect("room for a frame");
        // As Linux does it: the header and those of the frame are one piece, then comes the payload.
        let first = bytes.len().min(HEADER + 128);
        let mut pieces = vec![(FRAME, first as u32)];
        for (n, piece) in bytes[first..].chunks(PIECE).enumerate() {
            pieces.push((FRAME + (first + n * PIECE) as u64, piece.len() as u32));
        }
        for (id, piece) in (0..).zip(&pieces) {
            let more = usize::from(id) + 1 < pieces.len();
            self.describe(FROM, id, *piece, if more { VRING_DESC_F_NEXT as u16 } else { 0 });
        }
        self.make_available(FROM, self.sent, 0);
        self.sent = self.sent.wrapping_add(1);
        self.connection.kick(FROM);
        wait::until("the device has taken a frame", 20, || match self.used(FROM) {
            used if used == self.sent => Ok(()),
            used => Err(format!("used index {used}, sent {}", self.sent)),
        });
    }

    /// What arrives next, within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Option<Packet> {
        wait::poll(limit, || self.take())
    }

    fn take(&mut self) -> Option<Packet> {
        let new = self.used(TO).wrapping_sub(self.seen);
        if new == 0 {
            return None;
        }
        let first = self.take_buffer();
        let (header, frame) = first.split_at(HEADER);
        let spans = u16::from_le_bytes([header[10], header[11]]);
        assert!((1..=new).contains(&spans), "a frame in {spans} buffers, of which {new} are used");
        let (header, mut frame) = (header[..10].try_into().expect("ten bytes"), frame.to_vec());
        for _ in 1..spans {
            frame.extend(self.take_buffer());
        }
        self.connection.kick(TO);
        Some((header, frame))
    }

    /// Takes a used receive buffer, and posts it again.
    fn take_buffer(&mut self) -> Vec<u8> {
        let entry = TO as u64 * RING + USED + 4 + 8 * u64::from(self.seen % SIZE);
        let [id, len]: [u32; 2] = [self.load(entry), self.load(entry + 4)];
        assert!(id < u32::from(SIZE) && len <= self.room, "used entry: id {id}, length {len}");
        let mut bytes = vec![0; len as usize];
        let address = BUFFERS + u64::from(id) * u64::from(self.room);
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("a buffer");
        self.make_available(TO, self.seen.wrapping_add(SIZE), id as u16);
        self.seen = self.seen.wrapping_add(1);
        bytes
    }
}

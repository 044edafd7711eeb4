//! What a guest leaves to a NIC, and what a NIC says to a guest, over `net_ring`: it gives back each mbuf as it was, so
//! that it can play any NIC.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use virtqueue::testing::{DATA, Format, Poster, into, out, poster};
use virtqueue::{Ring, RingConfig};

use super::*;
use crate::guest::{GuestCounters, GuestPair};

mod leaves;
mod says;

pub const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO: u64 = 1 << 7 | 1 << 8;
pub const HOST_TSO: u64 = 1 << 11 | 1 << 12;
const MERGEABLE: u64 = 1 << 15;
const VERSION_1: u64 = 1 << 32;
/// Bytes of a header and of a receive buffer.
pub const HEADER: usize = 12;
const BUFFER: u64 = 2048;
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const TCPV4: u8 = 1;
const TCPV6: u8 = 4;

/// A pool of `count` mbufs with `net_ring`'s usual room.
pub fn pool(count: u32) -> Mempool {
    // Once in a process: under `cargo test`, all tests share it.
    static EAL: LazyLock<Eal> = LazyLock::new(|| {
        let args = EalArgs { hugepages: HugepagePolicy::Never, memory_mb: 512, ..EalArgs::default() };
        Eal::init(&args).unwrap()
    });
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    LazyLock::force(&EAL);
    let name = format!("pool{}", COUNT.fetch_add(1, Ordering::Relaxed));
    Mempool::new(&name, count, SEGMENT, 0, -1).unwrap()
}

/// A NIC that returns what it is sent.
fn open_loop() -> (Nic, NicPair) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    drop(pool(63));
    let name = format!("net_ring{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let options =
        NicOptions { name: &name, device: &name, queues: 1, mtu: Some(1500), promiscuous: true, lro: false };
    let (nic, mut pairs) = Nic::open(&options).unwrap();
    assert_eq!(nic.offloads(), ["TX_MULTI_SEGS"]);
    (nic, pairs.remove(0))
}

/// A TCP or UDP frame.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub v6: bool,
    pub tcp: bool,
    pub tags: usize,
    pub payload: usize,
}

pub const TCP4: Shape = Shape { v6: false, tcp: true, tags: 0, payload: 100 };
const TCP6: Shape = Shape { v6: true, ..TCP4 };
const UDP4: Shape = Shape { tcp: false, ..TCP4 };
const UDP6: Shape = Shape { v6: true, ..UDP4 };
const TAGGED: Shape = Shape { tags: 2, ..TCP4 };

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

impl Shape {
    fn l2(self) -> usize {
        14 + 4 * self.tags
    }

    fn l4(self) -> usize {
        self.l2() + if self.v6 { 40 } else { 20 }
    }

    pub fn header(self) -> usize {
        self.l4() + if self.tcp { 20 } else { 8 }
    }

    /// Where its checksum is.
    fn field(self) -> usize {
        self.l4() + if self.tcp { 16 } else { 6 }
    }

    /// With the pseudo header's sum in the checksum's field.
    pub fn partial(self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        (0..self.tags).for_each(|_| bytes.extend([0x81, 0, 0, 5]));
        let l4_len = self.header() - self.l4() + self.payload;
        let protocol = if self.tcp { 6 } else { 17 };
        if self.v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((l4_len as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend([0xfd; 16]);
            bytes.extend([0xfe; 16]);
        } else {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + l4_len as u16).to_be_bytes());
            bytes.extend([1, 2, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = !fold(words(&bytes[self.l2()..]));
            bytes[self.l2() + 10..][..2].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = bytes.len() - if self.v6 { 32 } else { 8 };
        let pseudo = fold(words(&bytes[addresses..]) + u32::from(protocol) + l4_len as u32);
        bytes.extend([0x12, 0x34, 0x56, 0x78]);
        if self.tcp {
            bytes.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        } else {
            bytes.extend((l4_len as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes[self.field()..][..2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend((0..self.payload).map(|at| (at * 7) as u8));
        bytes
    }

    /// As it is once the checksum is completed.
    fn complete(self) -> Vec<u8> {
        let mut bytes = self.partial();
        let sum = !fold(words(&bytes[self.l4()..]));
        bytes[self.field()..][..2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// A virtio-net header that leaves the checksum; and segments, if there is a size.
    pub fn leaves(self, size: u16) -> [u8; HEADER] {
        let gso_type = match size {
            0 => 0,
            _ if self.v6 => TCPV6,
            _ => TCPV4,
        };
        let hdr_len = if size == 0 { 0 } else { self.header() };
        let words = [hdr_len, size.into(), self.l4(), self.field() - self.l4(), 1];
        let mut header = [0; HEADER];
        (header[0], header[1]) = (NEEDS_CSUM, gso_type);
        words.iter().zip(header[2..].chunks_exact_mut(2)).for_each(|(word, field)| {
            field.copy_from_slice(&(*word as u16).to_le_bytes());
        });
        header
    }
}

/// A header and a frame, as a guest has received them.
pub type Heard = (Vec<u8>, Vec<u8>);

/// A guest with two rings.
pub struct Guest {
    pub pair: GuestPair,
    pub counters: GuestCounters,
    from: Box<dyn Poster>,
    to: Box<dyn Poster>,
}

impl Guest {
    pub fn new(format: Format, features: u64) -> Guest {
        let features = features | VERSION_1;
        let [from, to] = [(); 2].map(|()| poster(format, 64, features));
        let counters = GuestCounters::default();
        let ring = |poster: &dyn Poster, index| Ring::start(RingConfig { index, ..poster.config() }).unwrap();
        let pair = GuestPair::new("vm1", ring(&*from, 1), ring(&*to, 0), &counters);
        Guest { pair, counters, from, to }
    }

    pub fn send(&mut self, header: &[u8], frame: &[u8]) {
        let bytes = [header, frame].concat();
        self.from.guest().write(DATA, &bytes);
        self.from.post(&[out(DATA, bytes.len() as u32)], None).unwrap();
    }

    /// Posts `count` buffers.
    pub fn post(&mut self, count: u64) {
        for at in 0..count {
            self.to.post(&[into(DATA + at * BUFFER, BUFFER as u32)], None).unwrap();
        }
    }

    /// Headers and frames, of those buffers.
    pub fn received(&mut self) -> Vec<Heard> {
        let mut at = 0;
        let back = self.to.collect();
        let buffers: Vec<Vec<u8>> = back
            .iter()
            .map(|(_, len)| {
                at += BUFFER;
                self.to.guest().read(DATA + at - BUFFER, *len as usize)
            })
            .collect();
        let (mut packets, mut rest) = (Vec::new(), &buffers[..]);
        while let Some(first) = rest.first() {
            let spans = usize::from(u16::from_le_bytes([first[10], first[11]]));
            let mut bytes = rest[..spans].concat();
            let frame = bytes.split_off(HEADER);
            packets.push((bytes, frame));
            rest = &rest[spans..];
        }
        packets
    }
}

const FORMATS: [Format; 2] = [Format::Split, Format::Packed];

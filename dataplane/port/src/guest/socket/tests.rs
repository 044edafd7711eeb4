//! Rings driven by hand on one side; on the other a socket whose far end sees each header, or a real interface.

mod kernel;
mod receiving;
mod sending;
mod truncation;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use virtqueue::testing::{
    Buf, DATA, F_IN_ORDER, F_INDIRECT, Format, HOLE, Poster, into, out, pattern, poster,
};
use virtqueue::{Ring, RingConfig};

use super::offload::Bytes;
use super::receive::ORDINARY;
use super::*;
use crate::counters::{Counter, PairCounters, Shared, shared};
use crate::guest::GuestCounters;
use crate::socket::{HEADER_LEN, MAX_FRAME, SocketKind};

const F_CSUM: u64 = 1;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_HOST_TSO4: u64 = 1 << 11;
const F_MERGEABLE: u64 = 1 << 15;
const F_VERSION_1: u64 = 1 << 32;
/// As the slow path's.
const TURN: u64 = 0x80000;
/// Where tables are, of four entries at most: behind all buffers.
const TABLES: u64 = HOLE - 128 * TABLE;
const TABLE: u64 = 4 * 16;

/// What a guest is like.
#[derive(Clone, Copy, Debug)]
struct Setup {
    format: Format,
    size: u16,
    features: u64,
    /// All chains are behind tables.
    table: bool,
}

impl Setup {
    fn new(format: Format, features: u64) -> Setup {
        Setup { format, size: 128, features, table: false }
    }

    fn header(self) -> usize {
        if self.features & (F_MERGEABLE | F_VERSION_1) != 0 { 12 } else { 10 }
    }

    fn mergeable(self) -> bool {
        self.features & F_MERGEABLE != 0
    }
}

/// Every format, header and way to post.
fn cells() -> Vec<Setup> {
    let formats = [Format::Split, Format::Packed];
    let features = [0, F_VERSION_1 | F_IN_ORDER, F_MERGEABLE, F_MERGEABLE | F_VERSION_1 | F_IN_ORDER];
    let all = formats.into_iter().flat_map(|format| features.map(|features| Setup::new(format, features)));
    all.flat_map(|setup| {
        let tables = Setup { table: true, features: setup.features | F_INDIRECT, ..setup };
        [setup, tables]
    })
    .collect()
}

/// One of a guest's rings, and memory for its buffers.
struct Side {
    poster: Box<dyn Poster>,
    next: u64,
    /// What is posted: name and buffers.
    posted: Vec<(u16, Vec<Buf>)>,
    count: u64,
    table: bool,
}

impl Side {
    fn new(setup: Setup) -> Side {
        let poster = poster(setup.format, setup.size, setup.features);
        Side { poster, next: DATA, posted: Vec::new(), count: 0, table: setup.table }
    }

    fn ring(&self, index: u16) -> Ring {
        Ring::start(RingConfig { index, ..self.poster.config() }).unwrap()
    }

    /// Posts a chain of buffers of these lengths, one behind the other; where it is, if there was room.
    fn post(&mut self, lens: &[u32], buf: fn(u64, u32) -> Buf) -> Option<u64> {
        let len: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        let at = if self.next + len > TABLES { DATA } else { self.next };
        let taken = self.posted.iter().flat_map(|(_, bufs)| bufs);
        let free = |buf: &Buf| at + len <= buf.addr || buf.addr + u64::from(buf.len) <= at;
        assert!({ taken }.all(free), "the test has no memory left");
        let mut next = at;
        let place = |len: &u32| {
            next += u64::from(*len);
            buf(next - u64::from(*len), *len)
        };
        let bufs: Vec<Buf> = lens.iter().map(place).collect();
        let table = self.table.then_some(TABLES + self.count % 128 * TABLE);
        let id = self.poster.post(&bufs, table)?;
        self.posted.push((id, bufs));
        self.count += 1;
        self.next = next;
        Some(at)
    }

    /// What has come back: the bytes that were written to each.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        let back = self.poster.collect();
        let content = |(id, len): (u16, u32)| {
            let at = self.posted.iter().position(|(posted, _)| *posted == id).expect("it was not posted");
            let (_, bufs) = self.posted.remove(at);
            assert_eq!(at, 0, "chains come back in order");
            let bytes = bufs.iter().flat_map(|buf| self.poster.guest().read(buf.addr, buf.len as usize));
            let bytes: Vec<u8> = bytes.take(len as usize).collect();
            assert_eq!(bytes.len(), len as usize, "more was written than there is room for");
            bytes
        };
        back.into_iter().map(content).collect()
    }
}

/// A guest and a socket, with all that tells what happened.
struct Bench {
    setup: Setup,
    pair: GuestPair,
    socket: SocketPair,
    /// The other end of the socket, if it is one of a pair.
    far: Option<OwnedFd>,
    sends: Side,
    receives: Side,
    guest: GuestCounters,
    counters: Shared<PairCounters>,
    /// Chains that came back, of those sent and of those to receive into.
    returned: u64,
    used: u64,
}

impl Bench {
    fn new(setup: Setup) -> Bench {
        let (near, far) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
        let socket = SocketPair::new(0, SocketKind::Tap, Arc::new(near), shared());
        Bench { far: Some(far), ..Bench::on(setup, socket) }
    }

    fn on(setup: Setup, socket: SocketPair) -> Bench {
        let (sends, receives, guest) = (Side::new(setup), Side::new(setup), GuestCounters::default());
        let pair = GuestPair::new("vm", sends.ring(1), receives.ring(0), &guest);
        let counters = socket.counters.clone();
        Bench { setup, pair, socket, far: None, sends, receives, guest, counters, returned: 0, used: 0 }
    }

    /// The guest sends a frame behind `header`, in buffers that end at `cuts`; whether it had room.
    fn guest_sends(&mut self, header: &[u8], frame: &[u8], cuts: &[usize]) -> bool {
        let bytes = [&header[..self.setup.header()], frame].concat();
        let mut ends = cuts.to_vec();
        ends.retain(|cut| *cut < bytes.len());
        ends.push(bytes.len());
        let starts = [0].iter().chain(&ends);
        let lens: Vec<u32> = ends.iter().zip(starts).map(|(end, start)| (end - start) as u32).collect();
        let Some(at) = self.sends.post(&lens, out) else { return false };
        self.sends.poster.guest().write(at, &bytes);
        true
    }

    /// The guest posts so many chains of these buffers to receive into.
    fn guest_posts(&mut self, chains: usize, lens: &[u32]) {
        for _ in 0..chains {
            self.receives.post(lens, into).expect("room for a chain");
        }
    }

    fn far_fd(&self) -> RawFd {
        self.far.as_ref().expect("the other end").as_raw_fd()
    }

    /// What the kernel would be given: header and frame.
    fn far_receives(&self) -> Option<(Bytes, Vec<u8>)> {
        let mut bytes = vec![0; 1 << 17];
        let len = recv(self.far_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
        let frame = bytes[HEADER_LEN..len].to_vec();
        Some((bytes[..HEADER_LEN].try_into().unwrap(), frame))
    }

    /// What the kernel would hand out.
    fn far_sends(&self, header: &Bytes, frame: &[u8]) {
        assert!(self.far_tries(header, frame), "the socket is full");
    }

    /// The same, unless there is too much on its way.
    fn far_tries(&self, header: &Bytes, frame: &[u8]) -> bool {
        let bytes = [&header[..], frame].concat();
        match send(self.far_fd(), &bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => false,
            sent => sent == Ok(bytes.len()),
        }
    }

    fn send_to(&mut self, budget: u64) -> Turn {
        let turn = self.pair.send_to(&mut self.socket, budget);
        self.check();
        turn
    }

    fn receive_from(&mut self, budget: u64) -> Turn {
        let turn = self.pair.receive_from(&mut self.socket, budget);
        self.check_rx();
        turn
    }

    /// What the guest was given, in whole frames behind their headers.
    fn guest_receives(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let back = self.receives.collect();
        self.used += back.len() as u64;
        assert_eq!(self.guest.to.used.get(), self.used);
        let (header, mut back, mut frames) = (self.setup.header(), back.into_iter(), Vec::new());
        while let Some(mut bytes) = back.next() {
            let spans = bytes[..header].get(10..12).map_or(1, |n| u16::from_le_bytes([n[0], n[1]]));
            assert!(spans == 1 || self.setup.mergeable() && spans > 1, "{spans} buffers");
            for _ in 1..spans {
                bytes.extend(back.next().expect("a frame is shown as a whole"));
            }
            let frame = bytes.split_off(header);
            frames.push((bytes, frame));
        }
        frames
    }

    fn drops(counters: &PairCounters, reason: DropReason) -> u64 {
        counters.drops[reason as usize].get()
    }

    /// Whatever the guest sent went on or was dropped, and was returned to it.
    fn check(&mut self) {
        self.returned += self.sends.collect().len() as u64;
        let (rx, tx) = (&self.guest.pair, &self.counters);
        assert_eq!(rx.rx.packets.get(), tx.tx.packets.get() + all_drops(rx));
        assert_eq!(rx.rx.packets.get(), self.returned);
        assert_eq!(self.guest.from.used.get(), self.returned);
    }

    /// Whatever the socket handed out went on, is held, or was dropped.
    fn check_rx(&self) {
        let (rx, tx) = (&self.counters, &self.guest.pair);
        assert_eq!(rx.rx.packets.get(), tx.tx.packets.get() + rx.rx_held.get() + all_drops(rx));
        assert_eq!(rx.rx_held.get(), u64::from(!self.socket.held.is_empty()));
    }
}

fn all_drops(counters: &PairCounters) -> u64 {
    counters.drops.iter().map(Counter::get).sum()
}

/// A kernel's header with just these fields: flags, GSO type, and the four words.
fn header(flags: u8, gso: u8, words: [u16; 4]) -> Bytes {
    let mut bytes = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, word) in words.iter().enumerate() {
        bytes[2 + 2 * at..][..2].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A frame of the kind that is for experiments (IEEE 802, 0x88b5), or one with a VLAN tag.
fn frame(seed: u64, len: usize, tag: bool) -> Vec<u8> {
    let mut frame = pattern(seed, len);
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    match tag {
        true => frame[12..18].copy_from_slice(&[0x81, 0, 0x20, 7, 0x88, 0xb5]),
        false => frame[12..14].copy_from_slice(&[0x88, 0xb5]),
    }
    frame
}

/// An IPv4 packet with a TCP segment of `len` bytes, whose checksum is left to complete.
fn tcp(len: usize) -> Vec<u8> {
    let mut frame = frame(1, 54 + len, false);
    frame[12..14].copy_from_slice(&[8, 0]);
    let total = (40 + len as u16).to_be_bytes();
    frame[14..34]
        .copy_from_slice(&[0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 6, 0, 0, 10, 9, 9, 1, 10, 9, 9, 2]);
    let ip = !sum_of(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    frame[34..54].copy_from_slice(&[0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 16, 0, 0, 0, 0, 0]);
    let pseudo = sum_of(&frame[26..34], 6 + 20 + len as u32);
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    frame
}

fn sum_of(bytes: &[u8], first: u32) -> u16 {
    let word = |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    let sum = bytes.chunks(2).fold(first, |sum, two| sum + word(two));
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

/// Whether a TCP segment's checksum is right.
fn is_complete(frame: &[u8]) -> bool {
    sum_of(&frame[34..], u32::from(sum_of(&frame[26..34], 6 + frame.len() as u32 - 34))) == 0xffff
}

/// The header of 30000 bytes that are to be cut.
const ASKED: [u8; 12] = [1, 1, 54, 0, 0x78, 5, 34, 0, 16, 0, 0, 0];

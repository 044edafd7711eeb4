//! What a guest leaves to a NIC, and what a NIC says to a guest, over `net_ring`: it gives back each mbuf as it was, so
//! that it can play any NIC.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dpdk::eal::{Eal, EalArgs, HugepagePolicy};
use dpdk::mbuf::{Mbuf, TxOffload, flags};
use virtqueue::testing::{DATA, Format, Poster, into, out, poster};
use virtqueue::{Ring, RingConfig};

use super::*;
use crate::guest::{GuestCounters, GuestPair, Limits};

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
    let options = NicOptions {
        name: &name,
        device: &name,
        queues: 1,
        mtu: Some(1500),
        promiscuous: true,
        interrupts: false,
        lro: false,
    };
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

/// What a NIC that takes so much is given of what the guest sends.
fn given(takes: Takes, format: Format, header: &[u8], frame: &[u8]) -> (Guest, NicPair, Vec<Mbuf>) {
    let (_, mut nic) = open_loop();
    let mut guest = Guest::new(format, CSUM | HOST_TSO);
    nic.tx.takes = takes;
    nic.set_guest(CSUM | HOST_TSO, false);
    guest.send(header, frame);
    let moved = guest.pair.receive(&mut nic.tx.held, Limits { packets: 64, cost: u64::MAX, frame: 1522 });
    assert_eq!(moved.packets, nic.tx.held.len() as u64);
    let held = &mut nic.tx.held;
    let mut mbufs: Vec<Mbuf> = std::iter::from_fn(|| held.burst.pop_front()).collect();
    mbufs.extend(held.behind.drain(..));
    (guest, nic, mbufs)
}

const FORMATS: [Format; 2] = [Format::Split, Format::Packed];

#[test]
fn a_nic_is_told_of_the_checksum_that_is_left() {
    let csum = Takes::TCP_CSUM | Takes::UDP_CSUM;
    for (shape, format) in
        [TCP4, TCP6, UDP4, UDP6, TAGGED].into_iter().flat_map(|it| FORMATS.map(|f| (it, f)))
    {
        let (_guest, nic, mbufs) = given(csum, format, &shape.leaves(0), &shape.partial());
        let [mbuf] = &mbufs[..] else { panic!("{} packets", mbufs.len()) };
        let network = if shape.v6 { flags::TX_IPV6 } else { flags::TX_IPV4 };
        let transport = if shape.tcp { flags::TX_TCP_CKSUM } else { flags::TX_UDP_CKSUM };
        assert_eq!(mbuf.ol_flags(), network | transport, "{shape:?}");
        let lens = TxOffload {
            l2_len: shape.l2() as u8,
            l3_len: (shape.l4() - shape.l2()) as u16,
            l4_len: (shape.header() - shape.l4()) as u8,
            tso_segsz: 0,
        };
        assert_eq!(mbuf.tx_offload(), lens, "{shape:?}");
        assert_eq!(mbuf.copy_to_vec(), shape.partial());
        assert!(nic.tx.held.unprepared);
        // And one that does not take it gets it done.
        let (_guest, nic, mbufs) = given(Takes::NOTHING, format, &shape.leaves(0), &shape.partial());
        assert_eq!((mbufs[0].ol_flags(), mbufs[0].copy_to_vec()), (0, shape.complete()));
        assert!(!nic.tx.held.unprepared);
    }
}

#[test]
fn a_nic_is_left_the_cutting_of_what_it_has_room_for() {
    let takes = Takes::TCP_CSUM | Takes::TSO4 | Takes::TSO6;
    for shape in [TCP4, TCP6, TAGGED].map(|shape| Shape { payload: 40_000, ..shape }) {
        let (_guest, _nic, mbufs) = given(takes, Format::Split, &shape.leaves(1400), &shape.partial());
        let [mbuf] = &mbufs[..] else { panic!("{} packets", mbufs.len()) };
        // A driver that does not say that it sums IPv4 headers is not asked to.
        let network = if shape.v6 { flags::TX_IPV6 } else { flags::TX_IPV4 };
        assert_eq!(mbuf.ol_flags(), network | flags::TX_TCP_SEG);
        assert_eq!((mbuf.tx_offload().tso_segsz, mbuf.nb_segs()), (1400, 20));
        assert_eq!(mbuf.copy_to_vec(), shape.partial());
    }
    // Segments that would be longer than the NIC's frames.
    let shape = Shape { payload: 40_000, ..TCP4 };
    let (_, mut nic) = open_loop();
    let mut guest = Guest::new(Format::Split, CSUM | HOST_TSO);
    nic.tx.takes = takes;
    nic.set_guest(CSUM | HOST_TSO, false);
    guest.send(&shape.leaves(1500), &shape.partial());
    guest.pair.receive(&mut nic.tx.held, Limits { packets: 64, cost: u64::MAX, frame: 1522 });
    assert!(nic.tx.held.is_empty());
    assert_eq!(guest.counters.pair.drops[DropReason::Oversize as usize].get(), 1);
}

#[test]
fn a_nic_that_sums_but_does_not_cut_sums_the_segments() {
    let takes = Takes::TCP_CSUM | Takes::UDP_CSUM;
    let shape = Shape { payload: 30_000, ..TCP6 };
    let (_guest, _nic, mbufs) = given(takes, Format::Packed, &shape.leaves(300), &shape.partial());
    // More than a burst.
    assert_eq!(mbufs.len(), 100);
    for mbuf in &mbufs {
        assert_eq!(mbuf.ol_flags(), flags::TX_IPV6 | flags::TX_TCP_CKSUM);
        assert_eq!(mbuf.tx_offload(), TxOffload { l2_len: 14, l3_len: 40, l4_len: 20, tso_segsz: 0 });
        let frame = mbuf.copy_to_vec();
        let one = Shape { payload: 300, ..TCP6 };
        assert_eq!(frame[one.field()..][..2], one.partial()[one.field()..][..2]);
    }
}

#[test]
fn what_may_go_to_the_host_is_complete() {
    let (_, mut nic) = open_loop();
    nic.tx.takes = Takes::TCP_CSUM;
    nic.set_guest(CSUM, true);
    assert_eq!(nic.tx.held.sending.takes, Takes::NOTHING);
    nic.set_guest(CSUM, false);
    assert_eq!(nic.tx.held.sending.takes, Takes::TCP_CSUM);
}

/// A packet in mbufs of `room` bytes, of which a NIC says `said`.
fn packet(pool: &Mempool, bytes: &[u8], said: u64, segment_size: u16) -> Mbuf {
    let mut packet: Option<Mbuf> = None;
    for piece in bytes.chunks(SEGMENT.into()) {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.set_single_len(piece.len() as u16);
        mbuf.data_mut().copy_from_slice(piece);
        match &mut packet {
            Some(first) => first.append_segment(mbuf, piece.len() as u16),
            None => packet = Some(mbuf),
        }
    }
    let mut packet = packet.unwrap();
    packet.set_ol_flags(said);
    packet.set_tx_offload(TxOffload { tso_segsz: segment_size, ..TxOffload::default() });
    packet
}

/// What a guest with these features has received, of packets of which a NIC says something.
fn delivered(
    verdicts: Verdicts,
    format: Format,
    features: u64,
    packets: &[(&[u8], u64, u16)],
) -> (Vec<Heard>, NicPair) {
    let (nic, mut pair) = open_loop();
    pair.rx.verdicts = Some(verdicts);
    pair.set_guest(features, false);
    let mut guest = Guest::new(format, features);
    guest.post(60);
    for (bytes, said, size) in packets {
        pair.tx.held.burst.push(packet(&nic.pool, bytes, *said, *size)).unwrap();
    }
    assert!(pair.flush());
    let mut turns = 0;
    loop {
        if pair.rx.held.is_empty() {
            pair.receive(64);
        }
        if pair.rx.held.is_empty() {
            break;
        }
        let NicPair { rx, counters, .. } = &mut pair;
        match rx.judges() {
            true => guest.pair.send_judged(&mut rx.held, counters, u64::MAX),
            false => guest.pair.send(&mut rx.held, counters, u64::MAX),
        };
        turns += 1;
        assert!(turns < 100);
    }
    let received = guest.received();
    let drops: u64 = pair.counters.drops.iter().map(|count| count.get()).sum();
    assert_eq!(pair.counters.rx.packets.get(), received.len() as u64 + drops);
    let bytes: usize = received.iter().map(|(_, frame)| frame.len()).sum();
    assert!(drops > 0 || pair.counters.rx.bytes.get() == bytes as u64);
    (received, pair)
}

const SAYS: Verdicts = Verdicts { partial: true, lro: false };

#[test]
fn a_verdict_reaches_a_guest_that_hears_it() {
    let (right, wrong) = (TCP4.complete(), UDP6.partial());
    let packets: &[(&[u8], u64, u16)] = &[
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
        (&wrong, flags::RX_L4_CKSUM_BAD, 0),
        (&right, 0, 0),
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
    ];
    for (format, mergeable) in FORMATS.into_iter().flat_map(|it| [(it, 0), (it, MERGEABLE)]) {
        let (heard, nic) = delivered(SAYS, format, GUEST_CSUM | mergeable, packets);
        assert!(nic.rx.judges());
        let flags: Vec<u8> = heard.iter().map(|(header, _)| header[0]).collect();
        assert_eq!(flags, [DATA_VALID, 0, 0, DATA_VALID]);
        assert!(
            heard
                .iter()
                .zip(packets)
                .all(|((header, frame), sent)| header[1..10] == [0; 9] && frame == sent.0)
        );
        // One that does not is not told, and there is nothing to do for it.
        let deaf = Verdicts { partial: false, lro: false };
        let (heard, nic) = delivered(deaf, format, mergeable, packets);
        assert!(!nic.rx.judges());
        assert!(
            heard
                .iter()
                .zip(packets)
                .all(|((header, frame), sent)| header[..10] == [0; 10] && frame == sent.0)
        );
    }
}

#[test]
fn a_checksum_left_by_the_nic_is_left_to_the_guest_or_completed() {
    for shape in [TCP4, TCP6, UDP4, UDP6, TAGGED, Shape { payload: 7001, ..TCP6 }] {
        let partial = shape.partial();
        let packets: &[(&[u8], u64, u16)] = &[(&partial, flags::RX_L4_CKSUM_NONE, 0)];
        for format in FORMATS {
            let (heard, _) = delivered(SAYS, format, GUEST_CSUM | MERGEABLE, packets);
            let [(header, frame)] = &heard[..] else { panic!("{} packets", heard.len()) };
            assert_eq!((&header[..10], frame), (&shape.leaves(0)[..10], &partial), "{shape:?}");
            let (heard, _) = delivered(SAYS, format, MERGEABLE, packets);
            let [(header, frame)] = &heard[..] else { panic!("{} packets", heard.len()) };
            assert_eq!((&header[..10], frame), (&[0; 10][..], &shape.complete()), "{shape:?}");
        }
    }
}

/// UDP without a checksum has none to complete; of what is not TCP or UDP, nobody knows where it would be; and some
/// drivers say that none is right of what they have not looked at.
#[test]
fn a_checksum_that_is_not_left_stays_as_it_is() {
    let mut without = UDP4.partial();
    without[UDP4.field()..][..2].fill(0);
    let mut other = TCP4.partial();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let right = TCP4.complete();
    let packets: &[(&[u8], u64, u16)] = &[
        (&without, flags::RX_L4_CKSUM_NONE, 0),
        (&other, flags::RX_L4_CKSUM_NONE, 0),
        (&right, flags::RX_L4_CKSUM_GOOD, 0),
    ];
    for features in [0, GUEST_CSUM] {
        let (heard, nic) = delivered(SAYS, Format::Split, features, packets);
        assert_eq!(heard[0], (vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], without.clone()));
        assert_eq!((heard.len(), &heard[1].1), (2, &right));
        assert_eq!(nic.counters.drops[DropReason::BadOffload as usize].get(), 1);
    }
    let unlooked = Verdicts { partial: false, lro: false };
    let (heard, _) = delivered(unlooked, Format::Split, GUEST_CSUM, packets);
    assert_eq!(heard.iter().map(|(header, _)| header[0]).collect::<Vec<_>>(), [0, 0, DATA_VALID]);
    assert!(heard.iter().zip(packets).all(|((_, frame), sent)| frame == sent.0));
}

const LRO: Verdicts = Verdicts { partial: true, lro: true };

#[test]
fn what_the_nic_made_of_many_reaches_the_guest_whole_or_is_cut() {
    for shape in [TCP4, TCP6].map(|shape| Shape { payload: 20_000, ..shape }) {
        let partial = shape.partial();
        let said = flags::RX_LRO | flags::RX_L4_CKSUM_NONE;
        let small = TCP4.complete();
        let packets: &[(&[u8], u64, u16)] =
            &[(&small, flags::RX_L4_CKSUM_GOOD, 0), (&partial, said, 1400), (&small, 0, 0)];
        let (whole, _) = delivered(LRO, Format::Packed, GUEST_CSUM | GUEST_TSO | MERGEABLE, packets);
        assert_eq!(whole.len(), 3);
        assert_eq!((&whole[1].0[..10], &whole[1].1), (&shape.leaves(1400)[..10], &partial));
        assert_eq!((&whole[0].1, &whole[2].1), (&small, &small));
        for (features, flag) in [(GUEST_CSUM, NEEDS_CSUM), (0, 0)] {
            let (cut, _) = delivered(LRO, Format::Split, features, packets);
            assert_eq!(cut.len(), 17);
            assert_eq!((&cut[0].1, &cut[16].1), (&small, &small));
            let payload: Vec<u8> =
                cut[1..16].iter().flat_map(|(_, frame)| frame[shape.header()..].to_vec()).collect();
            assert_eq!(payload, partial[shape.header()..]);
            assert!(cut[1..16].iter().all(|(header, _)| header[0] == flag && header[1] == 0));
        }
    }
}

#[test]
fn what_waits_when_the_guest_changes_is_fit_for_the_next() {
    let (nic, mut pair) = open_loop();
    pair.rx.verdicts = Some(SAYS);
    pair.set_guest(GUEST_CSUM, false);
    pair.tx.held.burst.push(packet(&nic.pool, &TCP4.partial(), flags::RX_L4_CKSUM_NONE, 0)).unwrap();
    assert!(pair.flush());
    assert_eq!(pair.receive(64).packets, 1);
    pair.set_guest(0, false);
    assert_eq!((pair.rx.waiting(), pair.rx.held.len()), (1, 0));
    pair.receive(64);
    assert_eq!(pair.rx.held.as_slice()[0].copy_to_vec(), TCP4.complete());
    pair.drop_received(DropReason::WireRemoved);
    assert_eq!((pair.rx.waiting(), pair.counters.rx.packets.get()), (0, 1));
}

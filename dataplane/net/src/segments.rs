//! Segmentation: one frame, many segments.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::checksum::unless_zero;
use crate::offload::NEEDS_CSUM;
use crate::packet::{IPV6_LEN, Network, Packet, Transport, put_word};
use crate::plan::{Cut, Gso};
use crate::{HEADER_MAX, Offload, Plan, Sum};

const FRAGMENT: u8 = 44;
const FRAGMENT_LEN: usize = 8;
const IPV4_MORE: u16 = 0x2000;
const IPV6_MORE: u16 = 1;

// Where the fields are in their headers.
const IPV4_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_FRAGMENT: usize = 6;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LENGTH: usize = 4;
const UDP_LENGTH: usize = 4;
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// A segment: its own headers, and a part of the frame behind them.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Ethernet to TCP or UDP header; of an IP fragment, the IP header, and the first's UDP header.
    pub header: &'a [u8],
    /// Which bytes of the frame follow.
    pub payload: Range<usize>,
    /// What is left to do with it: nothing, or its checksum.
    pub offload: Offload,
}

/// The segments of a frame, as Linux cuts them: TSO, USO or UFO, by the [`Plan`].
///
/// - TCP: sequence numbers go on, FIN and PSH are the last segment's, CWR is the first's.
/// - UDP datagrams: each has a header with the frame's ports.
/// - IP fragments, of a UDP datagram whose checksum is completed: `gso_size` is rounded down to a multiple of 8, and
///   the IPv6 fragment header is in front of the UDP header, behind any other extension headers.
/// - IPv4: the identification is one more in each segment, and the same in all fragments.
///
/// The checksums start from what the sender left in the frame, so they are right behind an IPv6 routing header too.
#[derive(Debug)]
pub struct Segments {
    header: [u8; HEADER_MAX + FRAGMENT_LEN],
    /// Of the next segment.
    header_len: usize,
    /// Where the IP header is, and what follows it.
    l3: usize,
    l4: usize,
    /// Bytes of the frame that are left.
    rest: Range<usize>,
    /// Bytes of payload in each segment but the last; of a fragment, the UDP header counts.
    unit: usize,
    network: Network,
    /// Of the next segment.
    ipv4_id: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Sequence number and flags are the next segment's.
    Tcp { pseudo: Sum, sequence: u32, flags: u8 },
    /// The pseudo header's sum is without the length, here and above.
    Datagrams { pseudo: Sum },
    /// Where in the datagram the next one begins.
    Fragments { offset: u16 },
}

impl Segments {
    /// Begins with the frame in `pieces`, which was found to need `plan`.
    ///
    /// # Panics
    /// If it needs no segmentation.
    #[inline(never)]
    pub fn new<'a>(plan: &Plan, pieces: impl IntoIterator<Item = &'a [u8]> + Clone) -> Segments {
        let Cut { gso, packet, unit } = plan.cut().expect("a plan that segments");
        let layers = packet.layers;
        let (l3, l4, header_len) = (usize::from(layers.l2_len), layers.l4(), layers.header_len());
        let mut header = [0; HEADER_MAX + FRAGMENT_LEN];
        copy(pieces.clone(), &mut header[..header_len]);
        let pseudo = || pseudo_header(&header, plan, packet);
        let kind = match gso {
            Gso::Tcp => Kind::Tcp {
                pseudo: pseudo(),
                sequence: u32::from_be_bytes(
                    header[l4 + TCP_SEQUENCE..][..4].try_into().expect("four bytes"),
                ),
                flags: header[l4 + TCP_FLAGS],
            },
            Gso::Datagrams => Kind::Datagrams { pseudo: pseudo() },
            Gso::Fragments => Kind::Fragments { offset: 0 },
        };
        let ipv4_id = u16::from_be_bytes([header[l3 + 4], header[l3 + 5]]);
        let rest = header_len..plan.frame_len();
        let (unit, network) = (*unit, layers.network);
        let mut segments = Segments { header, header_len, l3, l4, rest, unit, network, ipv4_id, kind };
        if *gso == Gso::Fragments {
            segments.begin_fragments(plan, packet, pieces);
        }
        segments
    }

    /// How many are to come.
    pub fn left(&self) -> usize {
        (self.in_header() + self.rest.len()).div_ceil(self.unit)
    }

    /// The next segment, its checksum complete: `sum` gives that of a part of the frame.
    ///
    /// ```
    /// # fn send(header: &[u8], payload: &[u8]) {}
    /// # fn f(plan: &net::Plan, frame: &[u8]) {
    /// let mut segments = net::Segments::new(plan, [frame]);
    /// while let Some(segment) = segments.next_complete(|part| net::Sum::of(&frame[part])) {
    ///     send(segment.header, &frame[segment.payload]);
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn next_complete(&mut self, sum: impl FnOnce(Range<usize>) -> Sum) -> Option<Segment<'_>> {
        let payload = self.take()?;
        let fragments = matches!(self.kind, Kind::Fragments { .. });
        let sum = if fragments { Sum::default() } else { sum(payload.clone()) };
        Some(self.segment(payload, Some(sum)))
    }

    /// The next segment, its checksum left to complete: by the destination, or, once the segment is where it goes
    /// to, by [`Offload::checksum`].
    #[inline]
    pub fn next_partial(&mut self) -> Option<Segment<'_>> {
        let payload = self.take()?;
        Some(self.segment(payload, None))
    }

    /// Completes the datagram's checksum, and puts the IPv6 fragment header in front of it.
    fn begin_fragments<'a>(
        &mut self,
        plan: &Plan,
        packet: &Packet,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) {
        if let Some(checksum) = plan.offload().checksum() {
            self.header[checksum.at()..][..2].copy_from_slice(&checksum.value(pieces));
        }
        if self.network == Network::V6 {
            let protocol = &mut self.header[usize::from(packet.protocol_at)];
            let next = std::mem::replace(protocol, FRAGMENT);
            self.header.copy_within(self.l4..self.header_len, self.l4 + FRAGMENT_LEN);
            let fragment = &mut self.header[self.l4..][..FRAGMENT_LEN];
            fragment[..4].copy_from_slice(&[next, 0, 0, 0]);
            fragment[4..].copy_from_slice(&fragment_id().to_be_bytes());
            self.l4 += FRAGMENT_LEN;
            self.header_len += FRAGMENT_LEN;
        }
    }

    /// How much of the unit is in the header already: the first fragment's UDP header.
    fn in_header(&self) -> usize {
        if let Kind::Fragments { .. } = self.kind { self.header_len - self.l4 } else { 0 }
    }

    /// The next part of the frame.
    #[inline]
    fn take(&mut self) -> Option<Range<usize>> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest.start;
        self.rest.start = self.rest.end.min(start + self.unit - self.in_header());
        Some(start..self.rest.start)
    }

    /// The segment with `payload`, and a complete checksum if there is the payload's `sum`.
    #[inline(never)]
    fn segment(&mut self, payload: Range<usize>, sum: Option<Sum>) -> Segment<'_> {
        let (header_len, last) = (self.header_len, self.rest.is_empty());
        let l4_len = header_len - self.l4 + payload.len();
        self.put_ip_len(header_len - self.l3 + payload.len());
        let mut offload = Offload::default();
        match self.kind {
            Kind::Tcp { pseudo, sequence, flags } => {
                let l4 = &mut self.header[self.l4..];
                l4[TCP_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
                l4[TCP_FLAGS] = if last { flags } else { flags & !(TCP_FIN | TCP_PSH) };
                offload = self.put_checksum(Transport::Tcp, pseudo, l4_len, sum);
                let sequence = sequence.wrapping_add(self.unit as u32);
                self.kind = Kind::Tcp { pseudo, sequence, flags: flags & !TCP_CWR };
                self.ipv4_id = self.ipv4_id.wrapping_add(1);
            }
            Kind::Datagrams { pseudo } => {
                put_word(&mut self.header, self.l4 + UDP_LENGTH, l4_len as u16);
                offload = self.put_checksum(Transport::Udp, pseudo, l4_len, sum);
                self.ipv4_id = self.ipv4_id.wrapping_add(1);
            }
            Kind::Fragments { offset } => {
                self.put_fragment(offset, last);
                // The first one's UDP header is not in the others.
                self.header_len = self.l4;
                self.kind = Kind::Fragments { offset: offset.wrapping_add(self.unit as u16) };
            }
        }
        self.put_ipv4_checksum();
        Segment { header: &self.header[..header_len], payload, offload }
    }

    /// Length and identification of an IP packet that is `len` bytes long.
    fn put_ip_len(&mut self, len: usize) {
        let ip = &mut self.header[self.l3..];
        match self.network {
            Network::V4 => {
                put_word(ip, IPV4_LENGTH, len as u16);
                put_word(ip, IPV4_ID, self.ipv4_id);
            }
            Network::V6 => put_word(ip, IPV6_LENGTH, (len - IPV6_LEN) as u16),
        }
    }

    fn put_ipv4_checksum(&mut self) {
        if self.network == Network::V4 {
            let ip = &mut self.header[self.l3..self.l4];
            put_word(ip, IPV4_CHECKSUM, 0);
            let checksum = !Sum::of(ip).fold();
            put_word(ip, IPV4_CHECKSUM, checksum);
        }
    }

    /// TCP's or UDP's, `len` bytes long with header. What is left to do with it.
    fn put_checksum(
        &mut self,
        transport: Transport,
        pseudo: Sum,
        len: usize,
        payload: Option<Sum>,
    ) -> Offload {
        let at = usize::from(transport.checksum_offset());
        let l4 = &mut self.header[self.l4..self.header_len];
        let mut sum = pseudo;
        sum.add_number(len as u32);
        let Some(payload) = payload else {
            put_word(l4, at, sum.fold());
            let (csum_start, csum_offset) = (self.l4 as u16, transport.checksum_offset());
            return Offload { flags: NEEDS_CSUM, csum_start, csum_offset, ..Offload::default() };
        };
        put_word(l4, at, 0);
        sum.add_sum(Sum::of(l4));
        sum.add_sum(payload);
        let checksum = !sum.fold();
        put_word(l4, at, if transport == Transport::Udp { unless_zero(checksum) } else { checksum });
        Offload::default()
    }

    fn put_fragment(&mut self, offset: u16, last: bool) {
        match self.network {
            Network::V4 => {
                let more = if last { 0 } else { IPV4_MORE };
                put_word(&mut self.header, self.l3 + IPV4_FRAGMENT, (offset / 8) | more);
            }
            Network::V6 => {
                let at = self.l4 - FRAGMENT_LEN + 2;
                put_word(&mut self.header, at, offset | if last { 0 } else { IPV6_MORE });
            }
        }
    }
}

/// The sum of the pseudo header without the length. If the sender left the checksum to be completed, it is in the
/// field; else the addresses are the packet's.
fn pseudo_header(header: &[u8], plan: &Plan, packet: &Packet) -> Sum {
    let layers = &packet.layers;
    let l3 = usize::from(layers.l2_len);
    if let Some(checksum) = plan.offload().checksum() {
        let mut sum = Sum::of(&header[checksum.at()..][..2]);
        sum.add_number(!((plan.frame_len() - layers.l4()) as u32));
        return sum;
    }
    let addresses = match layers.network {
        Network::V4 => l3 + 12..l3 + 20,
        Network::V6 => l3 + 8..l3 + IPV6_LEN,
    };
    let mut sum = Sum::of(&header[addresses]);
    sum.add_word(u16::from(layers.transport.protocol()));
    sum
}

/// Copies as much as there is room for.
fn copy<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut to: &mut [u8]) {
    for piece in pieces {
        let (now, later) = to.split_at_mut(piece.len().min(to.len()));
        now.copy_from_slice(&piece[..now.len()]);
        to = later;
        if to.is_empty() {
            break;
        }
    }
}

/// An identification for a datagram's fragments: none comes again before all others have, and who sees one does not
/// see the next (RFC 7739).
fn fragment_id() -> u32 {
    thread_local! {
        static NEXT: Cell<u32> = Cell::new(RandomState::new().hash_one(0) as u32);
    }
    let count = NEXT.get();
    NEXT.set(count.wrapping_add(1));
    // Reversible steps: different numbers stay different.
    let mixed = (count ^ count >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

//! Holds what a header asks for against the frame, and decides what is to be done.

use thiserror::Error;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP,
    VIRTIO_NET_HDR_GSO_UDP_L4,
};

use crate::offload::{DATA_VALID, GSO_ECN, NEEDS_CSUM};
use crate::packet::{IPV6_LEN, Network, Packet, Transport, UDP_LEN, word};
use crate::{Checksum, Layers, Offload, SEGMENTS_MAX, Takes};

const TCP_FLAGS_AT: usize = 13;
const TCP_CWR: u8 = 0x80;
/// No IP header is shorter, and Linux takes no lower one.
const CSUM_START_MIN: u16 = 20;
/// Fragments begin at multiples of it.
const FRAGMENT_UNIT: usize = 8;
/// The most datagrams in one that Linux takes.
const UDP_MAX_SEGMENTS: usize = 128;

/// What a header asks for is not possible with the frame behind it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadOffload {
    /// `hdr_len` is longer than the frame.
    #[error("hdr_len {hdr_len} in a frame of {frame_len} bytes")]
    HeaderLength {
        /// What the header says.
        hdr_len: u16,
        /// What there is.
        frame_len: usize,
    },
    /// The checksum is outside the frame, or of more than what follows its Ethernet header.
    #[error("csum_start {start}, csum_offset {offset} in a frame of {frame_len} bytes")]
    ChecksumOutside {
        /// What the header says.
        start: u16,
        /// What the header says.
        offset: u16,
        /// Length of the frame, in bytes.
        frame_len: usize,
    },
    /// A checksum or segmentation that was not negotiated.
    #[error("flags {flags:#x}, gso_type {gso_type:#x}: not negotiated")]
    NotNegotiated {
        /// What the header says.
        flags: u8,
        /// What the header says.
        gso_type: u8,
    },
    /// No such `gso_type`.
    #[error("gso_type {0:#x}")]
    GsoType(u8),
    /// `gso_size` is 0, below 8 for fragments, or would make too many segments.
    #[error("gso_size {size} for {len} bytes")]
    GsoSize {
        /// What the header says.
        size: u16,
        /// How much there is to be cut.
        len: usize,
    },
    /// The frame's headers are not those of its `gso_type`, not complete, too long, or it is a fragment already.
    #[error("gso_type {0:#x}, but the frame does not begin with such headers")]
    GsoHeaders(u8),
    /// The checksum of what is to be segmented is not where its headers have it, or must be left to us and is not.
    #[error("gso_type {gso_type:#x} with csum_start {start}, csum_offset {offset}")]
    GsoChecksum {
        /// What the header says.
        gso_type: u8,
        /// What the header says; 0 without NEEDS_CSUM.
        start: u16,
        /// What the header says; 0 without NEEDS_CSUM.
        offset: u16,
    },
    /// The lengths in the frame's IP or UDP header are not those of the frame.
    #[error("gso_type {0:#x}, but lengths in the frame's headers differ from its own")]
    GsoLengths(u8),
}

/// How a frame is segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gso {
    /// Into TCP segments (TSO).
    Tcp,
    /// Into UDP datagrams (USO).
    Datagrams,
    /// Into IP fragments (UFO).
    Fragments,
}

/// Something to be segmented.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub gso: Gso,
    pub packet: Packet,
    /// Bytes in each but the last.
    pub unit: usize,
}

impl Cut {
    /// What a destination must take to get it whole.
    fn needs(&self, ecn: bool, segments: usize) -> Takes {
        let gso = match (self.gso, self.packet.layers.network) {
            (Gso::Tcp, Network::V4) => Takes::TSO4,
            (Gso::Tcp, Network::V6) => Takes::TSO6,
            (Gso::Datagrams, Network::V4) => Takes::USO4,
            (Gso::Datagrams, Network::V6) => Takes::USO6,
            (Gso::Fragments, _) => Takes::UFO,
        };
        let ecn = if ecn { Takes::ECN } else { Takes::NOTHING };
        let too_many = self.gso == Gso::Datagrams && segments > UDP_MAX_SEGMENTS;
        let long = if too_many { Takes::LONG_USO } else { Takes::NOTHING };
        csum_of(&self.packet) | gso | ecn | long
    }
}

/// What a destination must take to complete the checksum. A NIC, or its driver (`rte_net_intel_cksum_prepare` of DPDK,
/// for one), makes the pseudo header anew from the IP header right in front, so that this must say all there is in it.
/// It does not with IPv6 extension headers: the protocol is another one there, the length counts them too, and behind a
/// routing header the destination is not the last. Nor without a length. These must not want to know what is summed.
fn csum_of(packet: &Packet) -> Takes {
    let extended = packet.layers.network == Network::V6 && usize::from(packet.layers.l3_len) != IPV6_LEN;
    match packet.layers.transport {
        _ if extended || packet.ip_len == 0 => Takes::ANY_CSUM,
        Transport::Tcp => Takes::TCP_CSUM,
        Transport::Udp => Takes::UDP_CSUM,
    }
}

/// What a frame needs, verified.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    offload: Offload,
    needs: Takes,
    layers: Option<Layers>,
    frame_len: usize,
    cut: Option<Cut>,
}

/// What is to be done with a frame for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the destination does what this header asks for.
    PassOn(Offload),
    /// Complete this checksum; the header then asks for nothing.
    Checksum(Checksum),
    /// Cut it into [`Segments`](crate::Segments).
    Segment {
        /// The destination completes the checksum of each.
        partial: bool,
    },
}

/// What must be done with a frame before it goes to a destination that `takes` so much: the one place that decides
/// it, for all pairs of ports.
#[inline]
pub fn decide(plan: &Plan, takes: Takes) -> Action {
    if takes.contains(plan.needs) {
        let known = if takes.contains(Takes::DATA_VALID) { u8::MAX } else { !DATA_VALID };
        return Action::PassOn(Offload { flags: plan.offload.flags & known, ..plan.offload });
    }
    match &plan.cut {
        // Fragments have the checksum of the datagram in them: there is no leaving it to the destination.
        Some(Cut { gso: Gso::Fragments, .. }) => Action::Segment { partial: false },
        Some(cut) => Action::Segment { partial: takes.contains(csum_of(&cut.packet)) },
        // All that is left to need.
        None => plan.offload.checksum().map_or(Action::PassOn(Offload::default()), Action::Checksum),
    }
}

impl Plan {
    /// What it asks for, as far as it was verified: this may be passed on, whoever wrote the original.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The headers whose checksum is left to complete, or which are to be segmented: what a NIC has to be told.
    /// `None` if there is nothing to do, or only software can do it.
    pub fn layers(&self) -> Option<Layers> {
        self.layers
    }

    /// Length of the frame it was made for, in bytes.
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    pub(crate) fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }
}

impl Offload {
    /// Verifies everything it says against the frame of `frame_len` bytes that begins with `header`: all of it, or
    /// at least [`HEADER_MAX`](crate::HEADER_MAX) bytes. `allowed` is what the source may leave to do.
    ///
    /// Of a header that asks for segmentation, nothing goes unverified. A checksum alone may be anywhere in the
    /// frame: it may be that of a tunnel's inner packet, or of a protocol we know nothing of.
    pub fn check(self, header: &[u8], frame_len: usize, allowed: Takes) -> Result<Plan, BadOffload> {
        if usize::from(self.hdr_len) > frame_len {
            return Err(BadOffload::HeaderLength { hdr_len: self.hdr_len, frame_len });
        }
        self.check_csum(frame_len)?;
        let header = &header[..header.len().min(frame_len)];
        let packet = if self.asks_nothing() { None } else { Packet::parse(header) };
        let cut = self.cut(packet, header, frame_len)?;
        let (needs, layers) = match &cut {
            Some((cut, needs)) => (*needs, Some(cut.packet.layers)),
            None => self.needs_of_csum(packet, frame_len),
        };
        // Whether the first segment has CWR, and how many there are, is not asked for but found.
        if !allowed.contains(needs.without(Takes::ECN | Takes::LONG_USO)) {
            return Err(BadOffload::NotNegotiated { flags: self.flags, gso_type: self.gso_type });
        }
        let mut offload = Offload::default();
        if self.needs_csum() {
            (offload.flags, offload.csum_start, offload.csum_offset) =
                (NEEDS_CSUM, self.csum_start, self.csum_offset);
        } else if allowed.contains(Takes::DATA_VALID) {
            offload.flags = self.flags & DATA_VALID;
        }
        if let Some((cut, needs)) = &cut {
            let ecn = if needs.contains(Takes::ECN) { GSO_ECN } else { 0 };
            offload.gso_type = self.gso_type & !GSO_ECN | ecn;
            (offload.gso_size, offload.hdr_len) = (self.gso_size, cut.packet.layers.header_len() as u16);
        }
        Ok(Plan { offload, needs, layers, frame_len, cut: cut.map(|(cut, _)| cut) })
    }

    fn check_csum(&self, frame_len: usize) -> Result<(), BadOffload> {
        let (start, offset) = (self.csum_start, self.csum_offset);
        let end = usize::from(start) + usize::from(offset) + 2;
        if self.needs_csum() && (end > frame_len || start < CSUM_START_MIN) {
            return Err(BadOffload::ChecksumOutside { start, offset, frame_len });
        }
        Ok(())
    }

    /// What a destination must take to complete the checksum, and the layers if it is just theirs.
    fn needs_of_csum(&self, packet: Option<Packet>, frame_len: usize) -> (Takes, Option<Layers>) {
        if !self.needs_csum() {
            return (Takes::NOTHING, None);
        }
        let usual = |packet: &Packet| {
            self.is_checksum_of(&packet.layers)
                && csum_of(packet) != Takes::ANY_CSUM
                && usize::from(packet.layers.l2_len) + packet.ip_len <= frame_len
                && packet.ip_len >= usize::from(packet.layers.l3_len + packet.layers.l4_len)
        };
        match packet.filter(usual) {
            Some(packet) => (csum_of(&packet), Some(packet.layers)),
            None => (Takes::ANY_CSUM, None),
        }
    }

    fn is_checksum_of(&self, layers: &Layers) -> bool {
        usize::from(self.csum_start) == layers.l4() && self.csum_offset == layers.transport.checksum_offset()
    }

    /// How the frame is to be segmented, and what a destination must take to get it whole. `None` if it is not to be
    /// segmented, or is no longer than one segment: Linux sends such.
    fn cut(
        &self,
        packet: Option<Packet>,
        header: &[u8],
        frame_len: usize,
    ) -> Result<Option<(Cut, Takes)>, BadOffload> {
        let gso_type = self.gso_type;
        if u32::from(gso_type) == VIRTIO_NET_HDR_GSO_NONE {
            return Ok(None);
        }
        let packet = self.gso_packet(packet)?;
        let layers = &packet.layers;
        let gso = match (layers.transport, u32::from(gso_type)) {
            (Transport::Tcp, _) => Gso::Tcp,
            (_, VIRTIO_NET_HDR_GSO_UDP) => Gso::Fragments,
            _ => Gso::Datagrams,
        };
        self.check_gso_csum(gso, &packet)?;
        let payload = frame_len - layers.header_len();
        let size = usize::from(self.gso_size);
        let (len, unit) = match gso {
            Gso::Tcp | Gso::Datagrams => (payload, size),
            Gso::Fragments => (UDP_LEN + payload, size / FRAGMENT_UNIT * FRAGMENT_UNIT),
        };
        if unit == 0 || len.div_ceil(unit) > SEGMENTS_MAX {
            return Err(BadOffload::GsoSize { size: self.gso_size, len });
        }
        if !lengths_are(&packet, header, frame_len, len > size) {
            return Err(BadOffload::GsoLengths(gso_type));
        }
        let cwr = gso == Gso::Tcp && header[layers.l4() + TCP_FLAGS_AT] & TCP_CWR != 0;
        let cut = Cut { gso, packet, unit };
        let needs = cut.needs(cwr || gso_type & GSO_ECN != 0, len.div_ceil(unit));
        Ok((len > size).then_some((cut, needs)))
    }

    /// The packet, if it is one of the `gso_type`.
    fn gso_packet(&self, packet: Option<Packet>) -> Result<Packet, BadOffload> {
        let (transport, network) = match u32::from(self.gso_type & !GSO_ECN) {
            VIRTIO_NET_HDR_GSO_TCPV4 => (Transport::Tcp, Some(Network::V4)),
            VIRTIO_NET_HDR_GSO_TCPV6 => (Transport::Tcp, Some(Network::V6)),
            // Both are without ECN.
            _ => match u32::from(self.gso_type) {
                VIRTIO_NET_HDR_GSO_UDP | VIRTIO_NET_HDR_GSO_UDP_L4 => (Transport::Udp, None),
                _ => return Err(BadOffload::GsoType(self.gso_type)),
            },
        };
        let fits = |packet: &Packet| {
            packet.layers.transport == transport && network.is_none_or(|it| packet.layers.network == it)
        };
        packet.filter(fits).ok_or(BadOffload::GsoHeaders(self.gso_type))
    }

    /// The checksum must be where the headers have it. Who sends TCP segments or fragments may have completed it, or
    /// found it right (a NIC with LRO, behind a raw socket): Linux passes on such. But then the pseudo header must be
    /// known.
    fn check_gso_csum(&self, gso: Gso, packet: &Packet) -> Result<(), BadOffload> {
        let (right, start, offset) = if self.needs_csum() {
            (self.is_checksum_of(&packet.layers), self.csum_start, self.csum_offset)
        } else {
            (gso == Gso::Fragments || gso == Gso::Tcp && !packet.routed, 0, 0)
        };
        right.then_some(()).ok_or(BadOffload::GsoChecksum { gso_type: self.gso_type, start, offset })
    }
}

/// Whether IP and UDP header say how long the frame is. TCP packets that are segmented may leave it open, as they do
/// in Linux if they are too long for the field.
fn lengths_are(packet: &Packet, header: &[u8], frame_len: usize, segmented: bool) -> bool {
    let layers = &packet.layers;
    match layers.transport {
        Transport::Tcp if segmented && packet.ip_len == 0 => true,
        Transport::Udp if word(header, layers.l4() + 4).map(usize::from) != Some(frame_len - layers.l4()) => {
            false
        }
        _ => packet.ip_len == frame_len - usize::from(layers.l2_len),
    }
}

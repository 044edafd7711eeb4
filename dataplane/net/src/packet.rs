//! A frame's headers, as far as checksums and segmentation go: Ethernet, VLAN tags, IP, TCP or UDP.

use crate::HEADER_MAX;

const ETHERTYPE_AT: usize = 12;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const VLAN_TAG: usize = 4;
const MAX_VLAN_TAGS: usize = 2;

const IPV4_MIN: usize = 20;
const IPV4_MORE_OR_OFFSET: u16 = 0x3fff;
pub(crate) const IPV6_LEN: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const SEGMENTS_LEFT: usize = 3;
const DESTINATION_OPTIONS: u8 = 60;

const TCP: u8 = 6;
const TCP_MIN: usize = 20;
const UDP: u8 = 17;
pub(crate) const UDP_LEN: usize = 8;

/// The network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4, any options.
    V4,
    /// IPv6, extension headers as well.
    V6,
}

/// The transport layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Where its header has the checksum.
    pub(crate) fn checksum_offset(self) -> u16 {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    /// Its number in an IP header.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        }
    }
}

/// A frame's headers and their lengths in bytes, as a NIC wants to have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The network layer.
    pub network: Network,
    /// The transport layer.
    pub transport: Transport,
    /// Ethernet header and VLAN tags.
    pub l2_len: u16,
    /// IP header, with IPv6 extension headers.
    pub l3_len: u16,
    /// TCP or UDP header.
    pub l4_len: u16,
}

impl Layers {
    /// Where the TCP or UDP header begins.
    pub(crate) fn l4(&self) -> usize {
        usize::from(self.l2_len + self.l3_len)
    }

    /// Where the payload begins.
    pub(crate) fn header_len(&self) -> usize {
        self.l4() + usize::from(self.l4_len)
    }
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub layers: Layers,
    /// Bytes from the IP header on, as that says. 0 if it leaves them to who segments the packet.
    pub ip_len: usize,
    /// Where the byte is that says TCP or UDP.
    pub protocol_at: u16,
    /// The destination in the IPv6 header is not the last one.
    pub routed: bool,
}

impl Packet {
    /// `None` for what is not a whole TCP or UDP packet, or has headers that end behind `header` or are too long.
    pub fn parse(header: &[u8]) -> Option<Packet> {
        let header = &header[..header.len().min(HEADER_MAX)];
        let mut at = ETHERTYPE_AT;
        for _ in 0..MAX_VLAN_TAGS {
            if ETHERTYPES_VLAN.contains(&word(header, at)?) {
                at += VLAN_TAG;
            }
        }
        let ip = at + 2;
        match word(header, at)? {
            ETHERTYPE_IPV4 => Packet::parse_ipv4(header, ip),
            ETHERTYPE_IPV6 => Packet::parse_ipv6(header, ip),
            _ => None,
        }
    }

    fn parse_ipv4(header: &[u8], ip: usize) -> Option<Packet> {
        let first = *header.get(ip)?;
        let len = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || len < IPV4_MIN || word(header, ip + 6)? & IPV4_MORE_OR_OFFSET != 0 {
            return None;
        }
        Some(Packet {
            layers: layers(header, Network::V4, ip, len, *header.get(ip + 9)?)?,
            ip_len: usize::from(word(header, ip + 2)?),
            protocol_at: (ip + 9) as u16,
            routed: false,
        })
    }

    fn parse_ipv6(header: &[u8], ip: usize) -> Option<Packet> {
        if *header.get(ip)? >> 4 != 6 {
            return None;
        }
        let (mut protocol_at, mut len, mut routed) = (ip + 6, IPV6_LEN, false);
        // Each is 8 bytes at least, and `header` ends.
        while let extension @ (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) = *header.get(protocol_at)? {
            protocol_at = ip + len;
            routed |= extension == ROUTING && *header.get(protocol_at + SEGMENTS_LEFT)? != 0;
            len += 8 + usize::from(*header.get(protocol_at + 1)?) * 8;
        }
        let payload = usize::from(word(header, ip + 4)?);
        Some(Packet {
            layers: layers(header, Network::V6, ip, len, *header.get(protocol_at)?)?,
            ip_len: if payload == 0 { 0 } else { IPV6_LEN + payload },
            protocol_at: protocol_at as u16,
            routed,
        })
    }
}

fn layers(header: &[u8], network: Network, l2_len: usize, l3_len: usize, protocol: u8) -> Option<Layers> {
    let l4 = l2_len + l3_len;
    let (transport, l4_len) = match protocol {
        TCP => (Transport::Tcp, usize::from(*header.get(l4 + 12)? >> 4) * 4),
        UDP => (Transport::Udp, UDP_LEN),
        _ => return None,
    };
    if transport == Transport::Tcp && l4_len < TCP_MIN || header.len() < l4 + l4_len {
        return None;
    }
    Some(Layers { network, transport, l2_len: l2_len as u16, l3_len: l3_len as u16, l4_len: l4_len as u16 })
}

/// The word at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|field| u16::from_be_bytes([field[0], field[1]]))
}

/// Writes one.
pub(crate) fn put_word(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

//! Frames whose checksum is left to complete, as a guest sends them.

use net::{Offload, Sum};

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
/// TCP's timestamp option, aligned: nearly all segments of Linux have it.
const TCP_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const ETHERNET: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
}

impl Kind {
    fn ip_len(self) -> usize {
        if self == Kind::Tcp6 { 40 } else { 20 }
    }

    fn l4_len(self) -> usize {
        if self == Kind::Udp4 { 8 } else { 20 + TCP_OPTIONS.len() }
    }

    /// VIRTIO_NET_HDR_GSO_*.
    fn gso_type(self) -> u8 {
        match self {
            Kind::Tcp4 => 1,
            Kind::Tcp6 => 4,
            Kind::Udp4 => 5,
        }
    }
}

/// A frame whose IP packet is `ip_bytes` long, and a header that leaves its checksum to complete; to be cut for an MTU
/// of `mtu`, if there is one.
pub fn frame(kind: Kind, ip_bytes: usize, mtu: Option<usize>) -> (Offload, Vec<u8>) {
    let l4 = ETHERNET + kind.ip_len();
    let mut frame = vec![0; ETHERNET + ip_bytes];
    frame.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
    let protocol = if kind == Kind::Udp4 { 17 } else { 6 };
    let len = (ip_bytes - kind.ip_len()) as u16;
    let addresses = if kind == Kind::Tcp6 {
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, (len >> 8) as u8, len as u8, protocol, 64]);
        22..54
    } else {
        let total = (ip_bytes as u16).to_be_bytes();
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..26].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0]);
        26..34
    };
    let mut pseudo = Sum::of(&frame[addresses]);
    pseudo.add(&[0, protocol]);
    pseudo.add(&len.to_be_bytes());
    let csum_offset = if kind == Kind::Udp4 { 6 } else { 16 };
    if kind == Kind::Udp4 {
        frame[l4 + 4..l4 + 6].copy_from_slice(&len.to_be_bytes());
    } else {
        frame[l4 + 12..l4 + 14].copy_from_slice(&[0x80, 0x18]);
        frame[l4 + 20..l4 + 32].copy_from_slice(&TCP_OPTIONS);
    }
    frame[l4 + csum_offset..][..2].copy_from_slice(&pseudo.fold().to_be_bytes());
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: if mtu.is_some() { kind.gso_type() } else { 0 },
        hdr_len: (l4 + kind.l4_len()) as u16,
        gso_size: mtu.map_or(0, |mtu| mtu - kind.ip_len() - kind.l4_len()) as u16,
        csum_start: l4 as u16,
        csum_offset: csum_offset as u16,
    };
    (offload, frame)
}

//! A frame of ringwire's own, sent in a guest's name, to say where that guest is.
//!
//! It is a RARP request (RFC 903), broadcast from the guest's address, as rte_vhost and QEMU send one for a guest that
//! cannot announce itself. What it is for are the switches of the network: they learn from its source address behind
//! which of their ports the guest is now, instead of sending to the old one until their entry is out of date. A
//! gratuitous ARP would do that as well, but says an IP address, which only the guest knows; hosts take no notice of a
//! RARP request, and need not, because the guest's hardware address has not changed.
#![allow(unsafe_code)] // the kernel reads the frame

use nix::libc::iovec;

use crate::nic::NicPair;
use crate::socket::{HEADER_LEN, SocketPair};

/// Bytes of the frame: the fewest that Ethernet sends, without the frame check sequence.
pub const LEN: usize = 60;

/// The frame for a guest with this address.
pub fn rarp(mac: [u8; 6]) -> [u8; LEN] {
    const ETHERTYPE: [u8; 2] = [0x80, 0x35];
    // Ethernet, IPv4, lengths of their addresses, "request reverse".
    const KIND: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 3];
    const NO_IP: [u8; 4] = [0; 4];
    let content = [&[0xff; 6], &mac[..], &ETHERTYPE, &KIND, &mac, &NO_IP, &mac, &NO_IP].concat();
    let mut frame = [0; LEN];
    frame[..content.len()].copy_from_slice(&content);
    frame
}

impl NicPair {
    /// Sends a frame behind those that wait, as it does when there is no link; whether there was room for it. However
    /// often that is asked for, no more than a burst waits.
    pub fn announce(&mut self, frame: &[u8; LEN]) -> bool {
        if self.tx.held.len() >= dpdk::BURST_MAX {
            return false;
        }
        let Some(mut mbuf) = self.tx.held.pool.alloc() else { return false };
        mbuf.set_single_len(LEN as u16);
        mbuf.data_mut().copy_from_slice(frame);
        self.tx.held.add(mbuf);
        self.flush();
        true
    }
}

impl SocketPair {
    /// Sends a frame. Whether the socket took it.
    pub fn announce(&mut self, frame: &[u8; LEN]) -> bool {
        let mut frame = *frame;
        let piece = iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: LEN };
        // SAFETY: the frame is our own.
        unsafe { self.send(&[0; HEADER_LEN], [piece]) }.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::rarp;

    #[test]
    fn a_rarp_request_is_as_rfc_903_has_it() {
        let mac = [2, 0, 0, 0, 0, 7];
        let mut expected = vec![0xff; 6];
        expected.extend(mac);
        // Ethertype, hardware and protocol type, address lengths, operation 3.
        expected.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        expected.extend(mac);
        expected.extend([0; 4]);
        expected.extend(mac);
        expected.resize(60, 0);
        assert_eq!(rarp(mac)[..], expected);
    }
}

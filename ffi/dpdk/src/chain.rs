//! Building a packet of several segments.

#![allow(unsafe_code, reason = "keeps a pointer to the last segment of a foreign list")]

use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;

use crate::mbuf::{Mbuf, next};

/// A packet under construction that remembers its last segment.
#[derive(Debug)]
pub struct ChainBuilder {
    packet: Mbuf,
    tail: NonNull<rte_mbuf>,
}

// SAFETY: `tail` points into the chain that `packet` owns, which may move between threads.
unsafe impl Send for ChainBuilder {}

impl ChainBuilder {
    /// Starts with `packet`, whose data stays as it is.
    #[inline(always)]
    pub fn new(packet: Mbuf) -> ChainBuilder {
        let mut tail = packet.raw();
        // SAFETY: the chain belongs to `packet` and ends with a null.
        while let Some(next) = unsafe { next(tail) } {
            tail = next;
        }
        ChainBuilder { packet, tail }
    }

    /// Links `segment` behind the last one, with the first `len` bytes of its room as its data.
    ///
    /// # Panics
    /// If `segment` has several segments or less room than `len`, or the chain has 65535 segments.
    #[inline(always)]
    pub fn push(&mut self, segment: Mbuf, len: u16) {
        // SAFETY: `tail` is the last segment of `packet`.
        self.tail = unsafe { self.packet.link_behind(self.tail, segment, len) };
    }

    /// Bytes in the packet so far.
    #[inline(always)]
    pub fn pkt_len(&self) -> u32 {
        self.packet.pkt_len()
    }

    /// The packet.
    #[inline(always)]
    pub fn finish(self) -> Mbuf {
        self.packet
    }
}

//! One packet: a chain of one or more segments.
//!
//! Fields are reached through offsets taken from the installed DPDK's headers, because the layout
//! of `rte_mbuf` differs between releases.

#![allow(unsafe_code, reason = "mbufs are foreign memory")]

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::{
    RW_MBUF_BUF_ADDR, RW_MBUF_BUF_LEN, RW_MBUF_DATA_LEN, RW_MBUF_DATA_OFF, RW_MBUF_NB_SEGS, RW_MBUF_NEXT,
    RW_MBUF_OL_FLAGS, RW_MBUF_PACKET_TYPE, RW_MBUF_PKT_LEN, RW_MBUF_PORT, RW_MBUF_REFCNT, RW_MBUF_TX_OFFLOAD,
    RW_MBUF_VLAN_TCI, RW_PKTMBUF_HEADROOM, rte_mbuf,
};

/// The port of a mbuf that came from none (RTE_MBUF_PORT_INVALID).
const NO_PORT: u16 = u16::MAX;
// Fields that `Mbuf::renew` writes together are neighbours.
const _: () = assert!(
    RW_MBUF_REFCNT == RW_MBUF_DATA_OFF + 2
        && RW_MBUF_NB_SEGS == RW_MBUF_DATA_OFF + 4
        && RW_MBUF_PORT == RW_MBUF_DATA_OFF + 6
        && RW_MBUF_PKT_LEN == RW_MBUF_PACKET_TYPE + 4
        && RW_MBUF_VLAN_TCI == RW_MBUF_DATA_LEN + 2
);

/// A raw mbuf as DPDK's functions take it.
pub use dpdk_sys::rte_mbuf as RawMbuf;

/// An owned packet; its segments go back to their pools on drop.
///
/// Has the layout of a pointer. It is not cloned and its buffers have no other user, so that
/// `&mut` is exclusive: nothing in this crate makes indirect mbufs or takes references to them.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: a mbuf belongs to no thread; pools take mbufs back from any.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads.
unsafe impl Sync for Mbuf {}

/// Where the headers of an outgoing packet are, for the NIC to fill in checksums or segment it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// Bytes of the Ethernet header (and VLAN tags); below 128.
    pub l2_len: u8,
    /// Bytes of the IP header with its options or extensions; below 512.
    pub l3_len: u16,
    /// Bytes of the TCP or UDP header.
    pub l4_len: u8,
    /// TCP payload bytes of each segment made, or 0.
    pub tso_segsz: u16,
}

/// Bits of [`Mbuf::ol_flags`].
pub mod flags {
    pub use dpdk_sys::{
        RW_MBUF_F_RX_L4_CKSUM_BAD as RX_L4_CKSUM_BAD, RW_MBUF_F_RX_L4_CKSUM_GOOD as RX_L4_CKSUM_GOOD,
        RW_MBUF_F_RX_L4_CKSUM_MASK as RX_L4_CKSUM_MASK, RW_MBUF_F_RX_L4_CKSUM_NONE as RX_L4_CKSUM_NONE,
        RW_MBUF_F_RX_LRO as RX_LRO, RW_MBUF_F_TX_IP_CKSUM as TX_IP_CKSUM, RW_MBUF_F_TX_IPV4 as TX_IPV4,
        RW_MBUF_F_TX_IPV6 as TX_IPV6, RW_MBUF_F_TX_TCP_CKSUM as TX_TCP_CKSUM,
        RW_MBUF_F_TX_TCP_SEG as TX_TCP_SEG, RW_MBUF_F_TX_UDP_CKSUM as TX_UDP_CKSUM,
    };
}

/// # Safety
/// `mbuf` must be alive, and `offset` that of a field of type `T`.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(mbuf: NonNull<rte_mbuf>, offset: u32) -> T {
    // SAFETY: the field is inside the mbuf and aligned as C aligns it.
    unsafe { mbuf.cast::<u8>().add(offset as usize).cast::<T>().read() }
}

/// # Safety
/// `mbuf` must be alive and exclusively held, and `offset` that of a field of type `T`.
#[inline(always)]
pub(crate) unsafe fn store<T: Copy>(mbuf: NonNull<rte_mbuf>, offset: u32, value: T) {
    // SAFETY: the field is inside the mbuf and aligned as C aligns it.
    unsafe { mbuf.cast::<u8>().add(offset as usize).cast::<T>().write(value) }
}

/// Start and length of the data of one segment.
///
/// # Safety
/// `segment` must be alive.
#[inline(always)]
unsafe fn segment_data(segment: NonNull<rte_mbuf>) -> (*mut u8, usize) {
    // SAFETY: the offsets are those of fields of these types; data_off is inside the buffer.
    unsafe {
        let buffer: *mut u8 = load(segment, RW_MBUF_BUF_ADDR);
        let offset: u16 = load(segment, RW_MBUF_DATA_OFF);
        let len: u16 = load(segment, RW_MBUF_DATA_LEN);
        (buffer.add(usize::from(offset)), usize::from(len))
    }
}

/// # Safety
/// `segment` must be alive.
#[inline(always)]
pub(crate) unsafe fn next(segment: NonNull<rte_mbuf>) -> Option<NonNull<rte_mbuf>> {
    // SAFETY: the offset is that of a field of this type.
    NonNull::new(unsafe { load::<*mut rte_mbuf>(segment, RW_MBUF_NEXT) })
}

impl Mbuf {
    /// Takes ownership of a raw mbuf.
    ///
    /// # Safety
    /// `raw` must be the first segment of an allocated packet that nobody else holds or will free,
    /// made of direct mbufs with a reference count of one.
    #[inline(always)]
    pub unsafe fn from_raw(raw: NonNull<RawMbuf>) -> Mbuf {
        Mbuf(raw)
    }

    /// Gives up ownership; the caller frees the packet.
    #[inline(always)]
    pub fn into_raw(self) -> NonNull<RawMbuf> {
        let raw = self.0;
        mem::forget(self);
        raw
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the mbuf is alive; only called below, with an offset and its field's type.
        unsafe { load(self.0, offset) }
    }

    #[inline(always)]
    fn set<T: Copy>(&mut self, offset: u32, value: T) {
        // SAFETY: the mbuf is alive and exclusive; only called below, with an offset and its
        // field's type.
        unsafe { store(self.0, offset, value) }
    }

    /// Bytes of the whole packet.
    #[inline(always)]
    pub fn pkt_len(&self) -> u32 {
        self.get(RW_MBUF_PKT_LEN)
    }

    /// Bytes in the first segment.
    #[inline(always)]
    pub fn data_len(&self) -> u16 {
        self.get(RW_MBUF_DATA_LEN)
    }

    /// Number of segments, at least one.
    #[inline(always)]
    pub fn nb_segs(&self) -> u16 {
        self.get(RW_MBUF_NB_SEGS)
    }

    /// DPDK's number of the port it was received on; 0xffff in a fresh mbuf.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.get(RW_MBUF_PORT)
    }

    /// Offload flags, see [`flags`].
    #[inline(always)]
    pub fn ol_flags(&self) -> u64 {
        self.get(RW_MBUF_OL_FLAGS)
    }

    /// Replaces the offload flags.
    #[inline(always)]
    pub fn set_ol_flags(&mut self, flags: u64) {
        self.set(RW_MBUF_OL_FLAGS, flags);
    }

    /// The VLAN tag a NIC stripped, in host order; says nothing without the matching flag.
    #[inline(always)]
    pub fn vlan_tci(&self) -> u16 {
        self.get(RW_MBUF_VLAN_TCI)
    }

    /// Says where the headers are; clears tunnel header lengths.
    #[inline(always)]
    pub fn set_tx_offload(&mut self, offload: TxOffload) {
        let word = u64::from(offload.l2_len) << dpdk_sys::RW_TX_L2_LEN_SHIFT
            | u64::from(offload.l3_len) << dpdk_sys::RW_TX_L3_LEN_SHIFT
            | u64::from(offload.l4_len) << dpdk_sys::RW_TX_L4_LEN_SHIFT
            | u64::from(offload.tso_segsz) << dpdk_sys::RW_TX_TSO_SEGSZ_SHIFT;
        self.set(RW_MBUF_TX_OFFLOAD, word);
    }

    /// Where the headers are, as was said last. Of a received packet with [`flags::RX_LRO`], which the NIC made of
    /// several, `tso_segsz` says how many bytes of payload each of these had.
    #[inline(always)]
    pub fn tx_offload(&self) -> TxOffload {
        let word: u64 = self.get(RW_MBUF_TX_OFFLOAD);
        TxOffload {
            l2_len: (word >> dpdk_sys::RW_TX_L2_LEN_SHIFT) as u8 & 0x7f,
            l3_len: (word >> dpdk_sys::RW_TX_L3_LEN_SHIFT) as u16 & 0x1ff,
            l4_len: (word >> dpdk_sys::RW_TX_L4_LEN_SHIFT) as u8,
            tso_segsz: (word >> dpdk_sys::RW_TX_TSO_SEGSZ_SHIFT) as u16,
        }
    }

    /// Where the first segment's data starts: valid for `data_len() + tailroom()` bytes.
    #[inline(always)]
    pub fn data_ptr(&self) -> *mut u8 {
        // SAFETY: the mbuf is alive.
        unsafe { segment_data(self.0).0 }
    }

    /// Unused bytes in front of the first segment's data.
    #[inline(always)]
    pub fn headroom(&self) -> u16 {
        self.get(RW_MBUF_DATA_OFF)
    }

    /// Unused bytes behind the first segment's data.
    #[inline(always)]
    pub fn tailroom(&self) -> u16 {
        self.room() - self.data_len()
    }

    /// Bytes from the start of the first segment's data to the end of its buffer.
    #[inline(always)]
    pub fn room(&self) -> u16 {
        self.get::<u16>(RW_MBUF_BUF_LEN) - self.headroom()
    }

    /// The first segment's data.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the mbuf is alive, its data is inside its buffer, which is initialised memory
        // (mapped by EAL) that has no other user while `self` is borrowed.
        unsafe {
            let (data, len) = segment_data(self.0);
            slice::from_raw_parts(data, len)
        }
    }

    /// The first segment's data.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe {
            let (data, len) = segment_data(self.0);
            slice::from_raw_parts_mut(data, len)
        }
    }

    /// Sets the length of a packet of one segment.
    ///
    /// # Panics
    /// If the packet has several segments, or `len` is more than [`Mbuf::room`].
    #[inline(always)]
    pub fn set_single_len(&mut self, len: u16) {
        assert!(self.nb_segs() == 1 && len <= self.room());
        // SAFETY: just checked.
        unsafe { self.set_single_len_unchecked(len) }
    }

    /// Sets the length of a packet of one segment.
    ///
    /// # Safety
    /// The packet has one segment, and `len` is at most [`Mbuf::room`].
    #[inline(always)]
    pub unsafe fn set_single_len_unchecked(&mut self, len: u16) {
        debug_assert!(self.nb_segs() == 1 && len <= self.room());
        self.set(RW_MBUF_DATA_LEN, len);
        self.set(RW_MBUF_PKT_LEN, u32::from(len));
    }

    /// Makes a mbuf that is as it was in its pool a fresh one with `len` bytes of data, and gives them.
    ///
    /// # Safety
    /// The mbuf was taken from its pool and not touched since, or was made a fresh one of one segment; it has
    /// room for `len` bytes.
    #[inline(always)]
    pub(crate) unsafe fn renew(&mut self, len: u16) -> &mut [u8] {
        // As rte_pktmbuf_reset() does, but for what means nothing without an offload flag.
        self.set(RW_MBUF_DATA_OFF, [RW_PKTMBUF_HEADROOM as u16, 1, 1, NO_PORT]);
        self.set(RW_MBUF_OL_FLAGS, 0u64);
        self.set(RW_MBUF_PACKET_TYPE, [0, u32::from(len)]);
        self.set(RW_MBUF_DATA_LEN, [len, 0]);
        let buffer: *mut u8 = self.get(RW_MBUF_BUF_ADDR);
        // SAFETY: headroom and `len` bytes are within the buffer, which has no other user.
        unsafe { slice::from_raw_parts_mut(buffer.add(RW_PKTMBUF_HEADROOM as usize), usize::from(len)) }
    }

    /// The data of each segment, in order.
    #[inline(always)]
    pub fn segments(&self) -> Segments<'_> {
        Segments { segment: Some(self.0), _packet: PhantomData }
    }

    /// The data of each segment, in order.
    #[inline(always)]
    pub fn segments_mut(&mut self) -> SegmentsMut<'_> {
        SegmentsMut { segment: Some(self.0), _packet: PhantomData }
    }

    /// Links `segment` behind the last one, with the first `len` bytes of its room as its data.
    ///
    /// Walks the chain; [`crate::chain::ChainBuilder`] does not.
    ///
    /// # Panics
    /// As [`crate::chain::ChainBuilder::push`].
    pub fn append_segment(&mut self, segment: Mbuf, len: u16) {
        let mut tail = self.0;
        // SAFETY: the chain belongs to `self` and ends with a null.
        while let Some(next) = unsafe { next(tail) } {
            tail = next;
        }
        // SAFETY: `tail` is the last segment of this chain.
        unsafe { self.link_behind(tail, segment, len) };
    }

    /// Links `segment` behind `tail`; returns the new last segment.
    ///
    /// # Safety
    /// `tail` must be the last segment of this packet.
    #[inline(always)]
    pub(crate) unsafe fn link_behind(
        &mut self,
        tail: NonNull<rte_mbuf>,
        mut segment: Mbuf,
        len: u16,
    ) -> NonNull<rte_mbuf> {
        let segments = self.nb_segs();
        assert!(segments < u16::MAX, "a mbuf chain of 65535 segments is full");
        segment.set_single_len(len);
        let raw = segment.into_raw();
        // SAFETY: the chain is exclusive, and the segment now belongs to it.
        unsafe { store(tail, RW_MBUF_NEXT, raw.as_ptr()) };
        self.set(RW_MBUF_NB_SEGS, segments + 1);
        self.set(RW_MBUF_PKT_LEN, self.pkt_len() + u32::from(len));
        raw
    }

    /// The whole packet, copied.
    pub fn copy_to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pkt_len() as usize);
        for segment in self.segments() {
            bytes.extend_from_slice(segment);
        }
        bytes
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> NonNull<rte_mbuf> {
        self.0
    }
}

impl Drop for Mbuf {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the packet is alive and belongs to us alone.
        unsafe { dpdk_sys::rw_pktmbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("pkt_len", &self.pkt_len())
            .field("nb_segs", &self.nb_segs())
            .finish_non_exhaustive()
    }
}

/// Iterator of [`Mbuf::segments`].
#[derive(Debug)]
pub struct Segments<'a> {
    segment: Option<NonNull<rte_mbuf>>,
    _packet: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        let segment = self.segment?;
        // SAFETY: the chain is borrowed for 'a and ends with a null; data as in `Mbuf::data`.
        unsafe {
            self.segment = next(segment);
            let (data, len) = segment_data(segment);
            Some(slice::from_raw_parts(data, len))
        }
    }
}

/// Iterator of [`Mbuf::segments_mut`].
#[derive(Debug)]
pub struct SegmentsMut<'a> {
    segment: Option<NonNull<rte_mbuf>>,
    _packet: PhantomData<&'a mut Mbuf>,
}

impl<'a> Iterator for SegmentsMut<'a> {
    type Item = &'a mut [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a mut [u8]> {
        let segment = self.segment?;
        // SAFETY: as in `Segments`; the borrow is exclusive and each segment is visited once.
        unsafe {
            self.segment = next(segment);
            let (data, len) = segment_data(segment);
            Some(slice::from_raw_parts_mut(data, len))
        }
    }
}

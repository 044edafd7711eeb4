//! A fixed array of packets on their way from one queue to another.

#![allow(unsafe_code, reason = "hands arrays of mbuf pointers to DPDK")]

use std::fmt;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::slice;

use dpdk_sys::rte_mbuf;

use crate::BURST_MAX;
use crate::mbuf::Mbuf;

/// Up to [`BURST_MAX`] packets in order; those left in it are freed on drop.
///
/// The live ones are `head..tail`: taking from the front moves an index, and appending moves the
/// rest to the start only when the end of the array is reached.
pub struct Burst {
    head: usize,
    tail: usize,
    mbufs: [MaybeUninit<Mbuf>; BURST_MAX],
}

impl Default for Burst {
    fn default() -> Self {
        Burst::new()
    }
}

impl Burst {
    /// An empty burst. Writes two words.
    #[inline(always)]
    pub const fn new() -> Burst {
        Burst { head: 0, tail: 0, mbufs: [const { MaybeUninit::uninit() }; BURST_MAX] }
    }

    /// Number of packets.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Whether there are no packets.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// How many more packets fit.
    #[inline(always)]
    pub fn capacity_left(&self) -> usize {
        BURST_MAX - self.len()
    }

    /// Appends a packet.
    ///
    /// # Errors
    /// Gives it back when the burst is full.
    #[inline(always)]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.capacity_left() == 0 {
            return Err(mbuf);
        }
        self.compact_unless(1);
        self.mbufs[self.tail].write(mbuf);
        self.tail += 1;
        Ok(())
    }

    /// Takes the last packet.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Mbuf> {
        if self.is_empty() {
            return None;
        }
        self.tail -= 1;
        // SAFETY: the slot was live, and is not any more.
        Some(unsafe { self.mbufs[self.tail].assume_init_read() })
    }

    /// Takes the first packet.
    #[inline(always)]
    pub fn pop_front(&mut self) -> Option<Mbuf> {
        if self.is_empty() {
            return None;
        }
        let front = self.head;
        self.head += 1;
        // SAFETY: the slot was live, and is not any more.
        Some(unsafe { self.mbufs[front].assume_init_read() })
    }

    /// The packets, in order.
    #[inline(always)]
    pub fn as_slice(&self) -> &[Mbuf] {
        // SAFETY: slots head..tail are initialised and inside the array.
        unsafe { slice::from_raw_parts(self.mbufs.as_ptr().add(self.head).cast(), self.len()) }
    }

    /// The packets, in order.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        let len = self.len();
        // SAFETY: slots head..tail are initialised and inside the array.
        unsafe { slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().add(self.head).cast(), len) }
    }

    /// The packets, in order.
    #[inline(always)]
    pub fn iter(&self) -> slice::Iter<'_, Mbuf> {
        self.as_slice().iter()
    }

    /// The packets, in order.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, Mbuf> {
        self.as_mut_slice().iter_mut()
    }

    /// The packet at `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&Mbuf> {
        self.as_slice().get(index)
    }

    /// The packet at `index`.
    #[inline(always)]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Mbuf> {
        self.as_mut_slice().get_mut(index)
    }

    /// Keeps the first `n` packets and frees the others in bulk.
    #[inline]
    pub fn truncate_free(&mut self, n: usize) {
        if n < self.len() {
            let start = self.head + n;
            let count = self.tail - start;
            self.tail = start;
            // SAFETY: these slots were live, and are not any more.
            unsafe { self.free_slots(start, count) };
        }
    }

    /// Takes out those packets behind the first `first` that are `wanted`, in order; the others stay, in theirs.
    pub fn remove_where(
        &mut self,
        first: usize,
        mut wanted: impl FnMut(&Mbuf) -> bool,
        mut removed: impl FnMut(Mbuf),
    ) {
        if !self.as_slice()[first..].iter().any(&mut wanted) {
            return;
        }
        let mut kept = Burst::new();
        for at in 0..self.len() {
            let Some(mbuf) = self.pop_front() else { break };
            if at >= first && wanted(&mbuf) {
                removed(mbuf);
            } else {
                // There is room.
                let _ = kept.push(mbuf);
            }
        }
        *self = kept;
    }

    /// Frees the first `n` packets in bulk: they have been copied out.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn free_front(&mut self, n: usize) {
        assert!(n <= self.len());
        let start = self.head;
        self.head += n;
        // SAFETY: these slots were live, and are not any more.
        unsafe { self.free_slots(start, n) };
    }

    /// Removes the first `n` packets without freeing them.
    ///
    /// # Safety
    /// They belong to somebody else now: a driver has taken them.
    #[inline(always)]
    pub unsafe fn drop_front(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.head += n;
    }

    /// Frees all packets in bulk.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate_free(0);
        self.head = 0;
        self.tail = 0;
    }

    /// Moves packets from the front of `other` to the end of this burst, as many as fit; returns
    /// how many.
    #[inline]
    pub fn append(&mut self, other: &mut Burst) -> usize {
        let n = other.len().min(self.capacity_left());
        self.compact_unless(n);
        // SAFETY: both ranges are inside their arrays, which are different ones; the packets are
        // live in `other` before and in `self` after.
        unsafe {
            ptr::copy_nonoverlapping(
                other.mbufs.as_ptr().add(other.head),
                self.mbufs.as_mut_ptr().add(self.tail),
                n,
            );
            other.drop_front(n);
        }
        self.tail += n;
        n
    }

    /// The live packets as DPDK takes them. Valid for `len()` entries.
    #[inline(always)]
    pub(crate) fn raw(&mut self) -> *mut *mut rte_mbuf {
        self.as_mut_slice().as_mut_ptr().cast()
    }

    /// Where DPDK may write `n` more packets, to be followed by [`Burst::appended`].
    ///
    /// # Panics
    /// If fewer than `n` fit.
    #[inline(always)]
    pub(crate) fn room(&mut self, n: usize) -> *mut *mut rte_mbuf {
        assert!(n <= self.capacity_left());
        self.compact_unless(n);
        self.mbufs[self.tail..].as_mut_ptr().cast()
    }

    /// # Safety
    /// `n` owned packets were written to [`Burst::room`].
    #[inline(always)]
    pub(crate) unsafe fn appended(&mut self, n: usize) {
        debug_assert!(self.tail + n <= BURST_MAX);
        self.tail += n;
    }

    /// Moves the packets to the start of the array unless `n` more fit behind them.
    #[inline(always)]
    fn compact_unless(&mut self, n: usize) {
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        } else if self.tail + n > BURST_MAX {
            let len = self.len();
            let mbufs = self.mbufs.as_mut_ptr();
            // SAFETY: both ranges are inside the array; the slots left behind are not live after.
            unsafe { ptr::copy(mbufs.add(self.head), mbufs, len) };
            self.head = 0;
            self.tail = len;
        }
    }

    /// # Safety
    /// The slots hold packets which the caller has taken out of the live range.
    #[inline(always)]
    unsafe fn free_slots(&mut self, start: usize, count: usize) {
        if count == 0 {
            return;
        }
        let slots = self.mbufs[start..start + count].as_mut_ptr().cast();
        // SAFETY: `slots` is `count` owned packets; count is at most BURST_MAX.
        unsafe { dpdk_sys::rw_pktmbuf_free_bulk(slots, count as u32) };
    }
}

impl Drop for Burst {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Burst {
    type Item = &'a Mbuf;
    type IntoIter = slice::Iter<'a, Mbuf>;

    #[inline(always)]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

// A burst's slots are what DPDK calls `struct rte_mbuf *`.
const _: () = assert!(mem::size_of::<Mbuf>() == mem::size_of::<*mut rte_mbuf>());

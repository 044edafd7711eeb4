//! Pools of fixed-size packet buffers.

#![allow(unsafe_code, reason = "mempools and their mbufs are foreign memory")]

use std::ffi::{CStr, CString, NulError};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use dpdk_sys::rte_mempool;

use crate::burst::Burst;
use crate::eal::{self, EalError, EalHandle};
use crate::error::Errno;
use crate::mbuf::Mbuf;

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// DPDK is not initialised.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// The name cannot be passed to C.
    #[error("mempool name with a zero byte: {0}")]
    ZeroByte(#[from] NulError),
    /// The buffers would be larger than a mbuf can describe.
    #[error("mempool {name}: a data room of {data_room} bytes is more than the {max} possible")]
    DataRoom {
        /// The pool's name.
        name: String,
        /// What was asked for, in bytes.
        data_room: u16,
        /// The most that is possible, in bytes.
        max: u16,
    },
    /// DPDK could not make the pool: EEXIST for a name in use, ENOMEM, EINVAL for a cache that is
    /// too large for the pool.
    #[error(
        "mempool {name}: cannot make {count} mbufs of {data_room} bytes, cache {cache}, \
         socket {socket}: {errno}"
    )]
    Create {
        /// The pool's name.
        name: String,
        /// How many mbufs.
        count: u32,
        /// Bytes of payload of each.
        data_room: u16,
        /// Mbufs each lcore may keep.
        cache: u32,
        /// NUMA node, or -1.
        socket: i32,
        /// What DPDK reported.
        errno: Errno,
    },
}

impl MempoolError {
    /// Whether DPDK had no memory for it.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, MempoolError::Create { errno, .. } if errno.is_out_of_memory())
    }
}

/// The pool has too few free mbufs, or the burst has too little room: none was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no {asked} free mbufs")]
pub struct NoMbufs {
    /// How many were asked for.
    pub asked: usize,
}

/// How free mbufs are kept: a ring that lets in one thread at a time.
///
/// With DPDK's default, "ring_mp_mc", threads finish in the order they started, so that one which
/// is preempted in the middle makes a convoy of the others. Four threads on two cores, 22.11, no
/// cache, 32 mbufs a time: about 13,000 allocations a second in the median thread, against 220,000 with
/// this one; alone both do 800,000. "ring_mt_rts" lost sight of free mbufs in the same test.
const OPS: &CStr = c"ring_mt_hts";

#[derive(Debug)]
struct Pool {
    raw: NonNull<rte_mempool>,
    name: String,
    data_room: u16,
    eal: ManuallyDrop<Arc<EalHandle>>,
}

// SAFETY: a pool made with the default flags may be used by any threads at the same time, whether
// they are lcores or not; the other fields are not written after creation.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool is alive. No handle is left that could allocate, so the count can only
        // sink, and mbufs on their way back count as used.
        let in_use = unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) };
        if in_use != 0 {
            // Their owners still point into the pool: it stays, and EAL's memory with it.
            tracing::warn!(pool = self.name, in_use, "mempool dropped before its mbufs: leaked");
            return;
        }
        // SAFETY: nothing points into the pool any more.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
        // SAFETY: dropped once, here, and not used again.
        unsafe { ManuallyDrop::drop(&mut self.eal) };
    }
}

/// A pool of mbufs, shared by its clones and by the ports that receive into it.
///
/// Freed when the last of them is dropped. A pool whose mbufs are still held somewhere then is
/// leaked instead: drop it after the threads that free its mbufs are done with them.
#[derive(Debug, Clone)]
pub struct Mempool(Arc<Pool>);

/// A mbuf as it was in its pool, to be made a packet.
#[derive(Debug)]
pub struct Fresh<'a> {
    mbuf: &'a mut Mbuf,
    room: u16,
}

impl<'a> Fresh<'a> {
    /// Makes it a packet of `len` bytes, to be written by the caller.
    ///
    /// # Errors
    /// An empty packet, if that is more than fits one mbuf.
    #[inline(always)]
    pub fn packet(self, len: usize) -> Result<&'a mut [u8], &'a mut Mbuf> {
        if len > usize::from(self.room) {
            // SAFETY: it is as it was in the pool.
            unsafe { self.mbuf.renew(0) };
            return Err(self.mbuf);
        }
        // SAFETY: it is as it was in the pool, and there is room.
        Ok(unsafe { self.mbuf.renew(len as u16) })
    }
}

impl Mempool {
    /// Makes a pool of `count` mbufs, each a single segment with room for `data_room` bytes behind
    /// a headroom of `RTE_PKTMBUF_HEADROOM`.
    ///
    /// `cache` is how many free mbufs each lcore keeps to itself (0: none; DPDK's limits are 512
    /// and two thirds of `count`). `socket` is a NUMA node, or -1 for any. The name must be
    /// unique in the process and short (25 bytes).
    ///
    /// # Errors
    /// See [`MempoolError`].
    pub fn new(
        name: &str,
        count: u32,
        data_room: u16,
        cache: u32,
        socket: i32,
    ) -> Result<Mempool, MempoolError> {
        let eal = eal::handle()?;
        let c_name = CString::new(name)?;
        let headroom = dpdk_sys::RW_PKTMBUF_HEADROOM as u16;
        let room = data_room.checked_add(headroom).ok_or_else(|| MempoolError::DataRoom {
            name: name.to_owned(),
            data_room,
            max: u16::MAX - headroom,
        })?;
        // SAFETY: EAL is initialised and both names are NUL terminated strings, which are copied.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                count,
                cache,
                0,
                room,
                socket,
                OPS.as_ptr(),
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| MempoolError::Create {
            name: name.to_owned(),
            count,
            data_room,
            cache,
            socket,
            errno: Errno::last(),
        })?;
        Ok(Mempool(Arc::new(Pool { raw, name: name.to_owned(), data_room, eal: ManuallyDrop::new(eal) })))
    }

    /// Appends exactly `n` fresh mbufs (no data, one segment) to `burst`, or none.
    ///
    /// # Errors
    /// [`NoMbufs`] when the pool has fewer, or the burst has room for fewer.
    #[inline]
    pub fn alloc_bulk(&self, burst: &mut Burst, n: usize) -> Result<(), NoMbufs> {
        if n > burst.capacity_left() {
            return Err(NoMbufs { asked: n });
        }
        if n == 0 {
            return Ok(());
        }
        let room = burst.room(n);
        // SAFETY: the pool is alive, and `room` is n writable pointers. n is at most BURST_MAX.
        let ret = unsafe { dpdk_sys::rw_pktmbuf_alloc_bulk(self.as_ptr(), room, n as u32) };
        if ret != 0 {
            return Err(NoMbufs { asked: n });
        }
        // SAFETY: the allocation wrote n pointers to mbufs that belong to the caller.
        unsafe { burst.appended(n) };
        Ok(())
    }

    /// Appends a packet to `burst` for each of `items`, as `fill` makes it, until that says it made none; how many.
    ///
    /// # Errors
    /// [`NoMbufs`], and nothing is done, when the pool has fewer mbufs, or the burst has room for fewer.
    #[inline(always)]
    pub fn fill<T>(
        &self,
        burst: &mut Burst,
        items: &[T],
        mut fill: impl FnMut(&T, Fresh<'_>) -> bool,
    ) -> Result<usize, NoMbufs> {
        let asked = items.len();
        if asked > burst.capacity_left() {
            return Err(NoMbufs { asked });
        }
        if asked == 0 {
            return Ok(0);
        }
        let (before, slots) = (burst.len(), burst.room(asked));
        // SAFETY: the pool is alive, and `slots` are so many writable pointers. There are at most BURST_MAX.
        let ret = unsafe { dpdk_sys::rw_mbuf_raw_alloc_bulk(self.as_ptr(), slots, asked as u32) };
        if ret != 0 {
            return Err(NoMbufs { asked });
        }
        // SAFETY: the allocation wrote so many pointers to mbufs that belong to the caller: each of one segment,
        // with lengths that are stale, but inside its buffer.
        unsafe { burst.appended(asked) };
        let (mut filled, room) = (0, self.0.data_room);
        for (item, mbuf) in items.iter().zip(&mut burst.as_mut_slice()[before..]) {
            if !fill(item, Fresh { mbuf, room }) {
                break;
            }
            filled += 1;
        }
        // The first of these may have got more segments.
        burst.truncate_free(before + filled);
        Ok(filled)
    }

    /// Takes one fresh mbuf; `None` when the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut mbuf = ptr::null_mut();
        // SAFETY: the pool is alive, and `mbuf` is one writable pointer.
        let ret = unsafe { dpdk_sys::rw_pktmbuf_alloc_bulk(self.as_ptr(), &raw mut mbuf, 1) };
        if ret != 0 {
            return None;
        }
        // SAFETY: after success this is a mbuf that belongs to the caller.
        NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    /// How many mbufs are allocated: held by bursts, guests, or the rings of NICs.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is alive.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.as_ptr()) }
    }

    /// How many mbufs are free, those in lcores' caches included.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is alive.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// Bytes of payload a fresh mbuf has room for.
    pub fn data_room(&self) -> u16 {
        self.0.data_room
    }

    /// The name the pool was made with.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.0.raw.as_ptr()
    }
}

//! Memory shared with the other side: a memfd (of huge pages where there are some), or a region that a
//! frontend sent.
//!
//! Mapping memory that another process writes cannot be expressed in safe Rust. Everything else in this
//! program reaches it through the rings, the buffer pools and [`Shared::pointer`].
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Guest address of the first byte. Not zero and not the address in this process, so that a backend that
/// mixes up its address spaces is found out.
pub const GUEST_BASE: u64 = 0x1_0000_0000;
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Whether memory is taken from huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hugepages {
    /// If there are enough.
    Auto,
    /// Or fail.
    Require,
    /// Never.
    Never,
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Huge pages were required.
    #[error(
        "{0} MiB of huge pages (2 MiB) are not to be had ({1}): reserve them in \
         /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, or use --hugepages never"
    )]
    Huge(usize, rustix::io::Errno),
    /// Out of memory, or of descriptors.
    #[error("{0} MiB of shared memory: {1}")]
    Plain(usize, rustix::io::Errno),
    /// The other side sent a region that cannot be mapped.
    #[error("a memory region of {0} bytes at offset {1}: {2}")]
    Region(u64, u64, rustix::io::Errno),
}

/// A mapping that another process shares.
#[derive(Debug)]
pub struct Shared {
    address: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
    huge: bool,
}

impl Shared {
    /// `len` bytes of new memory, zeroed and present.
    pub fn create(len: usize, hugepages: Hugepages) -> Result<Shared, MemoryError> {
        if hugepages != Hugepages::Never {
            let huge = len.next_multiple_of(HUGE);
            match Shared::memfd(huge, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, true) {
                Ok(memory) => return Ok(memory),
                Err(e) if hugepages == Hugepages::Require => return Err(MemoryError::Huge(huge >> 20, e)),
                Err(_) => {}
            }
        }
        let len = len.next_multiple_of(PAGE);
        Shared::memfd(len, MemfdFlags::empty(), false).map_err(|e| MemoryError::Plain(len >> 20, e))
    }

    fn memfd(len: usize, flags: MemfdFlags, huge: bool) -> Result<Shared, rustix::io::Errno> {
        let fd = memfd_create("ringwire-pktgen", flags | MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        Shared::map(fd, len, huge)
    }

    fn map(fd: OwnedFd, len: usize, huge: bool) -> Result<Shared, rustix::io::Errno> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: the kernel chooses the address, so no other mapping of this process is touched.
        let address = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, &fd, 0) }?;
        let address = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Shared { address, len, fd, huge })
    }

    /// Maps what a frontend sent: `size` bytes from `offset` of `fd`. The mapping starts at 0 of the file,
    /// because hugetlbfs refuses offsets that are not whole pages of its own.
    pub fn from_frontend(fd: OwnedFd, size: u64, offset: u64) -> Result<Shared, MemoryError> {
        let fail = |e| MemoryError::Region(size, offset, e);
        let end = size.checked_add(offset).ok_or(fail(rustix::io::Errno::INVAL))?;
        let stat = fstat(&fd).map_err(fail)?;
        if end == 0 || end > stat.st_size as u64 {
            return Err(fail(rustix::io::Errno::INVAL));
        }
        let block = (stat.st_blksize as u64).max(PAGE as u64);
        let len = usize::try_from(end.next_multiple_of(block)).map_err(|_| fail(rustix::io::Errno::NOMEM))?;
        Shared::map(fd, len, false).map_err(fail)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is made of huge pages.
    pub fn huge(&self) -> bool {
        self.huge
    }

    /// Its first byte's address in this process.
    pub fn user_base(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// The file behind it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where `count` values of `T` are, `offset` bytes from the start; `None` if they are not all inside,
    /// or not aligned. Valid for as long as this mapping is.
    pub fn pointer<T>(&self, offset: usize, count: usize) -> Option<*mut T> {
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the offset was found to be inside the mapping.
        Some(unsafe { self.address.as_ptr().add(offset) }.cast())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping; rings and pools, which point into it, keep it alive by an Rc.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// Hands out parts of a mapping that is still to be made.
#[derive(Debug, Default)]
pub struct Layout {
    end: usize,
}

impl Layout {
    /// The offset of `len` bytes, on a page of their own so that no cache line is shared by accident.
    pub fn take(&mut self, len: usize) -> usize {
        let offset = self.end;
        self.end = (offset + len).next_multiple_of(PAGE);
        offset
    }

    /// Bytes handed out.
    pub fn len(&self) -> usize {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_stay_inside() {
        let memory = Shared::create(10_000, Hugepages::Never).expect("three pages");
        assert_eq!(memory.len(), 3 * PAGE);
        assert!(memory.pointer::<u64>(3 * PAGE - 8, 1).is_some());
        assert!(memory.pointer::<u64>(3 * PAGE - 8, 2).is_none());
        assert!(memory.pointer::<u64>(4, 1).is_none());
        assert!(memory.pointer::<u64>(usize::MAX - 7, 1).is_none());
        assert!(memory.pointer::<u64>(0, usize::MAX).is_none());
    }

    #[test]
    fn a_region_longer_than_its_file_is_refused() {
        let memory = Shared::create(PAGE, Hugepages::Never).expect("a page");
        let fd = || memory.fd().try_clone_to_owned().expect("a descriptor");
        assert!(Shared::from_frontend(fd(), PAGE as u64, 0).is_ok());
        assert!(Shared::from_frontend(fd(), PAGE as u64, 1).is_err());
        assert!(Shared::from_frontend(fd(), u64::MAX, 1).is_err());
    }

    #[test]
    fn areas_do_not_overlap() {
        let mut layout = Layout::default();
        assert_eq!((layout.take(1), layout.take(PAGE + 1), layout.take(1)), (0, PAGE, 3 * PAGE));
        assert_eq!(layout.len(), 4 * PAGE);
    }
}

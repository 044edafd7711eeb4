//! The frontend's memory table: checking and mapping the regions it names.
#![allow(unsafe_code)] // mmap, madvise and munmap of foreign files, and the promise that they stay mapped

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{FileType, fstatfs};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use virtqueue::{Memory, MemoryError, Region};

use crate::sigbus::{Alarm, Guarded};

/// Most regions a table can have. The kernel's vhost takes 509 too (`max_mem_regions` is raised to it by
/// most who use it): as many as the memory slots KVM gave a guest for years.
pub(crate) const MAX_REGIONS: usize = 509;

/// Most bytes a table can have: what is mapped is our address space (128 TiB), and that is for all guests.
pub(crate) const MAX_BYTES: u64 = 2 << 40;

/// File systems whose files are memory: tmpfs (memfds, /dev/shm), ramfs (memfds of a kernel without tmpfs), and
/// hugetlbfs. On any other, touching a page may wait for a disk, a server or a FUSE process.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// Mappings must be multiples of the huge page.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// A region that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error("memory region {region}: it is empty")]
    Empty { region: RegionId },
    #[error("memory region {region}: offset {offset:#x} and size do not fit 64 bits")]
    Overflow { region: RegionId, offset: u64 },
    #[error("memory region {region}: its file is no regular file")]
    NotRegular { region: RegionId },
    #[error(
        "memory region {region}: its file is not in memory (a memfd, or on tmpfs or hugetlbfs), so that we \
         might have to wait for its pages"
    )]
    NotInMemory { region: RegionId },
    #[error("memory region {region}: its file has {found:#x} bytes of {needed:#x} that are needed")]
    Short { region: RegionId, found: u64, needed: u64 },
    #[error("memory region {region}: {cause}")]
    Io { region: RegionId, cause: io::Error },
    #[error(transparent)]
    Table(#[from] MemoryError),
    #[error("memory table is full: {MAX_REGIONS} regions")]
    Full,
    #[error(
        "memory table is too large: {bytes:#x} bytes, and {MAX_BYTES:#x} are what one guest may have mapped"
    )]
    TooLarge { bytes: u64 },
    #[error("memory region {region}: there is none such")]
    NotFound { region: RegionId },
}

/// What a frontend says about a region: where the guest and the frontend see it, and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionId {
    pub guest_addr: u64,
    pub user_addr: u64,
    pub len: u64,
}

impl std::fmt::Display for RegionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at guest {:#x}, frontend {:#x}, size {:#x}", self.guest_addr, self.user_addr, self.len)
    }
}

/// A mapped file; unmapped when the last table that shows it is gone.
struct Mapping {
    /// Gone before the mapping is.
    guarded: Option<Guarded>,
    at: *mut c_void,
    len: usize,
}

// SAFETY: an address and a length; the mapping is the process's, not a thread's.
unsafe impl Send for Mapping {}
// SAFETY: shared references give out nothing that changes.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guarded = None;
        // SAFETY: this is what mmap returned; every pointer into it came with a share of this value.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}

impl Mapping {
    /// Maps the first `end` bytes of `file`, in whole blocks.
    ///
    /// From 0, not from the region's offset: hugetlbfs refuses unaligned offsets, and QEMU sends some.
    fn new(file: &File, end: u64, block: u64, alarm: &Alarm) -> io::Result<Mapping> {
        let too_long = || io::Error::from(io::ErrorKind::FileTooLarge);
        let len = end.checked_next_multiple_of(block).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| isize::try_from(*len).is_ok()).ok_or_else(too_long)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel picks the address, so no other mapping is touched.
        let at = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }?;
        // Guest memory is none of a core dump's business. A refusal changes nothing else.
        // SAFETY: exactly the range mapped above.
        let _ = unsafe { madvise(at, len, Advice::LinuxDontDump) };
        let mut mapping = Mapping { guarded: None, at, len };
        // SAFETY: exactly the range mapped above, in whole blocks; a guest's memory may hold anything.
        mapping.guarded = Some(unsafe { Guarded::new(at, len, alarm) }?);
        Ok(mapping)
    }
}

/// One mapped region.
#[derive(Clone)]
struct Mapped {
    id: RegionId,
    offset: u64,
    /// Device and inode of the file.
    file: (u64, u64),
    mapping: Arc<Mapping>,
    /// How often the frontend has added it. QEMU 7.2 adds and removes each region once for every queue pair.
    adds: u32,
}

impl Mapped {
    /// Checks and maps a region of `file` that starts at `offset`. The file itself is not needed afterwards.
    fn new(id: RegionId, offset: u64, file: File, alarm: &Alarm) -> Result<Mapped, MapError> {
        let region = id;
        if region.len == 0 {
            return Err(MapError::Empty { region });
        }
        let end = offset.checked_add(region.len).ok_or(MapError::Overflow { region, offset })?;
        let io = |cause: io::Error| MapError::Io { region, cause };
        let stat = file.metadata().map_err(io)?;
        if !FileType::from_raw_mode(stat.mode()).is_file() {
            return Err(MapError::NotRegular { region });
        }
        let fs = fstatfs(&file).map_err(|errno| io(errno.into()))?;
        if ![TMPFS_MAGIC, RAMFS_MAGIC, HUGETLBFS_MAGIC].contains(&fs.f_type) {
            return Err(MapError::NotInMemory { region });
        }
        if stat.size() < end {
            return Err(MapError::Short { region, found: stat.size(), needed: end });
        }
        let block = if fs.f_type == HUGETLBFS_MAGIC { fs.f_bsize as u64 } else { page_size() };
        let mapping = Mapping::new(&file, end, block, alarm).map_err(io)?;
        Ok(Mapped { id, offset, file: (stat.dev(), stat.ino()), mapping: Arc::new(mapping), adds: 1 })
    }

    fn region(&self) -> Region {
        let host = self.mapping.at.cast::<u8>().wrapping_add(self.offset as usize);
        let RegionId { guest_addr, user_addr, len } = self.id;
        // SAFETY: offset + len lies within the mapping (checked in `new`), which the region keeps.
        unsafe { Region::new(guest_addr, user_addr, len, host, self.mapping.clone()) }
    }
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// A memory table: what the frontend named, mapped, and what rings translate with.
#[derive(Clone, Default)]
pub(crate) struct Table {
    regions: Vec<Mapped>,
    memory: Option<Arc<Memory>>,
}

impl Table {
    /// Maps every region (what it is, its offset in its file, its file), or none.
    ///
    /// `alarm` rings when a file turns out to have been truncated.
    pub fn map(
        regions: impl Iterator<Item = (RegionId, u64, File)>,
        alarm: &Alarm,
    ) -> Result<Table, MapError> {
        let mut mapped = Table::default();
        for (id, offset, file) in regions {
            mapped.check_room(id)?;
            mapped.regions.push(Mapped::new(id, offset, file, alarm)?);
        }
        Table::of(mapped.regions)
    }

    /// Whether one more region may be mapped.
    fn check_room(&self, id: RegionId) -> Result<(), MapError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(MapError::Full);
        }
        let bytes = self.bytes().saturating_add(id.len);
        if bytes > MAX_BYTES { Err(MapError::TooLarge { bytes }) } else { Ok(()) }
    }

    fn of(regions: Vec<Mapped>) -> Result<Table, MapError> {
        let memory = Memory::new(regions.iter().map(Mapped::region).collect())?;
        let memory = (!regions.is_empty()).then(|| Arc::new(memory));
        Ok(Table { regions, memory })
    }

    /// This table with one more region. The very same region once more must be removed once more.
    pub fn with(&self, id: RegionId, offset: u64, file: File, alarm: &Alarm) -> Result<Table, MapError> {
        if let Some(at) = self.regions.iter().position(|region| region.id == id && region.offset == offset) {
            let stat = file.metadata().map_err(|cause| MapError::Io { region: id, cause })?;
            if self.regions[at].file == (stat.dev(), stat.ino()) {
                let mut again = self.clone();
                again.regions[at].adds = self.regions[at].adds.saturating_add(1);
                return Ok(again);
            }
        }
        self.check_room(id)?;
        let added = Mapped::new(id, offset, file, alarm)?;
        Table::of(self.regions.iter().cloned().chain([added]).collect())
    }

    /// This table without the region `id`, or with it once less. The offset does not count: QEMU sends 0.
    pub fn without(&self, id: RegionId) -> Result<Table, MapError> {
        let at = self.regions.iter().position(|region| region.id == id);
        let at = at.ok_or(MapError::NotFound { region: id })?;
        if self.regions[at].adds > 1 {
            let mut still = self.clone();
            still.regions[at].adds -= 1;
            return Ok(still);
        }
        let mut rest = self.regions.clone();
        rest.remove(at);
        Table::of(rest)
    }

    /// What rings translate with; `None` while there is no region.
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    pub fn bytes(&self) -> u64 {
        self.regions.iter().fold(0, |sum, region| sum.saturating_add(region.id.len))
    }
}

#[cfg(test)]
mod tests;

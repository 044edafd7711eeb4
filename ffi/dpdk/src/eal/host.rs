//! What of the host decides EAL's arguments.

#![allow(unsafe_code, reason = "sched_getaffinity and sched_setaffinity are foreign functions")]

use std::fs;
use std::path::Path;

/// What [`super::args::choose`] needs to know of this host and process.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Free huge memory of all page sizes, in MB.
    pub(super) free_hugepage_mb: u64,
    /// CPUs the calling thread may run on, ascending.
    pub(super) cpus: Vec<usize>,
    /// This process.
    pub(super) pid: u32,
    /// Whether there is a PCI bus that DPDK can look at.
    pub(super) pci: bool,
}

impl Facts {
    pub(super) fn gather() -> Facts {
        Facts {
            free_hugepage_mb: free_hugepage_mb(Path::new("/sys/kernel/mm/hugepages")),
            cpus: affinity().map(|set| cpus(&set)).unwrap_or_default(),
            pid: std::process::id(),
            pci: Path::new("/sys/bus/pci/devices").is_dir(),
        }
    }
}

/// Sums `hugepages-<N>kB/free_hugepages` below `root`; what cannot be read counts as none.
fn free_hugepage_mb(root: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(root) else {
        return 0;
    };
    let kb: u64 = sizes
        .flatten()
        .filter_map(|size| {
            let name = size.file_name();
            let page_kb = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            let free = fs::read_to_string(size.path().join("free_hugepages")).ok()?;
            Some(page_kb.parse::<u64>().ok()? * free.trim().parse::<u64>().ok()?)
        })
        .sum();
    kb / 1024
}

/// The CPUs the calling thread may run on; `None` if the kernel has more than `cpu_set_t` holds.
pub(super) fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: cpu_set_t is plain bits, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable for the size given; pid 0 is the calling thread.
    let ret = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    (ret == 0).then_some(set)
}

/// Binds the calling thread to `set`.
pub(super) fn set_affinity(set: &libc::cpu_set_t) {
    // SAFETY: `set` is readable for the size given; pid 0 is the calling thread.
    let ret = unsafe { libc::sched_setaffinity(0, size_of_val(set), set) };
    if ret != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "cannot restore the CPU affinity DPDK changed");
    }
}

fn cpus(set: &libc::cpu_set_t) -> Vec<usize> {
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, set) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_hugepages_of_all_sizes_are_summed() {
        let root = std::env::temp_dir().join(format!("ringwire-hugepages-{}", std::process::id()));
        for (size, free) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "1\n")] {
            fs::create_dir_all(root.join(size)).unwrap();
            fs::write(root.join(size).join("free_hugepages"), free).unwrap();
        }
        assert_eq!(free_hugepage_mb(&root), 3 * 2 + 1024);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(free_hugepage_mb(&root), 0);
    }
}

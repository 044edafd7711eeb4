use std::os::unix::fs::FileExt;

use super::*;
use crate::testing::{GUEST, Guest, USER, alone};

fn id(len: u64) -> RegionId {
    RegionId { guest_addr: GUEST, user_addr: USER, len }
}

fn alarm() -> Alarm {
    Alarm::new().unwrap()
}

#[test]
fn a_region_shows_its_file_from_its_offset_on() {
    let _alone = alone();
    let guest = Guest::new(0x5000);
    guest.file.write_all_at(b"here", 0x1234).unwrap();
    // An offset that is no multiple of a page: QEMU sends such for hugetlbfs.
    let file = guest.file.try_clone().unwrap();
    let table = Table::map([(id(0x2000), 0x1234, file)].into_iter(), &alarm()).unwrap();
    let host = table.memory().unwrap().guest_to_host(GUEST, 4).unwrap();
    // SAFETY: four bytes that the table says are mapped.
    assert_eq!(unsafe { std::slice::from_raw_parts(host, 4) }, b"here");
    assert_eq!((table.regions(), table.bytes(), guest.mapped()), (1, 0x2000, 1));
    drop(table);
    assert_eq!(guest.mapped(), 0);
}

#[test]
fn a_mapping_lives_as_long_as_any_table_that_shows_it() {
    let _alone = alone();
    let (one, two) = (Guest::new(0x1000), Guest::new(0x1000));
    let first = Table::default().with(id(0x1000), 0, one.file.try_clone().unwrap(), &alarm()).unwrap();
    let other = RegionId { guest_addr: GUEST + 0x1000, ..id(0x1000) };
    let both = first.with(other, 0, two.file.try_clone().unwrap(), &alarm()).unwrap();
    drop(first);
    assert_eq!((one.mapped(), two.mapped()), (1, 1));
    let last = both.without(id(0x1000)).unwrap();
    drop(both);
    assert_eq!((one.mapped(), two.mapped()), (0, 1));
    let none = last.without(other).unwrap();
    assert!(none.memory().is_none() && none.regions() == 0);
    assert!(matches!(none.without(other), Err(MapError::NotFound { .. })));
}

#[test]
fn the_same_region_added_twice_is_mapped_once_and_removed_twice() {
    let _alone = alone();
    let (guest, other) = (Guest::new(0x1000), Guest::new(0x1000));
    let add =
        |table: &Table, guest: &Guest| table.with(id(0x1000), 0, guest.file.try_clone().unwrap(), &alarm());
    let once = add(&Table::default(), &guest).unwrap();
    let twice = add(&once, &guest).unwrap();
    assert_eq!((twice.regions(), guest.mapped()), (1, 1));
    assert!(matches!(add(&twice, &other), Err(MapError::Table(MemoryError::Overlap { .. }))));
    let once = twice.without(id(0x1000)).unwrap();
    assert_eq!((once.regions(), guest.mapped()), (1, 1));
    assert!(once.without(id(0x1000)).unwrap().memory().is_none());
}

#[test]
fn a_file_truncated_under_us_reads_as_zeroes_and_rings_the_alarm() {
    let _alone = alone();
    let (guest, other) = (Guest::new(0x3000), Guest::new(0x1000));
    guest.file.write_all_at(b"gone", 0x2000).unwrap();
    let (ours, theirs) = (alarm(), alarm());
    let table = Table::default().with(id(0x3000), 0, guest.file.try_clone().unwrap(), &ours).unwrap();
    let _innocent = Table::default().with(id(0x1000), 0, other.file.try_clone().unwrap(), &theirs).unwrap();
    let host = table.memory().unwrap().guest_to_host(GUEST + 0x2000, 4).unwrap();
    // SAFETY: four bytes that the table says are mapped.
    let read = || unsafe { std::ptr::read_volatile(host.cast::<[u8; 4]>()) };
    assert_eq!((read(), ours.rang()), (*b"gone", false));
    guest.file.set_len(0x1000).unwrap();
    assert_eq!((read(), ours.rang(), theirs.rang()), ([0; 4], true, false));
    // SAFETY: as above.
    unsafe { std::ptr::write_volatile(host, 1) };
    assert_eq!((read(), ours.rang()), ([1, 0, 0, 0], false), "one loss rings once");
}

#[test]
fn mappings_stay_out_of_core_dumps() {
    let _alone = alone();
    let guest = Guest::new(0x1000);
    let _table = Table::default().with(id(0x1000), 0, guest.file.try_clone().unwrap(), &alarm()).unwrap();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let flags = maps.split(&guest.name).nth(1).unwrap().lines().find(|line| line.starts_with("VmFlags"));
    assert!(flags.unwrap().contains(" dd"), "{flags:?}");
}

#[test]
fn refuses_what_does_not_fit() {
    let _alone = alone();
    let guest = Guest::new(0x1000);
    let map = |len, offset| Table::default().with(id(len), offset, guest.file.try_clone().unwrap(), &alarm());
    assert!(matches!(map(0, 0), Err(MapError::Empty { .. })));
    assert!(matches!(map(1, u64::MAX), Err(MapError::Overflow { .. })));
    assert!(matches!(map(0x1000, 1), Err(MapError::Short { needed: 0x1001, found: 0x1000, .. })));
    assert!(matches!(map(MAX_BYTES, 0), Err(MapError::Short { .. })));
    assert!(matches!(map(MAX_BYTES + 1, 0), Err(MapError::TooLarge { .. })));
    assert!(matches!(map(u64::MAX, 0), Err(MapError::TooLarge { .. })));
    assert!(map(1, 0xfff).is_ok());
    let directory = File::open("/").unwrap();
    assert!(matches!(Table::default().with(id(1), 0, directory, &alarm()), Err(MapError::NotRegular { .. })));
    // It cannot be mapped for writing even where it lies on a tmpfs.
    let program = File::open("/proc/self/exe").unwrap();
    let refused = Table::default().with(id(1), 0, program, &alarm()).err().unwrap();
    assert!(matches!(refused, MapError::NotInMemory { .. } | MapError::Io { .. }), "{refused}");
}

/// Huge pages are mapped in whole blocks. Needs one free 2 MiB page; says so when there is none.
#[test]
fn hugetlbfs_is_mapped_in_whole_pages() {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    let _alone = alone();
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim() == "0") {
        eprintln!("no free huge page: only checked that mapping is asked for in whole pages");
    }
    let Ok(fd) = memfd_create("vhost-user-test-huge", MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) else {
        return;
    };
    ftruncate(&fd, 2 << 20).unwrap();
    // With NORESERVE the kernel gives out address space without a page behind it; nothing is touched.
    let table = Table::default().with(id((2 << 20) - 0x1000), 0x1000, fd.into(), &alarm()).unwrap();
    assert_eq!(table.bytes(), (2 << 20) - 0x1000);
}

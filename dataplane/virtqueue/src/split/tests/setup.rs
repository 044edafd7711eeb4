//! What is refused before a ring runs.

use super::*;
use crate::testing::*;

fn refused(change: impl FnOnce(&Driver, &mut RingConfig)) -> SetupError {
    let driver = Driver::new(4, 0);
    let mut config = driver.config();
    change(&driver, &mut config);
    SplitRing::start(config).err().expect("should have been refused")
}

#[test]
fn sizes_that_are_no_power_of_two_up_to_32768() {
    for size in [0, 3, 5, 255, 32767, 32769, 65535] {
        assert_eq!(refused(|_, config| config.size = size), SetupError::Size(size));
    }
    for size in (0..=15).map(|bit| 1 << bit) {
        assert_eq!(Driver::new(size, 0).start().config().size, size);
    }
}

#[test]
fn bases_that_are_no_index() {
    for base in [1 << 16, 0x8000_0000, u32::MAX] {
        assert_eq!(refused(|_, config| config.base = base), SetupError::Base(base));
    }
    assert_eq!(Driver::new(4, 0).start_at(0xffff).base(), 0xffff);
}

/// Virtio 1.2, 2.7: 16, 2 and 4 bytes.
#[test]
fn areas_that_are_not_aligned() {
    type Field = fn(&mut RingConfig) -> &mut u64;
    let areas: [(&str, Field, usize); 3] = [
        ("descriptor table", |config| &mut config.desc, 16),
        ("avail ring", |config| &mut config.avail, 2),
        ("used ring", |config| &mut config.used, 4),
    ];
    for (area, field, align) in areas {
        for off in 1..align as u64 {
            let addr = DATA + USER + off;
            let error = refused(|_, config| *field(config) = addr);
            assert_eq!(error, SetupError::Unaligned { area, addr, align });
        }
        let mut config = Driver::new(4, 0).config();
        *field(&mut config) = DATA + USER + align as u64;
        assert!(SplitRing::start(config).is_ok());
    }
}

#[test]
fn areas_outside_memory_or_across_its_regions() {
    for addr in [0, RINGS, HOLE + USER, HOLE + USER - 16, SEAM + USER - 16, u64::MAX - 15] {
        let unmapped = |area, len| SetupError::Unmapped { area, addr, len };
        assert_eq!(refused(|_, config| config.desc = addr), unmapped("descriptor table", 64));
        assert_eq!(refused(|_, config| config.used = addr), unmapped("used ring", 38));
    }
    // 14 bytes, the event included.
    let addr = HOLE + USER - 12;
    let unmapped = SetupError::Unmapped { area: "avail ring", addr, len: 14 };
    assert_eq!(refused(|_, config| config.avail = addr), unmapped);
}

#[test]
fn areas_may_end_where_memory_ends() {
    for (desc, avail, used) in [(64, 128, 256), (128, 14, 256), (128, 256, 40)] {
        let mut config = Driver::new(4, F_EVENT_IDX).config();
        let at = |before: u64| HOLE + USER - before;
        (config.desc, config.avail, config.used) = (at(desc), at(avail), at(used));
        let mut ring = SplitRing::start(config).unwrap();
        ring.set_kicks(false);
        ring.complete(token(3), 0);
        ring.publish();
    }
}

/// A VMM may show one piece of memory at two frontend ranges of different lengths.
#[test]
fn an_area_is_looked_for_in_every_region_with_its_address() {
    let guest = Guest::new(&[(0x1000, 0x1000), (0x10000, 0x8000)]);
    let regions = guest.memory.regions();
    assert_eq!(regions[0].user_addr(), 0x1000 + USER);
    let twice = guest.shown_at(&[0x5000, 0x5000]);
    assert_eq!(twice.user_to_host(0x5000, 0x1000), twice.guest_to_host(0x1000, 1));
    assert_eq!(twice.user_to_host(0x5000, 0x1001), twice.guest_to_host(0x10000, 1));
    assert_eq!(twice.user_to_host(0x5000, 0x8001), None);
}

/// Aligned in the frontend is not enough: it is our address that is dereferenced.
#[test]
fn alignment_is_that_of_our_mapping() {
    let driver = Driver::new(4, 0);
    let memory = driver.guest.shown_at(&[0x1001, 0x20_0000, 0x40_0000]);
    let config = RingConfig {
        memory: Arc::new(memory),
        desc: 0x20_0000,
        used: 0x20_1000,
        avail: 0x1004, // host: start + 3
        ..driver.config()
    };
    let unaligned = SetupError::Unaligned { area: "avail ring", addr: 0x1004, align: 2 };
    assert_eq!(SplitRing::start(config).err(), Some(unaligned));
}

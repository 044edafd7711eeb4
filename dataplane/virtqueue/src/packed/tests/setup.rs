//! What is refused before a ring runs, and where it goes on.

use super::*;
use crate::testing::*;

fn refused(change: impl FnOnce(&mut RingConfig)) -> SetupError {
    let mut config = Driver::new(4, 0).config();
    change(&mut config);
    PackedRing::start(config).err().expect("should have been refused")
}

/// Virtio 1.2, 2.8.10.1: "The Queue Size value does not have to be a power of 2".
#[test]
fn sizes_from_1_to_32768() {
    for size in [0, 32769, 65535] {
        assert_eq!(refused(|config| config.size = size), SetupError::PackedSize(size));
    }
    for size in [1, 2, 3, 5, 255, 256, 1000, 32767, 32768] {
        assert_eq!(Driver::new(size, 0).start().config().size, size);
    }
}

/// Virtio 1.2, 2.8.10.1: 16, 4 and 4 bytes.
#[test]
fn areas_that_are_not_aligned() {
    type Field = fn(&mut RingConfig) -> &mut u64;
    let areas: [(&str, Field, usize); 3] = [
        ("descriptor ring", |config| &mut config.desc, 16),
        ("driver event suppression", |config| &mut config.avail, 4),
        ("device event suppression", |config| &mut config.used, 4),
    ];
    for (area, field, align) in areas {
        for off in 1..align as u64 {
            let addr = DATA + USER + off;
            assert_eq!(refused(|config| *field(config) = addr), SetupError::Unaligned { area, addr, align });
        }
        let mut config = Driver::new(4, 0).config();
        *field(&mut config) = DATA + USER + align as u64;
        assert!(PackedRing::start(config).is_ok());
    }
}

#[test]
fn areas_outside_memory_or_across_its_regions() {
    for addr in [0, RINGS, HOLE + USER, HOLE + USER - 16, SEAM + USER - 16, u64::MAX - 15] {
        let unmapped = SetupError::Unmapped { area: "descriptor ring", addr, len: 64 };
        assert_eq!(refused(|config| config.desc = addr), unmapped);
    }
    for addr in [0, RINGS, HOLE + USER, HOLE + USER - 3, SEAM + USER - 2, u64::MAX - 3] {
        let unmapped = |area| SetupError::Unmapped { area, addr, len: 4 };
        assert_eq!(refused(|config| config.avail = addr), unmapped("driver event suppression"));
        assert_eq!(refused(|config| config.used = addr), unmapped("device event suppression"));
    }
}

#[test]
fn areas_may_end_where_memory_ends() {
    for (desc, avail, used) in [(64, 128, 256), (128, 4, 256), (128, 256, 4)] {
        let driver = Driver::new(4, F_EVENT_IDX);
        let at = |before: u64| HOLE + USER - before;
        let config = RingConfig { desc: at(desc), avail: at(avail), used: at(used), ..driver.config() };
        let mut ring = PackedRing::start(config).unwrap();
        ring.set_kicks(false);
        assert_eq!(driver.guest.read_u16(HOLE - used + 2), 1);
        for slot in 0..4 {
            let available = [DATA.to_le_bytes(), (9u64 | 1 << 55).to_le_bytes()].concat();
            driver.guest.write(HOLE - desc + 16 * slot, &available);
        }
        serve(&mut ring, 4);
        ring.publish();
        for slot in 0..4 {
            assert_eq!(driver.guest.read_u16(HOLE - desc + 16 * slot + 14), 0x8080);
        }
    }
}

/// Bits 0 to 15 say what is taken next, bits 16 to 31 what is used next; each with its wrap counter.
#[test]
fn bases_that_are_no_place_in_the_ring() {
    for bits in [4, 5, 0x7fff, 0x8004, 0xffff] {
        for base in [bits, bits * 0x1_0001, 0x8000 | bits << 16] {
            assert_eq!(refused(|config| config.base = base), SetupError::Base(base));
        }
    }
    // Used further than taken, or more than a lap behind.
    for base in [0x8001_8000, 0x0003_0002, 0x0001_8002, 0x8001_0002] {
        assert_eq!(refused(|config| config.base = base), SetupError::Base(base), "{base:#x}");
    }
}

#[test]
fn a_ring_starts_at_any_base_and_says_so() {
    for count in 0..16 {
        let driver = Driver::new(7, 0).at(count);
        assert_eq!(driver.start().base(), driver.base(count));
        // Some frontends leave the upper half zero: nothing is in flight.
        let half = driver.base(count) & 0xffff;
        assert_eq!(driver.start_at(half).base(), driver.base(count));
    }
}

/// What another has taken and not returned is lost to us, but not the place where used descriptors go.
#[test]
fn a_base_with_chains_in_flight() {
    // Slot 0 with wrap counter 0 would be taken for a half left zero.
    for start in (0..8).filter(|start| *start != 4) {
        let mut driver = Driver::new(4, 0).at(start);
        driver.post(7, &[out(DATA, 1), out(DATA, 2)]);
        driver.post(8, &[out(DATA, 3)]);
        driver.post(9, &[out(DATA, 4)]);
        let base = |driver: &Driver, avail: u64, used: u64| {
            u32::from(driver.bits(avail)) | u32::from(driver.bits(used)) << 16
        };
        let mut ring = driver.start_at(base(&driver, start + 2, start));
        assert_eq!(ring.base(), base(&driver, start + 2, start));
        assert_eq!(ring.available(9), Ok(2));
        serve(&mut ring, 2);
        assert_eq!(ring.available(9), Ok(0));
        ring.publish();
        assert_eq!(driver.used(), [(8, 0), (9, 0)]);
        driver.post(1, &[out(DATA, 5), out(DATA, 6)]);
        assert_eq!(take(&mut ring).unwrap().1.len(), 11);
        assert_eq!(ring.base(), base(&driver, start + 6, start + 2));
        assert!(!ring.has_news(), "the other two are in flight for ever");
    }
}

#[test]
fn the_guest_chooses_the_format() {
    let driver = Driver::new(5, 1 << 32);
    let mut ring = crate::Ring::start(driver.config()).unwrap();
    assert!(matches!(ring, crate::Ring::Packed(_)));
    assert_eq!((ring.index(), ring.config().size, ring.base()), (1, 5, 0x8000_8000));
    ring.as_dyn().set_kicks(false);
    assert_eq!(driver.device_wish().1, 1);
}

//! What a guest must not do with indirect tables, where packed rings are different.

use super::hostile::HEAD;
use super::*;
use crate::testing::misdeed::*;
use crate::testing::*;

/// Virtio 1.2, 2.8.19: an indirect descriptor is in no chain.
#[test]
fn an_indirect_table_behind_direct_descriptors() {
    for direct in 1..=4 {
        let behind = |driver: &mut Driver| {
            let mut chain = vec![out(DATA, 9); direct];
            chain.push(driver.table(SEAM, &[out(DATA, 9)]));
            driver.post(1, &chain);
        };
        assert_eq!(sends(F_INDIRECT, behind), Violation::Indirect { head: HEAD });
    }
}

#[test]
fn an_indirect_table_that_is_the_ring() {
    let whole = |driver: &mut Driver| {
        for count in driver.avail..driver.avail + 5 {
            driver.expose(count, Buf { addr: driver.desc_addr(), len: 80, flags: INDIRECT }, 0);
        }
    };
    assert_eq!(sends(F_INDIRECT, whole), Violation::Indirect { head: HEAD });
}

/// DPDK's driver marks its transmit tables so; a receive table must say what may be written.
#[test]
fn a_device_writable_entry_counts_only_where_the_device_writes() {
    let mut driver = Driver::new(8, F_INDIRECT);
    let table = driver.table(SEAM, &[into(DATA, 5), out(DATA, 5)]);
    driver.post(1, &[table]);
    let mut ring = driver.start();
    assert_eq!(ring.available(1), Ok(1));
    assert_eq!(ring.take().unwrap().unwrap().len, 10);

    let violation = receives(F_INDIRECT, |driver: &mut Driver| {
        let table = driver.table(SEAM, &[into(DATA, 5), out(DATA, 5)]);
        driver.post(1, &[table]);
    });
    assert_eq!(violation, Violation::Direction { head: HEAD });
}

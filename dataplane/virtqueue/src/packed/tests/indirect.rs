//! What a guest must not do with indirect tables, one test each: each row of what guests have tried.

use super::hostile::{HEAD, SIZE, START, receives, sends};
use super::*;
use crate::testing::*;

/// Posts what `table` makes of a good table.
fn indirect(table: impl FnOnce(&Driver, Buf) -> Buf) -> impl FnOnce(&mut Driver) {
    |driver| {
        let good = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        let bad = table(driver, good);
        driver.expose(START + 1, out(DATA, 9), 1);
        driver.expose(START, bad, 1);
    }
}

#[test]
fn an_indirect_table_that_was_not_negotiated() {
    assert_eq!(sends(0, indirect(|_, table| table)), Violation::Indirect { head: HEAD });
}

#[test]
fn an_indirect_table_of_a_wrong_length() {
    let most = 16 * u32::from(SIZE);
    for len in [0, 1, 15, 17, 31, 33, most + 1, most + 16, 1 << 20, u32::MAX - 15, u32::MAX] {
        let violation = sends(F_INDIRECT, indirect(|_, table| Buf { len, ..table }));
        assert_eq!(violation, Violation::Indirect { head: HEAD });
    }
}

#[test]
fn an_indirect_table_of_more_than_1024_descriptors() {
    for n in [1024, 1025] {
        let mut driver = Driver::new(2000, F_INDIRECT);
        let table = driver.table(SEAM, &vec![out(DATA, 1); n]);
        driver.post(1, &[table]);
        let taken = take(&mut driver.start()).map(|(_, content)| content.len());
        let too_long = Err(Violation::ChainTooLong { head: 0 });
        assert_eq!(taken, if n == 1024 { Ok(1024) } else { too_long });
    }
}

/// Virtio 1.2, 2.8.19: an indirect descriptor is in no chain, neither before others nor behind them.
#[test]
fn an_indirect_table_in_a_chain() {
    let with_next = indirect(|_, table| Buf { flags: INDIRECT | NEXT, ..table });
    assert_eq!(sends(F_INDIRECT, with_next), Violation::Indirect { head: HEAD });
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
fn an_indirect_table_in_an_indirect_table() {
    let nested = indirect(|driver, table| {
        driver.set_desc_at(SEAM + 16, Buf { addr: SEAM + 0x100, len: 16, flags: INDIRECT }, 0);
        driver.set_desc_at(SEAM + 0x100, out(DATA, 9), 0);
        table
    });
    assert_eq!(sends(F_INDIRECT, nested), Violation::Indirect { head: HEAD });
}

#[test]
fn an_indirect_table_that_is_the_ring() {
    let whole = |driver: &mut Driver| {
        for count in START..START + 5 {
            driver.expose(count, Buf { addr: driver.desc_addr(), len: 80, flags: INDIRECT }, 0);
        }
    };
    assert_eq!(sends(F_INDIRECT, whole), Violation::Indirect { head: HEAD });
}

#[test]
fn an_indirect_table_across_regions_or_outside_memory() {
    for addr in [SEAM - 16, HOLE - 16, HOLE, u64::MAX - 15, u64::MAX, 0] {
        let violation = sends(F_INDIRECT, indirect(|_, table| Buf { addr, ..table }));
        assert_eq!(violation, Violation::Unmapped { head: HEAD, addr, len: 32 });
    }
}

#[test]
fn an_indirect_table_with_a_bad_entry() {
    for (n, at) in (1..=5).flat_map(|n| (0..n).map(move |at| (n, at))) {
        for (bad, violation) in [
            (out(DATA, 0), Violation::EmptyDescriptor { head: HEAD }),
            (out(HOLE, 5), Violation::Unmapped { head: HEAD, addr: HOLE, len: 5 }),
        ] {
            let misdeed = |driver: &mut Driver| {
                let mut chain = vec![out(DATA, 5); n];
                chain[at] = bad;
                let table = driver.table(SEAM, &chain);
                driver.post(1, &[table]);
            };
            assert_eq!(sends(F_INDIRECT, misdeed), violation);
        }
    }
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

//! What a guest must not do with indirect tables, one test each.

use super::hostile::{SIZE, sends};
use super::*;
use crate::testing::*;

fn indirect(table: impl FnOnce(&Driver, Buf) -> Buf) -> impl FnOnce(&mut Driver) {
    |driver| {
        let good = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        let bad = table(driver, good);
        driver.set_desc(1, bad, 2);
        driver.set_desc(2, out(DATA, 9), 0);
        driver.offer(1);
    }
}

#[test]
fn an_indirect_table_that_was_not_negotiated() {
    assert_eq!(sends(0, indirect(|_, table| table)), Violation::Indirect { head: 1 });
}

#[test]
fn an_indirect_table_of_a_wrong_length() {
    for len in [
        0,
        1,
        15,
        17,
        31,
        33,
        16 * u32::from(SIZE) + 1,
        16 * u32::from(SIZE + 1),
        1 << 20,
        u32::MAX - 15,
        u32::MAX,
    ] {
        let violation = sends(F_INDIRECT, indirect(|_, table| Buf { len, ..table }));
        assert_eq!(violation, Violation::Indirect { head: 1 });
    }
}

#[test]
fn an_indirect_table_with_next() {
    let with_next = indirect(|_, table| Buf { flags: INDIRECT | NEXT, ..table });
    assert_eq!(sends(F_INDIRECT, with_next), Violation::Indirect { head: 1 });
}

#[test]
fn an_indirect_table_in_an_indirect_table() {
    let nested = indirect(|driver, table| {
        driver.set_desc_at(SEAM + 16, Buf { addr: SEAM + 0x100, len: 16, flags: INDIRECT }, 0);
        driver.set_desc_at(SEAM + 0x100, out(DATA, 9), 0);
        table
    });
    assert_eq!(sends(F_INDIRECT, nested), Violation::Indirect { head: 1 });
}

/// Nested through a table that is the ring's own: it must not pass for the outermost one, for ever.
#[test]
fn an_indirect_table_that_is_the_descriptor_table() {
    let itself = indirect(|driver, _| Buf { addr: driver.desc_addr() + 16, len: 16, flags: INDIRECT });
    assert_eq!(sends(F_INDIRECT, itself), Violation::Indirect { head: 1 });
    let whole = |driver: &mut Driver| {
        driver.set_desc(0, Buf { addr: driver.desc_addr(), len: 64, flags: INDIRECT }, 0);
        driver.offer(0);
    };
    assert_eq!(sends(F_INDIRECT, whole), Violation::Indirect { head: 0 });
}

#[test]
fn an_indirect_table_across_regions_or_outside_memory() {
    for addr in [SEAM - 16, HOLE - 16, HOLE, u64::MAX - 15, u64::MAX, 0] {
        let violation = sends(F_INDIRECT, indirect(|_, table| Buf { addr, ..table }));
        assert_eq!(violation, Violation::Unmapped { head: 1, addr, len: 32 });
    }
}

#[test]
fn a_next_beyond_the_indirect_table() {
    let misdeed = |driver: &mut Driver| {
        let table = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        driver.set_desc_at(SEAM + 16, Buf { addr: DATA, len: 9, flags: NEXT }, 2);
        driver.post(&[3], &[table]);
    };
    assert_eq!(sends(F_INDIRECT, misdeed), Violation::Next { head: 3, next: 2, size: 2 });
}

#[test]
fn an_indirect_table_that_loops() {
    for (from, to) in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let misdeed = |driver: &mut Driver| {
            let table = driver.table(SEAM, &[out(DATA, 9); 3]);
            driver.set_desc_at(SEAM + 16 * from, Buf { addr: DATA, len: 9, flags: NEXT }, to);
            driver.post(&[3], &[table]);
        };
        assert_eq!(sends(F_INDIRECT, misdeed), Violation::ChainTooLong { head: 3 });
    }
}

//! What a guest must not do with indirect tables, where split rings are different.

use super::*;
use crate::testing::misdeed::*;
use crate::testing::*;

/// Nested through a table that is the ring's own: it must not pass for the outermost one, for ever.
#[test]
fn an_indirect_table_that_is_the_descriptor_table() {
    let itself = |driver: &mut Driver| {
        driver.post(1, &[Buf { addr: driver.desc_addr() + 16, len: 16, flags: INDIRECT }]);
    };
    assert_eq!(sends(F_INDIRECT, itself), Violation::Indirect { head: 1 });
    let whole = |driver: &mut Driver| {
        driver.set_desc(0, Buf { addr: driver.desc_addr(), len: 64, flags: INDIRECT }, 0);
        driver.offer(0);
    };
    assert_eq!(sends(F_INDIRECT, whole), Violation::Indirect { head: 0 });
}

#[test]
fn a_next_beyond_the_indirect_table() {
    let misdeed = |driver: &mut Driver| {
        let table = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        driver.set_desc_at(SEAM + 16, Buf { addr: DATA, len: 9, flags: NEXT }, 2);
        driver.post(3, &[table]);
    };
    assert_eq!(sends(F_INDIRECT, misdeed), Violation::Next { head: 3, next: 2, size: 2 });
}

#[test]
fn an_indirect_table_that_loops() {
    for (from, to) in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let misdeed = |driver: &mut Driver| {
            let table = driver.table(SEAM, &[out(DATA, 9); 3]);
            driver.set_desc_at(SEAM + 16 * from, Buf { addr: DATA, len: 9, flags: NEXT }, to);
            driver.post(3, &[table]);
        };
        assert_eq!(sends(F_INDIRECT, misdeed), Violation::ChainTooLong { head: 3 });
    }
}

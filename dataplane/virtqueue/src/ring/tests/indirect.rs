//! What a guest must not do with indirect tables on a ring of either format, one test each.

use super::*;
use crate::testing::misdeed::*;

both_formats! {
    an_indirect_table_that_was_not_negotiated
    an_indirect_table_of_a_wrong_length
    an_indirect_table_with_next
    an_indirect_table_in_an_indirect_table
    an_indirect_table_across_regions_or_outside_memory
    an_indirect_table_with_a_bad_entry
}

/// Posts what `table` makes of a good table.
fn indirect<D: RingDriver>(table: impl Fn(&D, Buf) -> Buf) -> impl Fn(&mut D) {
    move |driver| {
        let good = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        let bad = table(driver, good);
        driver.post(1, &[bad]);
    }
}

fn refused<D: RingDriver>() -> Violation {
    Violation::Indirect { head: head::<D>(0, 1) }
}

fn an_indirect_table_that_was_not_negotiated<D: RingDriver>() {
    assert_eq!(sends(0, indirect(|_: &D, table| table)), refused::<D>());
}

fn an_indirect_table_of_a_wrong_length<D: RingDriver>() {
    let most = 16 * u32::from(D::SIZE);
    for len in [0, 1, 15, 17, 31, 33, most + 1, most + 16, 1 << 20, u32::MAX - 15, u32::MAX] {
        let violation = sends(F_INDIRECT, indirect(|_: &D, table| Buf { len, ..table }));
        assert_eq!(violation, refused::<D>());
    }
}

/// Whether the chain does go on, or not.
fn an_indirect_table_with_next<D: RingDriver>() {
    let with_next = indirect(|_: &D, table| Buf { flags: INDIRECT | NEXT, ..table });
    assert_eq!(sends(F_INDIRECT, with_next), refused::<D>());
    let goes_on = |driver: &mut D| {
        let table = driver.table(SEAM, &[out(DATA, 9), out(DATA, 9)]);
        driver.post(1, &[table, out(DATA, 9)]);
    };
    assert_eq!(sends(F_INDIRECT, goes_on), refused::<D>());
}

fn an_indirect_table_in_an_indirect_table<D: RingDriver>() {
    for before in [0, 1] {
        let nested = indirect(|driver: &D, _| {
            let mut outer = vec![out(DATA, 9); before];
            outer.push(driver.table(SEAM + 0x100, &[out(DATA, 9)]));
            driver.table(SEAM, &outer)
        });
        assert_eq!(sends(F_INDIRECT, nested), refused::<D>());
    }
}

fn an_indirect_table_across_regions_or_outside_memory<D: RingDriver>() {
    for addr in [SEAM - 16, HOLE - 16, HOLE, u64::MAX - 15, u64::MAX, 0] {
        let violation = sends(F_INDIRECT, indirect(|_: &D, table| Buf { addr, ..table }));
        assert_eq!(violation, Violation::Unmapped { head: head::<D>(0, 1), addr, len: 32 });
    }
}

fn an_indirect_table_with_a_bad_entry<D: RingDriver>() {
    let head = head::<D>(0, 3);
    for (n, at) in (1..=D::SIZE.into()).flat_map(|n| (0..n).map(move |at| (n, at))) {
        for (bad, violation) in [
            (out(DATA, 0), Violation::EmptyDescriptor { head }),
            (out(HOLE, 0), Violation::EmptyDescriptor { head }),
            (out(u64::MAX, 0), Violation::EmptyDescriptor { head }),
            (out(HOLE, 5), Violation::Unmapped { head, addr: HOLE, len: 5 }),
        ] {
            let misdeed = |driver: &mut D| {
                let mut chain = vec![out(DATA, 5); n];
                chain[at] = bad;
                let table = driver.table(SEAM, &chain);
                driver.post(3, &[table]);
            };
            assert_eq!(sends(F_INDIRECT, misdeed), violation);
        }
    }
}

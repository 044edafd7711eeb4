//! Rows of split rings.

use std::time::Duration;

use tests::hostile::guest::{DATA, Hostile, SIZE, feature, good};
use tests::hostile::ring::{Buf, NEXT, WRITE};
use tests::hostile::stage::{Log, Stage, repeat};

use crate::rings::{FROM, Rows, TO};

#[test]
fn split_rings() {
    let mut stage = Stage::start("split rings");
    let mut rows = Rows { stage: &mut stage, features: 0 };
    heads(&mut rows);
    chains(&mut rows);
    avail_indexes(&mut rows);
    rows.shared();
    stage.finish();
}

fn heads(rows: &mut Rows<'_>) {
    let row = "head >= queue size";
    for head in [SIZE, 0x8000, 0xffff] {
        for (ring, what) in [(TO, "receives"), (FROM, "sends")] {
            let named = format!("names descriptor {head} of 256");
            rows.stops(row, &format!("head {head}, guest {what}"), ring, &named, |hostile| {
                hostile.rings[ring].offer(head);
            });
        }
    }
}

fn chains(rows: &mut Rows<'_>) {
    let (row, long) = ("next out of range, loop, too long", "is longer than the queue");
    for next in [SIZE, 0xffff] {
        for (ring, way) in [(TO, WRITE), (FROM, 0)] {
            let sent = format!("next {next} at the first and third descriptor, ring {ring}");
            rows.stops(row, &sent, ring, &format!("goes on at descriptor {next} of 256"), |hostile| {
                let buf = Buf { flags: way | NEXT, ..good(ring) };
                hostile.rings[ring].set_split(9, buf, if ring == TO { next } else { 10 });
                hostile.rings[ring].set_split(10, buf, 11);
                hostile.rings[ring].set_split(11, buf, next);
                hostile.rings[ring].offer(9);
            });
        }
    }
    let loops: [(&str, &[(u16, u16)]); 3] =
        [("one to itself", &[(9, 9)]), ("two in turn", &[(9, 10), (10, 9)]), ("all of the ring", &[])];
    for (what, links) in loops {
        for (ring, way) in [(TO, WRITE), (FROM, 0)] {
            rows.stops(row, &format!("a loop of {what}, ring {ring}"), ring, long, |hostile| {
                let all: Vec<_> = (0..SIZE).map(|slot| (slot, (slot + 1) % SIZE)).collect();
                for (from, to) in if links.is_empty() { &all } else { links } {
                    let buf = Buf { at: DATA, len: 9, flags: way | NEXT };
                    hostile.rings[ring].set_split(*from, buf, *to);
                }
                hostile.rings[ring].offer(9);
            });
        }
    }
    rows.stops_with(feature::INDIRECT, row, "an indirect table that loops", FROM, long, |hostile| {
        let table = hostile.rings[FROM].table(DATA, &[good(FROM), good(FROM)]);
        // The second entry goes on at the first.
        hostile.ram.store(DATA + 16 + 12, NEXT);
        hostile.ram.store(DATA + 16 + 14, 0u16);
        hostile.rings[FROM].post(&[table]);
    });
}

fn avail_indexes(rows: &mut Rows<'_>) {
    let row = "avail index jumps";
    for jump in [SIZE + 1, 40_000, 0x7fff, 0x8000, 0xffff] {
        for ring in [TO, FROM] {
            rows.stops(row, &format!("by {jump}, ring {ring}"), ring, "avail index jumped from", |hostile| {
                let index = hostile.rings[ring].chains() as u16;
                hostile.rings[ring].set_avail_index(index.wrapping_add(jump));
            });
        }
    }
    let row = "more chains in flight than entries";
    rows.stops(row, "a full ring, and one more", TO, "avail index jumped", |hostile| {
        let first = hostile.rings[TO].chains() as u16;
        hostile.rings[TO].set_avail_index(first.wrapping_add(2 * SIZE));
    });
    rows.serves(row, "the same head in every entry", FROM, 0, None, |hostile| {
        (0..SIZE).for_each(|_| hostile.rings[FROM].offer(0));
    });
    rows.stage.case(row, "an avail index of random numbers", Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let mut random = fastrand::Rng::with_seed(3);
        let mut stopped = 0;
        repeat(Duration::from_millis(200), |_| {
            for ring in 0..2 {
                let index = hostile.rings[ring].used_index().wrapping_add(random.u16(0..300));
                hostile.rings[ring].set_avail_index(index);
            }
            if random.u8(..) == 0 && (0..2).any(|ring| bench.violation(ring).is_some()) {
                (0..2).for_each(|ring| hostile.restart(ring));
                stopped += 1;
            }
        });
        (0..2).for_each(|ring| hostile.restart(ring));
        hostile.assert_serves();
        format!("stopped and restarted {stopped} times")
    });
}

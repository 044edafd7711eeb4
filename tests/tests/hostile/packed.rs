//! Rows of packed rings.

use std::time::Duration;

use tests::hostile::guest::{DATA, END, Hostile, SIZE, feature, good};
use tests::hostile::ring::{Buf, NEXT, PACKED_AVAIL, PACKED_USED, WRITE};
use tests::hostile::stage::{Log, Stage, meanwhile, repeat};

use crate::rings::{FROM, Rows, TO};

#[test]
fn packed_rings() {
    let mut stage = Stage::start("packed rings");
    let mut rows = Rows { stage: &mut stage, features: feature::PACKED };
    chains(&mut rows);
    laps(&mut rows);
    ids(&mut rows);
    withdrawn(&mut rows);
    rows.shared();
    stage.finish();
}

fn chains(rows: &mut Rows<'_>) {
    let (row, long) = ("chain that loops, or is too long", "is longer than the queue");
    for (ring, way) in [(TO, WRITE), (FROM, 0)] {
        rows.stops(row, &format!("a ring entirely of NEXT, ring {ring}"), ring, long, |hostile| {
            let driver = &mut hostile.rings[ring];
            let first = driver.posted;
            for count in (first..first + u64::from(SIZE)).rev() {
                let flags = way | NEXT | driver.avail_flags(count);
                driver.set_packed(count, Buf { at: DATA, len: 1, flags: 0 }, 0, flags);
            }
        });
    }
    rows.stops(row, "made available before its second descriptor", FROM, "of length zero", |hostile| {
        let driver = &mut hostile.rings[FROM];
        let first = driver.posted;
        driver.set_packed(first, good(FROM), 0, NEXT | driver.avail_flags(first));
    });
}

fn laps(rows: &mut Rows<'_>) {
    let row = "wrap counter games";
    rows.serves(row, "flags of another lap, and of none", FROM, 0, None, |hostile| {
        let driver = &mut hostile.rings[FROM];
        for flags in [PACKED_USED, PACKED_AVAIL | PACKED_USED, 0] {
            for count in driver.posted..driver.posted + u64::from(SIZE) - 4 {
                driver.set_packed(count, Buf::readable(END, 1), 0, flags);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    rows.stops(row, "this lap's flags on the next lap's descriptors", FROM, "unmapped", |hostile| {
        let driver = &mut hostile.rings[FROM];
        let first = driver.posted;
        // Taken up to the ring's end, and no further: the bad one at the end is met, the ones behind it not.
        for count in (first..first + u64::from(SIZE)).rev() {
            let last = driver.slot(count) == SIZE - 1;
            let buf = if last { Buf::readable(END, 1) } else { good(FROM) };
            driver.set_packed(count, buf, 0, driver.avail_flags(first));
        }
    });
    let row = "batch across the ring's end";
    for bad in 0..4usize {
        let sent = format!("four frames across it, number {bad} not mapped");
        rows.stops(row, &sent, FROM, "unmapped", |hostile| {
            while hostile.rings[FROM].posted < u64::from(SIZE) - 2 {
                hostile.post(FROM);
                hostile.wait_used(FROM);
            }
            let mut batch = [good(FROM); 4];
            batch[bad].at = END;
            hostile.rings[FROM].post_all(&batch);
        });
    }
    rows.serves(row, "chains across it, 2000 times", FROM, 0, None, |hostile| {
        for _ in 0..2000 {
            hostile.rings[FROM].post(&[good(FROM); 3]);
            hostile.wait_used(FROM);
        }
    });
}

fn ids(rows: &mut Rows<'_>) {
    let row = "buffer id out of range, in flight twice";
    for (what, id) in [("65535 in every descriptor", 0xffff), ("0 in every descriptor", 0)] {
        for ring in [TO, FROM] {
            rows.serves(row, &format!("{what}, ring {ring}"), ring, 0, None, |hostile| {
                let driver = &mut hostile.rings[ring];
                let first = driver.posted;
                driver.id = Some(id);
                driver.post_all(&[good(ring); 100]);
                hostile.wait_used(ring);
                // Each comes back under the id it came with.
                let driver = &hostile.rings[ring];
                let ids = (first..first + 100).map(|count| driver.ram.load::<u16>(driver.desc(count) + 12));
                assert_eq!(ids.filter(|found| *found != id).count(), 0);
            });
        }
    }
    rows.stage.skip(
        "more chains in flight than entries",
        "flags flipped early",
        "nothing stays in flight here",
    );
}

fn withdrawn(rows: &mut Rows<'_>) {
    let row = "descriptor taken back after it was made available";
    rows.stage.case(row, "available and not, over and over", Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), feature::PACKED);
        let mut stopped = 0;
        repeat(Duration::from_millis(300), |_| {
            let driver = &hostile.rings[FROM];
            let flip = |round: u64| {
                let count = driver.posted + round / 2 % 4;
                let flags = if round.is_multiple_of(2) {
                    driver.avail_flags(count)
                } else {
                    driver.idle_flags(count)
                };
                driver.set_packed(count, good(FROM), 0, flags);
            };
            meanwhile(flip, || std::thread::sleep(Duration::from_millis(10)));
            if bench.violation(FROM).is_some() {
                stopped += 1;
            }
            hostile.restart(FROM as u32);
        });
        hostile.assert_serves();
        format!("stopped {stopped} times")
    });
}

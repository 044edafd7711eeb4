//! Every way in which DPDK's virtio-user driver can use a virtqueue, each with the same frames both ways. Prints
//! a table with one line for each: what was asked for, how the driver really went about it, what ringwired
//! brought to either side, and what was negotiated.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::exchange::{Exchange, Outcome};

const CELLS: usize = 8;

/// All cells with this format and number of queue pairs.
fn cells(packed: bool, queues: usize) -> impl Iterator<Item = Exchange> {
    (0..CELLS).map(move |cell| {
        // With one queue pair the one size, with four the other.
        let small = (cell.count_ones() % 2 == 0) == (queues == 1);
        let ring = if small { 256 } else { 1024 };
        Exchange {
            // Even what fills all rings before the guest has enabled its last one is only some of it.
            frames: (4 * queues * ring).max(4000) as u64,
            longest: 1518,
            packed,
            mergeable: cell & 4 != 0,
            in_order: cell & 2 != 0,
            indirect: true,
            vectorized: cell & 1 != 0,
            // One buffer a frame, whatever the cell; content.rs has frames of several.
            room: 2048,
            queues,
            ring,
        }
    })
}

/// Runs all of them, even if some fail.
fn run(packed: bool, queues: usize) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").expect("what this CPU can do");
    let avx512 = cpu.split_whitespace().any(|flag| flag == "avx512f");
    let has = if avx512 { "has" } else { "has no" };
    println!("This CPU {has} AVX-512, without which DPDK's driver does not vectorise packed rings.\n{HEAD}");
    let (mut failures, mut vectorized) = (Vec::new(), 0);
    for cell in cells(packed, queues) {
        let mut outcome = Outcome::default();
        let result = catch_unwind(AssertUnwindSafe(|| {
            cell.run(&mut outcome);
            assert_eq!(outcome.vectorized(), cell.gets_vectorized(avx512), "vectorised: receives, sends");
        }));
        println!("{}", line(&cell, &outcome, result.is_ok()));
        vectorized += usize::from(outcome.vectorized() != (false, false));
        failures.extend(result.err().map(|panic| format!("{cell:?}: {}", message(panic.as_ref()))));
    }
    let exact = CELLS - failures.len();
    println!("{exact} of {CELLS} exact; in {vectorized} of them the driver was vectorised at least one way.");
    assert!(failures.is_empty(), "{failures:#?}");
}

const HEAD: &str = "
       merge in    vec-    queues | the guest's driver          |      to the guest |        to the NIC |
format able  order torised   size | receives         sends      | frames      bytes | frames      bytes | drops | result";

fn line(cell: &Exchange, outcome: &Outcome, exact: bool) -> String {
    let on = |flag| if flag { "on" } else { "off" };
    let format = if cell.packed { "packed" } else { "split" };
    let short = |name: &String| name.rsplit("_F_").next().unwrap_or_default().to_owned();
    let features: Vec<_> = outcome.features.iter().map(short).collect();
    format!(
        "{format:6} {:5} {:5} {:7} {} {:4} | {:16} {:10} | {:6} {:10} | {:6} {:10} | {:5} | {:6} | {}",
        on(cell.mergeable),
        on(cell.in_order),
        on(cell.vectorized),
        cell.queues,
        cell.ring,
        outcome.receives,
        outcome.sends,
        outcome.to_guest.0,
        outcome.to_guest.1,
        outcome.to_nic.0,
        outcome.to_nic.1,
        outcome.drops,
        if exact { "exact" } else { "FAILED" },
        features.join(" ")
    )
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[test]
fn cells_split_1() {
    run(false, 1);
}

#[test]
fn cells_split_4() {
    run(false, 4);
}

#[test]
fn cells_packed_1() {
    run(true, 1);
}

#[test]
fn cells_packed_4() {
    run(true, 4);
}

//! Counts instructions: runs this program under callgrind, which counts while a burst is worked off, and only then.

use std::process::Command;

use crate::guest::{ENTRIES, Guest};
use crate::{ROWS, Scene, Side};

/// Laps that are counted: each costs the same.
const LAPS: u32 = 40;

/// Instructions a packet.
pub fn instructions(side: Side, row: usize) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*device_burst*"])
        .arg(std::env::current_exe().expect("this program's file"))
        .args([format!("{side:?}"), row.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind cannot be run: {error}; apt-get install valgrind"));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok());
    match collected {
        Some(collected) if output.status.success() => collected / f64::from(LAPS) / f64::from(ENTRIES),
        _ => panic!("valgrind failed:\n{said}"),
    }
}

/// What the process under callgrind does: `side` and `row` are its arguments.
pub fn run(side: &str, row: &str) {
    let side = if side == format!("{:?}", Side::Ours) { Side::Ours } else { Side::Theirs };
    let row = &ROWS[row.parse::<usize>().expect("a row's number")];
    Scene::new(side, *row, &Guest::memory()).run(LAPS);
}

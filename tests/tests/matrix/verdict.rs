//! The judge, and the table of what it says.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::offload_guest::Packet;
use tests::pcap;

use crate::cells::{Cell, KINDS, SIZES};
use crate::want::Want;

/// Where Debian has the Python its packages are for.
pub const PYTHON: &str = "/usr/bin/python3";

/// A program in Python, beside this file.
pub fn script(name: &str) -> String {
    format!("{}/tests/matrix/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether there is no scapy, which is said.
pub fn without_scapy() -> bool {
    let tried = Command::new(PYTHON).args(["-c", "import scapy.utils"]).output();
    let missing = !tried.is_ok_and(|output| output.status.success());
    if missing {
        println!("skipped: {PYTHON} has no scapy (python3-scapy)");
    }
    missing
}

/// Writes frames, and their headers beside them.
pub fn write_packets(directory: &Path, name: &str, packets: &[Packet]) {
    pcap::write(&directory.join(format!("{name}.pcap")), packets.iter().map(|(_, frame)| frame));
    let headers = packets.iter().flat_map(|(header, _)| *header).collect::<Vec<u8>>();
    std::fs::write(directory.join(format!("{name}.headers")), headers).expect("a file of headers");
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub cell: Cell,
    pub want: Want,
    /// Frames that arrived, and what was left to do with them; or what is wrong.
    pub found: Result<(u64, Vec<String>), String>,
}

/// Judges `arrived`. `exact`: headers have to be those sent, too. The frames that were sent are in the directory.
pub fn judge(directory: &Path, exact: bool, wants: &[(Cell, Want)], arrived: &[Packet]) -> Vec<Verdict> {
    write_packets(directory, "arrived", arrived);
    let cells: Vec<Value> = wants.iter().map(|(_, want)| want.name()).collect();
    let file = directory.join("cells.json");
    std::fs::write(&file, json!({ "exact": exact, "cells": cells }).to_string()).expect("a file of cells");
    let output = Command::new(PYTHON).arg(script("judge.py")).arg(directory).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON of the judge");
    assert_eq!(said.len(), wants.len());
    wants.iter().zip(said).map(|((cell, want), said)| Verdict::of(*cell, *want, &said)).collect()
}

impl Verdict {
    fn of(cell: Cell, want: Want, said: &Value) -> Verdict {
        let left = || said["left"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let found = match &said["error"] {
            Value::String(error) => Err(error.clone()),
            _ => Ok((said["frames"].as_u64().unwrap_or(0), left().map(str::to_owned).collect())),
        };
        Verdict { cell, want, found }
    }

    /// What the table says.
    fn text(&self, reasons: &mut Vec<String>) -> String {
        let mut note = |reason: String| {
            let at = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
                reasons.push(reason);
                reasons.len() - 1
            });
            format!("({})", at + 1)
        };
        match (&self.found, self.want) {
            (_, Want::Nothing(reason)) => format!("- {}", note(reason.to_owned())),
            (Err(error), _) => format!("WRONG {}", note(error.clone())),
            (Ok((frames, left)), _) if left.is_empty() => format!("{frames} finished"),
            (Ok((frames, left)), _) if left.iter().any(|it| it == "segments") => format!("{frames} to cut"),
            (Ok((frames, _)), _) => format!("{frames} to sum"),
        }
    }
}

/// A line a kind of frame, a column a size; below it, why a cell is empty, or what is wrong in it.
pub fn table(title: &str, verdicts: &[Verdict]) -> String {
    let mut text = format!("\n{title}\n{:<10}", "");
    for size in SIZES {
        write!(text, "{:>14}", format!("{size:?}")).expect("a string takes all");
    }
    let mut reasons = Vec::new();
    for kind in KINDS {
        write!(text, "\n{:<10}", format!("{kind:?}")).expect("a string takes all");
        for verdict in verdicts.iter().filter(|verdict| verdict.cell.kind == kind) {
            write!(text, "{:>14}", verdict.text(&mut reasons)).expect("a string takes all");
        }
    }
    for (n, reason) in (1..).zip(reasons) {
        write!(text, "\n({n}) {reason}").expect("a string takes all");
    }
    text + "\n"
}

/// Shows the table. Nothing in it is wrong.
pub fn assert_right(title: &str, verdicts: &[Verdict]) {
    println!("{}", table(title, verdicts));
    let wrong = verdicts.iter().filter(|verdict| verdict.found.is_err()).count();
    assert_eq!(wrong, 0, "cells that are wrong: see the table");
}

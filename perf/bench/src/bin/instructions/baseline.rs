//! The committed baseline, and whether anything got worse.
//!
//! What the compiler makes of our sources, and what DPDK's own functions cost, is part of a path. So there is one
//! baseline a DPDK release, and rte_vhost's counts are in it, too: they are the yardstick. Where they differ, the
//! two measurements are not of the same thing, and nothing can be said about ringwire.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::report::Row;

/// How much worse a path may get, and how much the yardstick may be off.
const TOLERANCE: f64 = 0.02;

/// What counts depend on, besides the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// DPDK.
    pub dpdk: String,
    /// The Rust compiler.
    pub rustc: String,
    /// The C library: its memcpy copies packets.
    pub libc: String,
    /// valgrind: which processor it says it is decides about that memcpy.
    pub valgrind: String,
}

/// Instructions a packet on one path.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// ringwire's.
    pub ringwire: f64,
    /// net_vhost's, with rte_vhost's: the yardstick.
    pub net_vhost: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Baseline {
    /// Made with.
    pub tools: Tools,
    /// By path.
    pub paths: BTreeMap<String, Counts>,
}

/// All of them, by DPDK release ("22.11").
pub type Baselines = BTreeMap<String, Baseline>;

/// What a comparison comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is worse. What else there is to say.
    Good(Vec<String>),
    /// Something is.
    Worse(Vec<String>),
    /// Nothing can be said, and why.
    Skipped(String),
}

impl Tools {
    /// Those in use.
    pub fn here() -> Tools {
        let said = |program: &str, argument: &str| {
            let output = Command::new(program).arg(argument).output().ok();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            text.filter(|text| !text.is_empty()).unwrap_or("unknown".into())
        };
        Tools {
            dpdk: env!("BENCH_DPDK").into(),
            rustc: env!("BENCH_RUSTC").into(),
            libc: said("getconf", "GNU_LIBC_VERSION"),
            valgrind: said("valgrind", "--version"),
        }
    }

    /// "22.11" of "22.11.11".
    pub fn release(&self) -> String {
        self.dpdk.split('.').take(2).collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DPDK {}, {}, {}, {}", self.dpdk, self.rustc, self.libc, self.valgrind)
    }
}

impl Baseline {
    /// From what was just measured: all paths that both sides have.
    pub fn of(rows: &[Row], tools: Tools) -> Baseline {
        let counts = |row: &Row| {
            let counts = Counts {
                ringwire: row.ringwire.as_ref()?.instructions,
                net_vhost: row.net_vhost.as_ref()?.instructions,
            };
            Some((row.path.clone(), counts))
        };
        Baseline { tools, paths: rows.iter().filter_map(counts).collect() }
    }

    /// Judges `now` by this baseline.
    pub fn judge(&self, now: &Baseline) -> Verdict {
        let same_tools = self.tools == now.tools;
        let tools = format!("the baseline was made with {}; this is {}", self.tools, now.tools);
        let (mut worse, mut notes) = (Vec::new(), Vec::new());
        for (path, before) in &self.paths {
            let Some(after) = now.paths.get(path) else {
                worse.push(format!("{path}: in the baseline, and not measured any more"));
                continue;
            };
            let yardstick = after.net_vhost / before.net_vhost - 1.0;
            if yardstick.abs() > TOLERANCE && !same_tools {
                return Verdict::Skipped(format!("net_vhost itself is {}: {tools}", change(path, yardstick)));
            }
            if yardstick.abs() > TOLERANCE {
                worse.push(format!("net_vhost is {}: what is measured has changed", change(path, yardstick)));
            }
            let ours = after.ringwire / before.ringwire - 1.0;
            let line = format!("{}: {:.2} -> {:.2}", change(path, ours), before.ringwire, after.ringwire);
            if ours > TOLERANCE {
                worse.push(line);
            } else if ours < -TOLERANCE {
                notes.push(line);
            }
        }
        let new = now.paths.keys().filter(|path| !self.paths.contains_key(*path));
        worse.extend(new.map(|path| format!("{path}: measured, and not in the baseline")));
        if worse.is_empty() {
            return Verdict::Good(notes);
        }
        worse.extend(notes);
        if !same_tools {
            worse.push(tools);
        }
        Verdict::Worse(worse)
    }
}

fn change(path: &str, part: f64) -> String {
    format!("{:+.1}% on {path}", part * 100.0)
}

/// Reads the file; there need not be one.
pub fn read(file: &Path) -> Result<Baselines, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|error| Failure(format!("{}: {error}", file.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Baselines::new()),
        Err(error) => Err(Failure(format!("{}: {error}", file.display()))),
    }
}

/// Puts `now` into the file, in place of what there was for the same DPDK release.
pub fn update(file: &Path, now: Baseline) -> Result<(), Failure> {
    let mut all = read(file)?;
    all.insert(now.tools.release(), now);
    std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(())
}

/// Compares `now` with what the file has for the same DPDK release.
pub fn check(file: &Path, now: &Baseline) -> Result<Verdict, Failure> {
    let all = read(file)?;
    let release = now.tools.release();
    Ok(match all.get(&release) {
        Some(baseline) => baseline.judge(now),
        None => {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            Verdict::Skipped(format!("no baseline for DPDK {release}, only for: {}", known.join(", ")))
        }
    })
}

#[cfg(test)]
mod tests;

//! Running a program under callgrind, and reading what it wrote.
//!
//! The format: <https://valgrind.org/docs/manual/cl-format.html>. Names and positions are asked for in full, so a
//! line is one of `key=value`, or numbers: address, line, costs.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::Failure;

/// The simulated caches: the same on every host. Size, ways, bytes of a line.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64"];

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions.
    pub instructions: u64,
    /// Misses of a first-level cache.
    l1: u64,
    /// Misses of the last-level cache.
    ll: u64,
    /// Branches predicted wrongly.
    branches: u64,
}

impl Cost {
    /// Cycles by the rule of thumb of callgrind's own tools: one an instruction, 10 for a miss of the first cache or
    /// of the branch predictor, 100 for one of the last cache.
    pub fn cycles(&self) -> u64 {
        self.instructions + 10 * (self.l1 + self.branches) + 100 * self.ll
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.instructions += other.instructions;
        self.l1 += other.l1;
        self.ll += other.ll;
        self.branches += other.branches;
    }
}

/// One part of the output.
#[derive(Debug, Default)]
pub struct Profile {
    /// All of it.
    pub total: Cost,
    /// By object file and function, callees not included, where there are no addresses to say it better.
    pub functions: HashMap<(String, String), Cost>,
    /// By address, in the program itself.
    pub addresses: HashMap<u64, Cost>,
    /// By name of the function called, callees included.
    pub calls: HashMap<String, Cost>,
}

impl Profile {
    /// What calls of functions whose names start with `prefix` cost.
    pub fn calls_to(&self, prefix: &str) -> Cost {
        let mut sum = Cost::default();
        self.calls.iter().filter(|(name, _)| name.starts_with(prefix)).for_each(|(_, cost)| sum += *cost);
        sum
    }
}

/// Part of the name of the function in which callgrind counts, [`counted_call`].
const COUNTED: &str = "counted_call";
/// Part of the name of the function at which it writes out what it has counted, [`part_done`].
pub const BOUNDARY: &str = "part_done";

/// Makes `call`, in the measured process: this is what [`run`] counts.
#[inline(never)]
pub fn counted_call<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Ends a part, in the measured process, and says what it was.
#[inline(never)]
pub fn part_done(part: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(part)?);
    Ok(())
}

/// Runs `command` under callgrind, which counts what it does in [`counted_call`], and writes a part at each [`part_done`].
/// What the command said, and the parts.
pub fn run(command: &[&str], directory: &Path) -> Result<(String, Vec<Profile>), Failure> {
    let out = directory.join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--fair-sched=try", "--cache-sim=yes", "--branch-sim=yes"]);
    valgrind.args(CACHES).args(["--dump-instr=yes", "--compress-strings=no", "--compress-pos=no"]);
    valgrind.arg(format!("--toggle-collect=*{COUNTED}*")).arg(format!("--dump-before=*{BOUNDARY}*"));
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).args(command);
    let said = said(&mut valgrind)?;
    let parts = (1..=said.lines().count()).map(|part| {
        let text = std::fs::read_to_string(directory.join(format!("out.{part}")))?;
        parse(&text, command[0])
    });
    let parts = parts.collect::<Result<_, _>>()?;
    Ok((said, parts))
}

/// Runs `valgrind` to its end: what the measured command said.
pub fn said(valgrind: &mut Command) -> Result<String, Failure> {
    let output = valgrind
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure(format!("valgrind cannot be run ({error}): apt-get install valgrind")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(Failure(format!("the measured process failed: {}\n{error}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads one part. Addresses are kept of `program` only.
fn parse(text: &str, program: &str) -> Result<Profile, Failure> {
    let mut profile = Profile::default();
    let mut events = Vec::new();
    let (mut object, mut function, mut callee) = (String::new(), String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((key, value)) = line.split_once(['=', ':']) {
            match key {
                "events" => events = value.split_whitespace().map(str::to_owned).collect(),
                "ob" => object = value.into(),
                "fn" => function = value.into(),
                "cfn" => callee = value.into(),
                "calls" => {
                    // The line after it is the call's: costs of the callee.
                    let (_, cost) = costs(lines.next().unwrap_or_default(), &events)?;
                    *profile.calls.entry(std::mem::take(&mut callee)).or_default() += cost;
                }
                _ => {}
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            let (address, cost) = costs(line, &events)?;
            profile.total += cost;
            if object == program {
                *profile.addresses.entry(address).or_default() += cost;
            } else {
                *profile.functions.entry((object.clone(), function.clone())).or_default() += cost;
            }
        }
    }
    Ok(profile)
}

/// A line of numbers: address, and costs. Trailing zeroes are left out.
fn costs(line: &str, events: &[String]) -> Result<(u64, Cost), Failure> {
    let unexpected = || Failure(format!("not understood in callgrind's output: {line}"));
    let mut words = line.split_whitespace();
    let address = words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let address = address.ok_or_else(unexpected)?;
    let mut cost = Cost::default();
    for (event, word) in events.iter().zip(words.skip(1)) {
        let number: u64 = word.parse().map_err(|_| unexpected())?;
        match event.as_str() {
            "Ir" => cost.instructions = number,
            "I1mr" | "D1mr" | "D1mw" => cost.l1 += number,
            "ILmr" | "DLmr" | "DLmw" => cost.ll += number,
            "Bcm" | "Bim" => cost.branches += number,
            _ => {}
        }
    }
    Ok((address, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# callgrind format
positions: instr line
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw Bc Bcm Bi Bim
summary: 104 0 0

ob=/bin/program
fl=a.rs
fn=program::counted
0x10 7 4 0 0 1
fi=b.rs
0x14 8 2
cob=/lib/librte_vhost.so
cfi=???
cfn=rte_vhost_dequeue_burst
calls=2 0x99 0
0x18 9 98 0 0 0 0 0 0 0 3
fe=a.rs
0x10 7 1

ob=/lib/librte_vhost.so
fl=???
fn=rte_vhost_dequeue_burst
0x99 0 97 0 0 0 0 0 0 0 3 1 1
";

    #[test]
    fn a_part_is_read() {
        let profile = parse(TEXT, "/bin/program").expect("callgrind's format");
        assert_eq!(profile.total.instructions, 104);
        assert_eq!(profile.total.cycles(), 104 + 10 * (1 + 1) + 100 * 3);
        assert_eq!(profile.calls_to("rte_vhost_").instructions, 98);
        let at = |address| profile.addresses[&address].instructions;
        assert_eq!((profile.addresses.len(), at(0x10), at(0x14)), (2, 5, 2));
        let library = ("/lib/librte_vhost.so".into(), "rte_vhost_dequeue_burst".into());
        assert_eq!(profile.functions[&library].instructions, 97);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["events: Ir\n12 4 5\n", "events: Ir\n0x12 4 five\n", "calls=1 0x1 0\n"] {
            assert!(parse(line, "p").is_err(), "{line}");
        }
    }
}

//! Running the steps under callgrind. Not a function is counted here, as `perf/instructions` does it, but whatever
//! all threads do except the one that plays the guests: while nothing is set up or torn down, that is the worker.

use std::path::Path;
use std::process::Command;

use ringwire_bench::Failure;
use ringwire_bench::callgrind::{self, BOUNDARY, Cost, Profile};

use crate::steps::UNCOUNTED;

/// Runs `command`: what it said, and what was counted before each line of that.
pub fn run(command: &[&str], directory: &Path) -> Result<(String, Vec<Profile>), Failure> {
    let out = directory.join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--fair-sched=try", "--dump-instr=yes", "--dump-line=no"]);
    // In this order: the second would put the first off.
    valgrind.arg(format!("--toggle-collect=*{UNCOUNTED}*")).arg("--collect-atstart=yes");
    valgrind.args(["--compress-strings=no", "--compress-pos=no", &format!("--dump-before=*{BOUNDARY}*")]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).args(command);
    let said = callgrind::said(&mut valgrind)?;
    let profiles = (1..=said.lines().count()).map(|part| {
        let file = directory.join(format!("out.{part}"));
        let text = std::fs::read_to_string(&file)?;
        // The next run's parts have the same names.
        std::fs::remove_file(&file)?;
        parse(&text, command[0])
    });
    let profiles = profiles.collect::<Result<_, _>>()?;
    Ok((said, profiles))
}

/// Reads a part: instructions by address in `program`, and by function elsewhere.
/// The format: <https://valgrind.org/docs/manual/cl-format.html>.
fn parse(text: &str, program: &str) -> Result<Profile, Failure> {
    let mut profile = Profile::default();
    let (mut object, mut function) = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((key, value)) = line.split_once(['=', ':']) {
            match key {
                "ob" => object = value.into(),
                "fn" => function = value.into(),
                // The line after it is what the callee cost, which has lines of its own.
                "calls" => drop(lines.next()),
                _ => {}
            }
        } else if let Some((address, instructions)) = line.split_once(' ').filter(|_| line.starts_with("0x"))
        {
            let numbers = (u64::from_str_radix(&address[2..], 16), instructions.parse());
            let (Ok(address), Ok(instructions)) = numbers else {
                return Err(Failure(format!("not understood in callgrind's output: {line}")));
            };
            let mut cost = Cost::default();
            cost.instructions = instructions;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read() {
        let text = "positions: instr\nevents: Ir\nsummary: 104\n\nob=/bin/program\nfn=run\n0x10 4\ncob=/lib/l.so\n\
                    cfn=f\ncalls=2 0x99\n0x18 98\n0x10 2\n\nob=/lib/l.so\nfn=f\n0x99 98\n";
        let profile = parse(text, "/bin/program").expect("callgrind's format");
        assert_eq!(profile.total.instructions, 104);
        assert_eq!(profile.addresses[&0x10].instructions, 6);
        assert_eq!(profile.functions[&("/lib/l.so".into(), "f".into())].instructions, 98);
        assert!(parse("0x10 four\n", "p").is_err());
    }
}

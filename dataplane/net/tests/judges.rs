//! What others say of our checksums and segments: tcpdump, and scapy.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Case, UDP, in_software, matrix, plan};

/// Where Debian has the Python its packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// A capture file of frames, each with its time in seconds.
fn write_pcap<'a>(path: &Path, frames: impl IntoIterator<Item = (usize, &'a [u8])>) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 0x4_0000, 1]);
    for (time, frame) in frames {
        file.extend(words(&[time as u32, 0, frame.len() as u32, frame.len() as u32]));
        file.extend(frame);
    }
    std::fs::write(path, file).expect("a capture file");
}

/// What a program says, if it can be started.
fn output(program: &str, arguments: &[&str]) -> Result<Output, String> {
    Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))
}

fn produced(case: &Case) -> Vec<Vec<u8>> {
    in_software(&plan(case.offload, &case.frame), &case.frame)
}

#[test]
fn tcpdump_finds_every_checksum_correct() {
    if let Err(why) = output("tcpdump", &["--version"]) {
        return println!("skipped: {why}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segments.pcap");
    // A fragment has no checksum tcpdump could judge.
    let frames: Vec<_> =
        matrix().iter().filter(|case| case.offload.gso_type != UDP).flat_map(produced).collect();
    write_pcap(&path, frames.iter().map(|frame| (0, &frame[..])));
    let arguments = ["-nn", "-vv", "-r", path.to_str().expect("a path in UTF-8")];
    let output = output("tcpdump", &arguments).expect("it was there");
    let text = String::from_utf8_lossy(&output.stdout);
    let correct = text.matches("(correct)").count() + text.matches("[udp sum ok]").count();
    let doubts: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["bad cksum", "bad udp cksum", "(incorrect", "truncated", "[|"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    assert!(doubts.is_empty(), "{} doubts: {:?}", doubts.len(), &doubts[..doubts.len().min(5)]);
    assert_eq!(correct, frames.len(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("tcpdump: {correct} of {} checksums correct", frames.len());
}

#[test]
fn scapy_builds_the_same_packets() {
    match output(PYTHON, &["-c", "import scapy.all"]) {
        Ok(output) if output.status.success() => (),
        Ok(_) => return println!("skipped: {PYTHON} has no scapy (python3-scapy)"),
        Err(why) => return println!("skipped: {why}"),
    }
    let directory = tempfile::tempdir().expect("a directory");
    let [frames, segments] = ["frames.pcap", "segments.pcap"].map(|name| directory.path().join(name));
    // It takes milliseconds a packet: the longest frames are left to the others.
    let cases: Vec<Case> = matrix().into_iter().filter(|case| case.frame.len() < 30_000).collect();
    let produced: Vec<_> = cases.iter().map(produced).collect();
    let numbered =
        produced.iter().enumerate().flat_map(|(n, frames)| frames.iter().map(move |it| (n, &it[..])));
    write_pcap(&segments, numbered);
    let whole: Vec<_> = cases.iter().map(|case| case.shape.complete()).collect();
    write_pcap(&frames, whole.iter().enumerate().map(|(n, frame)| (n, &frame[..])));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judge.py");
    let paths = [&frames, &segments].map(|path| path.to_str().expect("a path in UTF-8"));
    let output = output(PYTHON, &[script, paths[0], paths[1]]).expect("it was there");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{}", said(&output.stderr));
    let count: usize = produced.iter().map(Vec::len).sum();
    assert_eq!(said(&output.stdout), count.to_string());
    println!("scapy: {count} packets as it builds them, of {} frames", cases.len());
}

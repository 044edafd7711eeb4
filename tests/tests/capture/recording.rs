//! A capture that runs, and what tshark finds in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::child::Child;
use tests::daemon::Daemon;
use tests::scene::Scene;
use tests::{pcap, wait};

/// Says why, if there is nothing to read captures with.
pub fn skipped() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok();
    if !found {
        println!("skipped: tshark is not installed");
    }
    !found
}

/// `ringwire capture`.
pub struct Recording {
    pub child: Child,
    pub file: PathBuf,
}

/// What the client said at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub captured: u64,
    pub seen: u64,
    pub dropped: u64,
}

/// A frame, as tshark has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub interface: String,
    /// 1: in; 2: out.
    pub direction: u8,
    pub len: u64,
    pub kept: u64,
}

impl Recording {
    /// Starts it, and waits until it captures. `arguments` are those of `ringwire capture`, but for the file.
    pub fn start(scene: &Scene, daemon: &Daemon, name: &str, arguments: &[&str]) -> Recording {
        let file = scene.path(&format!("{name}.pcapng"));
        let path = file.to_str().expect("a path of letters");
        let command = daemon.client_command(&[&["capture", "-w", path], arguments].concat());
        let mut child =
            Child::start("ringwire capture", command, &scene.path(&format!("{name}-capture.log")));
        wait::until("the capture begins", 10, || {
            assert!(child.ended().is_none(), "{}", child.log());
            let len = std::fs::metadata(&file).map_or(0, |data| data.len());
            if len > 0 { Ok(()) } else { Err(child.log()) }
        });
        Recording { child, file }
    }

    /// Ctrl-C, and what it says then.
    pub fn stop(self) -> (PathBuf, Said) {
        self.child.signal(Signal::SIGINT);
        self.finish()
    }

    /// Waits until it has ended by itself.
    pub fn finish(mut self) -> (PathBuf, Said) {
        let status = self.child.wait(Duration::from_secs(60)).expect("the capture's end");
        let log = self.child.log();
        assert!(status.success(), "{status:?}: {log}");
        (self.file.clone(), said(&log))
    }
}

/// What the client says in its last line.
pub fn said(log: &str) -> Said {
    let numbers: Vec<u64> = log.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [captured, seen, dropped] = numbers[..] else { panic!("not three numbers: {log}") };
    Said { captured, seen, dropped }
}

/// What tshark says of a file.
pub fn tshark(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("tshark");
    let output = command.arg("-n").arg("-r").arg(file).args(arguments).output().expect("tshark");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let complaints = String::from_utf8_lossy(&output.stderr);
    let unknown = |line: &&str| !line.starts_with("Running as user");
    assert_eq!(complaints.lines().find(unknown), None, "tshark complains");
    String::from_utf8(output.stdout).expect("text")
}

/// All packets, or those that a display filter selects.
pub fn packets(file: &Path, filter: &str) -> Vec<Packet> {
    let mut arguments = vec!["-T", "fields"];
    for field in ["frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.cap_len"] {
        arguments.extend(["-e", field]);
    }
    if !filter.is_empty() {
        arguments.extend(["-Y", filter]);
    }
    let read = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| {
            let field: &str = fields[at];
            let hex = field.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
            hex.unwrap_or_else(|| field.parse()).unwrap_or_else(|error| panic!("{error} in {line:?}"))
        };
        Packet {
            interface: fields[0].to_owned(),
            direction: number(1) as u8,
            len: number(2),
            kept: number(3),
        }
    };
    tshark(file, &arguments).lines().map(read).collect()
}

/// How many of them went in (1) or out (2), and their bytes.
pub fn sum(packets: &[Packet], direction: u8) -> (u64, u64) {
    let those = packets.iter().filter(|packet| packet.direction == direction);
    those.fold((0, 0), |(count, bytes), packet| (count + 1, bytes + packet.len))
}

/// The frames themselves, in one direction.
pub fn frames(file: &Path, direction: u8) -> Vec<Vec<u8>> {
    let plain = file.with_extension("pcap");
    let filter = format!("frame.packet_flags_direction == {direction}");
    tshark(file, &["-Y", &filter, "-F", "pcap", "-w", plain.to_str().expect("a path of letters")]);
    pcap::read(&plain)
}

/// What the interfaces' statistics in the file say: seen, dropped, matched, written. (tshark reads them, and shows
/// them nowhere.)
pub fn statistics(file: &Path) -> Vec<[u64; 4]> {
    let bytes = std::fs::read(file).expect("the capture");
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let len = word(at + 4) as usize;
        if word(at) == 5 {
            let mut counts = [0; 4];
            let mut option = at + 20;
            while word(option) != 0 {
                let code = word(option) as u16;
                let value = u64::from(word(option + 8)) << 32 | u64::from(word(option + 4));
                counts[[4, 5, 6, 8].iter().position(|known| *known == code).expect("a known option")] = value;
                option += 12;
            }
            found.push(counts);
        }
        at += len;
    }
    found
}

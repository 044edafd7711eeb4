//! The program against backends: its own, in every ring format, and testpmd. testpmd drops what the
//! receiver has no buffer for, so it gets fewer packets than a ring has entries; a reflecting backend never drops.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringwire-pktgen");

/// A child that does not outlive the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn background(command: &mut Command) -> Background {
    Background(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started"))
}

/// Nobody has waited for `child`, so its number is still its own.
fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("signalled");
}

fn reflect(socket: &Path, arguments: &[&str]) -> Background {
    let mut command = Command::new(PROGRAM);
    background(command.args(["reflect", "--rx", "copy", "--socket"]).arg(socket).args(arguments))
}

fn run(arguments: &[&str]) -> Output {
    Command::new("timeout").args(["60", PROGRAM]).args(arguments).output().expect("timeout(1) is there")
}

/// The reports on all ports.
fn ports(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{error}"));
    json["ports"].as_array().expect("ports").clone()
}

fn number(port: &Value, key: &str) -> u64 {
    port[key].as_u64().unwrap_or_else(|| panic!("no {key} in {port}"))
}

/// Every packet came, once, in order, undamaged.
fn assert_exact(receiver: &Value, count: u64) {
    assert_eq!(number(receiver, "received"), count, "{receiver}");
    for key in ["lost", "missing", "duplicates", "reordered", "corrupt", "foreign"] {
        assert_eq!(number(receiver, key), 0, "{key} in {receiver}");
    }
}

fn socket(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

/// Packets of each run.
const COUNT: u64 = 4800;

/// Two processes that poll are all that two cores can take: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends packets through a reflecting backend, and wants all of them back.
fn loop_through(backend: &[&str], frontend: &[&str]) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, backend);
    let mut arguments = vec!["run", "--socket", socket.to_str().expect("text"), "--count", "4800"];
    arguments.extend(["--check", "--json"]);
    arguments.extend(frontend);
    let output = run(&arguments);
    let ports = ports(&output);
    assert_exact(&ports[0], COUNT);
    assert_eq!(output.status.code(), Some(0));
    ports[0].clone()
}

#[test]
fn all_ring_formats_are_exact() {
    let _alone = alone();
    for packed in ["on", "off"] {
        for (mergeable, in_order) in [("on", "on"), ("off", "on"), ("on", "off"), ("off", "off")] {
            let options = ["--packed", packed, "--mergeable", mergeable, "--in-order", in_order];
            let port = loop_through(&[], &options);
            // Nor is a descriptor taken for one that comes out of order because it came at that very moment.
            assert_eq!(port["out_of_order"], false, "{options:?}");
            let features: Vec<&str> =
                port["features"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
            assert_eq!(features.contains(&"packed"), packed == "on");
            assert_eq!(features.contains(&"mergeable"), mergeable == "on");
            assert_eq!(features.contains(&"in-order"), in_order == "on");
        }
    }
}

#[test]
fn all_kinds_of_traffic_are_exact() {
    let _alone = alone();
    for packed in ["on", "off"] {
        for traffic in [
            vec!["--imix", "--checksum", "--flows", "1000"],
            vec!["--flows", "64", "--burst", "7"],
            vec!["--flows", "1000", "--size", "60", "--checksum"],
            vec!["--size", "9000", "--checksum"],
            vec!["--size", "9000,60", "--mergeable", "off"],
            vec!["--indirect", "on", "--imix"],
            vec!["--gso", "--size", "65226"],
            vec!["--gso", "--size", "1515,65226", "--mergeable", "on"],
            vec!["--indirect", "on"],
            vec!["--queues", "3", "--flows", "5", "--queue-size", "64"],
            vec!["--queue-size", "2"],
            vec!["--size", "1500", "--rx-buffer", "300", "--mergeable", "on", "--checksum"],
            vec!["--rate", "200kpps", "--kick", "never"],
        ] {
            let mut options = vec!["--packed", packed];
            options.extend(&traffic);
            let port = loop_through(&[], &options);
            if traffic.contains(&"--imix") {
                assert_eq!(number(&port, "tx_bytes"), COUNT / 12 * (7 * 64 + 4 * 570 + 1518));
            }
        }
    }
}

#[test]
fn frames_that_are_nobodys_are_counted() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let path = socket.to_str().expect("text");
    for (fill, mode) in [("blank", "rx"), ("copy", "both")] {
        let _backend = background(Command::new(PROGRAM).args(["reflect", "--rx", fill, "--socket", path]));
        for (packed, mergeable) in [("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")] {
            let mut arguments = vec!["run", "--socket", path, "--count-only", "--mode", mode, "--json"];
            arguments.extend(["--packed", packed, "--mergeable", mergeable, "--warm-up", "0.02"]);
            arguments.extend(["--size", "3000", "--count", "50000", "--seconds", "30"]);
            let output = run(&arguments);
            let port = &ports(&output)[0];
            let counted = number(port, "rx_frames");
            // All of those that were on their way when the last one was sent may be missing.
            let expected = 50_000 - u64::from(mode == "both") * 256;
            assert!(counted >= expected, "{port}");
            assert!(mode == "rx" || counted <= 50_000, "{port}");
            assert_eq!((number(port, "received"), number(port, "foreign")), (0, 0), "{port}");
        }
    }
}

/// What was due is what a rate comes to in the time that it lasted: to the packet where that was the whole of it, and
/// no more than that where it was cut short.
#[test]
fn what_is_due_is_known_to_the_packet() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    for (rate, queues) in [("1kpps", "1"), ("999", "1"), ("1kpps", "3")] {
        let output =
            run(&["run", "--socket", path, "--rate", rate, "--queues", queues, "--seconds", "0.5", "--json"]);
        let port = &ports(&output)[0];
        assert_eq!((number(port, "offered"), number(port, "tx_packets")), (500, 500), "{rate}: {port}");
    }
    // At line rate nothing is due.
    let output = run(&["run", "--socket", path, "--count", "4000000000", "--seconds", "0.1", "--json"]);
    let port = &ports(&output)[0];
    assert_eq!(number(port, "offered"), number(port, "tx_packets"), "{port}");

    let mut command = Command::new(PROGRAM);
    command.args(["run", "--socket", path, "--rate", "1kpps", "--seconds", "1000", "--json"]);
    let child = command.stdout(Stdio::piped()).spawn().expect("started");
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, Signal::INT);
    let port = &ports(&child.wait_with_output().expect("ended"))[0];
    let seconds = port["seconds"].as_f64().expect("seconds");
    let due = number(port, "offered") as f64;
    assert!((due - seconds * 1000.0).abs() < 2.0, "{port}");
}

#[test]
fn it_listens_as_well() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &["--client"]);
    let path = socket.to_str().expect("text");
    let output = run(&["run", "--server", "--socket", path, "--count", "1000", "--check", "--json"]);
    assert_exact(&ports(&output)[0], 1000);
}

#[test]
fn an_echo_sends_everything_back() {
    let _alone = alone();
    // Two backends in one process would be a switch; so the one that echoes listens itself, and a reflecting
    // backend is what it echoes to: each packet goes round and round. What counts is that echo forwards.
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    let output = run(&["run", "--mode", "echo", "--socket", path, "--seconds", "0.2", "--json"]);
    let ports = ports(&output);
    assert_eq!(number(&ports[0], "rx_frames"), number(&ports[0], "tx_packets"), "{ports:?}");
}

#[test]
fn the_search_finds_line_rate_where_nothing_is_lost() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    let output = run(&["rfc2544", "--socket", path, "--trial", "0.2", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["kind"], "NDR");
    assert!(found["rate_pps"].as_f64().expect("found") > 1000.0);
    assert_eq!(found["trials"].as_array().expect("trials").len(), 2, "{found}");
}

#[test]
fn the_exit_status_says_what_is_wrong() {
    let _alone = alone();
    let status = |arguments: &[&str]| {
        let output = run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().expect("not killed"), error)
    };
    let (code, error) = status(&["run", "--socket", "/nowhere/s", "--wait", "0.1"]);
    assert_eq!((code, error.lines().count()), (3, 1), "{error}");
    assert!(error.contains("cannot connect to /nowhere/s"), "{error}");
    for bad in [
        vec!["run"],
        vec!["run", "--socket", "/s", "--size", "10"],
        vec!["run", "--socket", "/s", "--rate", "fast"],
        vec!["run", "--socket", "/s", "--queue-size", "100"],
        vec!["run", "--socket", "/s", "--queues", "2", "--flows", "1"],
        vec!["rfc2544", "--socket", "/s", "--mode", "tx"],
        vec!["rfc2544", "--socket", "/s", "--count-only"],
        vec!["run", "--socket", "/s", "--warm-up=-1"],
        vec!["run", "--socket", "/s", "--wait", "1e300"],
        vec!["run", "--socket", "/s", "--drain", "NaN"],
        vec!["run", "--socket", "/s", "--peer", "/s"],
        vec!["rfc2544", "--socket", "/s", "--trial", "0"],
        vec!["run", "--socket", "/s", "--mode", "tx", "--check"],
        vec!["run", "--socket", "/s", "--count-only", "--check"],
        vec!["reflect", "--socket", "/s", "--burst", "0"],
        vec!["reflect", "--socket", "/s", "--without", "event-idx"],
    ] {
        assert_eq!(status(&bad).0, 2, "{bad:?}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &["--without", "packed,gso"]);
    let path = socket.to_str().expect("text");
    let (code, error) = status(&["run", "--socket", path, "--packed", "on"]);
    assert!(code == 3 && error.contains("RING_PACKED"), "{code}: {error}");
    let (code, error) = status(&["run", "--socket", path, "--gso", "--size", "9000"]);
    assert!(code == 3 && error.contains("HOST_UFO"), "{code}: {error}");
    // A backend that blanks what it returns loses everything.
    drop(_backend);
    let mut command = Command::new(PROGRAM);
    let _backend = background(command.args(["reflect", "--socket"]).arg(&socket));
    let output = ["run", "--socket", path, "--count", "100", "--check", "--wait", "0.3"];
    assert_eq!(status(&output).0, 1);
}

/// With standard output at `to`: the exit status, and what it says on standard error.
fn writes_to(to: Stdio, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.args(["60", PROGRAM]).args(arguments).stdout(to).stderr(Stdio::piped());
    let output = command.spawn().and_then(Child::wait_with_output).expect("timeout(1) is there");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_output_that_is_closed_or_full_is_no_reason_to_panic() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    // Two trials would take longer than `timeout` allows: the search ends when nobody gets to know what it finds.
    let search = ["rfc2544", "--socket", path, "--trial", "40", "--rate", "1kpps"];
    let run = ["run", "--socket", path, "--count", "100"];
    for arguments in [&search[..], &run] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(writes_to(writer.into(), arguments), (Some(0), String::new()), "{arguments:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("there on every Linux");
        let (status, error) = writes_to(full.into(), arguments);
        assert!(status == Some(2) && error.contains("No space left"), "{arguments:?}: {status:?} {error}");
    }
}

#[test]
fn a_search_says_what_it_found_beside_each_kind_of_output() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let _backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    for kind in ["--csv", "--json"] {
        // On a busy machine much may come late.
        let search = ["rfc2544", "--socket", path, "--trial", "0.5", "--rate", "1kpps", "--pdr", "99%", kind];
        let output = run(&search);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("PDR: 1.000 kpps a port (0.001 Gbit/s of frames)"), "{error}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("PDR:"));
    }
}

#[test]
fn a_backend_that_hangs_fails_the_check() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = socket(&directory, "s");
    let backend = reflect(&socket, &[]);
    let path = socket.to_str().expect("text");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--socket", path, "--rate", "20pps", "--seconds", "0", "--check", "--progress"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut progress = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let is_going = |line: &String| line.contains("rx") && !line.contains("rx 0.0 pps");
    assert!(progress.any(|line| is_going(&line)), "it ended");
    signal(&backend.0, Signal::STOP);
    // Until nothing has come for longer than a packet takes.
    assert!(progress.any(|line| line.contains("rx 0.0 pps") && !line.contains("tx 0.0 pps")), "it ended");
    signal(&child, Signal::INT);
    let result = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut result = result.inspect(|line| println!("{line}"));
    assert!(result.any(|line| line.contains("still with the backend")));
    // It has to answer when the frontend leaves.
    signal(&backend.0, Signal::CONT);
    assert_eq!(child.wait().expect("ended").code(), Some(1));
}

#[test]
fn it_can_be_interrupted_while_it_waits_for_the_backend() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let path = socket(&directory, "s");
    for listen in [false, true] {
        let mut command = Command::new("timeout");
        command.args(["--signal=INT", "--kill-after=20", "0.5", PROGRAM, "run", "--wait", "600", "--socket"]);
        command.arg(&path).args(listen.then_some("--server"));
        // 124: it ended in time, and had not to be killed.
        assert_eq!(command.status().expect("timeout(1) is there").code(), Some(124), "--server: {listen}");
    }
}

fn installed(program: &str) -> bool {
    Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// testpmd, forwarding between two net_vhost ports.
fn testpmd(directory: &tempfile::TempDir, queues: u16) -> Background {
    let vdev = |k: u8| {
        format!("net_vhost{k},iface={},queues={queues}", socket(directory, &format!("v{k}")).display())
    };
    let prefix = format!("--file-prefix=pktgen{}", directory.path().display()).replace('/', "-");
    let (a, b) = (vdev(0), vdev(1));
    let count = queues.to_string();
    let mut command = Command::new("dpdk-testpmd");
    command.args(["--lcores", "0@(0-1),1@(0-1)", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry"]);
    command.args([&prefix, "--vdev", &a, "--vdev", &b, "--", "--forward-mode=io", "--auto-start"]);
    command.args(["--stats-period=1", "--total-num-mbufs=16384", "--rxq", &count, "--txq", &count]);
    let child = background(command.stderr(Stdio::null()));
    let started = Instant::now();
    while !socket(directory, "v1").exists() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

#[test]
fn testpmd_forwards_every_packet() {
    let _alone = alone();
    if !installed("dpdk-testpmd") {
        eprintln!("skipped: dpdk-testpmd is not installed (apt-get install dpdk)");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let _backend = testpmd(&directory, 1);
    let (a, b) = (socket(&directory, "v0"), socket(&directory, "v1"));
    for format in [["--packed", "off", "--mergeable", "on"], ["--packed", "off", "--mergeable", "off"]]
        .into_iter()
        .chain([["--packed", "on", "--mergeable", "on"], ["--packed", "on", "--mergeable", "off"]])
    {
        for mode in ["tx", "both"] {
            let (a, b) = (a.to_str().expect("text"), b.to_str().expect("text"));
            let mut arguments = vec!["run", "--socket", a, "--peer", b, "--mode", mode, "--rate", "20kpps"];
            arguments.extend(["--count", "4000", "--imix", "--checksum", "--flows", "50", "--json"]);
            arguments.extend(["--queue-size", "4096", "--wait", "20"]);
            arguments.extend(format);
            let output = run(&arguments);
            let ports = ports(&output);
            assert_exact(&ports[1], 4000);
            if mode == "both" {
                assert_exact(&ports[0], 4000);
            }
        }
    }
}

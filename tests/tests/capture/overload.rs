//! More than can be captured: the traffic loses nothing by it, and what is missing in the capture is counted.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::pair;

use crate::recording::{self, packets, skipped};

#[test]
fn a_reader_that_does_not_read_costs_the_traffic_nothing() {
    if skipped() {
        return;
    }
    let scene = pair::joined();
    let mut daemon = scene.start();
    let mut command = daemon.client_command(&["capture", "vm1", "-w", "-"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ringwire");
    let mut stream = client.stdout.take().expect("a pipe");
    // It captures: its first bytes are there. From now on nobody reads, for a while.
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).expect("a beginning");
    let passed = pair::exchange(&scene, &daemon, &[], |_| {});
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("a signal");
    stream.read_to_end(&mut bytes).expect("the rest");
    let output = client.wait_with_output().expect("its end");
    let said = recording::said(&String::from_utf8_lossy(&output.stderr));
    println!("{passed} packets passed, {said:?}, {} bytes of capture", bytes.len());
    assert!(output.status.success());
    assert!(said.dropped > 0 && said.captured > 0, "{said:?}");
    assert_eq!((said.seen, said.captured + said.dropped), (passed, passed));
    let file = scene.path("stalled.pcapng");
    std::fs::write(&file, bytes).expect("a file");
    assert_eq!(packets(&file, "").len() as u64, said.captured);
    assert_eq!(recording::statistics(&file), [[passed, said.dropped, passed, said.captured]]);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn captures_that_come_and_go_disturb_no_traffic() {
    if skipped() {
        return;
    }
    let scene = pair::joined();
    let mut daemon = scene.start();
    let mut ended = 0;
    pair::exchange(&scene, &daemon, &[], |pktgen| {
        while pktgen.ended().is_none() {
            let count = format!("{}", 1 + ended * 37 % 500);
            let file = scene.path("part.pcapng");
            let path = file.to_str().expect("letters");
            let arguments = ["capture", "vm2", "-w", path, "--count", &count, "--seconds", "5"];
            let output = daemon.client(&arguments);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{complaint}");
            let said = recording::said(&complaint);
            assert_eq!(packets(&file, "").len() as u64, said.captured);
            assert!(
                said.captured.to_string() == count || pktgen.ended().is_some() || said.captured == 0,
                "{said:?}"
            );
            ended += 1;
        }
    });
    println!("{ended} captures");
    assert!(ended > 0);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

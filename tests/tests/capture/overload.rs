//! More than can be captured: the traffic loses nothing by it, and what is missing in the capture is counted.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::scene::Scene;
use tests::{pair, wait};

use crate::ends::threads;
use crate::recording::{self, Recording, Said, packets, skipped};

#[test]
fn a_reader_that_is_slow_costs_the_traffic_nothing() {
    if skipped() {
        return;
    }
    let scene = pair::joined();
    let mut daemon = scene.start();
    let mut command = daemon.client_command(&["capture", "vm1", "-w", "-"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ringwire");
    let mut stream = client.stdout.take().expect("a pipe");
    // It captures: its first bytes are there. From now on they are read far slower than they come.
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).expect("a beginning");
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let over = over.clone();
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                (&mut stream).take(32 * 1024).read_to_end(&mut bytes).expect("more");
                std::thread::sleep(Duration::from_millis(20));
            }
            stream.read_to_end(&mut bytes).expect("the rest");
            bytes
        })
    };
    let passed = pair::exchange(&scene, &daemon, &[], |_| {});
    over.store(true, Ordering::Relaxed);
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("a signal");
    let bytes = reader.join().expect("what was read");
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

/// Starts a capture of `port`, of which nothing is read but the answer's head. Its place in the API.
fn stalled(scene: &Scene, port: &str) -> (UnixStream, String) {
    let body = format!("{{\"port\": {port:?}}}");
    let mut stream = UnixStream::connect(scene.path("api.sock")).expect("the API");
    let length = body.len();
    write!(stream, "POST /v1/captures HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        .expect("a request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the answer's head");
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("text");
    let place = head.lines().find_map(|line| line.strip_prefix("location: "));
    let place = place.unwrap_or_else(|| panic!("no capture: {head}")).to_owned();
    (stream, place)
}

/// The numbers in a line of the daemon's log.
fn logged(line: &str) -> Said {
    let number = |name: &str| {
        let value = line.split_once(&format!("{name}=")).and_then(|(_, rest)| rest.split(' ').next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    Said { captured: number("captured"), seen: number("seen"), dropped: number("dropped") }
}

#[test]
fn clients_that_take_nothing_of_their_captures_lose_them_and_their_places() {
    let scene = pair::joined();
    let mut daemon = scene.start();
    let fds = daemon.child.fds();
    let clients = ["vm1", "vm1", "vm2", "vm2"].map(|port| stalled(&scene, port));
    assert_eq!(threads(&daemon), 4);
    let (code, answer) = daemon.request("POST", "/v1/captures", "{\"port\": \"vm1\"}").expect("an answer");
    assert!(code == 429 && answer.contains("4 captures run already"), "{code} {answer}");
    let passed = pair::exchange(&scene, &daemon, &[], |_| {});
    // To two of them their time is over, if they have not lost them already.
    for (_, place) in &clients[1..3] {
        let (code, answer) = daemon.request("DELETE", place, "").expect("an answer");
        assert!(code == 204 || code == 404, "{code} {answer}");
    }
    wait::until("nothing is left of the captures", 60, || {
        let (threads, now) = (threads(&daemon), daemon.child.fds());
        if threads == 0 && now <= fds {
            Ok(())
        } else {
            Err(format!("{threads} threads, {now} of {fds} fds"))
        }
    });
    let complaints = daemon.complaints();
    assert_eq!(complaints.len(), 4, "{complaints:#?}");
    for line in &complaints {
        assert!(line.contains("capture ended: its client has taken nothing of it for 10 s"), "{line}");
        let said = logged(line);
        assert!(said.captured > 0 && said.dropped > 0 && said.seen <= passed, "{said:?}");
        assert_eq!(said.captured + said.dropped, said.seen);
    }
    drop(clients);
    // There is room for others again.
    let four = [0, 1, 2, 3].map(|n| Recording::start(&scene, &daemon, &format!("{n}"), &["vm1"]));
    four.into_iter().for_each(|recording| drop(recording.stop()));
    assert!(daemon.stop(Duration::from_secs(5)).success());
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

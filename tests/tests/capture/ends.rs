//! How captures end, and what is refused.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::daemon::Daemon;
use tests::scene::Scene;
use tests::wait;

use crate::recording::{Recording, packets, skipped};

fn scene() -> (Scene, Daemon) {
    let mut scene = Scene::new();
    // A NIC that makes up as many frames as anybody takes.
    scene.nic("wire0", "net_null0,size=64", 1, "");
    scene.guest("vm1", "wire0", 1);
    let daemon = scene.start();
    (scene, daemon)
}

/// Threads of captures.
pub fn threads(daemon: &Daemon) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.child.pid())).expect("a live daemon");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "capture").count()
}

#[test]
fn a_client_that_is_killed_leaves_nothing_behind() {
    let (scene, mut daemon) = scene();
    let before = daemon.child.fds();
    // Of one cause, the log has ten lines in ten seconds.
    for round in 0..2 {
        let start = |n| Recording::start(&scene, &daemon, &format!("{round}-{n}"), &["vm1"]);
        let recordings: Vec<Recording> = (0..4).map(start).collect();
        assert_eq!(threads(&daemon), 4);
        // Killed where nothing passes, so that nothing is written that would tell.
        recordings.into_iter().for_each(|mut recording| recording.child.kill());
        wait::until("nothing is left of the captures", 15, || {
            let (threads, fds) = (threads(&daemon), daemon.child.fds());
            // Fewer, if one that starting up needed was open still.
            if threads == 0 && fds <= before {
                Ok(())
            } else {
                Err(format!("{threads} threads, {fds} of {before} fds"))
            }
        });
        assert_eq!(daemon.child.log().matches("capture ended").count(), 4 * (round + 1));
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn a_capture_lasts_longer_than_any_other_request_and_ends_when_its_time_is_over() {
    if skipped() {
        return;
    }
    let (scene, daemon) = scene();
    let recording = Recording::start(&scene, &daemon, "long", &["wire0", "--seconds", "11"]);
    let (file, said) = recording.finish();
    assert_eq!((said.captured, said.dropped), (0, 0));
    assert_eq!(packets(&file, ""), []);
}

/// timeout(1) sends its signal to the program, and to the group that this is in: that is one Ctrl-C, not two.
#[test]
fn a_signal_that_timeout_sends_twice_ends_a_capture_well() {
    let (scene, daemon) = scene();
    for round in 0..20 {
        let recording = Recording::start(&scene, &daemon, &format!("twice{round}"), &["vm1"]);
        recording.child.signal(Signal::SIGINT);
        // The second one comes while the first is seen to, in some of the rounds.
        std::thread::sleep(Duration::from_micros(100 * round));
        let (_, said) = recording.stop();
        assert_eq!((said.captured, said.dropped), (0, 0));
    }
}

#[test]
fn a_daemon_that_stops_ends_its_captures() {
    let (scene, mut daemon) = scene();
    let mut recording = Recording::start(&scene, &daemon, "cut", &["vm1"]);
    assert!(daemon.stop(Duration::from_secs(5)).success());
    let status = recording.child.wait(Duration::from_secs(10)).expect("its end");
    assert_eq!(status.code(), Some(3));
    let log = recording.child.log();
    assert!(log.contains("the capture broke off"), "{log}");
    assert_eq!(daemon.complaints(), [""; 0]);
}

#[test]
fn what_cannot_be_captured_is_refused_and_no_file_is_made() {
    let (scene, daemon) = scene();
    let file = scene.path("none.pcapng");
    let path = file.to_str().expect("letters");
    for (arguments, problem) in [
        (&["vm9"][..], "no port is called \"vm9\""),
        (&["vm1:1"], "vm1 has 1 queue pairs: there is no 1 (the first is 0)"),
        (&["vm1:x"], "vm1:x: \"x\" is not the number of a queue pair, 0 or more"),
        (&["vm1", "udp prot 7"], "the filter is not understood: "),
        (&["vm1", "--count", "0"], "count is 0: there would be nothing to capture"),
        (&["vm1", "--seconds", "0"], "seconds is 0: there would be nothing to capture"),
        (&["vm1", "--snaplen", "0"], "snaplen is 0: there would be nothing to capture"),
    ] {
        let output = daemon.client(&[&["capture", "-w", path], arguments].concat());
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.starts_with(&format!("ringwire: {problem}")), "{complaint}");
        assert!(!file.exists());
    }
    for (body, code, problem) in [
        ("{}", 400, "the body is not"),
        (r#"{"port": "vm1", "direction": "up"}"#, 400, "unknown variant `up`"),
        (
            r#"{"port": "vm1", "filter": [[5, 0, 0, 9]]}"#,
            422,
            "instruction 0 of the filter goes on behind its end",
        ),
    ] {
        let (found, answer) = daemon.request("POST", "/v1/captures", body).expect("an answer");
        assert!(found == code && answer.contains(problem), "{body}: {found} {answer}");
    }
    let (code, answer) = daemon.request("DELETE", "/v1/captures/77", "").expect("an answer");
    assert!(code == 404 && answer.contains("no capture has number 77"), "{answer}");
}

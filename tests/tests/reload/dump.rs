//! What runs, as a file: checked, started again, dumped again.

use std::process::Command;
use std::time::Duration;

use tests::daemon::{self, Daemon};
use tests::lan::{Lan, nic_device};
use tests::scene::Scene;

use crate::stage::{By, Stage};

fn ringwire(daemon: &Daemon, arguments: &[&str]) {
    let output = daemon.client(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_was_changed_live_is_dumped_and_started_again() {
    let lan = Lan::enter("10.79.12.1/24");
    lan.veth("wire0");
    lan.veth("raw0");
    let mut scene = Scene::new();
    scene.nic("wire0", &nic_device(0, "wire0"), 1, "mtu = 1400");
    scene.socket_port("tap", "tap0", "rw-tap0", "");
    scene.guest("vm2", "wire0", 2);
    scene.add("fallback = \"tap0\"\nmac = \"52:54:00:00:00:02\"\n");
    scene.guest("vm1", "vm3", 1);
    scene.guest("vm3", "none", 1);
    let mut stage = Stage::start(scene);
    let first = stage.dump();

    ringwire(&stage.daemon, &["port", "add", "tap", "tap1", "--interface", "rw-tap1", "--queues", "2"]);
    ringwire(&stage.daemon, &["port", "add", "raw", "raw0", "--interface", "raw0"]);
    // Two guests apart, one of them to its fallback.
    ringwire(&stage.daemon, &["backend", "set", "vm1", "raw0"]);
    ringwire(&stage.daemon, &["backend", "set", "vm2", "tap0"]);
    ringwire(&stage.daemon, &["guest", "offloads", "vm3", "csum,host_tso6"]);
    let text = stage.dump();
    for line in [
        "name = \"tap1\"\ninterface = \"rw-tap1\"\nqueues = 2\n",
        "backend = \"raw0\"",
        "backend = \"tap0\"\nfallback = \"tap0\"",
        "offloads = [\"csum\", \"host_tso6\"]",
    ] {
        assert!(!first.contains(line) && text.contains(line), "{line}: {text}");
    }
    assert!(
        text.contains("[[guest]]\nname = \"vm3\"") && text.matches("backend = \"none\"").count() == 1,
        "{text}"
    );

    // The reload would take all of it back, and says so.
    let output = stage.daemon.client(&["reload", "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "raw raw0: removed",
            "tap tap1: removed",
            "guest vm1: backend raw0 -> vm3",
            "guest vm2: backend tap0 -> wire0",
            "guest vm3: backend none -> vm1, offloads [\"csum\", \"host_tso6\"] -> auto",
        ]
    );
    assert_eq!(stage.dump(), text, "a dry run");

    // The dump is a file that says what runs.
    std::fs::write(stage.file(), &text).expect("the file");
    assert_eq!(stage.reload(By::Client), [""; 0]);
    let check =
        Command::new(daemon::program("ringwired")).arg("--config").arg(stage.file()).arg("--check").output();
    let check = check.expect("ringwired");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && said.contains("valid: workers 1, nics 1, guests 3"), "{check:?}");
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    stage.daemon =
        Daemon::start(&stage.file(), &stage.scene.path("api.sock"), &stage.scene.path("again.log"));
    assert_eq!(stage.dump(), text);
    assert!(stage.daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(stage.daemon.complaints(), [""; 0]);
}

#[test]
fn a_descriptor_that_was_handed_over_is_dumped_as_its_interface() {
    let lan = Lan::enter("10.79.13.1/24");
    lan.veth("raw0");
    let mut scene = Scene::new();
    scene.guest("vm1", "none", 1);
    let stage = Stage::start(scene);
    let socket = tests::link_socket::LinkSocket::bind("raw0").into_fd();
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("inherited");
    let number = std::os::fd::AsRawFd::as_raw_fd(&socket).to_string();
    ringwire(&stage.daemon, &["port", "add", "raw", "port0", "--fd", &number]);
    let text = stage.dump();
    assert!(text.contains("[[raw]]\nname = \"port0\"\ninterface = \"raw0\"\n"), "{text}");
    // A second port of that interface could be in no file.
    for more in [["--fd", &number], ["--interface", "raw0"]] {
        let output = stage.daemon.client(&[&["port", "add", "raw", "port1"][..], &more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "ringwire: interface: same as that of port0: an interface is one port\n");
    }
    assert_eq!(stage.dump(), text);
    std::fs::write(stage.file(), &text).expect("the file");
    assert_eq!(stage.reload(By::Client), [""; 0]);
}

/// While its fallback is in its place, a guest's backend is the one that it returns to.
#[test]
fn a_fallback_in_force_is_not_dumped_as_the_backend() {
    let lan = Lan::enter("10.79.14.1/24");
    lan.tap("tap0", &[]);
    let mut scene = Scene::new();
    scene.socket_port("tap", "wire0", "rw-wire0", "");
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.guest("vm1", "wire0", 1);
    scene.add("fallback = \"tap0\"\n");
    let stage = Stage::start(scene);
    lan.set_up("rw-wire0", false);
    tests::wait::until("vm1 falls back", 10, || {
        let now = daemon::guest(&stage.daemon.port("vm1")).backend.clone();
        if now == "tap0" { Ok(()) } else { Err(now) }
    });
    assert!(stage.dump().contains("backend = \"wire0\"\nfallback = \"tap0\""));
    assert_eq!(stage.reload(By::Client), [""; 0]);
    // Without it, the guest is where it was meant to be.
    stage.edit(&[("fallback = \"tap0\"\n", "")]);
    assert_eq!(stage.reload(By::Hangup), ["guest vm1: fallback tap0 -> none"]);
    assert_eq!(daemon::guest(&stage.daemon.port("vm1")).backend, "wire0");
}

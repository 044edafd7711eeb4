//! A wrong configuration is one line that names file, line and key; several daemons live side by side; a
//! socket in use is not taken over, one left behind is.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tests::bare_guest::BareGuest;
use tests::cores;
use tests::daemon::{self, Daemon, assert_balanced};
use tests::scene::Scene;

/// Runs `ringwired` where it must end by itself.
fn run(config: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(daemon::program("ringwired")).arg("--config").arg(config).env_remove("RUST_LOG");
    command.output().expect("timeout, of coreutils")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A valid configuration but for `line`, which stands in place of the line that starts with `replaced`.
fn broken(scene: &Scene, replaced: &str, line: &str) -> (String, usize) {
    let text = std::fs::read_to_string(scene.config_file()).expect("a configuration");
    let at = text.lines().position(|old| old.starts_with(replaced)).expect("a line to replace");
    let lines: Vec<&str> =
        text.lines().enumerate().map(|(n, old)| if n == at { line } else { old }).collect();
    (lines.join("\n") + "\n", at + 1)
}

fn valid() -> Scene {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0", 1, "");
    scene.guest("vm1", "wire0", 1);
    scene
}

#[test]
fn a_wrong_configuration_is_one_line_with_file_line_and_key() {
    let scene = valid();
    let cases = [
        ("cores", "cores = []", "datapath.cores"),
        ("cores", "cores = [4095]", "datapath.cores"),
        ("cores", "core = [1]", "datapath.core"),
        ("device", "device = 3", "device"),
        ("device", "devise = \"net_null0\"", "devise"),
        ("queues", "queues = 129", "queues"),
        ("backend", "backend = \"wire1\"", "backend"),
        ("socket = ", "socket = \"relative.sock", "socket"),
        ("backend", "mode = \"clint\"", "mode"),
        ("[[guest]]", "[[gest]]", "gest"),
    ];
    for (replaced, line, key) in cases {
        let (text, at) = broken(&scene, replaced, line);
        let path = scene.path("broken.toml");
        std::fs::write(&path, text).expect("a configuration");
        let output = run(&path);
        let said = stderr(&output);
        println!("{}", said.trim_end());
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
        assert!(said.contains("broken.toml"), "{line}: names no file: {said}");
        assert!(said.contains(&format!(":{at}:")), "{line}: does not name line {at}: {said}");
        assert!(said.contains(key), "{line}: does not name {key}: {said}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_one_line() {
    let output = run(Path::new("/nonexistent/ringwired.toml"));
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("/nonexistent/ringwired.toml"), "{said}");
}

/// A device that is not there is no configuration error: status 1, and one line that names the nic.
#[test]
fn a_device_that_cannot_be_opened_is_named() {
    let mut scene = Scene::new();
    scene.nic("wire0", "net_af_packet0,iface=nosuchinterface", 1, "");
    let output = run(&scene.config_file());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().expect("a line");
    assert!(last.contains("wire0") && last.contains("net_af_packet0"), "{said}");
    assert!(!scene.path("api.sock").exists(), "the API socket is left behind");
}

fn has_traffic(daemon: &Daemon, socket: &Path) {
    let load = BareGuest::connect(socket, 64).load([0, 0]);
    daemon.wait_count("vm1", "rx", 10, 1000, |port| port.rx_packets);
    daemon.wait_count("vm1", "tx", 10, 1000, |port| port.tx_packets);
    let mut guest = load.end();
    guest.turn();
    assert!(guest.rings.iter().all(|ring| ring.wrong.is_empty()));
}

#[test]
fn two_daemons_on_one_host_do_not_collide() {
    let scenes = [valid(), valid()];
    let daemons = [scenes[0].start(), scenes[1].start()];
    for (scene, daemon) in scenes.iter().zip(&daemons) {
        has_traffic(daemon, &scene.socket("vm1"));
        daemon.wait_connected("vm1", false);
        assert_balanced(daemon, "vm1", "wire0");
    }
    for mut daemon in daemons {
        assert!(daemon.stop(Duration::from_secs(5)).success());
        assert_eq!(daemon.complaints(), [""; 0]);
    }
}

#[test]
fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let scene = valid();
    let mut daemon = scene.start();
    // The same again: refused, and the first does not notice.
    let output = run(&scene.config_file());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains("api.sock")), "{said}");
    // Another API, but the first one's guest socket.
    let text = std::fs::read_to_string(scene.config_file()).expect("a configuration");
    let other = scene.path("other.toml");
    std::fs::write(&other, text.replace("api.sock", "other.sock")).expect("a configuration");
    let output = run(&other);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains("vm1.sock")), "{said}");
    assert!(!scene.path("other.sock").exists(), "the second daemon's API socket is left behind");
    has_traffic(&daemon, &scene.socket("vm1"));

    daemon.child.kill();
    assert!(scene.path("api.sock").exists() && scene.socket("vm1").exists(), "stale sockets to replace");
    let mut daemon = scene.start();
    has_traffic(&daemon, &scene.socket("vm1"));
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert!(!scene.path("api.sock").exists() && !scene.socket("vm1").exists());
}

/// What is in a socket's place but is none, or is another program's, stays.
#[test]
fn other_programs_files_are_left_alone() {
    let scene = valid();
    std::fs::write(scene.socket("vm1"), "precious").expect("a file");
    let output = run(&scene.config_file());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(scene.socket("vm1")).expect("the file"), "precious");
    std::fs::remove_file(scene.socket("vm1")).expect("the file");
    let _listener = UnixListener::bind(scene.path("api.sock")).expect("a socket");
    let output = run(&scene.config_file());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn a_core_that_is_not_ours_is_refused() {
    // The daemon may run on one core only, and is asked to pin its worker to another.
    if cores::worker() == cores::other() {
        println!("skipped: there is only one core");
        return;
    }
    let scene = valid();
    let mut command = Command::new("taskset");
    command.args(["-c", &cores::other().to_string()]).arg(daemon::program("ringwired"));
    let output = command.arg("--config").arg(scene.config_file()).output().expect("taskset");
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("cores"), "{said}");
}

//! What cannot be a backend is refused in one clear line: at start, and while the guest runs.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tests::daemon::{self, Daemon};
use tests::lan::{Lan, nic_device};
use tests::link_socket::LinkSocket;
use tests::pktgen::Pktgen;
use tests::scene::Scene;

/// `ringwired` where it must end by itself, started through `wrapper`.
fn run(wrapper: &[&str], config: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").args(wrapper).arg(daemon::program("ringwired")).arg("--config").arg(config);
    command.env_remove("RUST_LOG").output().expect("timeout, of coreutils")
}

/// Asserts that it has ended so, with one line besides its ordinary log, in which all of `words` are.
fn assert_refused(output: &Output, status: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    println!("{}", lines.join("\n"));
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(lines.len(), 1, "{said}");
    assert!(words.iter().all(|word| lines[0].contains(word)), "not all of {words:?} in: {said}");
}

/// A guest whose backend is a `kind` port "port0", with `lines`.
fn scene(kind: &str, lines: &str) -> Scene {
    let mut scene = Scene::new();
    scene.add(&format!("\n[[{kind}]]\nname = \"port0\"\n{lines}\n"));
    scene.guest("vm1", "port0", 1);
    scene
}

/// A descriptor that children have, too.
fn inherited(fd: impl Into<OwnedFd>) -> OwnedFd {
    let fd = fd.into();
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherited");
    fd
}

#[test]
fn wrong_descriptors_are_three_different_errors_and_more() {
    let _lan = Lan::enter("10.79.4.1/24");
    let null = File::open("/dev/null").expect("/dev/null");
    let tun = File::options().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let raw = |family, protocol| {
        socket(family, SockType::Raw, SockFlag::empty(), protocol).expect("a socket (as root)")
    };
    let icmp = raw(AddressFamily::Inet, Some(SockProtocol::Icmp));
    let unbound = raw(AddressFamily::Packet, None);
    let cases: [(OwnedFd, &str); 5] = [
        (null.into(), "neither a socket nor a tap or macvtap"),
        (UdpSocket::bind("127.0.0.1:0").expect("a socket").into(), "not of type SOCK_RAW but SOCK_DGRAM"),
        (icmp, "not of family AF_PACKET but AF_INET"),
        (tun.into(), "no interface was given to"),
        (unbound, "no interface was given to"),
    ];
    for (fd, words) in cases {
        let fd = inherited(fd);
        for kind in ["tap", "raw"] {
            let scene = scene(kind, &format!("fds = [{}]", fd.as_raw_fd()));
            assert_refused(&run(&[], &scene.config_file()), 1, &["port0", "descriptor", words]);
        }
    }
    // A number that nothing is open under.
    assert_refused(&run(&[], &scene("raw", "fds = [987]").config_file()), 1, &["port0", "descriptor 987"]);
}

/// A packet socket that was opened before carries packets.
#[test]
fn a_packet_socket_that_is_open_already_is_a_backend() {
    let lan = Lan::enter("10.79.4.1/24");
    lan.veth("raw0");
    lan.veth("wire1");
    let fd = inherited(LinkSocket::bind("raw0").into_fd());
    let mut scene = scene("raw", &format!("fds = [{}]", fd.as_raw_fd()));
    scene.nic("wire1", &nic_device(0, "wire1"), 1, "");
    scene.guest("vm2", "wire1", 1);
    let mut daemon = scene.start();
    // Else it would get them as well.
    drop(fd);
    let port = daemon.port("port0");
    let interface = port.interface.expect("an interface");
    assert_eq!((port.state.as_str(), interface.name.as_str()), ("up", "raw0"));
    let arguments = ["--mode", "both", "--rate", "1kpps", "--count", "500"];
    let pktgen =
        Pktgen::run(&scene.socket("vm1"), Some(&scene.socket("vm2")), &scene.path("pktgen.log"), &arguments);
    for guest in pktgen.finish(Duration::from_secs(30)) {
        assert_eq!(
            (guest.received, guest.lost, guest.duplicates, guest.corrupt),
            (500, 0, 0, 0),
            "{guest:?}"
        );
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
}

#[test]
fn interfaces_that_cannot_be_had_are_named() {
    let lan = Lan::enter("10.79.4.1/24");
    lan.veth("wire0");
    lan.tap("busy0", &[]);
    let holder = scene("tap", "interface = \"busy0\"");
    let mut daemon = holder.start();
    let cases = [
        ("raw", "interface = \"nosuch0\"", "there is no such interface"),
        ("tap", "interface = \"wire0\"", "is no tap or macvtap but of kind veth"),
        ("tap", "interface = \"lo\"", "is no tap or macvtap but"),
        ("tap", "interface = \"busy0\"", "another process has it open"),
    ];
    for (kind, lines, words) in cases {
        assert_refused(&run(&[], &scene(kind, lines).config_file()), 1, &["port0", "interface", words]);
    }
    assert!(daemon.stop(Duration::from_secs(5)).success());
    // Now that nobody has it: it was made with one queue.
    let two = scene("tap", "interface = \"busy0\"\nqueues = 2");
    assert_refused(&run(&[], &two.config_file()), 1, &["port0", "busy0", "with a single queue"]);
}

#[test]
fn without_privileges_it_says_which() {
    let lan = Lan::enter("10.79.4.1/24");
    lan.veth("raw0");
    for (kind, interface, capability) in [("tap", "new0", "net_admin"), ("raw", "raw0", "net_raw")] {
        let [bounding, inheritable] =
            ["bounding-set", "inh-caps"].map(|set| format!("--{set}=-{capability}"));
        let scene = scene(kind, &format!("interface = {interface:?}"));
        let output = run(&["setpriv", &bounding, &inheritable], &scene.config_file());
        assert_refused(&output, 1, &["port0", interface, &format!("CAP_{}", capability.to_uppercase())]);
    }
}

/// Mistakes of the configuration itself have file, line and key, and another status.
#[test]
fn a_wrong_configuration_of_backends_is_one_line() {
    let ports =
        "[[tap]]\nname = \"tap0\"\ninterface = \"tap0\"\n[[raw]]\nname = \"raw0\"\ninterface = \"raw0\"\n";
    let guest = |name: &str, more: &str| {
        format!("[[guest]]\nname = {name:?}\nsocket = \"/tmp/{name}.sock\"\n{more}\n")
    };
    let cases = [
        ("[[tap]]\nname = \"port0\"\ninterface = \"sixteen-bytes-16\"".to_owned(), "interface"),
        ("[[raw]]\nname = \"port0\"\nfds = [3, 4]".to_owned(), "fds"),
        ("[[raw]]\nname = \"port0\"\ninterface = \"a0\"\nfds = [3]".to_owned(), "fds"),
        ("[[raw]]\nname = \"port0\"".to_owned(), "interface"),
        ("[[raw]]\nname = \"port0\"\ninterface = \"a0\"\nuser = \"root\"".to_owned(), "user"),
        ("[[tap]]\nname = \"port0\"\ninterface = \"tap0\"".to_owned(), "interface"),
        (guest("vm1", "backend = \"tap1\""), "backend"),
        (guest("vm1", "backend = \"vm1\""), "backend"),
        (guest("vm1", "backend = \"tap0\"") + &guest("vm2", "backend = \"tap0\""), "backend"),
        (guest("vm1", "backend = \"tap0\"\nfallback = \"tap1\""), "fallback"),
        (guest("vm1", "backend = \"tap0\"\nfallback = \"raw0\"\nfallback_hold = -1"), "fallback_hold"),
    ];
    for (lines, key) in cases {
        let mut scene = Scene::new();
        scene.add(ports);
        scene.add(&lines);
        assert_refused(&run(&[], &scene.config_file()), 2, &["ringwired.toml:", key]);
    }
}

/// `ringwire backend set` and the API behind it.
fn refuses(daemon: &Daemon, guest: &str, backend: &str, code: u16, words: &[&str]) {
    let body = format!("{{\"backend\": {backend:?}}}");
    let (answered, text) =
        daemon.request("PUT", &format!("/v1/guests/{guest}/backend"), &body).expect("the API's answer");
    assert_eq!(answered, code, "{guest} -> {backend}: {text}");
    let output = daemon.client(&["backend", "set", guest, backend]);
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{code} {said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    for text in [&text, &*said] {
        assert!(words.iter().all(|word| text.contains(word)), "not all of {words:?} in: {text}");
    }
}

#[test]
fn a_backend_that_cannot_be_is_refused_and_nothing_changes() {
    let lan = Lan::enter("10.79.4.1/24");
    lan.tap("tap0", &[]);
    lan.tap("tap1", &[]);
    let mut scene = Scene::new();
    scene.socket_port("tap", "tap0", "tap0", "");
    scene.socket_port("tap", "tap1", "tap1", "");
    for (name, backend) in [("vm1", "tap0"), ("vm2", "tap1"), ("vm3", "none")] {
        scene.guest(name, backend, 1);
    }
    let mut daemon = scene.start();
    refuses(&daemon, "vm9", "tap0", 404, &["vm9"]);
    refuses(&daemon, "tap0", "tap1", 404, &["tap0"]);
    refuses(&daemon, "vm1", "tap9", 422, &["tap9"]);
    refuses(&daemon, "vm1", "vm1", 422, &["vm1"]);
    refuses(&daemon, "vm1", "tap1", 409, &["tap1", "vm2"]);
    refuses(&daemon, "vm3", "vm1", 409, &["vm1", "tap0"]);
    let path = "/v1/guests/vm1/backend";
    for body in ["", "tap1", "{}", "{\"backend\": 1}", "{\"backend\": \"none\", \"force\": true}"] {
        assert_eq!(daemon.request("PUT", path, body).expect("an answer").0, 400, "{body}");
    }
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(daemon.request(method, path, "").expect("an answer").0, 405, "{method}");
    }
    let backends = ["vm1", "vm2", "vm3"].map(|name| daemon::guest(&daemon.port(name)).backend.clone());
    assert_eq!(backends, ["tap0", "tap1", "none"]);
    // What was taken can be had once it is given up.
    assert_eq!(daemon::guest(&daemon.set_backend("vm2", "none")).backend, "none");
    assert_eq!(daemon::guest(&daemon.set_backend("vm1", "tap1")).backend, "tap1");
    assert!(daemon.stop(Duration::from_secs(5)).success());
    assert_eq!(daemon.complaints(), [""; 0]);
}

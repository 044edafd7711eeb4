//! The real `ringwire` against the daemon's real API over a made-up datapath.

#[path = "../../ringwired/tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use common::Server;

const RINGWIRE: &str = env!("CARGO_BIN_EXE_ringwire");

fn ringwire(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(RINGWIRE).arg("--api").arg(socket).args(arguments).output().unwrap()
}

/// What a command that succeeds prints.
fn shown(server: &Server, arguments: &[&str]) -> String {
    let output = ringwire(&server.socket(), arguments);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*problem), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit status and the line of a command that fails.
fn refused(socket: &Path, arguments: &[&str]) -> (i32, String) {
    let output = ringwire(socket, arguments);
    assert!(output.stdout.is_empty());
    let problem = String::from_utf8(output.stderr).unwrap();
    assert_eq!(problem.matches('\n').count(), 1, "{problem}");
    (output.status.code().unwrap(), problem)
}

#[test]
fn status_shows_the_whole_picture() {
    let server = Server::start();
    let text = shown(&server, &["status"]);
    for part in ["ringwired 0.1.0  pid 4711", "worker:1", "wire0", "WHERE PACKETS STOP"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn port_list_has_a_line_for_each() {
    let server = Server::start();
    assert_eq!(shown(&server, &["port", "list"]).lines().count(), 7);
}

#[test]
fn port_show_knows_guests_and_nics() {
    let server = Server::start();
    assert!(shown(&server, &["port", "show", "wire0"]).starts_with("wire0  nic  up\n"));
    assert!(shown(&server, &["port", "show", "vm2"]).starts_with("vm2  guest  broken\n"));
}

#[test]
fn stats_are_of_all_ports_or_of_one() {
    let server = Server::start();
    let all = shown(&server, &["stats"]);
    assert!(all.contains("wire0") && all.contains("bad-chain"), "{all}");
    let one = shown(&server, &["stats", "vm2"]);
    assert!(!one.contains("wire0") && one.contains("bad-chain"), "{one}");
}

#[test]
fn a_reload_prints_a_line_a_change() {
    let server = Server::start();
    let nothing = "nothing to change: what runs is what the file says\n";
    assert_eq!(shown(&server, &["reload"]), nothing);
    std::fs::write(server.file(), common::FILE.to_owned() + "backend = \"tap0\"\n").unwrap();
    let change = "guest vm1: backend none -> tap0\n";
    assert_eq!(shown(&server, &["reload", "--dry-run"]), change);
    assert_eq!(shown(&server, &["reload"]), change);
    assert_eq!(shown(&server, &["reload"]), nothing);
    assert!(shown(&server, &["reload", "--json"]).contains("\"changes\": []"));
    std::fs::write(server.file(), "[[guest]]\n").unwrap();
    let (status, problem) = refused(&server.socket(), &["reload"]);
    assert!(status == 1 && problem.contains("rw.toml:1: datapath.cores: missing"), "{problem}");
}

#[test]
fn the_configuration_is_dumped_as_toml_or_json() {
    let server = Server::start();
    let text = shown(&server, &["config", "dump"]);
    assert!(text.starts_with("[api]\n") && text.contains("\n[[guest]]\nname = \"vm1\"\n"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&shown(&server, &["config", "dump", "--json"])).unwrap();
    assert_eq!(json["guest"][0]["name"], "vm1");
}

#[test]
fn the_log_is_shown_and_set() {
    let server = Server::start();
    assert_eq!(shown(&server, &["log"]), "info\n");
    assert_eq!(shown(&server, &["log", "debug"]), "debug\n");
    assert_eq!(shown(&server, &["log"]), "debug\n");
    let (status, problem) = refused(&server.socket(), &["log", "debgu"]);
    assert!(status == 1 && problem.contains("\"debgu\" is no level"), "{problem}");
}

#[test]
fn json_is_the_answer_as_it_came() {
    let server = Server::start();
    let mut status = serde_json::from_str(&shown(&server, &["status", "--json"])).unwrap();
    common::strip_rates(&mut status);
    assert_eq!(status, common::status());
    for command in [["port", "list", "--json"].as_slice(), &["stats", "--json"]] {
        status.ports = serde_json::from_str(&shown(&server, command)).unwrap();
        common::strip_rates(&mut status);
        assert_eq!(status, common::status());
    }
    for command in [["port", "show", "vm1", "--json"].as_slice(), &["stats", "vm1", "--json"]] {
        status.ports[2] = serde_json::from_str(&shown(&server, command)).unwrap();
        common::strip_rates(&mut status);
        assert_eq!(status, common::status());
    }
}

#[test]
fn a_guest_gets_another_backend() {
    let server = Server::start();
    assert_eq!(shown(&server, &["backend", "set", "vm1", "vm3"]), "vm1: backend vm3\n");
    let port: snapshot::Port =
        serde_json::from_str(&shown(&server, &["backend", "set", "vm1", "none", "--json"])).unwrap();
    assert_eq!(port.guest.unwrap().backend, "none");
    let line = "ringwire: no port is called \"wire9\"\n";
    assert_eq!(refused(&server.socket(), &["backend", "set", "vm1", "wire9"]), (1, line.to_owned()));
}

#[test]
fn a_guest_is_offered_other_offloads() {
    let server = Server::start();
    let asked = |offloads| shown(&server, &["guest", "offloads", "vm1", offloads]);
    let kept = "vm1: negotiated, and kept until then: -\n";
    let offered = "vm1: offloads offered, in force from the frontend's next connection:";
    assert_eq!(asked("csum,host_tso4"), format!("{offered} CSUM HOST_TSO4\n{kept}"));
    assert_eq!(asked("off"), format!("{offered} -\n{kept}"));
    assert!(asked("auto").starts_with(&format!("{offered} CSUM GUEST_CSUM ")));
    let port: snapshot::Port =
        serde_json::from_str(&shown(&server, &["guest", "offloads", "vm1", "csum", "--json"])).unwrap();
    assert_eq!(port.guest.unwrap().offered, ["VIRTIO_NET_F_CSUM"]);
    let (status, line) = refused(&server.socket(), &["guest", "offloads", "vm1", "csum,tso"]);
    assert!(
        status == 1 && line.starts_with("ringwire: offloads: unknown value \"tso\" (allowed: csum, "),
        "{line}"
    );
    let (status, line) = refused(&server.socket(), &["guest", "offloads", "vm9", "off"]);
    assert_eq!((status, line.as_str()), (1, "ringwire: no guest is called \"vm9\"\n"));
}

#[test]
fn a_port_is_asked_for_and_descriptors_go_along() {
    let server = Server::start();
    let asked = "ringwire: there is a port called SocketConfig { name: \"t\", kind: ";
    let (status, line) =
        refused(&server.socket(), &["port", "add", "tap", "t", "--interface", "t0", "--queues", "2"]);
    let rest = "Tap, interface: \"t0\", descriptors: [], queues: 2, user: None, group: None } [] already\n";
    assert_eq!((status, line), (1, format!("{asked}{rest}")));
    let add = ["port", "add", "tap", "t", "--interface", "t0", "--user", "root", "--group"];
    let (_, line) = refused(&server.socket(), &[add.as_slice(), &["7"]].concat());
    assert!(line.contains("user: Some(0), group: Some(7)"), "{line}");
    let (status, line) = refused(&server.socket(), &[add.as_slice(), &["no such"]].concat());
    assert_eq!((status, line.as_str()), (1, "ringwire: no group is called \"no such\"\n"));
    let command = format!(
        "exec {RINGWIRE} --api {} port add raw t --fd 7 3</dev/zero 7</dev/null",
        server.socket().display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let rest = "Raw, interface: \"\", descriptors: [], queues: 1, user: None, group: None } [\"/dev/null\"] already\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("{asked}{rest}"));
    let (status, line) = refused(&server.socket(), &["port", "add", "raw", "t", "--fd", "77"]);
    let rest = "ringwire: descriptor 77 cannot be handed over: Bad file descriptor (os error 9)\n";
    assert_eq!((status, line.as_str()), (1, rest));
    assert_eq!(shown(&server, &["port", "remove", "vm1"]), "vm1: removed\n");
    let (status, line) = refused(&server.socket(), &["port", "remove", "wire0"]);
    let rest = "ringwire: wire0 is the backend of vm1: give that another one first\n";
    assert_eq!((status, line.as_str()), (1, rest));
}

#[test]
fn explain_answers_by_its_exit_status_too() {
    let server = Server::start();
    let output = ringwire(&server.socket(), &["explain", "vm3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.ends_with(
            "the socket /run/ringwire/vm3.sock is gone: somebody has removed it (and 1 more, above)\n"
        ),
        "{text}"
    );
    let (status, line) = refused(&server.socket(), &["explain", "vm9"]);
    assert_eq!(status, 1);
    assert!(line.starts_with("ringwire: no port is called \"vm9\" (there are: wire0,"), "{line}");
    // What keeps it from being reached is its first cross, not an error of the client's.
    let output = ringwire(Path::new("/nowhere/api.sock"), &["explain", "vm3", "--json"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), &b""[..]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["cause"], "daemon");
}

#[test]
fn doctor_needs_no_daemon() {
    for arguments in [["doctor", "--json"].as_slice(), &["doctor", "--json", "--cores", "0,1"]] {
        let output = ringwire(Path::new("/nowhere/api.sock"), arguments);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = match report["severity"].as_str().unwrap() {
            "ok" | "note" => 0,
            "warning" => 1,
            "error" => 4,
            other => panic!("{other}"),
        };
        assert_eq!(output.status.code(), Some(expected), "{report}");
        assert!(report["findings"].as_array().unwrap().len() > 3, "{report}");
    }
    let server = Server::start();
    let output = ringwire(&server.socket(), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["cores"], serde_json::json!([1]), "as ringwired says");
}

#[test]
fn top_prints_a_frame_once_or_wants_a_terminal() {
    let server = Server::start();
    let text = shown(&server, &["top", "--once"]);
    for part in ["ringwired 0.1.0  pid 4711", "worker:1", "RX PPS", "tap0"] {
        assert!(text.contains(part), "{text}");
    }
    let (status, line) = refused(&server.socket(), &["top"]);
    assert!(status == 1 && line.contains("--once"), "{line}");
}

#[test]
fn the_environment_names_the_socket_too() {
    let server = Server::start();
    let mut command = Command::new(RINGWIRE);
    let output = command.env("RINGWIRE_API", server.socket()).arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_refusal_is_the_daemons_own_words_and_1() {
    let server = Server::start();
    for command in [["port", "show", "vm9"].as_slice(), &["stats", "vm9"]] {
        let line = "ringwire: no port is called \"vm9\" (there are: wire0, wire1, vm1, vm2, vm3, tap0)\n";
        assert_eq!(refused(&server.socket(), command), (1, line.to_owned()));
    }
    let (status, line) = refused(&server.socket(), &["stats", "a b/ü?#"]);
    assert_eq!(status, 1);
    assert!(line.starts_with("ringwire: no port is called \"a b/ü?#\""), "{line}");
}

#[test]
fn a_socket_is_here_and_not_where_ringwired_runs() {
    let server = Server::start();
    let here = std::env::current_dir().unwrap().join("run/g0");
    let (_, line) = refused(&server.socket(), &["port", "add", "guest", "g0", "--socket", "./run/g0"]);
    assert!(line.contains(&format!("socket: {here:?}")), "{line}");
}

#[test]
fn a_wrong_command_line_is_2() {
    let nameless: [&[&str]; 7] = [
        &["port", "show", ""],
        &["port", "remove", ""],
        &["port", "add", "tap", "", "--interface", "t0"],
        &["port", "add", "guest", "", "--socket", "/tmp/g0"],
        &["stats", ""],
        &["backend", "set", "", "none"],
        &["guest", "offloads", "", "auto"],
    ];
    for arguments in nameless {
        let output = ringwire(Path::new("/nowhere"), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains("a port has a name")), (Some(2), true), "{said}");
    }
    for arguments in [[].as_slice(), &["bogus"], &["port"], &["port", "show"], &["status", "--jsno"]] {
        let output = ringwire(Path::new("/nowhere"), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_daemon_out_of_reach_is_3_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let begin = format!("ringwire: cannot reach ringwired on {}: ", socket.display());
    let refused = || {
        let (status, line) = refused(&socket, &["status"]);
        assert_eq!(status, 3, "{line}");
        line.strip_prefix(&begin).expect(&line).to_owned()
    };
    let line = refused();
    assert!(line.starts_with("the socket does not exist: is ringwired running"), "{line}");
    assert!(line.contains("RINGWIRE_API"), "{line}");
    drop(UnixListener::bind(&socket).unwrap());
    let line = refused();
    assert!(line.starts_with("the socket is there but nobody listens"), "{line}");
}

#[test]
fn something_else_on_the_socket_is_3() {
    for (answer, expected) in [
        ("220 mail ready\r\n", "what answers there is not ringwired"),
        ("", "what answers there is not ringwired"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the answer broke off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "its answer is not what this version understands"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let (status, line) = refused(&socket, &["status"]);
        assert_eq!(status, 3, "{line}");
        assert!(line.contains(expected), "{line}");
        other.join().unwrap();
    }
}

#[test]
fn an_error_that_is_not_json_is_still_1() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nno").unwrap();
    });
    let expected = "ringwire: ringwired answered GET /v1/status with 502 Bad Gateway\n";
    assert_eq!(refused(&socket, &["status"]), (1, expected.to_owned()));
    other.join().unwrap();
}

#[test]
fn the_client_links_no_dpdk() {
    let output = Command::new("ldd").arg(RINGWIRE).output().unwrap();
    let libraries = String::from_utf8(output.stdout).unwrap();
    assert!(libraries.contains("libc"), "{libraries}");
    assert!(!libraries.contains("librte"), "{libraries}");
}

#[test]
fn workers_are_asked_for() {
    let server = Server::start();
    assert!(shown(&server, &["worker", "list"]).starts_with("WORKER    ASSIGNED"));
    let both = "vm1:0: worker:1, and with it, of the same lane: vm1:2\n";
    assert_eq!(shown(&server, &["worker", "assign", "vm1:0", "1"]), both);
    let parked = "vm1:1: worker:1, as soon as it is polled: it is not now\n";
    assert_eq!(shown(&server, &["worker", "assign", "vm1:1", "1"]), parked);
    assert_eq!(shown(&server, &["worker", "assign", "vm1:0", "any"]), "vm1:0: any worker\n");
    assert_eq!(shown(&server, &["idle"]), "workers without work: poll\n");
    assert_eq!(shown(&server, &["idle", "adaptive"]), "workers without work: adaptive\n");
    for (arguments, status, said) in [
        (["worker", "add", "1"].as_slice(), 1, "ringwire: core 1 has a worker already\n"),
        (&["worker", "remove", "1"], 1, "ringwire: core 1 has the last worker: add another one first\n"),
        (&["worker", "assign", "vm9:0", "1"], 1, "ringwire: no guest is called \"vm9\"\n"),
    ] {
        assert_eq!(refused(&server.socket(), arguments), (status, said.to_owned()), "{arguments:?}");
    }
    for arguments in [
        ["worker", "add", "one"].as_slice(),
        &["worker", "assign", "vm1", "1"],
        &["worker", "assign", "vm1:0", "all"],
        &["idle", "sometimes"],
    ] {
        assert_eq!(ringwire(&server.socket(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn nics_and_guests_are_asked_for() {
    let server = Server::start();
    let (_, line) =
        refused(&server.socket(), &["port", "add", "nic", "n0", "--device", "net_null0", "--lro"]);
    assert!(
        line.contains("device: \"net_null0\", queues: 1, mtu: None, promiscuous: true, lro: true"),
        "{line}"
    );
    let guest = ["port", "add", "guest", "g0", "--socket", "/tmp/g0", "--backend", "wire1", "--queues", "2"];
    let more = ["--punt", "tap0", "--punt-classes", "arp,lldp", "--fallback", "tap0", "--fallback-hold", "9"];
    let last = ["--assign", "0=1,1=1", "--offloads", "csum"];
    let (_, line) = refused(&server.socket(), &[guest.as_slice(), &more, &last].concat());
    for part in [
        "socket: \"/tmp/g0\", socket_mode: None, socket_group: None, queues: 2, assign: {0: 1, 1: 1}, backend: Some(\"wire1\")",
        "fallback: Some(\"tap0\"), fallback_hold: 9s",
        "offloads: 1 ",
        "PuntConfig { port: \"tap0\", classes: Classes { arp: true, nd: false, lldp: true, lacp: false, mac: None }",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for (assigned, why) in [
        ("0:1", "\"0:1\": expected PAIR=CORE, such as 0=1"),
        ("0=1,", "\"\": expected PAIR=CORE, such as 0=1"),
        ("0=1,0=2", "queue pair 0 is there twice"),
    ] {
        let answer = ringwire(&server.socket(), &[guest.as_slice(), &["--assign", assigned]].concat());
        assert_eq!(answer.status.code(), Some(2), "{assigned}");
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.contains(why), "{assigned}: {said}");
    }
}

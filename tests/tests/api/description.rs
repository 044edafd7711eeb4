//! The description of the API against the API, by schemathesis: it makes requests of the description, good ones and bad
//! ones, and compares the answers with what the description says of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::child::Child;
use tests::daemon::{self, Daemon};
use tests::lan::Lan;
use tests::scene::Scene;

/// What it must not find wrong: no 5xx; no status, content type, header or body that is not described; no method that is
/// not described.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,\
                      allow_header_conformance";
/// Nothing taken that the description forbids.
const STRICT: &str = "negative_data_rejection";
/// Requests of each operation; each takes some milliseconds there.
const EXAMPLES: &str = "25";
/// Seconds.
const START: u64 = 30;
const LIMIT: Duration = Duration::from_secs(100);

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.exists())
}

#[test]
fn schemathesis_finds_nothing_that_is_not_described() {
    let Some(program) = find("schemathesis") else {
        return println!("skipped: no schemathesis in PATH (tools/test installs it)");
    };
    // Interfaces that are asked for are made in here.
    let _lan = Lan::enter("10.0.0.1/24");
    let mut scene = Scene::new();
    scene.nic("wire0", "net_null0", 1, "");
    scene.socket_port("tap", "tap0", "t0", "");
    scene.guest("vm1", "wire0", 1);
    scene.guest("vm2", "none", 2);
    let [api, log] = ["api.sock", "ringwired.log"].map(|name| scene.path(name));
    let mut daemon = Daemon::start_as(confined(&scene.path("")), &scene.config_file(), &api, &log, START);
    let before = daemon.status();
    let url = relay(&api);

    let description = daemon.get("/v1/openapi.json").expect("a description");
    let description = without_captures(&description);
    std::fs::write(scene.path("narrowed.json"), narrowed(&description)).expect("a file");
    std::fs::write(scene.path("openapi.json"), description).expect("a file");
    let strict = format!("{CHECKS},{STRICT}");
    // What is removed first would be found by nobody.
    for (file, checks, more) in [
        ("narrowed.json", CHECKS, ["--exclude-method", "DELETE"].as_slice()),
        ("narrowed.json", CHECKS, &["--include-method", "DELETE"]),
        ("openapi.json", &strict, &[]),
    ] {
        let mut command = Command::new(&program);
        command.current_dir(scene.path("")).env("NO_COLOR", "1");
        command.args(["run", file, "--url", &url, "--checks", checks, "--max-examples", EXAMPLES]);
        command.args(["--seed", "1", "--no-shrink", "--continue-on-failure"]);
        command.args(["--phases", "examples,coverage,fuzzing"]).args(more);
        let mut run = Child::start("schemathesis", command, &scene.path("schemathesis.log"));
        let ended = run.wait(LIMIT).unwrap_or_else(|| panic!("not within {LIMIT:?}: {}", run.log()));
        let said = run.log();
        assert!(ended.success(), "{said}");
        let counts = said.lines().filter(|line| line.contains("generated,") || line.contains("Tested:"));
        println!("{}", counts.map(str::trim).collect::<Vec<_>>().join("; "));
    }

    assert_eq!(daemon.status().pid, before.pid);
    assert!(daemon.stop(Duration::from_secs(10)).success());
    assert!(!daemon.child.log().contains("panicked"), "{}", daemon.child.log());
}

/// `description`, whose example of a capture is of a port that is not there: an answer that lasts until it is told to end
/// would be waited for, which is no answer that can be checked. `tests/capture` has those.
fn without_captures(description: &str) -> String {
    let mut description: Value = serde_json::from_str(description).expect("JSON");
    let example = "/paths/~1v1~1captures/post/requestBody/content/application~1json/example/port";
    *description.pointer_mut(example).expect("an example") = json!("nobody");
    description.to_string()
}

/// `description`, with things that there are for the parameters in paths: made-up ones are all answered alike.
fn narrowed(description: &str) -> String {
    let mut description: Value = serde_json::from_str(description).expect("JSON");
    let paths = description["paths"].as_object_mut().expect("paths");
    for parameters in paths.values_mut().filter_map(|item| item.get_mut("parameters")?.as_array_mut()) {
        for parameter in parameters {
            let there = match parameter["name"].as_str() {
                Some("name") => json!(["vm1", "vm2", "wire0", "tap0", "nobody"]),
                _ => json!([0, 1, 2]),
            };
            parameter["schema"] = json!({ "enum": there });
        }
    }
    description.to_string()
}

/// ringwired where it can make files in `directory` only: guests' sockets are asked for in all kinds of places.
fn confined(directory: &Path) -> Command {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind / && cd \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(directory);
    // DPDK's own files.
    command.arg(daemon::program("ringwired")).env("RUNTIME_DIRECTORY", directory);
    command
}

/// A port of this host whose connections are the socket's. Its threads end with the test.
fn relay(socket: &Path) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let socket = socket.to_owned();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if let Ok(far) = UnixStream::connect(&socket) {
                join(near, far);
            }
        }
    });
    url
}

/// Passes on what comes from either side until the daemon closes, as it does after each answer.
fn join(near: TcpStream, far: UnixStream) {
    let (mut from_near, mut to_far) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
    std::thread::spawn(move || {
        pass_on(&mut from_near, &mut to_far);
        let _ = to_far.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut from_far, mut to_near) = (far, near);
        pass_on(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Both);
    });
}

fn pass_on(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to);
}

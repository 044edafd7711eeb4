//! The control API as `curl` sees it, and as a client that means harm.

mod common;

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::Server;
use ringwired::api;
use ringwired::config::Config;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

/// Status code, head and body of the answer to `request`.
fn ask(server: &Server, request: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    read_answer(&mut stream)
}

fn read_answer(stream: &mut UnixStream) -> (u16, String, String) {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..length]);
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, head.to_ascii_lowercase(), body.to_owned())
}

fn get(server: &Server, path: &str) -> (u16, String, String) {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: ringwire\r\n\r\n"))
}

fn error(body: &str) -> String {
    let body: Value = serde_json::from_str(body).expect(body);
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn status_and_ports_are_the_snapshot() {
    let server = Server::start();
    let (code, head, body) = get(&server, "/v1/status");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let mut status: snapshot::Status = serde_json::from_str(&body).unwrap();
    common::strip_rates(&mut status);
    assert_eq!(status, common::status());
    let (code, _, body) = get(&server, "/v1/ports");
    assert_eq!(code, 200);
    status.ports = serde_json::from_str(&body).unwrap();
    common::strip_rates(&mut status);
    assert_eq!(status, common::status());
    let (code, _, body) = get(&server, "/v1/ports/vm1");
    assert_eq!(code, 200);
    status.ports[2] = serde_json::from_str(&body).unwrap();
    common::strip_rates(&mut status);
    assert_eq!(status, common::status());
}

#[test]
fn rates_appear_with_the_second_sample() {
    let began = Instant::now();
    let server = Server::with(move || {
        let mut status = common::status();
        status.ports[0].rx_packets += (1000.0 * began.elapsed().as_secs_f64()) as u64;
        status
    });
    let deadline = began + Duration::from_secs(10);
    let rate = loop {
        let (_, _, body) = get(&server, "/v1/ports/wire0");
        let port: snapshot::Port = serde_json::from_str(&body).unwrap();
        if let Some(rates) = port.rates {
            break rates.rx_pps;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!((900.0..1100.0).contains(&rate), "{rate}");
}

/// A request with a body.
fn send(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let (code, _, body) = ask(
        server,
        &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"),
    );
    (code, body)
}

#[test]
fn the_configuration_is_a_file_that_can_be_read() {
    let server = Server::start();
    let (code, head, body) = get(&server, "/v1/config");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/toml"), "{head}");
    let again = Config::parse("dump", &body, &common::CORES).unwrap();
    assert_eq!(again.datapath.guests[0].name, "vm1");
    let (_, head, json) =
        ask(&server, "GET /v1/config HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    assert!(head.contains("content-type: application/json"), "{head}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["guest"][0]["name"], &json["datapath"]["cores"][0]), (&"vm1".into(), &1.into()));
}

#[test]
fn a_reload_says_what_it_changed() {
    let server = Server::start();
    let reload = |body: &str| {
        let (code, body) = send(&server, "POST", "/v1/reload", body);
        (code, serde_json::from_str::<Value>(&body).expect(&body))
    };
    let changes = |answer: &Value| answer["changes"].as_array().unwrap().len();
    let (code, answer) = reload("{}");
    assert_eq!((code, changes(&answer)), (200, 0));
    std::fs::write(server.file(), common::FILE.to_owned() + "backend = \"tap0\"\n").unwrap();
    for dry_run in [true, false] {
        let (code, answer) = reload(&format!("{{\"dry_run\": {dry_run}}}"));
        assert_eq!((code, &answer["dry_run"], changes(&answer)), (200, &dry_run.into(), 1));
        assert_eq!(answer["changes"][0], "guest vm1: backend none -> tap0");
    }
    assert!(get(&server, "/v1/config").2.contains("backend = \"tap0\""));
    // It cannot do that: as before.
    std::fs::write(server.file(), common::FILE.to_owned() + "queues = 2\n").unwrap();
    let (code, answer) = reload("{}");
    let error = answer["error"].as_str().unwrap();
    assert!(code == 409 && error.ends_with("only backends change (nothing has changed)"), "{error}");
    assert!(get(&server, "/v1/config").2.contains("backend = \"tap0\""));
    std::fs::write(server.file(), common::FILE.to_owned() + "queues = 0\n").unwrap();
    let (code, answer) = reload("{}");
    let error = answer["error"].as_str().unwrap();
    assert!(code == 422 && error.contains("rw.toml:8: guest[0].queues: expected an integer"), "{error}");
    std::fs::write(server.file(), "api.mode = \"0600\"\n".to_owned() + common::FILE).unwrap();
    let (code, answer) = reload("{}");
    let error = answer["error"].as_str().unwrap();
    assert!(code == 409 && error.contains("needs a restart") && error.contains("api.mode"), "{error}");
    let (code, answer) = reload("{\"dry_run\": 1}");
    assert!(code == 400 && answer["error"].as_str().unwrap().contains("dry_run"), "{answer}");
}

#[test]
fn the_log_has_another_level() {
    let server = Server::start();
    assert_eq!(get(&server, "/v1/log").2, "{\n  \"level\": \"info\"\n}\n");
    let (code, body) = send(&server, "PUT", "/v1/log", "{\"level\": \"warn,engine=debug\"}");
    assert!(code == 200 && body.contains("engine=debug"), "{body}");
    assert_eq!(get(&server, "/v1/log").2, body);
    for bad in ["debgu", "", "engine=loud"] {
        let (code, answer) = send(&server, "PUT", "/v1/log", &format!("{{\"level\": {bad:?}}}"));
        assert_eq!(code, 422, "{answer}");
        assert!(error(&answer).contains(&format!("{bad:?}")) || bad.is_empty(), "{answer}");
    }
    assert_eq!(get(&server, "/v1/log").2, body);
}

#[test]
fn what_is_not_there_is_refused_in_json() {
    let server = Server::start();
    let (code, _, body) = get(&server, "/v1/ports/vm9");
    let expected = "no port is called \"vm9\" (there are: wire0, wire1, vm1, vm2, vm3, tap0)";
    assert_eq!((code, error(&body).as_str()), (404, expected));
    for path in ["/", "/v1", "/v1/", "/v2/status", "/v1/ports/", "/v1/ports/a/b", "/metrics/x"] {
        let (code, _, body) = get(&server, path);
        assert_eq!(code, 404, "{path}");
        assert!(error(&body).starts_with(&format!("no such path: {path} (there are")), "{body}");
    }
    let (code, _, body) = get(&server, "/v1/ports/%ff");
    assert_eq!(code, 400);
    assert!(error(&body).contains("UTF-8"), "{body}");
    for method in ["POST", "PATCH"] {
        let request = format!("{method} /v1/ports/vm1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let (code, head, body) = ask(&server, &request);
        assert_eq!(code, 405, "{method}");
        assert!(head.contains("allow: get,head,put,delete"), "{head}");
        assert_eq!(
            error(&body),
            format!("{method} does nothing with /v1/ports/vm1 (it takes: GET, PUT, DELETE)")
        );
    }
}

/// Status code and body of the answer to `PUT path` with `body`.
fn put(server: &Server, path: &str, body: &str) -> (u16, String) {
    let head = format!("PUT {path} HTTP/1.1\r\nHost: ringwire\r\nContent-Length: {}\r\n\r\n", body.len());
    let (code, _, answer) = ask(server, &(head + body));
    (code, answer)
}

#[test]
fn a_guest_gets_another_backend() {
    let server = Server::start();
    let path = "/v1/guests/vm1/backend";
    for backend in ["none", "none", "wire0", "vm3"] {
        let (code, body) = put(&server, path, &format!("{{\"backend\": \"{backend}\"}}"));
        assert_eq!(code, 200, "{body}");
        let answered: snapshot::Port = serde_json::from_str(&body).unwrap();
        assert_eq!(answered.guest.unwrap().backend, backend);
        let (_, _, body) = get(&server, "/v1/ports/vm1");
        let shown: snapshot::Port = serde_json::from_str(&body).unwrap();
        assert_eq!(shown.guest.unwrap().backend, backend);
    }
}

#[test]
fn a_backend_that_cannot_be_is_refused_in_json() {
    let server = Server::start();
    let body = |backend: &str| format!("{{\"backend\": \"{backend}\"}}");
    for (path, body, code, refused) in [
        ("/v1/guests/vm9/backend", body("wire1"), 404, "no guest is called \"vm9\""),
        ("/v1/guests/wire0/backend", body("wire1"), 404, "no guest is called \"wire0\""),
        ("/v1/guests/vm1/backend", body("wire9"), 422, "no port is called \"wire9\""),
        ("/v1/guests/vm1/backend", body("vm1"), 422, "guest vm1 cannot be its own backend"),
        ("/v1/guests/vm2/backend", body("wire0"), 409, "wire0 is the backend of vm1 already"),
    ] {
        let (answered, answer) = put(&server, path, &body);
        assert_eq!((answered, error(&answer).as_str()), (code, refused), "{path} {body}");
    }
    for body in ["", "{}", "{\"backend\": 1}", "{\"backend\": \"none\", \"port\": 1}", "\u{0}"] {
        let (code, answer) = put(&server, "/v1/guests/vm1/backend", body);
        assert_eq!(code, 400, "{body}");
        assert!(error(&answer).starts_with("the body is not {\"backend\": \"PORT\"}"), "{answer}");
    }
    let long = body(&"x".repeat(api::BODY_BYTES));
    assert_eq!(put(&server, "/v1/guests/vm1/backend", &long).0, 413);
    let (code, _, body) = get(&server, "/v1/guests/vm1/backend");
    assert_eq!(code, 405);
    assert!(error(&body).ends_with(" (it takes: PUT)"), "{body}");
    let (_, _, body) = get(&server, "/v1/ports/vm1");
    let shown: snapshot::Port = serde_json::from_str(&body).unwrap();
    assert_eq!(shown.guest.unwrap().backend, "wire0", "nothing has changed");
}

#[test]
fn a_guest_is_offered_other_offloads() {
    let server = Server::start();
    let path = "/v1/guests/vm1/offloads";
    let all: Vec<&str> = api::OFFLOADS.iter().map(|(name, _)| *name).collect();
    for (wanted, offered) in [
        ("\"off\"", vec![]),
        ("\"auto\"", all),
        ("[\"host_tso4\", \"csum\", \"csum\"]", vec!["csum", "host_tso4"]),
        ("[]", vec![]),
    ] {
        let (code, answer) = put(&server, path, &format!("{{\"offloads\": {wanted}}}"));
        assert_eq!(code, 200, "{wanted}: {answer}");
        let shown: snapshot::Port = serde_json::from_str(&answer).unwrap();
        let expected: Vec<String> =
            offered.iter().map(|name| format!("VIRTIO_NET_F_{}", name.to_uppercase())).collect();
        assert_eq!(shown.guest.unwrap().offered, expected, "{wanted}");
    }
    let names = "csum, guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_ufo, guest_uso4, guest_uso6, host_tso4, \
                 host_tso6, host_ecn, host_ufo, host_uso";
    for (path, body, code, refused) in [
        (
            path,
            "{\"offloads\": \"on\"}",
            422,
            "offloads: unknown value \"on\" (allowed: auto, off), or an array of offloads",
        ),
        (
            path,
            "{\"offloads\": [\"csum\", \"tso\"]}",
            422,
            &format!("offloads: unknown value \"tso\" (allowed: {names})"),
        ),
        ("/v1/guests/vm9/offloads", "{\"offloads\": \"off\"}", 404, "no guest is called \"vm9\""),
        ("/v1/guests/wire0/offloads", "{\"offloads\": \"off\"}", 404, "no guest is called \"wire0\""),
    ] {
        let (answered, answer) = put(&server, path, body);
        assert_eq!((answered, error(&answer).as_str()), (code, refused), "{path} {body}");
    }
    for body in
        ["", "{}", "{\"offloads\": 1}", "{\"offloads\": [1]}", "{\"offloads\": \"off\", \"now\": true}"]
    {
        let (code, answer) = put(&server, path, body);
        assert_eq!(code, 400, "{body}");
        assert!(error(&answer).starts_with("the body is not {\"offloads\": "), "{answer}");
    }
    let (code, _, body) = get(&server, path);
    assert_eq!(code, 405);
    assert!(error(&body).ends_with(" (it takes: PUT)"), "{body}");
    let (_, _, body) = get(&server, "/v1/ports/vm1");
    let shown: snapshot::Port = serde_json::from_str(&body).unwrap();
    assert!(shown.guest.unwrap().offered.is_empty(), "nothing has changed");
}

/// What the made-up datapath says it was asked to add.
const ASKED: &str = "there is a port called SocketConfig { name: \"tap0\", kind: ";

#[test]
fn a_port_is_asked_for_by_interface() {
    let server = Server::start();
    let (code, answer) =
        put(&server, "/v1/ports/tap0", "{\"kind\": \"tap\", \"interface\": \"t0\", \"queues\": 2}");
    let asked = "Tap, interface: \"t0\", descriptors: [], queues: 2, user: None, group: None } [] already";
    assert_eq!((code, error(&answer)), (409, format!("{ASKED}{asked}")));
    for (path, body, code, refused) in [
        ("/v1/ports/none", "{\"kind\": \"tap\", \"interface\": \"t\"}", 422, "stands for no backend"),
        ("/v1/ports/x", "{\"kind\": \"tap\"}", 422, "interface is missing, and no descriptor came along"),
        ("/v1/ports/x", "{\"kind\": \"raw\", \"interface\": \"t\", \"queues\": 129}", 422, "from 1 to 128"),
        ("/v1/ports/x", "{\"kind\": \"bridge\"}", 400, "unknown variant"),
        ("/v1/ports/x", "{\"kind\": \"tap\", \"iface\": \"t\"}", 400, "unknown field"),
        ("/v1/ports/x", "", 400, "the body is not {\"kind\": "),
    ] {
        let (answered, answer) = put(&server, path, body);
        assert_eq!(answered, code, "{body}");
        assert!(error(&answer).contains(refused), "{answer}");
    }
}

#[test]
fn nics_and_guests_are_asked_for_with_the_keys_of_the_configuration() {
    let server = Server::start();
    let (code, answer) = put(
        &server,
        "/v1/ports/n0",
        "{\"kind\": \"nic\", \"device\": \"net_null0\", \"queues\": 2, \"mtu\": null, \"name\": \"n0\"}",
    );
    let asked = "there is a port called NicConfig { name: \"n0\", device: \"net_null0\", queues: 2, mtu: None, \
                 promiscuous: true, lro: false } already";
    assert_eq!((code, error(&answer).as_str()), (409, asked));
    let (code, answer) = put(
        &server,
        "/v1/ports/g0",
        "{\"kind\": \"guest\", \"socket\": \"/tmp/\\u007f\\\"g\", \"socket_mode\": \"0660\", \"backend\": \"wire1\", \
         \"fallback\": \"tap0\", \"offloads\": [\"csum\"], \"mac\": \"02:00:00:00:00:01\"}",
    );
    assert_eq!(code, 422, "{answer}");
    assert_eq!(
        error(&answer),
        "socket: has a control character (expected the path of a unix socket)",
        "DEL gets through to the check"
    );
    let (code, answer) = put(
        &server,
        "/v1/ports/g0",
        "{\"kind\": \"guest\", \"socket\": \"/tmp/\\\"g\", \"socket_mode\": \"0660\", \"backend\": \"wire1\", \
         \"fallback\": \"tap0\", \"offloads\": [\"csum\"], \"mac\": \"02:00:00:00:00:01\", \"assign\": {\"0\": 1}}",
    );
    assert_eq!(code, 409, "{answer}");
    for part in [
        "GuestConfig { name: \"g0\", socket: \"/tmp/\\\"g\", socket_mode: Some(432)",
        "queues: 1, assign: {0: 1}, backend: Some(\"wire1\"), fallback: Some(\"tap0\")",
        "mac: Some([2, 0, 0, 0, 0, 1]), mtu: None, offloads: 1 }",
    ] {
        assert!(error(&answer).contains(part), "{part}: {answer}");
    }
}

#[test]
fn what_is_wrong_with_a_nic_or_guest_is_said_by_key() {
    let server = Server::start();
    for (body, code, refused) in [
        ("{\"kind\": \"nic\"}", 422, "device: missing (a PCI address or vdev devargs)"),
        (
            "{\"kind\": \"nic\", \"device\": 3}",
            422,
            "device: expected a PCI address or vdev devargs, found the integer 3",
        ),
        (
            "{\"kind\": \"nic\", \"device\": \"a\", \"queues\": 0}",
            422,
            "queues: expected an integer from 1 to 128, found the integer 0",
        ),
        (
            "{\"kind\": \"nic\", \"device\": \"a\", \"mtu\": 1e30}",
            422,
            "mtu: expected an integer from 68 to 9600, found a TOML float",
        ),
        (
            "{\"kind\": \"nic\", \"device\": {\"a\": 1}}",
            422,
            "device: expected a PCI address or vdev devargs, found a TOML table",
        ),
        (
            "{\"kind\": \"nic\", \"device\": \"a\", \"socket\": \"b\"}",
            422,
            "socket: unknown key (allowed: name, device, queues, mtu, promiscuous, lro)",
        ),
        ("{\"kind\": \"nic\", \"device\": \"a\", \"name\": \"y\"}", 422, "name: the request is about x"),
        (
            "{\"kind\": \"nic\", \"device\": \"a\", \"a\\nb\": 1}",
            422,
            "\"a\\nb\": unknown key (allowed: name, device, queues, mtu, promiscuous, lro)",
        ),
        ("{\"kind\": \"guest\"}", 422, "socket: missing (the vhost-user socket's path)"),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"mode\": \"client\"}",
            422,
            "mode: \"client\" is not supported in this version (allowed: \"server\")",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"backend\": \"wire7\"}",
            422,
            "backend: no port has the name \"wire7\"; did you mean \"wire0\"? (allowed: wire0, wire1, tap0, vm1, vm2, vm3, none)",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"queues\": 2, \"assign\": {\"0\": 1, \"1\": 7}}",
            422,
            "assign.1: core 7 has no worker (allowed: 1)",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"assign\": {\"1\": 1}}",
            422,
            "assign.1: is no queue pair of the guest (allowed: 0)",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"assign\": {\"0\": {\"a\": null}}}",
            422,
            "assign.0: expected an integer from 0 to 65535, found a TOML table",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"backend\": \"x\"}",
            422,
            "backend: is the guest itself",
        ),
        (
            "{\"kind\": \"guest\", \"socket\": \"/s\", \"fallback\": \"vm1\"}",
            422,
            "fallback: no nic, tap or raw port has the name \"vm1\" (allowed: wire0, wire1, tap0)",
        ),
        (
            "{\"device\": \"a\"}",
            400,
            "the body is not {\"kind\": \"nic\"|\"guest\"|\"tap\"|\"raw\", ...}: invalid type: null, expected string or map",
        ),
    ] {
        let (answered, answer) = put(&server, "/v1/ports/x", body);
        assert_eq!((answered, error(&answer).as_str()), (code, refused), "{body}");
    }
}

#[test]
fn a_guest_cannot_have_the_socket_of_the_api() {
    let server = Server::start();
    let body = "{\"kind\": \"guest\", \"socket\": \"/run//ringwire/api.sock\"}";
    let (code, answer) = put(&server, "/v1/ports/x", body);
    let expected = "socket: same as that of the control API: each socket is listened on once";
    assert_eq!((code, error(&answer).as_str()), (409, expected));
}

#[test]
fn a_port_is_removed_if_nobody_needs_it() {
    let server = Server::start();
    let delete = |name: &str| {
        let (code, _, body) = ask(&server, &format!("DELETE /v1/ports/{name} HTTP/1.1\r\nHost: x\r\n\r\n"));
        (code, body)
    };
    let (code, body) = delete("vm1");
    let port: snapshot::Port = serde_json::from_str(&body).unwrap();
    assert_eq!((code, port.name.as_str()), (200, "vm1"));
    let (code, body) = delete("wire0");
    assert_eq!(
        (code, error(&body).as_str()),
        (409, "wire0 is the backend of vm1: give that another one first")
    );
    let (code, body) = delete("vm9");
    assert_eq!((code, error(&body).as_str()), (404, "no port is called \"vm9\""));
}

#[test]
fn descriptors_come_along_with_a_request() {
    let server = Server::start();
    let body = "{\"kind\": \"raw\"}";
    let request =
        format!("PUT /v1/ports/tap0 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let stream = UnixStream::connect(server.socket()).unwrap();
    let files = [std::fs::File::open("/dev/null").unwrap(), std::fs::File::open("/dev/zero").unwrap()];
    let fds = files.each_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let pieces = [std::io::IoSlice::new(request.as_bytes())];
    assert_eq!(sendmsg(&stream, &pieces, &mut ancillary, SendFlags::empty()).unwrap(), request.len());
    let (code, _, answer) = read_answer(&mut { stream });
    let asked = "Raw, interface: \"\", descriptors: [], queues: 2, user: None, group: None } \
                 [\"/dev/null\", \"/dev/zero\"] already";
    assert_eq!((code, error(&answer)), (409, format!("{ASKED}{asked}")));
}

#[test]
fn metrics_are_in_prometheus_text_format() {
    let server = Server::start();
    let (code, head, body) = get(&server, "/metrics");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for line in [
        "# TYPE ringwire_port_rx_packets_total counter",
        "ringwire_build_info{version=\"0.1.0\"} 1",
        "ringwire_uptime_seconds 11533.25",
        "ringwire_worker_rounds_total{worker=\"worker:1\",state=\"busy\"} 1500",
        "ringwire_port_state{port=\"vm2\",kind=\"guest\",state=\"broken\"} 1",
        "ringwire_port_rx_packets_total{port=\"wire0\",kind=\"nic\"} 1200300",
        "ringwire_port_tx_bytes_total{port=\"vm1\",kind=\"guest\"} 1733550000",
        "ringwire_port_held_packets{port=\"vm2\",kind=\"guest\"} 32",
        "ringwire_port_drops_total{port=\"wire0\",kind=\"nic\",reason=\"guest-full\"} 300",
        "ringwire_queue_broken{port=\"vm2\",queue=\"1\"} 1",
        "ringwire_worker_seconds_total{worker=\"worker:1\",state=\"busy\"} 0.0003",
        "ringwire_worker_cycles_total{worker=\"worker:1\",state=\"idle\"} 150000",
        "ringwire_worker_packets_total{worker=\"worker:1\"} 2400",
        "ringwire_port_rx_frame_size_bytes_bucket{port=\"vm2\",kind=\"guest\",le=\"127\"} 60",
        "ringwire_port_rx_frame_size_bytes_bucket{port=\"vm2\",kind=\"guest\",le=\"+Inf\"} 64",
        "ringwire_port_rx_frame_size_bytes_sum{port=\"vm2\",kind=\"guest\"} 4352",
        "ringwire_pair_rx_bursts_total{port=\"vm2\",kind=\"guest\",pair=\"0\"} 2",
        "ringwire_pair_tx_held_seconds_total{port=\"vm2\",kind=\"guest\",pair=\"0\"} 0.0015",
        "ringwire_nic_link_speed_bytes{port=\"wire0\"} 1250000000",
        "ringwire_nic_device_total{port=\"wire0\",counter=\"imissed\"} 5",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}\nis not in\n{body}");
    }
    // Each family is announced once, before its samples, and nothing else is there.
    let (mut family, mut histogram) = (String::new(), false);
    let mut announced = std::collections::HashSet::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(announced.insert(family.clone()), "{family} is announced twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            histogram = kind == "histogram";
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let name = labelled.split('{').next().unwrap();
            let part = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(if histogram { ["_bucket", "_sum", "_count"].contains(&part) } else { part.is_empty() });
            value.parse::<f64>().expect(line);
        }
    }
}

#[test]
fn prometheus_finds_nothing_to_say_about_the_metrics() {
    let mut command = std::process::Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let Ok(mut promtool) = command.stderr(std::process::Stdio::piped()).spawn() else {
        println!("skipped: promtool (Debian: prometheus) is not installed");
        return;
    };
    let (_, _, body) = get(&Server::start(), "/metrics");
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "{text}");
}

#[test]
fn label_values_are_escaped() {
    let server = Server::with(|| {
        let mut status = common::status();
        status.ports[0].drops.insert("a\"b\\c\nd".into(), 1);
        status
    });
    let (_, _, body) = get(&server, "/metrics");
    assert!(body.contains(r#"reason="a\"b\\c\nd"} 1"#), "{body}");
}

#[test]
fn a_huge_header_a_huge_body_and_rubbish_are_refused() {
    let server = Server::start();
    let huge = "x".repeat(2 * api::HEADER_BYTES);
    let (code, _, _) = ask(&server, &format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {huge}\r\n\r\n"));
    assert_eq!(code, 431);
    let (code, _, _) = ask(&server, &format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(code == 414 || code == 431, "{code}");
    let many = "A: b\r\n".repeat(1000);
    let (code, _, _) = ask(&server, &format!("GET /v1/status HTTP/1.1\r\n{many}\r\n"));
    assert_eq!(code, 431);
    let body = "x".repeat(1 << 20);
    let request = format!("POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{body}");
    let (code, _, body) = ask(&server, &request);
    assert_eq!(code, 405);
    error(&body);
    let (code, _, _) = ask(&server, "\u{0}\u{1}\r\n\r\n");
    assert_eq!(code, 400);
    assert_eq!(get(&server, "/v1/status").0, 200);
}

#[test]
fn slow_clients_delay_nobody_else() {
    let server = Server::start();
    let half = "GET /v1/status HTTP/1.1\r\nHost:";
    let connect = || UnixStream::connect(server.socket()).unwrap();
    let mut slow: Vec<UnixStream> = (0..api::MAX_CONNECTIONS - 8).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(half.as_bytes()).unwrap();
    }
    let began = Instant::now();
    assert_eq!(get(&server, "/v1/status").0, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // With every place taken, the next client waits for the slow ones to be shown the door.
    slow.extend((0..8).map(|_| connect()));
    assert_eq!(get(&server, "/v1/status").0, 200);
    assert!(began.elapsed() < api::HEADER_TIME + Duration::from_secs(2), "{:?}", began.elapsed());
    slow[0].set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert_ne!(read_answer(&mut slow[0]).0, 200);
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    // More than the socket's buffers hold.
    let server = Server::with(|| {
        let mut status = common::status();
        status.version = "x".repeat(4 << 20);
        status
    });
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(api::CONNECTION_TIME + Duration::from_secs(1));
    let (code, _, body) = read_answer(&mut stream);
    assert_eq!(code, 200);
    assert!(body.len() < 4 << 20, "the rest was not sent: {}", body.len());
}

#[test]
fn a_datapath_that_hangs_is_said_to() {
    let server = Server::with(|| {
        std::thread::sleep(Duration::from_secs(8));
        common::status()
    });
    let (code, _, body) = get(&server, "/v1/status");
    assert_eq!((code, error(&body).as_str()), (503, "the datapath did not answer within 3s"));
}

#[test]
fn workers_are_shown_asked_for_and_assigned() {
    let server = Server::start();
    let (code, _, body) = get(&server, "/v1/workers");
    let mut workers: Vec<snapshot::Worker> = serde_json::from_str(&body).unwrap();
    workers.iter_mut().for_each(|worker| worker.rates = None);
    assert_eq!((code, &workers), (200, &common::status().workers));
    let (code, _, body) = get(&server, "/v1/workers/1");
    let worker: snapshot::Worker = serde_json::from_str(&body).unwrap();
    assert_eq!((code, worker.core), (200, 1));
    let assign = "/v1/guests/vm1/queues/0/worker";
    for (method, path, body, code, refused) in [
        ("GET", "/v1/workers/7", "", 404, "core 7 has no worker"),
        ("PUT", "/v1/workers/1", "", 409, "core 1 has a worker already"),
        ("PUT", "/v1/workers/7", "", 422, "this process may not run on core 7 (allowed: 1)"),
        ("PUT", "/v1/workers/-1", "", 400, "\"-1\" is no number of a core"),
        ("DELETE", "/v1/workers/1", "", 409, "core 1 has the last worker: add another one first"),
        ("DELETE", "/v1/workers/7", "", 404, "core 7 has no worker"),
        (
            "POST",
            "/v1/workers/1",
            "",
            405,
            "POST does nothing with /v1/workers/1 (it takes: GET, PUT, DELETE)",
        ),
        ("PUT", "/v1/workers", "", 405, "PUT does nothing with /v1/workers (it takes: GET)"),
        ("PUT", assign, "{\"core\": 7}", 404, "core 7 has no worker"),
        ("PUT", "/v1/guests/vm9/queues/0/worker", "{\"core\": 1}", 404, "no guest is called \"vm9\""),
        (
            "PUT",
            "/v1/guests/vm1/queues/9/worker",
            "{\"core\": 1}",
            404,
            "vm1 has no queue pair 9: it has 3, from 0 on",
        ),
        ("DELETE", "/v1/guests/vm1/queues/9/worker", "", 404, "vm1 has no queue pair 9: it has 3, from 0 on"),
        ("DELETE", "/v1/guests/vm1/queues/-/worker", "", 400, "\"-\" is no number of a queue pair"),
        ("PUT", "/v1/guests/vm1/queues/x/worker", "{\"core\": 1}", 400, "\"x\" is no number of a queue pair"),
        (
            "GET",
            assign,
            "",
            405,
            "GET does nothing with /v1/guests/vm1/queues/0/worker (it takes: PUT, DELETE)",
        ),
        ("DELETE", "/v1/idle", "", 405, "DELETE does nothing with /v1/idle (it takes: GET, PUT)"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let (answered, _, answer) = ask(&server, &(head + body));
        assert_eq!((answered, error(&answer).as_str()), (code, refused), "{method} {path} {body}");
    }
    for (path, moved) in [(assign, vec!["vm1:0", "vm1:2"]), ("/v1/guests/vm1/queues/1/worker", Vec::new())] {
        let (code, answer) = put(&server, path, "{\"core\": 1}");
        let answer: snapshot::Assigned = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (code, answer.core, answer.moved),
            (200, Some(1), moved.iter().map(ToString::to_string).collect())
        );
    }
    let (code, answer) = send(&server, "DELETE", assign, "");
    let answer: snapshot::Assigned = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, answer.core, answer.moved), (200, None, Vec::new()));
    for body in ["", "{}", "1", "{\"core\": -1}", "{\"core\": 1, \"now\": true}"] {
        let (code, answer) = put(&server, assign, body);
        assert_eq!(code, 400, "{body}");
        assert!(error(&answer).starts_with("the body is not {\"core\": N}: "), "{answer}");
    }
}

#[test]
fn workers_without_work_do_as_they_are_told() {
    let server = Server::start();
    let shown = |(code, body): (u16, String)| {
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<snapshot::IdleMode>(&body).unwrap().idle
    };
    let now = || {
        let (code, _, body) = get(&server, "/v1/idle");
        shown((code, body))
    };
    assert_eq!(now(), snapshot::Idle::Poll);
    assert_eq!(shown(put(&server, "/v1/idle", "{\"idle\": \"adaptive\"}")), snapshot::Idle::Adaptive);
    assert_eq!(now(), snapshot::Idle::Adaptive);
    let (code, answer) = put(&server, "/v1/idle", "{\"idle\": \"sleepy\"}");
    assert_eq!(code, 400);
    let shape = "the body is not {\"idle\": \"poll\"|\"adaptive\"}: ";
    assert!(error(&answer).starts_with(shape), "{answer}");
    assert_eq!(now(), snapshot::Idle::Adaptive);
}

/// Status code and error of the answer to `POST /v1/captures` with `body`.
fn capture(server: &Server, body: &str) -> (u16, String) {
    let head =
        format!("POST /v1/captures HTTP/1.1\r\nHost: ringwire\r\nContent-Length: {}\r\n\r\n", body.len());
    let (code, _, answer) = ask(server, &(head + body));
    (code, error(&answer))
}

#[test]
fn a_capture_is_asked_for_in_json() {
    let server = Server::start();
    let (code, asked) = capture(&server, r#"{"port": "vm1", "queue": 1, "direction": "tx", "snaplen": 60}"#);
    let wanted = "Wanted { port: \"vm1\", queue: Some(1), direction: Some(Tx), filter: None, snaplen: 60 }";
    assert_eq!((code, asked), (404, format!("no port is called {wanted:?}")));
    // The longest filter there may be is more than any other request may have.
    let filter = |count| {
        format!(r#"{{"port": "vm1", "filter": [{}]}}"#, vec!["[22, 255, 255, 4294967295]"; count].join(","))
    };
    let (code, asked) = capture(&server, &filter(4096));
    assert!(code == 404 && asked.contains("filter: Some(Program("), "{code} {}", &asked[..80]);
    let problem = "a filter has from 1 to 4096 instructions, not 4097";
    assert_eq!(capture(&server, &filter(4097)), (422, problem.to_owned()));
    assert_eq!(capture(&server, &filter(20_000)).0, 413);
    for (method, path, problem) in [
        ("GET", "/v1/captures", "GET does nothing with /v1/captures (it takes: POST)"),
        ("GET", "/v1/captures/1", "GET does nothing with /v1/captures/1 (it takes: DELETE)"),
        ("DELETE", "/v1/captures/1", "no capture has number 1"),
    ] {
        let (_, _, body) = ask(&server, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(error(&body), problem);
    }
}

//! Ports that come and go.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{error, put, read_answer, refused, send};
use crate::common::Server;

/// What the made-up datapath says it was asked to add.
const ASKED: &str = "there is a port called SocketConfig { name: \"tap0\", kind: ";

#[test]
fn a_port_is_asked_for_by_interface() {
    let server = Server::start();
    let (code, answer) =
        put(&server, "/v1/ports/tap0", "{\"kind\": \"tap\", \"interface\": \"t0\", \"queues\": 2}");
    let asked = "Tap, interface: \"t0\", descriptors: [], queues: 2, user: None, group: None } [] already";
    assert_eq!((code, error(&answer)), (409, format!("{ASKED}{asked}")));
    for (path, body, code, why) in [
        ("/v1/ports/none", "{\"kind\": \"tap\", \"interface\": \"t\"}", 422, "stands for no backend"),
        ("/v1/ports/x", "{\"kind\": \"tap\"}", 422, "interface is missing, and no descriptor came along"),
        ("/v1/ports/x", "{\"kind\": \"raw\", \"interface\": \"t\", \"queues\": 129}", 422, "from 1 to 128"),
        ("/v1/ports/x", "{\"kind\": \"bridge\"}", 400, "unknown variant"),
        ("/v1/ports/x", "{\"kind\": \"tap\", \"iface\": \"t\"}", 400, "unknown field"),
        ("/v1/ports/x", "", 400, "the body is not {\"kind\": "),
    ] {
        let (answered, said) = refused(&server, "PUT", path, body);
        assert_eq!(answered, code, "{body}");
        assert!(said.contains(why), "{said}");
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
    for (body, code, why) in [
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
        assert_eq!(refused(&server, "PUT", "/v1/ports/x", body), (code, why.to_owned()), "{body}");
    }
}

#[test]
fn a_guest_cannot_have_the_socket_of_the_api() {
    let server = Server::start();
    let body = "{\"kind\": \"guest\", \"socket\": \"/run//ringwire/api.sock\"}";
    let why = "socket: same as that of the control API: each socket is listened on once";
    assert_eq!(refused(&server, "PUT", "/v1/ports/x", body), (409, why.to_owned()));
}

#[test]
fn a_port_is_removed_if_nobody_needs_it() {
    let server = Server::start();
    let (code, body) = send(&server, "DELETE", "/v1/ports/vm1", "");
    let port: snapshot::Port = serde_json::from_str(&body).unwrap();
    assert_eq!((code, port.name.as_str()), (200, "vm1"));
    for (path, code, why) in [
        ("/v1/ports/wire0", 409, "wire0 is the backend of vm1: give that another one first"),
        ("/v1/ports/vm9", 404, "no port is called \"vm9\""),
    ] {
        assert_eq!(refused(&server, "DELETE", path, ""), (code, why.to_owned()));
    }
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

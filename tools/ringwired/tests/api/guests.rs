//! Backends and offloads of guests.

use ringwired::api;

use super::{error, get, put, refused};
use crate::common::Server;

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
    for (path, body, code, why) in [
        ("/v1/guests/vm9/backend", body("wire1"), 404, "no guest is called \"vm9\""),
        ("/v1/guests/wire0/backend", body("wire1"), 404, "no guest is called \"wire0\""),
        ("/v1/guests/vm1/backend", body("wire9"), 422, "no port is called \"wire9\""),
        ("/v1/guests/vm1/backend", body("vm1"), 422, "guest vm1 cannot be its own backend"),
        ("/v1/guests/vm2/backend", body("wire0"), 409, "wire0 is the backend of vm1 already"),
    ] {
        assert_eq!(refused(&server, "PUT", path, &body), (code, why.to_owned()), "{path} {body}");
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
    for (path, body, code, why) in [
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
        assert_eq!(refused(&server, "PUT", path, body), (code, why.to_owned()), "{path} {body}");
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

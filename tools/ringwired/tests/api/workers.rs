//! Workers, and what they are assigned.

use super::{error, get, put, refused, send};
use crate::common::{self, Server};

#[test]
fn workers_are_shown() {
    let server = Server::start();
    let (code, _, body) = get(&server, "/v1/workers");
    let mut workers: Vec<snapshot::Worker> = serde_json::from_str(&body).unwrap();
    workers.iter_mut().for_each(|worker| worker.rates = None);
    assert_eq!((code, &workers), (200, &common::status().workers));
    let (code, _, body) = get(&server, "/v1/workers/1");
    let worker: snapshot::Worker = serde_json::from_str(&body).unwrap();
    assert_eq!((code, worker.core), (200, 1));
}

/// Of the first queue pair of vm1.
const ASSIGN: &str = "/v1/guests/vm1/queues/0/worker";

#[test]
fn what_cannot_be_is_refused_in_json() {
    let server = Server::start();
    for (method, path, body, code, why) in [
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
        ("PUT", ASSIGN, "{\"core\": 7}", 404, "core 7 has no worker"),
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
            ASSIGN,
            "",
            405,
            "GET does nothing with /v1/guests/vm1/queues/0/worker (it takes: PUT, DELETE)",
        ),
        ("DELETE", "/v1/idle", "", 405, "DELETE does nothing with /v1/idle (it takes: GET, PUT)"),
    ] {
        let answer = refused(&server, method, path, body);
        assert_eq!(answer, (code, why.to_owned()), "{method} {path} {body}");
    }
}

#[test]
fn a_queue_pair_is_assigned_and_that_is_taken_back() {
    let server = Server::start();
    for (path, moved) in [(ASSIGN, vec!["vm1:0", "vm1:2"]), ("/v1/guests/vm1/queues/1/worker", Vec::new())] {
        let (code, answer) = put(&server, path, "{\"core\": 1}");
        let answer: snapshot::Assigned = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (code, answer.core, answer.moved),
            (200, Some(1), moved.iter().map(ToString::to_string).collect())
        );
    }
    let (code, answer) = send(&server, "DELETE", ASSIGN, "");
    let answer: snapshot::Assigned = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, answer.core, answer.moved), (200, None, Vec::new()));
    for body in ["", "{}", "1", "{\"core\": -1}", "{\"core\": 1, \"now\": true}"] {
        let (code, answer) = put(&server, ASSIGN, body);
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

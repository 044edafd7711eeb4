//! What runs as a file, reloads, the log.

use ringwired::config::Config;
use serde_json::Value;

use super::{ask, error, get, send, shown};
use crate::common::{self, Server};

#[test]
fn the_configuration_is_a_file_that_can_be_read() {
    let server = Server::start();
    let body = shown(&server, "/v1/config", "text/toml");
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

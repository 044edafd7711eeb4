//! Captures: how they are asked for.

use super::refused;
use crate::common::Server;

fn capture(server: &Server, body: &str) -> (u16, String) {
    refused(server, "POST", "/v1/captures", body)
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
        assert_eq!(refused(&server, method, path, "").1, problem);
    }
}

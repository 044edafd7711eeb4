//! The control API as `curl` sees it, and as a client that means harm.

mod captures;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod guests;
mod metrics;
mod ports;
mod status;
mod workers;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::Server;
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

/// What is shown under `path`, as a text of this type.
fn shown(server: &Server, path: &str, content_type: &str) -> String {
    let (code, head, body) = get(server, path);
    assert_eq!(code, 200, "{path}: {body}");
    assert!(head.contains(&format!("content-type: {content_type}")), "{head}");
    body
}

/// Status code and body of the answer to `METHOD path` with `body`.
fn send(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let (code, _, answer) = ask(server, &(head + body));
    (code, answer)
}

fn put(server: &Server, path: &str, body: &str) -> (u16, String) {
    send(server, "PUT", path, body)
}

/// Status code and error of the answer, which is one.
fn refused(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let (code, answer) = send(server, method, path, body);
    (code, error(&answer))
}

fn error(body: &str) -> String {
    let body: Value = serde_json::from_str(body).expect(body);
    body["error"].as_str().unwrap().to_owned()
}

//! Clients that are slow, stuck or hostile, and a datapath that is.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringwired::api;

use super::{ask, error, get, read_answer};
use crate::common::{self, Server};

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

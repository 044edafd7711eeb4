//! What there is.

use std::time::{Duration, Instant};

use super::{ask, error, get, shown};
use crate::common::{self, Server};

#[test]
fn status_and_ports_are_the_snapshot() {
    let server = Server::start();
    let json = |path| shown(&server, path, "application/json");
    let assert_same = |mut status: snapshot::Status| {
        common::strip_rates(&mut status);
        assert_eq!(status, common::status());
    };
    let mut status: snapshot::Status = serde_json::from_str(&json("/v1/status")).unwrap();
    assert_same(status.clone());
    status.ports = serde_json::from_str(&json("/v1/ports")).unwrap();
    assert_same(status.clone());
    status.ports[2] = serde_json::from_str(&json("/v1/ports/vm1")).unwrap();
    assert_same(status);
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

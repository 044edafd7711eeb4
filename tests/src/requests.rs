//! Many requests a second to a daemon's API: good ones, and those that a broken or hostile client makes. Each must be
//! answered as it should be.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Clients at a time.
const CLIENTS: u32 = 4;
/// An answer has this long.
const LIMIT: Duration = Duration::from_secs(10);

/// A kind of request.
struct Kind {
    name: &'static str,
    request: Vec<u8>,
    /// The answer's status code; `None` if the client goes before there can be an answer.
    code: Option<u16>,
}

/// All kinds, in the order in which they are sent; `guest` has `backend` for its backend, and keeps it.
fn kinds(guest: &str, backend: &str) -> Vec<Kind> {
    let kind = |name, request: String, code| Kind { name, request: request.into_bytes(), code };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let put = |body: &str| {
        let length = body.len();
        format!(
            "PUT /v1/guests/{guest}/backend HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let long = "x".repeat(32 * 1024);
    vec![
        kind("status", get("/v1/status"), Some(200)),
        kind("ports", get("/v1/ports"), Some(200)),
        kind("a port", get(&format!("/v1/ports/{guest}")), Some(200)),
        kind("metrics", get("/metrics"), Some(200)),
        kind("description", get("/v1/openapi.json"), Some(200)),
        kind("the same backend", put(&format!("{{\"backend\": {backend:?}}}")), Some(200)),
        kind("no port", get("/v1/ports/nobody"), Some(404)),
        kind("no path", get("/v2"), Some(404)),
        kind("no method", "BREW /v1/status HTTP/1.1\r\nHost: x\r\n\r\n".into(), Some(405)),
        kind("no JSON", put("{\"backend\": "), Some(400)),
        kind("long body", put(&long), Some(413)),
        kind("long header", format!("GET /v1/status HTTP/1.1\r\nX: {long}\r\n\r\n"), Some(431)),
        kind("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".into(), Some(400)),
        kind("half a request", "GET /v1/status HTTP/1.1\r\nHo".into(), None),
        kind("nothing", String::new(), None),
    ]
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests by kind.
    pub sent: BTreeMap<&'static str, u64>,
    /// What was not answered as it should be.
    pub wrong: Vec<String>,
    /// The slowest answer.
    pub slowest: Duration,
    /// How long it all took.
    pub took: Duration,
}

impl Tally {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.sent.values().sum()
    }

    /// As many as were made in a second.
    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.took.as_secs_f64()
    }

    /// Adds what came of others.
    pub fn add(&mut self, other: Tally) {
        for (kind, count) in other.sent {
            *self.sent.entry(kind).or_default() += count;
        }
        self.wrong.extend(other.wrong);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Makes `total` requests to the API on `socket`, `rate` a second, or as many as it answers. `guest` has `backend` for
/// its backend, and keeps it.
pub fn make(socket: &Path, total: u32, rate: u32, (guest, backend): (&str, &str)) -> Tally {
    let kinds = kinds(guest, backend);
    let began = Instant::now();
    let client = |first: u32| {
        let mut tally = Tally::default();
        for number in (first..total).step_by(CLIENTS as usize) {
            let due = began + Duration::from_secs(1) * number / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let kind = &kinds[number as usize % kinds.len()];
            let asked = Instant::now();
            if let Err(wrong) = ask(socket, kind) {
                tally.wrong.push(format!("{}: {wrong}", kind.name));
            }
            tally.slowest = tally.slowest.max(asked.elapsed());
            *tally.sent.entry(kind.name).or_default() += 1;
        }
        tally
    };
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|first| scope.spawn(move || client(first))).collect();
        clients.into_iter().for_each(|client| tally.add(client.join().expect("a client")));
    });
    tally.took = began.elapsed();
    tally
}

fn ask(socket: &Path, kind: &Kind) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    // The daemon may answer and close before it has read everything.
    let _ = stream.write_all(&kind.request);
    let Some(code) = kind.code else { return Ok(()) };
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..length]);
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer but {text:?}"))?;
    if !head.starts_with(&format!("HTTP/1.1 {code} ")) {
        return Err(format!("not {code}: {head}"));
    }
    // A whole answer: the length it says it has.
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    match length == Some(body.len()) {
        true => Ok(()),
        false => Err(format!("{} bytes of {length:?}", body.len())),
    }
}

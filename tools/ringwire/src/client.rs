//! One HTTP request over the control API's unix socket.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use snapshot::ErrorBody;
use tokio::net::UnixStream;

use crate::descriptors::Connection;

/// The whole request must be done after this time.
const TIME: Duration = Duration::from_secs(10);
/// Longest answer; 128 guests with 256 queues each stay far below.
const ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon answered that it will not.
    #[error("{0}")]
    Refused(String),
    /// The daemon cannot be reached or does not speak our language.
    #[error("cannot reach ringwired on {}: {problem}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What is wrong, and what to check.
        problem: String,
    },
}

impl ClientError {
    /// The answer is none of ours.
    pub fn not_understood(socket: &Path, error: &serde_json::Error) -> ClientError {
        let problem = format!("its answer is not what this version understands ({error}): compare --version");
        ClientError::Unreachable { socket: socket.to_owned(), problem }
    }
}

/// What the body of an answer may be.
const JSON: &str = "application/json";

/// The body of the answer to `GET path`.
pub fn get(socket: &Path, path: &str) -> Result<String, ClientError> {
    get_as(socket, path, JSON)
}

/// Likewise, as another type.
pub fn get_as(socket: &Path, path: &str, accept: &str) -> Result<String, ClientError> {
    request(socket, Method::GET, path, accept, Bytes::new(), Vec::new())
}

/// The body of the answer to `DELETE path`.
pub fn delete(socket: &Path, path: &str) -> Result<String, ClientError> {
    request(socket, Method::DELETE, path, JSON, Bytes::new(), Vec::new())
}

/// The body of the answer to `PUT path` with `body` as JSON; `fds` go along.
pub fn put(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
    fds: Vec<OwnedFd>,
) -> Result<String, ClientError> {
    request(socket, Method::PUT, path, JSON, encoded(body)?, fds)
}

/// The body of the answer to `POST path` with `body` as JSON.
pub fn post(socket: &Path, path: &str, body: &impl Serialize) -> Result<String, ClientError> {
    request(socket, Method::POST, path, JSON, encoded(body)?, Vec::new())
}

/// The answer to `POST path` with `body` as JSON, of which only the head has come: what it accepts may take any time.
pub async fn ask(
    socket: &Path,
    path: &str,
    accept: &str,
    body: &impl Serialize,
) -> Result<Response<Incoming>, ClientError> {
    let request = prepared(Method::POST, path, accept, encoded(body)?)?;
    let unreachable = |problem| ClientError::Unreachable { socket: socket.to_owned(), problem };
    let answer = in_time(send(socket, request, Vec::new())).await.map_err(unreachable)?;
    let code = answer.status();
    if code.is_success() {
        return Ok(answer);
    }
    let body = in_time(text(answer)).await.map_err(unreachable)?;
    Err(refusal(&format!("POST {path}"), code, &body))
}

/// As [`delete`], for those who wait for something else meanwhile.
pub async fn delete_beside(socket: &Path, path: &str) -> Result<(), ClientError> {
    let request = prepared(Method::DELETE, path, JSON, Bytes::new())?;
    let unreachable = |problem| ClientError::Unreachable { socket: socket.to_owned(), problem };
    let (code, body) = in_time(exchange(socket, request, Vec::new())).await.map_err(unreachable)?;
    if code.is_success() { Ok(()) } else { Err(refusal(&format!("DELETE {path}"), code, &body)) }
}

fn encoded(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| ClientError::Refused(error.to_string()))
}

fn prepared(
    method: Method,
    path: &str,
    accept: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "ringwire")
        .header(header::CONTENT_TYPE, JSON)
        .header(header::ACCEPT, accept)
        .header(header::TE, "trailers")
        .body(Full::new(body))
        .map_err(|error| ClientError::Refused(error.to_string()))
}

fn request(
    socket: &Path,
    method: Method,
    path: &str,
    accept: &str,
    body: Bytes,
    fds: Vec<OwnedFd>,
) -> Result<String, ClientError> {
    let asked = format!("{method} {path}");
    let request = prepared(method, path, accept, body)?;
    let unreachable = |problem| ClientError::Unreachable { socket: socket.to_owned(), problem };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(format!("no event loop: {error}")))?;
    let (code, body) = runtime.block_on(in_time(exchange(socket, request, fds))).map_err(unreachable)?;
    if code.is_success() { Ok(body) } else { Err(refusal(&asked, code, &body)) }
}

/// What there is within [`TIME`].
async fn in_time<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("it took the connection but did not answer within {TIME:?}"));
    tokio::time::timeout(TIME, answer).await.unwrap_or_else(late)
}

fn refusal(asked: &str, code: StatusCode, body: &str) -> ClientError {
    match serde_json::from_str(body) {
        Ok(ErrorBody { error }) => ClientError::Refused(error),
        Err(_) => ClientError::Refused(format!("ringwired answered {asked} with {code}")),
    }
}

async fn exchange(
    socket: &Path,
    request: Request<Full<Bytes>>,
    fds: Vec<OwnedFd>,
) -> Result<(StatusCode, String), String> {
    let answer = send(socket, request, fds).await?;
    Ok((answer.status(), text(answer).await?))
}

/// The head of the answer; its body is still to come.
async fn send(
    socket: &Path,
    request: Request<Full<Bytes>>,
    fds: Vec<OwnedFd>,
) -> Result<Response<Incoming>, String> {
    let not_http = |error: hyper::Error| format!("what answers there is not ringwired: {error}");
    let stream = UnixStream::connect(socket).await.map_err(|error| cannot_connect(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(Connection::new(stream, fds)))
            .await
            .map_err(not_http)?;
    // Its errors come out of the request as well.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(not_http)
}

async fn text(answer: Response<Incoming>) -> Result<String, String> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
    String::from_utf8(body.into()).map_err(|_| "the answer is not text".to_owned())
}

fn cannot_connect(error: &io::Error) -> String {
    let check = "--api SOCKET or RINGWIRE_API names another";
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "the socket does not exist: is ringwired running, and does [api] in its configuration name \
             this socket? ({check})"
        ),
        io::ErrorKind::ConnectionRefused => {
            "the socket is there but nobody listens: ringwired has stopped or died, see its log".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: be root or in the group that [api] in its configuration names".to_owned()
        }
        io::ErrorKind::WouldBlock => "it is busy with too many other clients: try again".to_owned(),
        _ => format!("{error} ({check})"),
    }
}

/// `text` as one element of a URL's path.
pub fn path_element(text: &str) -> String {
    let mut element = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => element.push(byte.into()),
            _ => element.push_str(&format!("%{byte:02X}")),
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_fails_is_explained() {
        let problem = |kind: io::ErrorKind| cannot_connect(&kind.into());
        assert!(problem(io::ErrorKind::NotFound).starts_with("the socket does not exist"));
        assert!(problem(io::ErrorKind::ConnectionRefused).contains("nobody listens"));
        assert!(problem(io::ErrorKind::PermissionDenied).contains("in the group"));
        assert!(problem(io::ErrorKind::WouldBlock).contains("try again"));
        assert!(problem(io::ErrorKind::NotADirectory).contains("not a directory"));
    }

    #[test]
    fn any_text_is_one_path_element() {
        assert_eq!(path_element("a-Z_0.9"), "a-Z_0.9");
        assert_eq!(path_element("a/b ?#%ü"), "a%2Fb%20%3F%23%25%C3%BC");
    }
}

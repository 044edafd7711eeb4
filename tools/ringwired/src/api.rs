//! The control API: HTTP/JSON on a unix socket.
//!
//! One request a connection, each within fixed bounds of time and size, so that a client that is slow,
//! stuck or hostile costs nobody else more than one of [`MAX_CONNECTIONS`] places for
//! [`CONNECTION_TIME`].

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use snapshot::{ErrorBody, Status};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::metrics;
use crate::rates::Sampler;
use crate::socket::ApiSocket;

/// Connections served at a time; others wait in the socket's backlog.
pub const MAX_CONNECTIONS: usize = 64;
/// A connection is closed this long after it was accepted, whatever it is doing.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The request line and headers must be here after this time.
pub const HEADER_TIME: Duration = Duration::from_secs(3);
/// Request line and headers may be this long. Bodies are not read at all.
pub const HEADER_BYTES: usize = 16 * 1024;
/// The datapath must have answered after this time.
const STATUS_TIME: Duration = Duration::from_secs(3);
/// Rates are over this interval.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What the datapath looks like now. May block: it is called off the API's own thread.
pub type Source = Arc<dyn Fn() -> Status + Send + Sync>;

#[derive(Clone)]
struct Api {
    source: Source,
    sampler: Arc<Mutex<Sampler>>,
}

/// An answer that is an error.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, json(&ErrorBody { error: self.1 })).into_response()
    }
}

/// Serves `source` on `socket` until the future is dropped.
pub async fn serve(socket: &ApiSocket, source: Source) -> Infallible {
    let api = Api { source, sampler: Arc::default() };
    let (never, _) = tokio::join!(sample(api.clone()), accept(socket, router(api)));
    never
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ports", get(ports))
        .route("/v1/ports/{name}", get(port))
        .route("/metrics", get(prometheus))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

async fn sample(api: Api) -> Infallible {
    let mut tick = tokio::time::interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let source = api.source.clone();
        let taken = tokio::task::spawn_blocking(move || (source(), Instant::now())).await;
        if let Ok((status, at)) = taken {
            api.sampler().sample(at, &status);
        }
    }
}

async fn accept(socket: &ApiSocket, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    loop {
        // The semaphore is never closed, so there always is a permit in the end.
        let place = places.clone().acquire_owned().await;
        match socket.accept().await {
            Ok(stream) => {
                failing = false;
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Most likely out of file descriptors: wait for some to come back, and say it once.
                if !failing {
                    let socket = socket.path().display();
                    tracing::warn!("API socket {socket}: cannot accept a client: {error}");
                }
                failing = true;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("API client: {error}"),
        Err(_) => tracing::debug!("API client: closed after {CONNECTION_TIME:?}"),
    }
}

impl Api {
    fn sampler(&self) -> std::sync::MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The datapath as it is now, with rates.
    async fn status(&self) -> Result<Status, Refusal> {
        let source = self.source.clone();
        let answer = tokio::task::spawn_blocking(move || source());
        match tokio::time::timeout(STATUS_TIME, answer).await {
            Ok(Ok(mut status)) => {
                self.sampler().annotate(&mut status);
                Ok(status)
            }
            Ok(Err(error)) => {
                let text = format!("the datapath could not be looked at: {error}");
                Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
            Err(_) => {
                let text = format!("the datapath did not answer within {STATUS_TIME:?}");
                Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    }
}

/// Indented, so that `curl` alone is readable and `ringwire --json` can print it as it came.
fn json(body: &impl serde::Serialize) -> Response {
    match serde_json::to_string_pretty(body) {
        Ok(mut text) => {
            text.push('\n');
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?))
}

async fn ports(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?.ports))
}

async fn port(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let ports = api.status().await?.ports;
    match ports.iter().find(|port| port.name == name) {
        Some(port) => Ok(json(port)),
        None => {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            let text = format!("no port is called {name:?} (there are: {})", names.join(", "));
            Err(Refusal(StatusCode::NOT_FOUND, text))
        }
    }
}

async fn prometheus(State(api): State<Api>) -> Result<Response, Refusal> {
    let page = metrics::render(&api.status().await?);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

async fn no_such_path(uri: Uri) -> Refusal {
    let text =
        format!("no such path: {} (there are: /v1/status, /v1/ports, /v1/ports/NAME, /metrics)", uri.path());
    Refusal(StatusCode::NOT_FOUND, text)
}

async fn no_such_method(uri: Uri) -> Refusal {
    let text = format!("{} can only be read (GET) in this version", uri.path());
    Refusal(StatusCode::METHOD_NOT_ALLOWED, text)
}

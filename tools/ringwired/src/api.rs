//! The control API: HTTP/JSON on a unix socket.
//!
//! One request a connection, each within fixed bounds of time and size, so that a client that is slow,
//! stuck or hostile costs nobody else more than one of [`MAX_CONNECTIONS`] places for
//! [`CONNECTION_TIME`].

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Router};
use engine::Datapath;
pub use engine::config::{OFFLOADS, SocketConfig, SocketKind};
pub use engine::{BackendError, NoSuchGuest, PortError};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use snapshot::{Backend, ErrorBody, NewPort, Offloads, PortKind, Status};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::config::shapes;
use crate::descriptors::{Connection, Descriptors};
use crate::metrics;
use crate::rates::Sampler;
use crate::socket::ApiSocket;

/// Connections served at a time; others wait in the socket's backlog.
pub const MAX_CONNECTIONS: usize = 64;
/// A connection is closed this long after it was accepted, whatever it is doing.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The request line and headers must be here after this time.
pub const HEADER_TIME: Duration = Duration::from_secs(3);
/// Request line and headers may be this long.
pub const HEADER_BYTES: usize = 16 * 1024;
/// The body of a request may be this long.
pub const BODY_BYTES: usize = 16 * 1024;
/// The datapath must have answered after this time.
const STATUS_TIME: Duration = Duration::from_secs(3);
/// Rates are over this interval.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What the API shows and changes. All of it may block, and is called off the API's own thread.
pub trait Source: Send + Sync + 'static {
    /// What the datapath looks like now.
    fn status(&self) -> Status;

    /// Connects a guest to another port, or to none.
    fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError>;

    /// Replaces the offloads, as feature bits, that a guest's next frontend is offered.
    fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest>;

    /// Adds a tap or raw socket; `fds`, if there are any, are open already.
    fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError>;

    /// Removes a tap or raw socket.
    fn remove_socket(&self, name: &str) -> Result<(), PortError>;
}

impl Source for Datapath {
    fn status(&self) -> Status {
        self.status()
    }

    fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        self.set_backend(guest, backend)
    }

    fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        self.set_offloads(guest, offloads)
    }

    fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        self.add_socket(config, fds)
    }

    fn remove_socket(&self, name: &str) -> Result<(), PortError> {
        self.remove_socket(name)
    }
}

#[derive(Clone)]
struct Api {
    source: Arc<dyn Source>,
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
pub async fn serve(socket: &ApiSocket, source: Arc<dyn Source>) -> Infallible {
    let api = Api { source, sampler: Arc::default() };
    let (never, _) = tokio::join!(sample(api.clone()), accept(socket, router(api)));
    never
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ports", get(ports))
        .route("/v1/ports/{name}", get(port).put(add_port).delete(remove_port))
        .route("/v1/guests/{name}/backend", put(set_backend))
        .route("/v1/guests/{name}/offloads", put(set_offloads))
        .route("/metrics", get(prometheus))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(api)
}

async fn sample(api: Api) -> Infallible {
    let mut tick = tokio::time::interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let source = api.source.clone();
        let taken = tokio::task::spawn_blocking(move || (source.status(), Instant::now())).await;
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
    let descriptors = Descriptors::default();
    let router = router.layer(Extension(descriptors.clone()));
    let stream = Connection::new(stream, descriptors);
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
        let mut status = self.ask(|source| source.status()).await?;
        self.sampler().annotate(&mut status);
        Ok(status)
    }

    /// What the datapath answers to `question`.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Source) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let source = self.source.clone();
        let answer = tokio::task::spawn_blocking(move || question(&*source));
        match tokio::time::timeout(STATUS_TIME, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let text = format!("the datapath could not be asked: {error}");
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

/// The port, as it is then.
async fn add_port(
    State(api): State<Api>,
    Extension(descriptors): Extension<Descriptors>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"kind\": \"tap\"|\"raw\", \"interface\": \"NAME\", ...}";
    let (name, wanted): (_, NewPort) = wanted(name, body, shape)?;
    let fds = descriptors.take();
    let config = socket_config(name.clone(), wanted, fds.len())
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    api.ask(move |source| source.add_socket(config, fds)).await?.map_err(refuse_port)?;
    let answer = port(State(api), Ok(Path(name))).await?;
    Ok((StatusCode::CREATED, answer).into_response())
}

/// What a request for a new port means, or what is wrong with it. `fds` have come along.
fn socket_config(name: String, wanted: NewPort, fds: usize) -> Result<SocketConfig, String> {
    shapes::check_name(&name)?;
    let kind = match wanted.kind {
        PortKind::Tap => SocketKind::Tap,
        PortKind::Raw => SocketKind::Raw,
        PortKind::Guest | PortKind::Nic => {
            return Err(
                "guests and nics come and go with ringwired in this version (kind: tap or raw)".into()
            );
        }
    };
    let queues = wanted.queues.unwrap_or(if fds > 0 { fds as u16 } else { 1 });
    match (&wanted.interface, fds) {
        (None, 0) => return Err("interface is missing, and no descriptor came along".into()),
        (Some(_), 1..) => return Err("both an interface and descriptors were given".into()),
        (None, _) if fds != usize::from(queues) => {
            return Err(format!("{fds} descriptors came along, but queues is {queues}"));
        }
        (Some(_), 0) if !(1..=128).contains(&queues) => return Err("queues is not from 1 to 128".into()),
        _ => {}
    }
    let interface = wanted.interface.unwrap_or_default();
    let (user, group) = (wanted.user, wanted.group);
    Ok(SocketConfig { name, kind, interface, descriptors: Vec::new(), queues, user, group })
}

/// The port, as it was.
async fn remove_port(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let answer = port(State(api.clone()), Ok(Path(name.clone()))).await?;
    api.ask(move |source| source.remove_socket(&name)).await?.map_err(refuse_port)?;
    Ok(answer)
}

fn refuse_port(error: PortError) -> Refusal {
    let code = match error {
        PortError::NameTaken(_) | PortError::InUse { .. } => StatusCode::CONFLICT,
        PortError::NoSuchPort(_) => StatusCode::NOT_FOUND,
        PortError::Fixed(_) | PortError::Open(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refusal(code, error.to_string())
}

/// Whose, and what is wanted of it: a body of this `shape`.
fn wanted<T: DeserializeOwned>(
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
    shape: &str,
) -> Result<(String, T), Refusal> {
    let Path(name) = name.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    let wanted = serde_json::from_slice(&body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not {shape}: {error}")))?;
    Ok((name, wanted))
}

/// The guest's port, as it is then.
async fn set_backend(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"backend\": \"PORT\"}, with a port's name or \"none\"";
    let (name, wanted): (_, Backend) = wanted(name, body, shape)?;
    let guest = name.clone();
    let set = move |source: &dyn Source| {
        let backend = Some(wanted.backend.as_str()).filter(|backend| *backend != "none");
        source.set_backend(&guest, backend)
    };
    api.ask(set).await?.map_err(|error| Refusal(code(&error), error.to_string()))?;
    port(State(api), Ok(Path(name))).await
}

/// The guest's port, as it is then.
async fn set_offloads(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let shape = "{\"offloads\": \"auto\"|\"off\"|[\"NAME\", ...]}";
    let (name, wanted): (_, Offloads) = wanted(name, body, shape)?;
    let bits = shapes::offload_bits(&wanted.offloads)
        .map_err(|problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem))?;
    let guest = name.clone();
    let set = move |source: &dyn Source| source.set_offloads(&guest, bits);
    api.ask(set).await?.map_err(|error| Refusal(StatusCode::NOT_FOUND, error.to_string()))?;
    port(State(api), Ok(Path(name))).await
}

fn code(error: &BackendError) -> StatusCode {
    match error {
        BackendError::NoSuchGuest(_) => StatusCode::NOT_FOUND,
        BackendError::NoSuchPort(_) | BackendError::Itself(_) => StatusCode::UNPROCESSABLE_ENTITY,
        BackendError::Taken { .. } | BackendError::Occupied { .. } | BackendError::Punt { .. } => {
            StatusCode::CONFLICT
        }
    }
}

async fn prometheus(State(api): State<Api>) -> Result<Response, Refusal> {
    let page = metrics::render(&api.status().await?);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

const PATHS: &str =
    "/v1/status, /v1/ports, /v1/ports/NAME, /v1/guests/NAME/backend, /v1/guests/NAME/offloads, /metrics";

async fn no_such_path(uri: Uri) -> Refusal {
    let text = format!("no such path: {} (there are: {PATHS})", uri.path());
    Refusal(StatusCode::NOT_FOUND, text)
}

async fn no_such_method(uri: Uri) -> Refusal {
    let path = uri.path();
    let text = match path.ends_with("/backend") || path.ends_with("/offloads") {
        true => format!("{path} can only be changed (PUT); GET /v1/ports/NAME shows it"),
        false if path.starts_with("/v1/ports/") => {
            format!("{path} can be read (GET), added (PUT) and removed (DELETE)")
        }
        false => format!("{path} can only be read (GET)"),
    };
    Refusal(StatusCode::METHOD_NOT_ALLOWED, text)
}

//! The control API: HTTP/JSON on a unix socket.
//!
//! One request a connection, each within fixed bounds of time and size, so that a client that is slow,
//! stuck or hostile costs nobody else more than one of [`MAX_CONNECTIONS`] places for
//! [`CONNECTION_TIME`]. Captures last longer, and are few.

mod answer;
mod bodies;
mod captures;
mod config;
mod guests;
mod log;
mod openapi;
mod peer;
mod ports;
mod routes;
mod server;
mod workers;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use engine::Datapath;
use engine::config::Polling;
pub use engine::config::{GuestConfig, NicConfig, OFFLOADS, SocketConfig, SocketKind};
pub use engine::{BackendError, CaptureError, Capturing, NoSuchGuest, Pair, PortError, Wanted, WorkerError};
use snapshot::{Idle, Port, Status};

use crate::metrics;
use crate::rates::Sampler;
use crate::reload::Reloader;
use crate::socket::ApiSocket;

use answer::{Refusal, json};
use captures::Captures;
pub use log::{EnvFilter, LogFilter, parse as parse_log_filter};
pub use openapi::description;
pub use server::{BODY_BYTES, CONNECTION_TIME, HEADER_BYTES, HEADER_TIME, MAX_CONNECTIONS};

/// The datapath must have answered after this time.
const STATUS_TIME: Duration = Duration::from_secs(3);
/// And after this time if it is to change; less than a connection has.
const CHANGE_TIME: Duration = Duration::from_secs(8);
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

    /// Adds a NIC.
    fn add_nic(&self, config: NicConfig) -> Result<(), PortError>;

    /// Adds a guest.
    fn add_guest(&self, config: GuestConfig) -> Result<(), PortError>;

    /// Removes a port of any kind, and gives what it had counted at the end.
    fn remove_port(&self, name: &str) -> Result<Port, PortError>;

    /// Starts a worker on a core.
    fn add_worker(&self, core: usize) -> Result<(), WorkerError>;

    /// Ends the worker on a core.
    fn remove_worker(&self, core: usize) -> Result<(), WorkerError>;

    /// Has a guest's queue pair polled by the worker on `core`, or by any, and gives all pairs that moved.
    fn assign(&self, guest: &str, pair: u16, core: Option<usize>) -> Result<Vec<Pair>, WorkerError>;

    /// Replaces what workers do without work.
    fn set_idle(&self, idle: Idle) -> io::Result<()>;

    /// Copies what passes a port.
    fn capture(&self, wanted: Wanted) -> Result<Capturing, CaptureError>;
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

    fn add_nic(&self, config: NicConfig) -> Result<(), PortError> {
        self.add_nic(config)
    }

    fn add_guest(&self, config: GuestConfig) -> Result<(), PortError> {
        self.add_guest(config)
    }

    fn remove_port(&self, name: &str) -> Result<Port, PortError> {
        self.remove_port(name)
    }

    fn add_worker(&self, core: usize) -> Result<(), WorkerError> {
        self.add_worker(core)
    }

    fn remove_worker(&self, core: usize) -> Result<(), WorkerError> {
        self.remove_worker(core)
    }

    fn assign(&self, guest: &str, pair: u16, core: Option<usize>) -> Result<Vec<Pair>, WorkerError> {
        self.assign(guest, pair, core)
    }

    fn set_idle(&self, idle: Idle) -> io::Result<()> {
        self.set_polling(|polling| Polling { idle, ..polling })
    }

    fn capture(&self, wanted: Wanted) -> Result<Capturing, CaptureError> {
        self.capture(wanted)
    }
}

/// What the API does beside the datapath.
pub struct Operator {
    /// The configuration, and how it changes.
    pub reloader: Reloader,
    /// What is logged.
    pub log: LogFilter,
}

#[derive(Clone)]
struct Api {
    source: Arc<dyn Source>,
    operator: Arc<Operator>,
    sampler: Arc<Mutex<Sampler>>,
    captures: Captures,
}

/// Serves `source` on `socket` until the future is dropped.
pub async fn serve(socket: &ApiSocket, source: Arc<dyn Source>, operator: Arc<Operator>) -> Infallible {
    let api = Api { source, operator, sampler: Arc::default(), captures: Captures::default() };
    let (never, _) = tokio::join!(sample(api.clone()), server::accept(socket, router(api)));
    never
}

fn router(api: Api) -> Router {
    let routes = routes::routes();
    let paths: Vec<String> = routes.iter().map(routes::Route::written).collect();
    let paths = paths.join(", ");
    let no_such_path = async move |uri: Uri| {
        let text = format!("no such path: {} (there are: {paths})", uri.path());
        Refusal(StatusCode::NOT_FOUND, text)
    };
    routes
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.handlers()))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::from_fn(peer::guard))
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
        self.within(STATUS_TIME, question).await
    }

    /// The same, where something changes, and a device may have to be started or stopped. A reload has what runs for
    /// itself.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn Source) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let operator = self.operator.clone();
        let changed =
            self.within(CHANGE_TIME, move |source| operator.reloader.between(|| change(source))).await?;
        let busy = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "a reload is under way: try again".to_owned());
        changed.ok_or_else(busy)
    }

    async fn within<T: Send + 'static>(
        &self,
        time: Duration,
        question: impl FnOnce(&dyn Source) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let source = self.source.clone();
        let answer = tokio::task::spawn_blocking(move || question(&*source));
        match tokio::time::timeout(time, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let text = format!("the datapath could not be asked: {error}");
                Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
            Err(_) => {
                let text = format!("the datapath did not answer within {time:?}");
                Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    }
}

async fn status(State(api): State<Api>) -> Result<Response, Refusal> {
    Ok(json(&api.status().await?))
}

async fn prometheus(State(api): State<Api>) -> Result<Response, Refusal> {
    let page = metrics::render(&api.status().await?);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

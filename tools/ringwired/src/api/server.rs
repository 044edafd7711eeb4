//! Connections: one request each, within fixed bounds of time and size.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::peer::Peer;
use crate::descriptors::{Connection, Descriptors};
use crate::socket::ApiSocket;

/// Connections served at a time; others wait in the socket's backlog.
pub const MAX_CONNECTIONS: usize = 64;
/// A connection is closed this long after it was accepted, whatever it is doing; one whose answer [lasts](Lasts), this
/// long after its end.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The request line and headers must be here after this time.
pub const HEADER_TIME: Duration = Duration::from_secs(3);
/// Request line and headers may be this long.
pub const HEADER_BYTES: usize = 16 * 1024;
/// The body of a request may be this long.
pub const BODY_BYTES: usize = 16 * 1024;

/// When a connection is closed; it lasts if there is no such time.
#[derive(Clone)]
pub struct Lasting(Arc<Mutex<Option<Instant>>>);

/// Lets a connection last longer than [`CONNECTION_TIME`], as long as this is kept.
pub struct Lasts(Lasting);

impl Lasting {
    /// Of a connection that was accepted just now.
    fn accepted() -> Lasting {
        Lasting(Arc::new(Mutex::new(Some(Instant::now() + CONNECTION_TIME))))
    }

    /// From now on.
    pub fn begin(&self) -> Lasts {
        *self.end() = None;
        Lasts(self.clone())
    }

    /// Comes back when the connection is to be closed.
    async fn over(&self) {
        loop {
            let end = *self.end();
            match end {
                Some(end) if end <= Instant::now() => return,
                Some(end) => sleep_until(end).await,
                // Should its end be set meanwhile, that is not before this.
                None => sleep(CONNECTION_TIME).await,
            }
        }
    }

    fn end(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lasts {
    fn drop(&mut self) {
        *self.0.end() = Some(Instant::now() + CONNECTION_TIME);
    }
}

/// Serves whoever connects, with `router`.
pub async fn accept(socket: &ApiSocket, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    loop {
        // The semaphore is never closed, so there always is a permit in the end.
        let place = places.clone().acquire_owned().await;
        match socket.accept().await {
            Ok(stream) => {
                failing = false;
                // Gone already, most likely.
                let Ok(peer) = Peer::of(&stream, socket) else { continue };
                let router = router.clone().layer(Extension(peer));
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
    let (descriptors, lasting) = (Descriptors::default(), Lasting::accepted());
    let router = router.layer(Extension(descriptors.clone())).layer(Extension(lasting.clone()));
    let stream = Connection::new(stream, descriptors);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!("API client: {error}");
            }
        }
        () = lasting.over() => tracing::debug!("API client: closed after {CONNECTION_TIME:?}"),
    }
}

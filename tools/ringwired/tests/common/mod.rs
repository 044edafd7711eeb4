//! The real API on a real socket, over a made-up datapath. Also used by ringwire's tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use ringwired::api::{self, Source};
use ringwired::config::ApiConfig;
use ringwired::socket::ApiSocket;
use snapshot::Status;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A datapath with something wrong in several places.
pub fn status() -> Status {
    serde_json::from_str(include_str!("status.json")).unwrap()
}

/// Takes out what the server adds once it has two samples, which depends on when it is asked.
pub fn strip_rates(status: &mut Status) {
    status.workers.iter_mut().for_each(|worker| worker.rates = None);
    status.ports.iter_mut().for_each(|port| port.rates = None);
}

/// An API server on its own thread, stopped when dropped.
pub struct Server {
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves [`status`].
    pub fn start() -> Server {
        Server::with(Arc::new(status))
    }

    /// Serves `source`.
    pub fn with(source: Source) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let config = ApiConfig { socket: directory.path().join("api.sock"), ..ApiConfig::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let (listening, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = ApiSocket::bind(&config).await.unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    never = api::serve(&socket, source) => match never {},
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        listens.recv().unwrap();
        Server { directory, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server thread panicked");
        }
    }
}

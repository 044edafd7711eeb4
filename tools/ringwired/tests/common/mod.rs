//! The real API on a real socket, over a made-up datapath. Also used by ringwire's tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ringwired::api::{
    self, BackendError, CaptureError, Capturing, EnvFilter, GuestConfig, LogFilter, NicConfig, NoSuchGuest,
    Operator, Pair, PortError, SocketConfig, Source, Wanted, WorkerError,
};
use ringwired::config::{ApiConfig, Config};
use ringwired::reload::{Change, DatapathConfig, Reloader, Running};
use ringwired::socket::ApiSocket;
use snapshot::{Idle, Port, Status};
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

/// A made-up datapath, whose guests can have other backends.
struct MadeUp<L> {
    look: L,
    /// What was asked for, by guest.
    backends: Mutex<BTreeMap<String, String>>,
    /// Likewise.
    offloads: Mutex<BTreeMap<String, u64>>,
    /// What was asked for.
    idle: Mutex<Option<Idle>>,
}

impl<L: Fn() -> Status + Send + Sync + 'static> Source for MadeUp<L> {
    fn status(&self) -> Status {
        let mut status = (self.look)();
        status.idle = self.idle.lock().unwrap().unwrap_or(status.idle);
        let backends = self.backends.lock().unwrap();
        for port in &mut status.ports {
            if let (Some(guest), Some(backend)) = (&mut port.guest, backends.get(&port.name)) {
                guest.backend.clone_from(backend);
            }
            if let (Some(guest), Some(bits)) =
                (&mut port.guest, self.offloads.lock().unwrap().get(&port.name))
            {
                let offered = api::OFFLOADS.iter().filter(|(_, bit)| bits & 1 << bit != 0);
                guest.offered =
                    offered.map(|(name, _)| format!("VIRTIO_NET_F_{}", name.to_uppercase())).collect();
            }
        }
        status
    }

    fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        let status = self.status();
        let backend = backend.unwrap_or("none");
        if !status.ports.iter().any(|port| port.name == guest && port.guest.is_some()) {
            return Err(BackendError::NoSuchGuest(guest.to_owned()));
        }
        if guest == backend {
            return Err(BackendError::Itself(guest.to_owned()));
        }
        if backend != "none" && !status.ports.iter().any(|port| port.name == backend) {
            return Err(BackendError::NoSuchPort(backend.to_owned()));
        }
        let taken =
            |port: &&snapshot::Port| port.guest.as_ref().is_some_and(|guest| guest.backend == backend);
        if let Some(other) = status.ports.iter().filter(|_| backend != "none").find(taken) {
            return Err(BackendError::Taken { port: backend.to_owned(), guest: other.name.clone() });
        }
        self.backends.lock().unwrap().insert(guest.to_owned(), backend.to_owned());
        Ok(())
    }

    fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        let status = self.status();
        if !status.ports.iter().any(|port| port.name == guest && port.guest.is_some()) {
            return Err(NoSuchGuest(guest.to_owned()));
        }
        self.offloads.lock().unwrap().insert(guest.to_owned(), offloads);
        Ok(())
    }

    /// Says in the error what it was asked for: it has no interfaces.
    fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        let files =
            fds.iter().map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
        let files: Vec<PathBuf> = files.collect();
        Err(PortError::NameTaken(format!("{config:?} {files:?}")))
    }

    fn add_nic(&self, config: NicConfig) -> Result<(), PortError> {
        Err(PortError::NameTaken(format!("{config:?}")))
    }

    fn add_guest(&self, config: GuestConfig) -> Result<(), PortError> {
        Err(PortError::NameTaken(format!("{config:?}")))
    }

    /// Its first port is always needed.
    fn remove_port(&self, name: &str) -> Result<Port, PortError> {
        let ports = self.status().ports;
        match ports.iter().position(|port| port.name == name) {
            None => Err(PortError::NoSuchPort(name.to_owned())),
            Some(0) => {
                Err(PortError::InUse { port: name.to_owned(), role: "backend", guest: "vm1".to_owned() })
            }
            Some(at) => Ok(ports[at].clone()),
        }
    }

    /// Core 1 is the only one, and has a worker.
    fn add_worker(&self, core: usize) -> Result<(), WorkerError> {
        match core {
            1 => Err(WorkerError::Taken(core)),
            _ => Err(WorkerError::NotAllowed { core, allowed: "1".to_owned() }),
        }
    }

    fn remove_worker(&self, core: usize) -> Result<(), WorkerError> {
        Err(WorkerError::Last(core))
    }

    /// Pair 0 of guest vm1 shares a lane with pair 2, and no other is polled.
    fn assign(&self, guest: &str, pair: u16, core: Option<usize>) -> Result<Vec<Pair>, WorkerError> {
        let named = |index| Pair { guest: guest.to_owned(), index };
        match (guest, pair, core) {
            ("vm1", 0..3, Some(core @ 2..)) => Err(WorkerError::NoSuchWorker(core)),
            ("vm1", 0 | 2, Some(_)) => Ok(vec![named(0), named(2)]),
            ("vm1", 0..3, _) => Ok(Vec::new()),
            ("vm1", ..) => Err(WorkerError::NoSuchPair { guest: guest.to_owned(), pair, pairs: 3 }),
            _ => Err(WorkerError::NoSuchGuest(guest.to_owned())),
        }
    }

    fn set_idle(&self, idle: Idle) -> io::Result<()> {
        *self.idle.lock().unwrap() = Some(idle);
        Ok(())
    }

    /// Says in the error what it was asked for: nothing passes.
    fn capture(&self, wanted: Wanted) -> Result<Capturing, CaptureError> {
        Err(CaptureError::NoSuchPort(format!("{wanted:?}")))
    }
}

/// What runs according to its own configuration, in which only backends change.
struct MadeUpConfig(Mutex<DatapathConfig>);

impl Running for MadeUpConfig {
    fn config(&self) -> DatapathConfig {
        self.0.lock().unwrap().clone()
    }

    fn change(&self, change: &Change) -> Result<(), String> {
        let Change::Backend { guest, to, .. } = change else { return Err("only backends change".to_owned()) };
        let mut config = self.0.lock().unwrap();
        let guest = config.guests.iter_mut().find(|found| found.name == *guest).unwrap();
        guest.backend.clone_from(to);
        Ok(())
    }
}

/// The cores that the made-up host has.
pub const CORES: [usize; 2] = [1, 2];
/// The file that the made-up datapath was started with.
pub const FILE: &str = "datapath.cores = [1]\n[[tap]]\nname = \"tap0\"\ninterface = \"rw-tap0\"\n\
                        [[guest]]\nname = \"vm1\"\nsocket = \"/vm1\"\n";

/// [`FILE`] runs, and was read from `file`. The second is to be kept as long as the first.
fn operator(file: PathBuf) -> (Arc<Operator>, Box<dyn Any + Send>) {
    let config = Config::parse("rw.toml", FILE, &CORES).unwrap();
    std::fs::write(&file, FILE).unwrap();
    let (layer, log) = LogFilter::new(EnvFilter::new("info"));
    let running = Arc::new(MadeUpConfig(Mutex::new(config.datapath)));
    let reloader = Reloader::new(file, CORES.to_vec(), config.api, running);
    (Arc::new(Operator { reloader, log }), Box::new(layer))
}

/// An API server on its own thread, stopped when dropped.
pub struct Server {
    directory: TempDir,
    _log: Box<dyn Any + Send>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves [`status`].
    pub fn start() -> Server {
        Server::with(status)
    }

    /// Serves what `look` sees.
    pub fn with(look: impl Fn() -> Status + Send + Sync + 'static) -> Server {
        let source = Arc::new(MadeUp {
            look,
            backends: Mutex::default(),
            offloads: Mutex::default(),
            idle: Mutex::default(),
        });
        let directory = tempfile::tempdir().unwrap();
        let (operator, _log) = operator(directory.path().join("rw.toml"));
        let config = ApiConfig { socket: directory.path().join("api.sock"), ..ApiConfig::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let (listening, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = ApiSocket::bind(&config).await.unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    never = api::serve(&socket, source, operator) => match never {},
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        listens.recv().unwrap();
        Server { directory, _log, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// The configuration file.
    #[allow(dead_code, reason = "not every test that has this module edits it")]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("rw.toml")
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

//! The control API, served as `ringwired` serves it, and a client that may send anything.
//!
//! Server and client share one thread, and tokio's clock stands still while they work: where everybody
//! waits, time jumps to the next timer. So nothing here takes long, and what would hang for a client hangs
//! here at once.
#![no_main]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringwired::api::{
    self, BackendError, CaptureError, Capturing, EnvFilter, GuestConfig, LogFilter, NicConfig, NoSuchGuest,
    Operator, Pair, PortError, SocketConfig, Source, Wanted, WorkerError,
};
use ringwired::config::{ApiConfig, Config};
use ringwired::reload::{Change, DatapathConfig, Reloader, Running};
use ringwired::socket::ApiSocket;
use snapshot::{
    ErrorBody, Frontend, Guest, Idle, Nic, Port, PortKind, Queue, QueuePair, RingState, Status, Worker,
    WorkerTime,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

fuzz_target!(|data: &[u8]| {
    SERVER.with_borrow_mut(|server| {
        let server = server.get_or_insert_with(Server::start);
        let (how, request) = data.split_first().unwrap_or((&0, &[]));
        let answer = server.ask(request, *how);
        check(&answer, *how & HALF_CLOSE != 0);
        RUNS.set(RUNS.get() + 1);
        if RUNS.get().is_multiple_of(32) {
            let answer = server.ask(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 0);
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        }
    });
});

/// The client closes its half of the connection when it has sent everything.
const HALF_CLOSE: u8 = 1;
/// It sends the request in two pieces: the second from this part, in sixteenths, on.
const PIECES: u8 = 0xf0;

struct Server {
    runtime: Runtime,
    directory: TempDir,
    /// What the log's filter is changed in.
    _layer: Box<dyn Any>,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .max_blocking_threads(2)
            .build()
            .expect("a runtime");
        let config = ApiConfig { socket: directory.path().join("api.sock"), ..ApiConfig::default() };
        let socket = runtime.block_on(ApiSocket::bind(&config)).expect("a socket");
        let file = directory.path().join("rw.toml");
        std::fs::write(&file, FILE).expect("a configuration");
        let (layer, log) = LogFilter::new(EnvFilter::new("off"));
        let reloader = Reloader::new(file, vec![1], ApiConfig::default(), Arc::new(MadeUp));
        let operator = Arc::new(Operator { reloader, log });
        runtime.spawn(async move { api::serve(&socket, Arc::new(MadeUp), operator).await });
        Server { runtime, directory, _layer: Box::new(layer) }
    }

    /// All that comes back until the server closes the connection.
    fn ask(&self, request: &[u8], how: u8) -> Vec<u8> {
        let path = self.directory.path().join("api.sock");
        self.runtime.block_on(async move {
            let began = Instant::now();
            let mut stream = UnixStream::connect(path).await.expect("a connection");
            let cut = request.len() * usize::from((how & PIECES) >> 4) / 16;
            // The server may answer and close before it has read everything.
            for part in [&request[..cut], &request[cut..]] {
                let _ = stream.write_all(part).await;
                tokio::task::yield_now().await;
            }
            if how & HALF_CLOSE != 0 {
                let _ = stream.shutdown().await;
            }
            let mut answer = Vec::new();
            // Reset by the server, if it has not read everything.
            let _ = stream.read_to_end(&mut answer).await;
            let time = began.elapsed();
            assert!(time < api::CONNECTION_TIME + Duration::from_secs(2), "open after {time:?}");
            answer
        })
    }
}

/// A datapath that shows always the same, and takes whatever it is asked for.
struct MadeUp;

impl Source for MadeUp {
    fn status(&self) -> Status {
        status()
    }

    fn set_backend(&self, guest: &str, _: Option<&str>) -> Result<(), BackendError> {
        if guest == "vm1" { Ok(()) } else { Err(BackendError::NoSuchGuest(guest.into())) }
    }

    fn set_offloads(&self, guest: &str, _: u64) -> Result<(), NoSuchGuest> {
        if guest == "vm1" { Ok(()) } else { Err(NoSuchGuest(guest.into())) }
    }

    fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        assert!(fds.is_empty(), "none was sent");
        Err(PortError::NameTaken(config.name))
    }

    fn add_nic(&self, config: NicConfig) -> Result<(), PortError> {
        Err(PortError::NameTaken(config.name))
    }

    fn add_guest(&self, config: GuestConfig) -> Result<(), PortError> {
        Err(PortError::NameTaken(config.name))
    }

    fn remove_port(&self, name: &str) -> Result<Port, PortError> {
        let found = status().ports.into_iter().find(|port| port.name == name);
        found.ok_or_else(|| PortError::NoSuchPort(name.into()))
    }

    fn add_worker(&self, core: usize) -> Result<(), WorkerError> {
        if core == 1 { Ok(()) } else { Err(WorkerError::NotAllowed { core, allowed: "1".into() }) }
    }

    fn remove_worker(&self, core: usize) -> Result<(), WorkerError> {
        Err(WorkerError::Last(core))
    }

    fn assign(&self, guest: &str, pair: u16, _: Option<usize>) -> Result<Vec<Pair>, WorkerError> {
        Ok(vec![Pair { guest: guest.into(), index: pair }])
    }

    fn set_idle(&self, _: Idle) -> std::io::Result<()> {
        Ok(())
    }

    fn capture(&self, wanted: Wanted) -> Result<Capturing, CaptureError> {
        Err(CaptureError::NoSuchPort(wanted.port))
    }
}

/// What runs, and what its file says.
const FILE: &str = "datapath.cores = [1]\n[[guest]]\nname = \"vm1\"\nsocket = \"/vm1\"\n";

impl Running for MadeUp {
    fn config(&self) -> DatapathConfig {
        Config::parse("rw.toml", FILE, &[1]).expect("a configuration").datapath
    }

    fn change(&self, change: &Change) -> Result<(), String> {
        panic!("there is nothing to change: {change}");
    }
}

fn check(answer: &[u8], half_closed: bool) {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert!(answer.is_empty() || half_closed, "{text:?}");
        return;
    };
    let code: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect(&text);
    assert!((100..500).contains(&code), "{text}");
    let head = head.to_ascii_lowercase();
    let json = head.contains("content-type: application/json");
    if code == 200 && !body.is_empty() {
        let toml = head.contains("content-type: text/toml");
        assert!(json || toml || body.starts_with("# HELP"), "{text}");
    }
    if json && !body.is_empty() && !half_closed && !head.contains("transfer-encoding") {
        if code >= 400 {
            let error: ErrorBody = serde_json::from_str(body).expect(&text);
            assert!(!error.error.is_empty());
        } else {
            serde_json::from_str::<serde_json::Value>(body).expect(&text);
        }
    }
}

fn status() -> Status {
    let port = |name: &str, kind, guest, nic| Port {
        name: name.into(),
        kind,
        state: "up".into(),
        rx_packets: 1000,
        rx_bytes: 64000,
        tx_packets: 7,
        tx_bytes: 448,
        held: 1,
        drops: BTreeMap::from([("guest-full".into(), 3)]),
        pairs: vec![QueuePair::default()],
        rates: None,
        guest,
        nic,
        interface: None,
    };
    let queue = |index| Queue {
        index,
        enabled: true,
        owner: "worker:1".into(),
        size: 256,
        format: "split".into(),
        used: 10,
        kicks: 1,
        calls: 2,
        calls_suppressed: 8,
        violation: (index == 1).then(|| "avail index jumped".into()),
        violations: BTreeMap::from([("avail_jump".into(), index.into())]),
        ring: RingState::default(),
    };
    let guest = Guest {
        backend: "wire0".into(),
        backend_wanted: "wire0".into(),
        fallback: None,
        socket: "/run/ringwire/vm1.sock".into(),
        connected: true,
        connections: 1,
        offered: vec!["VIRTIO_F_VERSION_1".into(), "VIRTIO_NET_F_CSUM".into()],
        features: vec!["VIRTIO_F_VERSION_1".into()],
        protocol_features: Vec::new(),
        memory_regions: 2,
        memory_bytes: 1 << 30,
        frontend_mtu: Some(1500),
        device_status: vec!["DRIVER_OK".into()],
        announced: 1,
        punt: None,
        frontend: Frontend::default(),
        queues: vec![queue(0), queue(1)],
    };
    let nic = Nic {
        device: "0000:03:00.0".into(),
        driver: "net_ixgbe".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        queue_pairs: 1,
        link_up: true,
        link_speed_mbps: 10000,
        promiscuous: true,
        offloads: vec!["TX_TCP_CKSUM".into()],
        device_stats: BTreeMap::from([("imissed".into(), 5)]),
        xstats: BTreeMap::new(),
    };
    let worker = Worker {
        name: "worker:1".into(),
        core: 1,
        lanes: 1,
        assigned: Vec::new(),
        busy_rounds: 5,
        idle_rounds: 50,
        time: WorkerTime::default(),
        rates: None,
        thread: None,
    };
    let ports =
        vec![port("wire0", PortKind::Nic, None, Some(nic)), port("vm1", PortKind::Guest, Some(guest), None)];
    Status {
        version: "0.1.0".into(),
        pid: 1,
        uptime_seconds: 1.5,
        hugepages: false,
        idle: Idle::Poll,
        burst: 64,
        workers: vec![worker],
        ports,
    }
}

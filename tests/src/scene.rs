//! One test's stage: a temporary directory, the daemon's configuration, what is run beside it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cores;
use crate::daemon::Daemon;

/// A directory, and a configuration that grows by ports.
pub struct Scene {
    directory: TempDir,
    config: String,
}

impl Scene {
    /// An empty configuration: an API socket and one worker.
    #[allow(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Scene {
        // Short, because a socket's path may have only 107 bytes.
        let directory = tempfile::Builder::new().prefix("rw-").tempdir_in("/tmp").expect("a directory");
        let api = directory.path().join("api.sock");
        let config = format!("[api]\nsocket = {api:?}\n\n[datapath]\ncores = [{}]\n", cores::worker());
        Scene { directory, config }
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The socket of guest `name`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.sock"))
    }

    /// Adds lines to the configuration.
    pub fn add(&mut self, lines: &str) {
        self.config.push_str(lines);
    }

    /// Adds a NIC; `more` is lines such as `mtu = 9000`.
    pub fn nic(&mut self, name: &str, device: &str, queues: usize, more: &str) {
        write!(self.config, "\n[[nic]]\nname = {name:?}\ndevice = {device:?}\nqueues = {queues}\n{more}\n")
            .expect("a string takes all");
    }

    /// Adds a tap or raw port on an interface; `more` is lines such as `queues = 2`.
    pub fn socket_port(&mut self, kind: &str, name: &str, interface: &str, more: &str) {
        write!(self.config, "\n[[{kind}]]\nname = {name:?}\ninterface = {interface:?}\n{more}\n")
            .expect("a string takes all");
    }

    /// Adds a guest on `NAME.sock`.
    pub fn guest(&mut self, name: &str, backend: &str, queues: usize) {
        let socket = self.socket(name);
        write!(
            self.config,
            "\n[[guest]]\nname = {name:?}\nsocket = {socket:?}\nqueues = {queues}\nbackend = {backend:?}\n"
        )
        .expect("a string takes all");
    }

    /// The configuration as it is now, in a file.
    pub fn config_file(&self) -> PathBuf {
        let path = self.path("ringwired.toml");
        std::fs::write(&path, &self.config).expect("a configuration file");
        path
    }

    /// Starts the daemon on it, and waits until it is ready.
    pub fn start(&self) -> Daemon {
        Daemon::start(&self.config_file(), &self.path("api.sock"), &self.path("ringwired.log"))
    }
}

/// Devargs of a pcap NIC whose queue k reads `rx[k]` and writes `tx[k]`.
pub fn pcap_device(name: &str, rx: &[PathBuf], tx: &[PathBuf]) -> String {
    let argument = |key, path: &Path| format!(",{key}={}", path.display());
    let rx = rx.iter().map(|path| argument("rx_pcap", path));
    let tx = tx.iter().map(|path| argument("tx_pcap", path));
    rx.chain(tx).fold(name.to_owned(), |device, argument| device + &argument)
}

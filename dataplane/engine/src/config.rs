//! What a datapath is made of: validated by whoever read it (`ringwired` from TOML), used as is here.

use std::path::PathBuf;

pub use dpdk::eal::HugepagePolicy;

/// The whole datapath.
#[derive(Clone, Debug)]
pub struct Config {
    /// Arguments appended to the EAL arguments that ringwire chooses itself.
    pub eal_args: Vec<String>,
    /// Whether DPDK's memory must, may or must not lie in hugepages.
    pub hugepages: HugepagePolicy,
    /// Cores to pin one worker each to; never empty.
    pub cores: Vec<usize>,
    /// NICs, by unique name.
    pub nics: Vec<NicConfig>,
    /// Guests, by unique name (no port of any kind shares a name).
    pub guests: Vec<GuestConfig>,
}

/// A DPDK ethdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// Port name.
    pub name: String,
    /// PCI address or vdev devargs.
    pub device: String,
    /// Queue pairs, at least 1.
    pub queues: u16,
    /// MTU to set; the device's own when absent.
    pub mtu: Option<u16>,
    /// Whether to take frames for other addresses than the device's own. A guest has its own address,
    /// so this is the default.
    pub promiscuous: bool,
}

/// A vhost-user socket that a guest's frontend connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Port name.
    pub name: String,
    /// Path we listen on.
    pub socket: PathBuf,
    /// Permission bits of the socket, e.g. 0o660; left to the umask when absent.
    pub socket_mode: Option<u32>,
    /// Group of the socket, by name or number.
    pub socket_group: Option<String>,
    /// Queue pairs offered, 1 to 128.
    pub queues: u16,
    /// Name of the nic its virtqueues are connected to; `None` parks them.
    pub backend: Option<String>,
    /// Hardware address shown to the guest; derived from the port name when absent.
    pub mac: Option<[u8; 6]>,
    /// MTU shown to the guest; not offered when absent.
    pub mtu: Option<u16>,
}

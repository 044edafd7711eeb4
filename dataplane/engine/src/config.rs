//! What a datapath is made of: validated by whoever read it (`ringwired` from TOML), used as is here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use dpdk::BURST_MAX;
pub use dpdk::eal::HugepagePolicy;
pub use port::punt::Classes;
pub use port::socket::{SocketKind, check_name as check_interface};
pub use snapshot::Idle;
pub use vhost_user::features::{OFFLOADS, all_offloads};

/// The whole datapath.
#[derive(Clone, Debug)]
pub struct Config {
    /// Arguments appended to the EAL arguments that ringwire chooses itself.
    pub eal_args: Vec<String>,
    /// Whether DPDK's memory must, may or must not lie in hugepages.
    pub hugepages: HugepagePolicy,
    /// Cores to pin one worker each to; never empty.
    pub cores: Vec<usize>,
    /// How workers poll.
    pub polling: Polling,
    /// NICs, by unique name.
    pub nics: Vec<NicConfig>,
    /// Taps and raw sockets, by unique name.
    pub sockets: Vec<SocketConfig>,
    /// Guests, by unique name (no port of any kind shares a name).
    pub guests: Vec<GuestConfig>,
}

/// How workers poll their queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// What a worker does without work.
    pub idle: Idle,
    /// Packets that are taken and handed on at a time, 1 to [`BURST_MAX`]: buffers are prefetched that far ahead of
    /// their use.
    pub burst: u16,
}

impl Default for Polling {
    /// No sleep, and whole bursts.
    fn default() -> Polling {
        Polling { idle: Idle::Poll, burst: BURST_MAX as u16 }
    }
}

/// What of the host only one port can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A nic's device: its PCI address, or the name of the vdev.
    Device(String),
    /// A kernel interface.
    Interface(String),
    /// A socket's path.
    Socket(PathBuf),
}

impl Thing {
    /// What makes a nic's device the same one as another.
    pub fn device(device: &str) -> Thing {
        let (name, _arguments) = device.split_once(',').unwrap_or((device, ""));
        // lspci leaves out domain 0000.
        let domain = if name.matches(':').count() == 1 { "0000:" } else { "" };
        Thing::Device(format!("{domain}{name}").to_ascii_lowercase())
    }

    /// The key in a port's section of a configuration file.
    pub fn key(&self) -> &'static str {
        match self {
            Thing::Device(_) => "device",
            Thing::Interface(_) => "interface",
            Thing::Socket(_) => "socket",
        }
    }

    /// Why there can be only one.
    pub fn rule(&self) -> &'static str {
        match self {
            Thing::Device(_) => "a device is one nic; vdev names are unique (net_pcap0, net_pcap1, ...)",
            Thing::Interface(_) => "an interface is one port",
            Thing::Socket(_) => "each socket is listened on once",
        }
    }
}

impl NicConfig {
    /// What no other port can have.
    pub fn thing(&self) -> Thing {
        Thing::device(&self.device)
    }
}

impl SocketConfig {
    /// What no other port can have; of open descriptors only the kernel knows.
    pub fn thing(&self) -> Option<Thing> {
        Some(&self.interface).filter(|interface| !interface.is_empty()).cloned().map(Thing::Interface)
    }
}

impl GuestConfig {
    /// What no other port can have.
    pub fn thing(&self) -> Thing {
        Thing::Socket(self.socket.clone())
    }
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
    /// Whether it is to make one packet of many TCP segments that it receives, if it can (LRO).
    pub lro: bool,
}

/// A tap, macvtap or raw socket: a kernel interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Port name.
    pub name: String,
    /// What it is.
    pub kind: SocketKind,
    /// Name of the interface: created when missing, if it is a tap. Empty with `descriptors`.
    pub interface: String,
    /// Numbers of descriptors that are open already, one a queue pair.
    pub descriptors: Vec<i32>,
    /// Queue pairs, at least 1.
    pub queues: u16,
    /// Who may open the tap, if it is created.
    pub user: Option<u32>,
    /// Which group may.
    pub group: Option<u32>,
}

/// A guest's exception path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PuntConfig {
    /// Name of the tap.
    pub port: String,
    /// What goes there.
    pub classes: Classes,
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
    /// Number of the socket's group; the process's own when absent.
    pub socket_group: Option<u32>,
    /// Queue pairs offered, 1 to 128.
    pub queues: u16,
    /// Which core's worker polls a queue pair, by number of the pair. All others have any.
    pub assign: BTreeMap<u16, usize>,
    /// Name of the port its virtqueues are connected to; `None` parks them.
    pub backend: Option<String>,
    /// Name of the port that takes the backend's place while that has no link.
    pub fallback: Option<String>,
    /// How long the backend must have a link again before it is returned to.
    pub fallback_hold: Duration,
    /// What of the guest's is for the host itself, while its backend is a nic.
    pub punt: Option<PuntConfig>,
    /// Hardware address shown to the guest; derived from the port name when absent.
    pub mac: Option<[u8; 6]>,
    /// MTU shown to the guest; not offered when absent.
    pub mtu: Option<u16>,
    /// Feature bits of the checksum and segmentation offloads offered.
    pub offloads: u64,
}

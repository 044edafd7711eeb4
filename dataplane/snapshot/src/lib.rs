//! What the datapath looks like at one moment: the shapes behind `ringwire --json` and the HTTP API.
//!
//! The engine fills these in, `ringwired` serves them as JSON, `ringwire` reads them back and prints
//! them. The field names are a contract with scripts: add fields, never rename or drop one.
//!
//! `rx` and `tx` are the datapath's view: a guest port's `rx` is what the guest sent.

mod capture;
mod counters;
mod drops;
mod live;

pub use counters::{Passed, QueuePair, SIZE_CLASSES, Sizes, WorkerRates, WorkerTime};
pub use drops::DropReason;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use capture::{NewCapture, Way};
pub use live::{Assign, Assigned, Idle, IdleMode};

/// Everything: `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// ringwire's version, as in Cargo.toml.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Seconds since the datapath started.
    pub uptime_seconds: f64,
    /// Whether DPDK's memory lies in hugepages.
    pub hugepages: bool,
    /// What workers do without work.
    #[serde(default)]
    pub idle: Idle,
    /// Packets that workers move at a time.
    #[serde(default)]
    pub burst: u16,
    /// One entry a worker, in the order in which they were added.
    pub workers: Vec<Worker>,
    /// Every port, NICs first, each kind in the order in which they were added.
    pub ports: Vec<Port>,
}

/// One pinned polling thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    /// The worker's name as in a queue's `owner`: `worker:CORE`.
    pub name: String,
    /// The core it is pinned to.
    pub core: usize,
    /// Wires (guest <-> nic lanes) it polls.
    pub lanes: usize,
    /// Queue pairs that were assigned to it, each as `GUEST:PAIR`, polled now or not.
    #[serde(default)]
    pub assigned: Vec<String>,
    /// Poll rounds that moved at least one packet.
    pub busy_rounds: u64,
    /// Poll rounds that found nothing to do.
    pub idle_rounds: u64,
    /// What it has done with its time.
    #[serde(default)]
    pub time: WorkerTime,
    /// The same over the last sampling interval; absent before the second sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<WorkerRates>,
    /// What the kernel says about its thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<WorkerThread>,
}

/// How the kernel runs a worker's thread: sched_getaffinity(2), `stat` and `schedstat` of proc(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerThread {
    /// Thread id.
    pub id: i32,
    /// The cores it may run on; the worker's own, unless somebody has moved it.
    pub cores: Vec<usize>,
    /// Whether it sleeps, as an adaptive worker without work does.
    pub asleep: bool,
    /// How often it went to sleep.
    pub naps: u64,
    /// Time it has run, in nanoseconds.
    pub run_ns: u64,
    /// Time it could have run, but another had the core, in nanoseconds.
    pub wait_ns: u64,
}

/// Which kind of place a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A vhost-user socket.
    Guest,
    /// A DPDK ethdev.
    Nic,
    /// A tap or macvtap.
    Tap,
    /// A raw (AF_PACKET) socket.
    Raw,
}

/// A named place where packets enter and leave.
///
/// For the packets that entered here, at any moment the port is quiescent:
/// `rx_packets = (sent on through the peer port) + held + sum of drops`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// Name from the configuration.
    pub name: String,
    /// Kind.
    pub kind: PortKind,
    /// `up`, `down` (a nic or an interface without link), `no_carrier`, `gone` or `elsewhere` (an
    /// interface whose peer is missing, that was removed, or moved to another namespace), `disconnected` (a guest without frontend),
    /// `connected` (a frontend, but no running queue pair) or `broken` (a ring violated the protocol).
    pub state: String,
    /// Packets that entered the datapath here.
    pub rx_packets: u64,
    /// Bytes of those packets, without virtio-net header and frame check sequence.
    pub rx_bytes: u64,
    /// Packets that left the datapath here.
    pub tx_packets: u64,
    /// Bytes of those packets.
    pub tx_bytes: u64,
    /// Packets that entered here and wait, because the other side is full.
    pub held: u64,
    /// Packets that entered here and were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The same and more for each queue pair.
    #[serde(default)]
    pub pairs: Vec<QueuePair>,
    /// Packets and bits a second over the last sampling interval; absent before the second sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// The part only a guest has.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// The part only a nic has.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<Nic>,
    /// The part only a tap or raw socket has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
}

/// Rates of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Packets a second that entered.
    pub rx_pps: f64,
    /// Bits a second that entered.
    pub rx_bps: f64,
    /// Packets a second that left.
    pub tx_pps: f64,
    /// Bits a second that left.
    pub tx_bps: f64,
}

/// What only a guest port has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Guest {
    /// Name of the port its virtqueues are connected to, or `none`.
    pub backend: String,
    /// The backend asked for last; another one than `backend` while the fallback is in its place.
    #[serde(default)]
    pub backend_wanted: String,
    /// Name of the port that is taken while the backend has no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Path of the vhost-user socket.
    pub socket: String,
    /// Whether a frontend is connected.
    pub connected: bool,
    /// How many frontends have connected so far.
    pub connections: u64,
    /// Names of the virtio feature bits that the next frontend is offered.
    #[serde(default)]
    pub offered: Vec<String>,
    /// Names of the virtio feature bits the guest acknowledged.
    pub features: Vec<String>,
    /// Names of the vhost-user protocol features the frontend acknowledged.
    pub protocol_features: Vec<String>,
    /// Memory regions mapped from the frontend.
    pub memory_regions: usize,
    /// Bytes of those regions.
    pub memory_bytes: u64,
    /// MTU in bytes that the frontend has set, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend_mtu: Option<u16>,
    /// Names of the bits of the device status (virtio 1.2, 2.1); none from a frontend that does not tell it.
    #[serde(default)]
    pub device_status: Vec<String>,
    /// Frames that ringwired has sent in the guest's name to announce it to a network; they are among `rx_packets`.
    #[serde(default)]
    pub announced: u64,
    /// The tap that is its exception path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub punt: Option<String>,
    /// The way to a frontend, and what was wrong with its messages.
    #[serde(default)]
    pub frontend: Frontend,
    /// Every virtqueue offered: even index: to the guest, odd index: from the guest.
    pub queues: Vec<Queue>,
}

/// The way to a guest's frontend, and what was wrong with its messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frontend {
    /// The socket's file; absent when there is none: somebody has removed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_file: Option<SocketFile>,
    /// The message that was refused last, and why, from the frontend that is connected or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why ringwired closed the connection to the last frontend, if it was not the frontend that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hung_up: Option<String>,
    /// For how long the frontend has been connected, or gone; absent if there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<f64>,
    /// Whether another one has connected, and waits until this one leaves.
    #[serde(default)]
    pub waiting: bool,
}

/// Who may connect to a socket: those who may write to its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketFile {
    /// Permission bits.
    pub mode: u32,
    /// Number of the user that owns it.
    pub user: u32,
    /// Number of its group.
    pub group: u32,
}

/// One virtqueue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Queue {
    /// Virtqueue index; pair k is 2k (the guest receives) and 2k+1 (the guest sends).
    pub index: u16,
    /// Whether the frontend has enabled it.
    pub enabled: bool,
    /// `worker:CORE`, `slow-path` or `parked`.
    pub owner: String,
    /// Entries; 0 before the frontend has set it.
    pub size: u16,
    /// `split` or `packed`; `none` before the ring was started.
    pub format: String,
    /// Chains returned to the guest as used.
    pub used: u64,
    /// Kicks that were noticed: none while the ring is polled, and one for several that come together.
    #[serde(default)]
    pub kicks: u64,
    /// Calls (guest interrupts) sent.
    pub calls: u64,
    /// Calls left out because the guest had suppressed them.
    pub calls_suppressed: u64,
    /// Why the ring was stopped for good, if the guest violated the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// How often a ring at this place was stopped so, by reason, since the datapath started.
    #[serde(default)]
    pub violations: BTreeMap<String, u64>,
    /// What it still needs to run, and what its memory says.
    #[serde(default)]
    pub ring: RingState,
}

/// What a frontend has set up of a virtqueue, and what the ring in the guest's memory says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RingState {
    /// Whether its addresses are known (SET_VRING_ADDR).
    pub addresses: bool,
    /// Whether it was kicked off (SET_VRING_KICK, and no GET_VRING_BASE since).
    pub kick: bool,
    /// Whether there is an eventfd to call the guest with (SET_VRING_CALL).
    pub call: bool,
    /// Whether it was started: set up, enabled and valid.
    pub started: bool,
    /// Whether the guest has posted buffers that are not used yet; absent unless started. A packed ring's descriptors
    /// inside of chains that were used cannot be told from posted ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted: Option<bool>,
    /// The guest's avail index; absent unless started, and for packed rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avail_index: Option<u16>,
    /// Our used index, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_index: Option<u16>,
}

/// What only a nic port has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nic {
    /// Device as configured: PCI address or vdev devargs.
    pub device: String,
    /// Name of DPDK's driver for it.
    pub driver: String,
    /// Hardware address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u16,
    /// Queue pairs in use.
    pub queue_pairs: u16,
    /// Whether the link is up.
    pub link_up: bool,
    /// Link speed in Mb/s; 0 where the driver does not say.
    pub link_speed_mbps: u32,
    /// Whether it takes frames for other addresses.
    pub promiscuous: bool,
    /// Offloads in force, by DPDK's names: `TX_TCP_CKSUM`, `RX_TCP_LRO`, ...
    #[serde(default)]
    pub offloads: Vec<String>,
    /// The device's own basic counters (ipackets, opackets, imissed, ierrors, oerrors, rx_nombuf, ...).
    pub device_stats: BTreeMap<String, u64>,
    /// The driver's extended counters, by its own names.
    pub xstats: BTreeMap<String, u64>,
}

/// What only a tap or raw port has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name in the kernel.
    pub name: String,
    /// `tap`, `macvtap` or `raw`.
    pub driver: String,
    /// MTU in bytes; 0 once the interface is gone.
    pub mtu: u32,
    /// Queue pairs in use.
    pub queue_pairs: u16,
    /// The kernel's counters of the interface, from its own point of view, and `missed`: what it dropped because we
    /// did not read in time.
    pub kernel_stats: BTreeMap<String, u64>,
}

/// Body of `PUT /v1/guests/NAME/backend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// A port's name, or `none`.
    pub backend: String,
}

/// Body of `PUT /v1/guests/NAME/offloads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offloads {
    /// What the guest's next frontend is to be offered.
    pub offloads: Offered,
}

/// Which checksum and segmentation offloads are offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Offered {
    /// `auto` for all, `off` for none.
    Word(String),
    /// These, by the names that QEMU has for them.
    List(Vec<String>),
}

/// Body of `PUT /v1/ports/NAME`: a tap or raw port. Descriptors that are sent along with the request (SCM_RIGHTS) are
/// taken instead of an interface's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPort {
    /// `tap` or `raw`.
    pub kind: PortKind,
    /// Name of the kernel's interface; a tap is created when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Queue pairs; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// The user who may open the tap, if it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Account>,
    /// The group that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Account {
    /// By its number.
    Number(u32),
    /// By its name, or its number as text.
    Name(String),
}

/// Body of `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Whether only to say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a reload has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Whether it only says what would change.
    pub dry_run: bool,
    /// One line a change; none if what runs is what the file says.
    pub changes: Vec<String>,
}

/// Body of `PUT /v1/log`, and what `GET /v1/log` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or levels by target: `info,engine=debug`.
    pub level: String,
}

/// Body of every refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong, in one line.
    pub error: String,
}

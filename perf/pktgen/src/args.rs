//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::engine::Rate;
use crate::kick::KickPolicy;
use crate::memory::Hugepages;
use crate::parse;
use crate::port::Choice;

/// Generates, receives and measures packets as a guest does: a vhost-user frontend with its own virtio-net
/// driver, for any vhost-user backend (ringwired, DPDK's net_vhost, Open vSwitch).
#[derive(Debug, Parser)]
#[command(
    name = "ringwire-pktgen",
    version,
    max_term_width = 110,
    after_help = "\
Exit status: 0 good; 1 loss, duplication, corruption or a stuck packet with --check, or a backend that broke\n\
the rules; 2 usage, or no room for the result; 3 no connection to the backend, or lost it."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send, receive or echo packets once, and report.
    Run(Box<Run>),
    /// Search the highest rate without loss (RFC 2544, 26.1).
    #[command(long_about = "\
Searches the throughput as RFC 2544, 26.1, defines it: the highest rate at which not one packet offered is lost \
(NDR, non-drop rate), or, with --pdr, at which at most that part is (PDR, partial drop rate).\n\n\
The first trial is at line rate, and says how fast this frontend and backend go at all; --rate caps it. The search \
halves the span between the highest rate that passed and the lowest that failed, until it is smaller than \
--resolution says. Loss is (offered - received) / offered. A packet that was due but not taken by the backend before the \
trial ended counts as lost, so a backend that holds its guest back instead of dropping is judged alike. With \
--retries N, a rate fails only after N + 1 trials failed: a shared machine loses packets now and then that the \
backend is not to blame for. The rate found is confirmed by one more trial, whose latencies are reported.")]
    Rfc2544(Box<Search>),
    /// A backend that only returns descriptors: what limits the frontend itself?
    Reflect(Reflect),
    /// Full bursts to and from a device in the same thread: for counting instructions (callgrind)
    #[command(hide = true)]
    Cost(Cost),
}

/// See `cost`.
#[derive(Debug, Args)]
pub struct Cost {
    /// Packets
    #[arg(long, default_value_t = 100_000)]
    pub count: u64,
    #[arg(long)]
    pub packed: bool,
    #[arg(long)]
    pub in_order: bool,
    #[arg(long)]
    pub mergeable: bool,
    #[command(flatten)]
    pub traffic: TrafficArgs,
}

/// What a port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Send; with --peer, the peer receives.
    Tx,
    /// Receive; with --peer, the peer sends.
    Rx,
    /// Send and receive; with --peer, both do.
    Both,
    /// Send back what comes, with MAC addresses swapped.
    Echo,
}

#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The backend's vhost-user socket
    #[arg(long, short, value_name = "PATH")]
    pub socket: PathBuf,
    /// A second port of ours in the same process, on another socket: guest -> backend -> guest
    #[arg(long, value_name = "PATH")]
    pub peer: Option<PathBuf>,
    /// Listen on the socket(s) instead of connecting
    #[arg(long)]
    pub server: bool,
    /// Seconds to wait for the backend's socket, and then for the first packet to come through
    #[arg(long, value_name = "S", value_parser = parse::seconds, default_value = "5")]
    pub wait: f64,
    /// Queue pairs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub queues: u16,
    /// Entries of each virtqueue, a power of two
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = parse::queue_size)]
    pub queue_size: u16,
    /// Packed rings
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub packed: Choice,
    /// Mergeable receive buffers
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub mergeable: Choice,
    /// Descriptors used in order
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub in_order: Choice,
    /// Notification by event index
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub event_idx: Choice,
    /// Indirect descriptors: header and frame apart, by a table for each packet sent
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub indirect: Choice,
    /// Bytes of a receive buffer, virtio-net header included [default: 2048, or what the frame needs if
    /// buffers are not mergeable]
    #[arg(long, value_name = "BYTES")]
    pub rx_buffer: Option<u32>,
    /// Memory from huge pages of 2 MiB
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub hugepages: Hugepages,
    /// When to kick: `never` saves a barrier a burst with a backend that polls
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub kick: KickPolicy,
    /// Pin the packet loop to this core
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
}

#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Frame size, or several, sent in turn. Without FCS, as testpmd counts: 64 here is 68 on a wire
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', default_value = "64")]
    pub size: Vec<usize>,
    /// 64, 570 and 1518 bytes in the ratio 7:4:1
    #[arg(long, conflicts_with = "size")]
    pub imix: bool,
    /// Sizes are with the four bytes of FCS, as RFC 2544 counts
    #[arg(long)]
    pub fcs: bool,
    /// UDP flows of each sending port, taken in turn [default: one a queue pair]
    #[arg(long, value_name = "N")]
    pub flows: Option<u32>,
    /// Packets at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub burst: u32,
    /// Fill in and verify UDP checksums: every byte of every frame is checked
    #[arg(long)]
    pub checksum: bool,
    /// Leave frames of more than 1514 bytes to be cut into IP fragments (GSO), and take such uncut
    #[arg(long, conflicts_with_all = ["checksum", "imix"])]
    pub gso: bool,
    /// Count received frames, and look at none: for those that a NIC makes up, or any other sender's
    #[arg(long, conflicts_with = "checksum")]
    pub count_only: bool,
    /// Source MAC of the port (the peer's is one higher)
    #[arg(long, value_name = "MAC", value_parser = parse::mac, default_value = "02:72:77:00:00:01")]
    pub src_mac: [u8; 6],
    /// Destination MAC [default: the peer's]
    #[arg(long, value_name = "MAC", value_parser = parse::mac)]
    pub dst_mac: Option<[u8; 6]>,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Result as JSON on standard output
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Result as CSV on standard output, one line a port and trial
    #[arg(long)]
    pub csv: bool,
    /// A line each second on standard error, even if that is not a terminal
    #[arg(long)]
    pub progress: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// What the port does
    #[arg(long, short, default_value = "both")]
    pub mode: Mode,
    /// What the peer does, if it is not just the other part (a peer that echoes: round trips)
    #[arg(long, requires = "peer")]
    pub peer_mode: Option<Mode>,
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// `line`, packets (`1.5Mpps`) or bits of frames (`10Gbit`) a second, of each sending port
    #[arg(long, value_name = "RATE", value_parser = parse::rate, default_value = "line")]
    pub rate: parse::RateArg,
    /// Stop after this time [default: 10, if there is no --count]; 0: never
    #[arg(long, value_name = "S", value_parser = parse::seconds)]
    pub seconds: Option<f64>,
    /// Stop after this many packets of each sending port (or received, if none sends)
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Send and receive for this time first, and forget about it
    #[arg(long, value_name = "S", value_parser = parse::seconds, default_value = "0")]
    pub warm_up: f64,
    /// Exit with 1 if anything was lost, duplicated or damaged, or is still with the backend
    #[arg(long)]
    pub check: bool,
    /// Seconds without a packet after which the last one is believed to have come
    #[arg(long, value_name = "S", value_parser = parse::seconds, default_value = "0.2")]
    pub drain: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct Search {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// What the port does: `both` (what is sent comes back, or from the peer and to it), or `tx` with --peer
    #[arg(long, short, default_value = "both")]
    pub mode: Mode,
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// Highest rate to try
    #[arg(long, value_name = "RATE", value_parser = parse::rate, default_value = "line")]
    pub rate: parse::RateArg,
    /// Part of the packets that may be lost, e.g. 0.1% (PDR); without it, none (NDR)
    #[arg(long, value_name = "RATIO", value_parser = parse::ratio, default_value = "0")]
    pub pdr: f64,
    /// Seconds of each trial (RFC 2544 asks for 60)
    #[arg(long, value_name = "S", value_parser = parse::seconds, default_value = "10")]
    pub trial: f64,
    /// Stop when the span is this part of the lowest rate that failed
    #[arg(long, value_name = "RATIO", value_parser = parse::ratio, default_value = "1%")]
    pub resolution: f64,
    /// Trials that a rate may fail before it counts as failed, less one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Seconds without a packet after which the last one is believed to have come
    #[arg(long, value_name = "S", value_parser = parse::seconds, default_value = "0.2")]
    pub drain: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a reflecting backend does with receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fill {
    /// Leave them.
    None,
    /// Return them as they are, as if --length bytes had been written.
    Blank,
    /// Copy what was sent into them.
    Copy,
}

#[derive(Debug, Args)]
pub struct Reflect {
    /// The vhost-user socket
    #[arg(long, short, value_name = "PATH")]
    pub socket: PathBuf,
    /// Connect to a listening frontend instead of listening
    #[arg(long)]
    pub client: bool,
    /// Receive buffers: leave them, return them blank, or copy what was sent
    #[arg(long, value_name = "WHAT", default_value = "none")]
    pub rx: Fill,
    /// Bytes said to be written with `--rx blank`, header included
    #[arg(long, value_name = "BYTES", default_value_t = 76)]
    pub length: u32,
    /// Virtqueue features not to offer
    #[arg(long, value_name = "NAME,...", value_delimiter = ',',
          value_parser = ["packed", "mergeable", "in-order", "indirect", "gso"])]
    pub without: Vec<String>,
    /// Chains returned at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub burst: u32,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    pub core: Option<usize>,
    /// End when the first frontend has gone
    #[arg(long)]
    pub once: bool,
}

impl parse::RateArg {
    /// As packets a second of frames of this mean size.
    pub fn packets(self, mean: f64) -> Rate {
        match self {
            parse::RateArg::Line => Rate::Line,
            parse::RateArg::Packets(packets) => Rate::Packets(packets),
            parse::RateArg::Bits(bits) => Rate::Packets(bits / 8.0 / mean),
        }
    }
}

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use snapshot::Offered;

use crate::live::{IdleCommand, NewGuest, NewNic, WorkerCommand, name, offered};

/// Shows what a running ringwired does.
///
/// Exit status: 0 fine; 1 ringwired refused, and said why; 2 wrong command line; 3 ringwired cannot be
/// reached. Of "explain": 1 the port can carry no traffic. Of "doctor": 0 nothing but notes; 1 warnings;
/// 4 errors.
#[derive(Debug, Parser)]
#[command(name = "ringwire", version)]
pub struct Cli {
    /// Socket of ringwired's control API.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "RINGWIRE_API",
        default_value = "/run/ringwire/api.sock",
        global = true
    )]
    pub api: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole picture: workers, ports, rates, and where packets stop.
    Status(Output),
    /// The ports, or one of them.
    #[command(subcommand)]
    Port(PortCommand),
    /// What a guest is connected to.
    #[command(subcommand)]
    Backend(BackendCommand),
    /// The workers, and what they poll.
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// What workers do without work.
    Idle(IdleCommand),
    /// What a guest is offered.
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Counters: packets and bytes each way, held, and drops by reason.
    Stats {
        /// Only this port: also bursts, sizes, held time, kicks and calls of each of its queues.
        #[arg(value_parser = name)]
        name: Option<String>,
        /// What each drop reason means; those that packets were dropped for first.
        #[arg(long)]
        explain: bool,
        #[command(flatten)]
        output: Output,
    },
    /// The configuration that runs.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make what runs what ringwired's configuration file says now: all of it, or nothing.
    ///
    /// Prints one line a change. Exit status: 1 the file is wrong, or a change is not possible; nothing has changed then.
    Reload {
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
    /// What ringwired logs; with a filter, what it is to log from now on.
    Log {
        /// A level (off, error, warn, info, debug, trace), or levels by target: "info,engine=debug".
        filter: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Why does this port carry traffic, or not: each precondition, the one that fails, and what to do about it.
    ///
    /// Exit status: 0 it carries or can carry traffic; 1 a precondition fails; 3 ringwired cannot be reached.
    Explain {
        /// The port: a guest, nic, tap or raw.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// A live view, refreshed each second: workers, ports, rates and drops.
    ///
    /// Keys: s another order, up and down scroll, q quits.
    Top {
        /// Print one frame as text, after a second, and end.
        #[arg(long)]
        once: bool,
    },
    /// Captures what passes a port into a file, as pcapng, until Ctrl-C.
    ///
    /// A port's rx is what came in there: of a guest, what it sent. Packets for which the capture has no room are
    /// counted, and miss only in the capture.
    Capture(Capture),
    /// Is this host set up for it: hugepages, IOMMU, drivers, isolated cores, NUMA, power, limits.
    ///
    /// Needs no ringwired; asks it for its cores if there is one. Exit status: 0 nothing but notes; 1 warnings;
    /// 4 errors.
    Doctor {
        /// Cores of the workers, as in "1,3": asked of ringwired if absent.
        #[arg(long, value_delimiter = ',', value_name = "CORES")]
        cores: Vec<usize>,
        #[command(flatten)]
        output: Output,
    },
    /// Print what makes a shell complete ringwire's commands and options.
    ///
    /// For bash, to be read at its start: ringwire completions bash >~/.local/share/bash-completion/completions/ringwire
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The commands about ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Every port in one line.
    List(Output),
    /// Add a port while ringwired runs.
    #[command(subcommand)]
    Add(AddCommand),
    /// Remove a port that no other guest needs as its backend, fallback or exception path.
    Remove {
        /// The port.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Everything about one port.
    Show {
        /// The port.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// The kinds of ports that can be added.
#[derive(Debug, Subcommand)]
pub enum AddCommand {
    /// A guest: a vhost-user socket that a frontend connects to.
    Guest(Box<NewGuest>),
    /// A NIC that DPDK drives.
    Nic(Box<NewNic>),
    /// A tap, created when its interface is missing, or a macvtap.
    Tap(NewTap),
    /// A raw socket on an interface.
    Raw(NewSocket),
}

/// A tap port.
#[derive(Debug, Args)]
pub struct NewTap {
    #[command(flatten)]
    pub socket: NewSocket,
    /// Name or number of the user who may open the tap, too, if it is created.
    #[arg(long)]
    pub user: Option<String>,
    /// Name or number of the group that may.
    #[arg(long)]
    pub group: Option<String>,
}

/// A tap or raw port.
#[derive(Debug, Args)]
pub struct NewSocket {
    /// The port's name.
    #[arg(value_parser = name)]
    pub name: String,
    /// Name of the kernel's interface.
    #[arg(long, required_unless_present = "fds", conflicts_with = "fds")]
    pub interface: Option<String>,
    /// Number of a descriptor that is open already, to be handed over instead; once for each queue pair.
    #[arg(long = "fd", value_name = "NUMBER")]
    pub fds: Vec<i32>,
    /// Queue pairs.
    #[arg(long)]
    pub queues: Option<u16>,
    #[command(flatten)]
    pub output: Output,
}

/// The commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the file that would bring back what runs now, with every change made since the start.
    Dump(Output),
}

/// The commands about backends.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// Connect a guest to another port while it runs, or to none.
    Set {
        /// The guest.
        #[arg(value_parser = name)]
        guest: String,
        /// A nic, tap or raw port, another guest, or "none".
        port: String,
        #[command(flatten)]
        output: Output,
    },
}

/// The commands about guests.
#[derive(Debug, Subcommand)]
pub enum GuestCommand {
    /// Choose the checksum and segmentation offloads that a guest's next frontend is offered.
    ///
    /// A driver keeps what it has negotiated. QEMU does so for as long as it runs, and does not come back to a
    /// ringwired that offers less: take offloads away before the guest is started.
    Offloads {
        /// The guest.
        #[arg(value_parser = name)]
        guest: String,
        /// "auto" (all), "off" (none), or names as QEMU has them, separated by commas: csum,host_tso4.
        #[arg(value_parser = offered)]
        offloads: Offered,
        #[command(flatten)]
        output: Output,
    },
}

/// A capture.
#[derive(Debug, Args)]
pub struct Capture {
    /// The port, or one of its queue pairs: vm1, vm1:0.
    #[arg(value_name = "PORT[:QUEUE]", value_parser = name)]
    pub name: String,
    /// The file; "-" is standard output, for tcpdump -r - or tshark -r -.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub file: PathBuf,
    /// Which way packets go, as ringwired sees it.
    #[arg(long, value_enum, default_value_t = Passing::Both)]
    pub direction: Passing,
    /// Keep so many bytes of each packet at most.
    #[arg(short = 's', long, value_name = "BYTES")]
    pub snaplen: Option<u32>,
    /// End after so many packets.
    #[arg(short = 'c', long)]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Only packets that this wants, as tcpdump has it: udp port 7. (pcap-filter(7) says more.)
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Passing {
    /// Into the datapath.
    Rx,
    /// Out of it.
    Tx,
    /// Either way.
    Both,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print ringwired's answer as it came, JSON.
    #[arg(long)]
    pub json: bool,
}

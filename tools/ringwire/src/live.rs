//! What changes while ringwired runs: nics, guests and workers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;
use snapshot::{Assign, Idle, IdleMode, Offered, PortKind, Worker};

use crate::args::Output;
use crate::client::{self, ClientError, path_element};
use crate::{show, view_answer, views};

/// A nic; the options are the keys of `[[nic]]` in the configuration file.
#[derive(Debug, Args, Serialize)]
pub struct NewNic {
    /// The port's name.
    #[arg(value_parser = name)]
    #[serde(skip)]
    name: String,
    /// PCI address, or a vdev such as "net_af_packet0,iface=eth1".
    #[arg(long)]
    device: String,
    /// Queue pairs.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<u16>,
    /// MTU to set, in bytes.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    /// Whether to take frames for other addresses than its own [default: true].
    #[arg(long, value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    promiscuous: Option<bool>,
    /// Let it make one packet of many TCP segments that it receives.
    #[arg(long)]
    lro: bool,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

/// A guest; the options are the keys of `[[guest]]` in the configuration file.
#[derive(Debug, Args, Serialize)]
pub struct NewGuest {
    /// The port's name.
    #[arg(value_parser = name)]
    #[serde(skip)]
    name: String,
    /// Path of the vhost-user socket.
    #[arg(long, value_parser = absolute)]
    socket: String,
    /// Permission bits of the socket, such as 0660.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_mode: Option<String>,
    /// Group of the socket.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_group: Option<String>,
    /// "server": ringwired listens on the socket.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// Queue pairs offered.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<u16>,
    /// Queue pairs that the workers on these cores are to poll.
    #[arg(long, value_name = "PAIR=CORE,...", value_parser = pairs_and_cores)]
    #[serde(skip_serializing_if = "Option::is_none")]
    assign: Option<BTreeMap<u16, u16>>,
    /// A nic, tap or raw port, another guest, or "none".
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    /// Port that takes the backend's place while that has no link.
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
    /// Seconds that the backend must have a link again before it is returned to.
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_hold: Option<u16>,
    /// auto, off, or names such as csum,host_tso4: what it is offered.
    #[arg(long, value_parser = offered)]
    #[serde(skip_serializing_if = "Option::is_none")]
    offloads: Option<Offered>,
    /// Tap that is its exception path.
    #[arg(long, value_name = "TAP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    punt: Option<String>,
    /// What goes there: arp, nd, lldp, lacp, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    punt_classes: Option<Vec<String>>,
    /// Address of the host itself, whose frames go there, too.
    #[arg(long, value_name = "MAC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    punt_mac: Option<String>,
    /// Hardware address shown to the guest.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    /// MTU shown to the guest, in bytes.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

/// The commands about workers.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Every worker in one line.
    List(Output),
    /// Start a worker on a core. It takes queues over from the others until it has as many.
    Add {
        /// The core.
        core: usize,
        #[command(flatten)]
        output: Output,
    },
    /// End the worker on a core. The others get its queues.
    Remove {
        /// The core.
        core: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Have a guest's queue pair polled by the worker on a core, until that goes, or another is asked for.
    ///
    /// Queue pairs that share a nic's, or another guest's, have one owner, and move together.
    Assign {
        /// Guest and number of the queue pair, from 0 on.
        #[arg(value_name = "GUEST:QUEUE", value_parser = queue)]
        queue: (String, u16),
        /// The worker's core, or "any" to take it back.
        #[arg(value_name = "CORE|any", value_parser = worker_of_choice)]
        core: Choice,
        #[command(flatten)]
        output: Output,
    },
}

/// Which worker is to poll a queue pair.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// The one on this core.
    Core(usize),
    /// Any.
    Any,
}

/// What workers do without work.
#[derive(Debug, Args)]
pub struct IdleCommand {
    /// "poll" or "adaptive"; shown if absent.
    #[arg(value_parser = idle_mode)]
    mode: Option<Idle>,
    #[command(flatten)]
    output: Output,
}

fn queue(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(guest, pair)| Some((guest.to_owned(), pair.parse().ok()?)));
    parts
        .filter(|(guest, _)| !guest.is_empty())
        .ok_or_else(|| "expected GUEST:QUEUE, such as vm1:0".to_owned())
}

fn pairs_and_cores(text: &str) -> Result<BTreeMap<u16, u16>, String> {
    let mut assigned = BTreeMap::new();
    for part in text.split(',') {
        let parts =
            part.split_once('=').and_then(|(pair, core)| Some((pair.parse().ok()?, core.parse().ok()?)));
        let (pair, core) = parts.ok_or_else(|| format!("{part:?}: expected PAIR=CORE, such as 0=1"))?;
        if assigned.insert(pair, core).is_some() {
            return Err(format!("queue pair {pair} is there twice"));
        }
    }
    Ok(assigned)
}

/// The path of a file from the root on: ringwired may run in another directory than this.
fn absolute(text: &str) -> Result<String, String> {
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    path.into_os_string().into_string().map_err(|_| "this directory's name is not UTF-8 text".to_owned())
}

/// The name of a port.
pub fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("a port has a name") } else { Ok(text.to_owned()) }
}

/// Offloads on a command line. ringwired knows their names.
pub fn offered(text: &str) -> Result<Offered, Infallible> {
    Ok(match text {
        "auto" | "off" => Offered::Word(text.to_owned()),
        list => Offered::List(list.split(',').map(str::to_owned).collect()),
    })
}

fn worker_of_choice(text: &str) -> Result<Choice, String> {
    match text {
        "any" => Ok(Choice::Any),
        core => {
            core.parse().map(Choice::Core).map_err(|_| "expected the number of a core, or any".to_owned())
        }
    }
}

fn idle_mode(text: &str) -> Result<Idle, String> {
    let modes = [Idle::Poll, Idle::Adaptive];
    modes.into_iter().find(|mode| mode.name() == text).ok_or_else(|| "expected poll or adaptive".to_owned())
}

/// `ringwire worker ...`.
pub fn worker(api: &Path, command: &WorkerCommand) -> Result<String, ClientError> {
    let path = |core: &usize| format!("/v1/workers/{core}");
    match command {
        WorkerCommand::List(output) => {
            show(api, "/v1/workers", output, |all: &Vec<Worker>| views::workers(all))
        }
        WorkerCommand::Add { core, output } => {
            let answer = client::put(api, &path(core), &(), Vec::new())?;
            view_answer(api, answer, output, |worker: &Worker| {
                format!("{}: added, lanes {}\n", worker.name, worker.lanes)
            })
        }
        WorkerCommand::Remove { core, output } => {
            view_answer(api, client::delete(api, &path(core))?, output, |worker: &Worker| {
                format!("{}: removed\n", worker.name)
            })
        }
        WorkerCommand::Assign { queue: (guest, pair), core, output } => {
            let path = format!("/v1/guests/{}/queues/{pair}/worker", path_element(guest));
            let answer = match *core {
                Choice::Core(core) => client::put(api, &path, &Assign { core }, Vec::new())?,
                Choice::Any => client::delete(api, &path)?,
            };
            view_answer(api, answer, output, |assigned| views::assigned(&format!("{guest}:{pair}"), assigned))
        }
    }
}

/// `ringwire idle`.
pub fn idle(api: &Path, IdleCommand { mode, output }: &IdleCommand) -> Result<String, ClientError> {
    let answer = match mode {
        None => client::get(api, "/v1/idle")?,
        Some(idle) => client::put(api, "/v1/idle", &IdleMode { idle: *idle }, Vec::new())?,
    };
    view_answer(api, answer, output, |now: &IdleMode| format!("workers without work: {}\n", now.idle.name()))
}

/// `ringwire port add nic`.
pub fn add_nic(api: &Path, new: &NewNic) -> Result<String, ClientError> {
    add(api, PortKind::Nic, &new.name, new, &new.output)
}

/// `ringwire port add guest`.
pub fn add_guest(api: &Path, new: &NewGuest) -> Result<String, ClientError> {
    add(api, PortKind::Guest, &new.name, new, &new.output)
}

/// Body of `PUT /v1/ports/NAME`.
#[derive(Serialize)]
struct NewPort<'a, K> {
    kind: PortKind,
    #[serde(flatten)]
    keys: &'a K,
}

fn add(
    api: &Path,
    kind: PortKind,
    name: &str,
    keys: &impl Serialize,
    output: &Output,
) -> Result<String, ClientError> {
    let path = format!("/v1/ports/{}", path_element(name));
    let answer = client::put(api, &path, &NewPort { kind, keys }, Vec::new())?;
    view_answer(api, answer, output, views::port)
}

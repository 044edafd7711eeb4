//! From arguments to ports that are ready.

use std::time::Duration;

use crate::args::{DeviceArgs, Mode, TrafficArgs};
use crate::engine::{Role, Station};
use crate::frame::{Addresses, Checksum, FLOWS_MAX, MAX, MIN, Traffic, UNCUT};
use crate::port::{Choice, Device, Port, PortError};
use crate::proto::{ChannelError, Meeting};
use crate::ring::HEADER_LEN;
use crate::track::Tracker;
use crate::{Failure, usage};

/// What `--imix` means, mixed well.
const IMIX: [usize; 12] = [64, 64, 570, 64, 64, 570, 64, 64, 570, 64, 570, 1518];
const FCS: usize = 4;
/// Longest frame that is echoed, unless a longer one is to be sent anyway.
const ECHO: usize = 9216;
/// Bytes of a receive buffer, unless asked for otherwise.
const BUFFER: usize = 2048;

/// The sizes that are sent, checked.
pub fn sizes(args: &TrafficArgs) -> Result<Vec<usize>, Failure> {
    let given = if args.imix { IMIX.to_vec() } else { args.size.clone() };
    let fcs = if args.fcs { FCS } else { 0 };
    let least = if args.gso { UNCUT + 1 } else { MIN };
    given
        .iter()
        .map(|size| match size.checked_sub(fcs) {
            Some(size) if (least..=MAX).contains(&size) => Ok(size),
            _ => {
                let gso = if args.gso { " with --gso" } else { "" };
                Err(usage(format!("--size {size}: from {} to {} bytes{gso}", least + fcs, MAX + fcs)))
            }
        })
        .collect()
}

/// Their mean.
pub fn mean(sizes: &[usize]) -> f64 {
    sizes.iter().sum::<usize>() as f64 / sizes.len() as f64
}

fn role(mode: Mode, count: bool) -> Role {
    let receives = matches!(mode, Mode::Rx | Mode::Both);
    Role {
        tx: matches!(mode, Mode::Tx | Mode::Both),
        rx: receives && !count,
        echo: mode == Mode::Echo,
        count: receives && count,
    }
}

fn mirrored(mode: Mode) -> Mode {
    match mode {
        Mode::Tx => Mode::Rx,
        Mode::Rx => Mode::Tx,
        Mode::Both => Mode::Both,
        Mode::Echo => Mode::Both,
    }
}

fn device(args: &DeviceArgs, traffic: &TrafficArgs, longest: usize) -> Result<Device, Failure> {
    let needed = if args.mergeable == Choice::On { BUFFER } else { BUFFER.max(longest + HEADER_LEN) };
    let buffer = args.rx_buffer.map_or(needed, |bytes| bytes as usize);
    let smallest = HEADER_LEN + crate::ring::HEAD;
    if buffer < smallest {
        return Err(usage(format!("--rx-buffer {buffer}: at least {smallest} bytes")));
    }
    Ok(Device {
        queues: args.queues,
        queue_size: args.queue_size,
        packed: args.packed,
        mergeable: args.mergeable,
        in_order: args.in_order,
        event_idx: args.event_idx,
        indirect: args.indirect,
        hugepages: args.hugepages,
        room: longest,
        buffer: buffer - HEADER_LEN,
        kick: args.kick,
        checksum: traffic.checksum,
        gso: traffic.gso,
    })
}

/// What each queue of a port sends. Flows are split between the queues.
pub fn traffic(
    args: &TrafficArgs,
    sizes: &[usize],
    queues: u16,
    peer: bool,
) -> Result<Vec<Traffic>, Failure> {
    let queues = u32::from(queues);
    let flows = args.flows.unwrap_or(queues);
    if flows < queues || flows > FLOWS_MAX / 2 {
        let most = FLOWS_MAX / 2;
        return Err(usage(format!("--flows {flows}: at least one a queue pair ({queues}), at most {most}")));
    }
    let mut other = args.src_mac;
    other[5] = other[5].wrapping_add(1);
    let to = args.dst_mac.unwrap_or(other);
    let addresses = if peer {
        Addresses { to: args.src_mac, from: to, reverse: true }
    } else {
        Addresses { to, from: args.src_mac, reverse: false }
    };
    let mut base = if peer { flows } else { 0 };
    let share = |k: u32| flows / queues + u32::from(k < flows % queues);
    let checksum = match (args.checksum, args.gso) {
        (_, true) => Checksum::Begun,
        (true, _) => Checksum::Full,
        _ => Checksum::Absent,
    };
    let queue = |k: u32| {
        let flows = share(k);
        let first = base;
        base += flows;
        let sizes = sizes.to_vec();
        Traffic { sizes, flows, flow_base: first, addresses, checksum, epoch: 0 }
    };
    Ok((0..queues).map(queue).collect())
}

/// Whether any port looks at what it receives, so that something is known about loss.
pub fn looks(args: &DeviceArgs, traffic: &TrafficArgs, mode: Mode, peer_mode: Option<Mode>) -> bool {
    let peer = args.peer.as_ref().map(|_| peer_mode.unwrap_or(mirrored(mode)));
    [Some(mode), peer].into_iter().flatten().any(|mode| role(mode, traffic.count_only).rx)
}

/// Connects the port, and the peer if there is one.
pub fn stations(
    args: &DeviceArgs,
    traffic_args: &TrafficArgs,
    mode: Mode,
    peer_mode: Option<Mode>,
) -> Result<Vec<Station>, Failure> {
    let sizes = sizes(traffic_args)?;
    let longest = sizes.iter().copied().max().unwrap_or(MIN);
    let device = device(args, traffic_args, longest)?;
    if args.peer.as_ref() == Some(&args.socket) {
        return Err(usage(format!("--peer {}: a socket of its own, not --socket's", args.socket.display())));
    }
    let meeting = |path: &std::path::Path| Meeting {
        path: path.to_path_buf(),
        listen: args.server,
        patience: Some(Duration::from_secs_f64(args.wait)),
    };
    let peer_mode = peer_mode.unwrap_or(mirrored(mode));
    let mut plans = vec![("port", &args.socket, mode)];
    plans.extend(args.peer.as_ref().map(|path| ("peer", path, peer_mode)));
    let roles: Vec<Role> = plans.iter().map(|(_, _, mode)| role(*mode, traffic_args.count_only)).collect();
    let mut stations = Vec::new();
    for (at, (name, path, _)) in plans.iter().enumerate() {
        let role = roles[at];
        let traffic = traffic(traffic_args, &sizes, args.queues, at == 1)?;
        let room = if role.echo { longest.max(ECHO) } else { longest };
        let port =
            Port::open(&meeting(path), &Device { room, ..device.clone() }, role.receives()).map_err(|e| {
                match e {
                    PortError::Memory(e) => usage(e.to_string()),
                    PortError::Channel(
                        e @ (ChannelError::Connect(..) | ChannelError::Listen(..) | ChannelError::Nobody(..)),
                    ) => Failure::Connect(e.to_string()),
                    e => Failure::Connect(format!("{}: {e}", path.display())),
                }
            })?;
        // What the other port sends, if it does; else what this one does itself, and gets back.
        let other = (roles.len() == 2 && roles[1 - at].tx).then_some(1 - at);
        let source = other.or(role.tx.then_some(at));
        let tracker = Tracker::new(0, 0, 0, false);
        stations.push(Station { name, port, role, traffic, source: source.filter(|_| role.rx), tracker });
    }
    Ok(stations)
}

/// Pins this thread.
pub fn pin(core: Option<usize>) -> Result<(), Failure> {
    let Some(core) = core else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Ok(());
    }
    Err(usage(format!("--core {core}: this process may not run there")))
}

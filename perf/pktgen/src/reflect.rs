//! `reflect`: a backend that returns descriptors, and does nothing else unless told to copy. What a frontend
//! reaches on it is the frontend's own limit.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::args::{Fill, Reflect};
use crate::memory::Shared;
use crate::port::GSO;
use crate::progress::Live;
use crate::proto::{
    AddressMessage, Channel, ChannelError, Listener, Meeting, Message, StateMessage, features, protocol,
    request, to_regions,
};
use crate::ring::device::{Chain, DeviceRing, DeviceSetup, Memory, Segment};

/// Bytes of the virtio-net header.
const HEADER: usize = crate::ring::HEADER_LEN;
/// Queue pairs offered.
const PAIRS: u64 = 64;

/// A virtqueue as set up so far.
#[derive(Default)]
struct Vring {
    setup: DeviceSetup,
    call: Option<OwnedFd>,
    enabled: bool,
    ring: Option<DeviceRing>,
}

/// One frontend.
pub struct Backend<'a> {
    args: &'a Reflect,
    offered: u64,
    features: u64,
    memory: Memory,
    /// Regions' user addresses are not known to rings that still point to them when the table changes: those
    /// keep the old memory alive themselves.
    vrings: Vec<Vring>,
    segments: [Vec<Segment>; 2],
}

/// Serves frontends, one after the other.
pub fn reflect(args: &Reflect, live: &Live) -> Result<(), ChannelError> {
    let patience = Some(std::time::Duration::from_millis(500));
    let meeting = Meeting { path: args.socket.clone(), listen: false, patience };
    // One socket for all frontends: one that connects between two of them must find it.
    let listener = if args.client { None } else { Some(Listener::bind(&args.socket)?) };
    while !live.stopped() {
        let met = match &listener {
            Some(listener) => listener.accept(patience),
            None => Channel::meet(&meeting),
        };
        let mut channel = match met {
            Ok(channel) => channel,
            Err(ChannelError::Nobody(..) | ChannelError::Connect(..)) => continue,
            Err(e) => return Err(e),
        };
        match Backend::new(args).serve(&mut channel, live) {
            Ok(()) | Err(ChannelError::Closed(_)) => {}
            Err(e) => eprintln!("ringwire-pktgen: {e}"),
        }
        if args.once {
            break;
        }
    }
    Ok(())
}

impl<'a> Backend<'a> {
    fn new(args: &'a Reflect) -> Backend<'a> {
        let mut offered =
            features::VERSION_1 | features::VHOST_USER_PROTOCOL | features::MQ | features::CTRL_VQ;
        for (name, bit) in [
            ("packed", features::RING_PACKED),
            ("mergeable", features::MRG_RXBUF),
            ("in-order", features::IN_ORDER),
            ("indirect", features::INDIRECT_DESC),
            ("gso", GSO),
        ] {
            if !args.without.iter().any(|without| without == name) {
                offered |= bit;
            }
        }
        Backend {
            args,
            offered,
            features: 0,
            memory: Memory::default(),
            vrings: Vec::new(),
            segments: [Vec::new(), Vec::new()],
        }
    }

    fn serve(&mut self, channel: &mut Channel, live: &Live) -> Result<(), ChannelError> {
        let mut idle = 0u32;
        while !live.stopped() {
            let mut moved = 0;
            for _ in 0..1024 {
                moved += self.round();
            }
            idle = if moved > 0 { 0 } else { idle.saturating_add(1) };
            if channel.ready() {
                let message = channel.receive()?;
                self.handle(channel, message)?;
            } else if idle > 100 && self.vrings.iter().all(|v| v.ring.is_none()) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Looks at every queue pair once.
    fn round(&mut self) -> u32 {
        let (burst, fill, length) = (self.args.burst, self.args.rx, self.args.length);
        let mergeable = self.features & features::MRG_RXBUF != 0;
        let mut moved = 0;
        for pair in self.vrings.chunks_exact_mut(2) {
            let [to, from] = pair else { continue };
            match fill {
                Fill::Copy => {
                    if let (Some(to_ring), Some(from_ring)) = (&mut to.ring, &mut from.ring) {
                        moved += copy(&self.memory, to_ring, from_ring, burst, mergeable, &mut self.segments);
                    }
                }
                _ => {
                    moved += from.ring.as_mut().map_or(0, |ring| ring.return_all(burst, 0));
                    if fill == Fill::Blank {
                        moved += to.ring.as_mut().map_or(0, |ring| ring.return_all(burst, length));
                    }
                }
            }
            if moved > 0 {
                call(to);
                call(from);
            }
        }
        moved
    }

    fn handle(&mut self, channel: &mut Channel, mut message: Message) -> Result<(), ChannelError> {
        let request = message.request;
        let answer = |value: u64| Message::reply(request, &value.to_ne_bytes());
        let reply = match request {
            request::GET_FEATURES => Some(answer(self.offered)),
            request::GET_PROTOCOL_FEATURES => Some(answer(protocol::MQ | protocol::REPLY_ACK)),
            request::GET_QUEUE_NUM => Some(answer(PAIRS)),
            request::GET_VRING_BASE => {
                let state = StateMessage::of(&message);
                let vring = state.and_then(|s| self.vring(s.index));
                let value = vring.map_or(0, |v| v.ring.take().map_or(v.setup.base, |ring| ring.base()));
                let index = state.map_or(0, |s| s.index);
                Some(Message::reply(request, &StateMessage { index, value }.bytes()))
            }
            _ => None,
        };
        if let Some(reply) = reply {
            return channel.send(&reply, &[]);
        }
        let done = self.set(&mut message);
        if done.is_none() {
            eprintln!("ringwire-pktgen: {} of the frontend is not understood", request::name(request));
        }
        if message.needs_reply() {
            channel.send(&answer(u64::from(done.is_none())), &[])?;
        }
        Ok(())
    }

    fn vring(&mut self, index: u32) -> Option<&mut Vring> {
        if u64::from(index) >= 2 * PAIRS {
            return None;
        }
        while self.vrings.len() <= index as usize | 1 {
            self.vrings.push(Vring::default());
        }
        self.vrings.get_mut(index as usize)
    }

    /// A message without an answer of its own. `None` if it is not understood.
    fn set(&mut self, message: &mut Message) -> Option<()> {
        match message.request {
            request::SET_OWNER | request::SET_PROTOCOL_FEATURES | request::SET_VRING_ERR => {}
            request::SET_FEATURES => self.features = message.u64(0)?,
            request::SET_MEM_TABLE => self.map(message)?,
            request::SET_VRING_NUM => {
                let state = StateMessage::of(message)?;
                self.vring(state.index)?.setup.size = state.value;
            }
            request::SET_VRING_BASE => {
                let state = StateMessage::of(message)?;
                self.vring(state.index)?.setup.base = state.value;
            }
            request::SET_VRING_ADDR => {
                let AddressMessage { index, descriptors, driver, device } = AddressMessage::of(message)?;
                let setup = &mut self.vring(index)?.setup;
                (setup.descriptors, setup.driver, setup.device) = (descriptors, driver, device);
            }
            request::SET_VRING_CALL => {
                let index = message.u64(0)? as u32 & 0xff;
                self.vring(index)?.call = message.fds.pop();
            }
            request::SET_VRING_KICK => {
                // Polled, so the descriptor is not needed; but it says that the ring is complete.
                let index = message.u64(0)? as u32 & 0xff;
                let without_protocol = self.features & features::VHOST_USER_PROTOCOL == 0;
                self.vring(index)?.enabled |= without_protocol;
                self.start(index)?;
            }
            request::SET_VRING_ENABLE => {
                let state = StateMessage::of(message)?;
                let vring = self.vring(state.index)?;
                vring.enabled = state.value != 0;
                if !vring.enabled
                    && let Some(ring) = vring.ring.take()
                {
                    vring.setup.base = ring.base();
                }
                self.start(state.index)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Runs a ring that is complete and enabled.
    fn start(&mut self, index: u32) -> Option<()> {
        let (packed, memory) = (self.features & features::RING_PACKED != 0, self.memory.clone());
        let vring = self.vring(index)?;
        if vring.enabled && vring.ring.is_none() && vring.setup.descriptors != 0 {
            vring.ring = Some(DeviceRing::new(&memory, DeviceSetup { packed, ..vring.setup })?);
        }
        Some(())
    }

    fn map(&mut self, message: &mut Message) -> Option<()> {
        let regions = to_regions(message)?;
        if regions.len() != message.fds.len() {
            return None;
        }
        for vring in &mut self.vrings {
            if let Some(ring) = vring.ring.take() {
                vring.setup.base = ring.base();
            }
        }
        self.memory = Memory::default();
        for (region, fd) in regions.into_iter().zip(message.fds.drain(..)) {
            let shared = Shared::from_frontend(fd, region.size, region.offset).ok()?;
            self.memory.add(region, Rc::new(shared));
        }
        (0..self.vrings.len() as u32).try_for_each(|index| self.start(index))
    }
}

/// Calls the driver, if it wants that.
fn call(vring: &Vring) {
    if let (Some(ring), Some(fd)) = (&vring.ring, &vring.call)
        && ring.call_wanted()
    {
        let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
    }
}

/// Copies up to `burst` frames from one ring to the other. A frame without room waits; one that can never
/// fit is dropped.
pub fn copy(
    memory: &Memory,
    to: &mut DeviceRing,
    from: &mut DeviceRing,
    burst: u32,
    mergeable: bool,
    [source, target]: &mut [Vec<Segment>; 2],
) -> u32 {
    let mut done = 0;
    let mut chains: Vec<(Chain, u32)> = Vec::new();
    while done < burst {
        let Some(chain) = from.pop(memory, source) else { break };
        let length: usize = source.iter().map(|s| s.length).sum();
        chains.clear();
        let (mut room, mut skip) = (0, 0);
        let mut first: Option<Segment> = None;
        while room < length && (chains.is_empty() || mergeable) {
            let Some(buffer) = to.pop(memory, target) else { break };
            first = first.or(target.first().copied());
            let size: usize = target.iter().map(|s| s.length).sum();
            let written = pour(source, target, skip);
            (room, skip) = (room + size, skip + written);
            chains.push((buffer, written as u32));
        }
        if room < length && (mergeable || chains.is_empty()) {
            to.unpop(&chains.iter().map(|c| c.0).collect::<Vec<_>>());
            from.unpop(&[chain]);
            break;
        }
        if let Some(first) = first {
            // The sender's header is as good as any but for `num_buffers`.
            first.part(HEADER - 2, 2).write(&(chains.len() as u16).to_ne_bytes());
        }
        for (buffer, written) in &chains {
            to.push(*buffer, *written);
        }
        from.push(chain, 0);
        done += 1;
    }
    if done > 0 {
        to.flush();
        from.flush();
    }
    done
}

/// Copies from `source`, without its first `skip` bytes, into `target`, as far as there is room. How much.
fn pour(source: &[Segment], target: &[Segment], skip: usize) -> usize {
    let (mut skip, mut at, mut inside, mut total) = (skip, 0, 0, 0);
    for from in source {
        let mut rest = from.part(skip, usize::MAX);
        skip -= skip.min(from.length);
        while rest.length > 0 && at < target.len() {
            let copied =
                if target[at].writable { rest.copy_to(&target[at].part(inside, usize::MAX)) } else { 0 };
            (inside, total) = (inside + copied, total + copied);
            rest = rest.part(copied, usize::MAX);
            if rest.length > 0 {
                (at, inside) = (at + 1, 0);
            }
        }
    }
    total
}

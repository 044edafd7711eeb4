//! One device of ours on one backend: negotiation, memory, queues.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

use crate::generator::Generator;
use crate::kick::{Kick, KickPolicy};
use crate::memory::{GUEST_BASE, Hugepages, Layout, MemoryError, Shared};
use crate::proto::{
    AddressMessage, Channel, ChannelError, Meeting, RegionMessage, StateMessage, features, memory_table,
    protocol, request,
};
use crate::ring::driver::{Ring, RingFeatures};
use crate::ring::{Areas, Pool, PoolArea};
use crate::sink::Sink;

/// Whether to use something that can be negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Or fail.
    On,
    /// Never.
    Off,
    /// If the backend offers it.
    Auto,
}

/// What a device is to be like.
#[derive(Clone, Debug)]
pub struct Device {
    /// Queue pairs.
    pub queues: u16,
    /// Entries of each virtqueue.
    pub queue_size: u16,
    /// Features.
    pub packed: Choice,
    pub mergeable: Choice,
    pub in_order: Choice,
    pub event_idx: Choice,
    pub indirect: Choice,
    /// Where memory comes from.
    pub hugepages: Hugepages,
    /// Longest frame to be sent.
    pub room: usize,
    /// Bytes of a receive buffer, without header.
    pub buffer: usize,
    /// Notification.
    pub kick: KickPolicy,
    /// Verify UDP checksums.
    pub checksum: bool,
    /// Leave frames to be cut, and take such.
    pub gso: bool,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The socket, or what came over it.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A feature was required.
    #[error("the backend does not offer {0}")]
    Missing(&'static str),
    /// Not enough queues.
    #[error("the backend offers {0} queue pairs, {1} are asked for")]
    Queues(u64, u16),
    /// No eventfd.
    #[error("an eventfd: {0}")]
    Event(rustix::io::Errno),
}

/// A running device.
#[derive(Debug)]
pub struct Port {
    channel: Channel,
    acknowledged: bool,
    /// Negotiated.
    pub features: u64,
    /// Whether its memory is huge pages.
    pub huge: bool,
    /// One for each queue pair.
    pub tx: Vec<Generator>,
    /// The same.
    pub rx: Vec<Sink>,
    _calls: Vec<OwnedFd>,
}

/// What a device needs that leaves its frames to be cut, and takes such.
pub const GSO: u64 = features::CSUM | features::HOST_UFO | features::GUEST_CSUM | features::GUEST_UFO;

/// Names of the negotiated features that shape the rings.
pub fn names(bits: u64) -> Vec<&'static str> {
    let all = [
        (features::RING_PACKED, "packed"),
        (features::MRG_RXBUF, "mergeable"),
        (features::IN_ORDER, "in-order"),
        (features::EVENT_IDX, "event-idx"),
        (features::INDIRECT_DESC, "indirect"),
        (features::MQ, "mq"),
        (features::HOST_UFO, "gso"),
    ];
    let mut names = vec![if bits & features::RING_PACKED == 0 { "split" } else { "packed" }];
    names.extend(all[1..].iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name));
    names
}

/// What of `offered` to take.
fn choose(device: &Device, offered: u64) -> Result<u64, PortError> {
    if offered & features::VERSION_1 == 0 {
        return Err(PortError::Missing("VIRTIO_F_VERSION_1: legacy devices are not supported"));
    }
    let mut chosen = features::VERSION_1 | offered & features::VHOST_USER_PROTOCOL;
    let gso = if device.gso { Choice::On } else { Choice::Off };
    for (choice, bit, name) in [
        (device.packed, features::RING_PACKED, "packed rings (VIRTIO_F_RING_PACKED)"),
        (device.mergeable, features::MRG_RXBUF, "mergeable buffers (VIRTIO_NET_F_MRG_RXBUF)"),
        (device.in_order, features::IN_ORDER, "VIRTIO_F_IN_ORDER"),
        (device.event_idx, features::EVENT_IDX, "VIRTIO_F_EVENT_IDX"),
        (device.indirect, features::INDIRECT_DESC, "indirect descriptors (VIRTIO_F_INDIRECT_DESC)"),
        (gso, GSO, "UDP fragmentation and checksums for and by guests (VIRTIO_NET_F_HOST_UFO and others)"),
    ] {
        match (choice, offered & bit == bit) {
            (Choice::On, false) => return Err(PortError::Missing(name)),
            (Choice::On | Choice::Auto, true) => chosen |= bit,
            _ => {}
        }
    }
    if device.queues > 1 {
        chosen |= offered & (features::MQ | features::CTRL_VQ);
    }
    Ok(chosen)
}

impl Port {
    /// Meets the backend and starts all queues. Receive buffers are offered only if `receives`.
    pub fn open(meeting: &Meeting, device: &Device, receives: bool) -> Result<Port, PortError> {
        let mut channel = Channel::meet(meeting)?;
        let number = |channel: &mut Channel, ask| -> Result<u64, PortError> {
            let short = || ChannelError::Malformed(format!("a short reply to {}", request::name(ask)));
            Ok(channel.ask(ask, &[])?.u64(0).ok_or_else(short)?)
        };
        channel.tell(request::SET_OWNER, &[], &[], false)?;
        let offered = number(&mut channel, request::GET_FEATURES)?;
        let chosen = choose(device, offered)?;
        let mut acknowledged = false;
        let mut pairs = 1;
        if chosen & features::VHOST_USER_PROTOCOL != 0 {
            let offered = number(&mut channel, request::GET_PROTOCOL_FEATURES)?;
            let protocol = offered & (protocol::REPLY_ACK | protocol::MQ);
            channel.tell(request::SET_PROTOCOL_FEATURES, &protocol.to_ne_bytes(), &[], false)?;
            acknowledged = protocol & protocol::REPLY_ACK != 0;
            if protocol & protocol::MQ != 0 {
                pairs = number(&mut channel, request::GET_QUEUE_NUM)?;
            }
        }
        if pairs < u64::from(device.queues) {
            return Err(PortError::Queues(pairs, device.queues));
        }
        channel.tell(request::SET_FEATURES, &chosen.to_ne_bytes(), &[], acknowledged)?;
        let mut port = Port {
            channel,
            acknowledged,
            features: chosen,
            huge: false,
            tx: Vec::new(),
            rx: Vec::new(),
            _calls: Vec::new(),
        };
        port.start(device, receives)?;
        Ok(port)
    }

    /// Makes memory and queues, and tells the backend.
    fn start(&mut self, device: &Device, receives: bool) -> Result<(), PortError> {
        let size = device.queue_size;
        let mut layout = Layout::default();
        let place =
            |layout: &mut Layout, room| (Areas::place(layout, size), PoolArea::place(layout, size, room));
        let queues: Vec<_> = (0..device.queues)
            .map(|_| (place(&mut layout, device.buffer), place(&mut layout, device.room)))
            .collect();
        let memory = Rc::new(Shared::create(layout.len(), device.hugepages)?);
        self.huge = memory.huge();
        let region = RegionMessage {
            guest: GUEST_BASE,
            size: memory.len() as u64,
            user: memory.user_base(),
            offset: 0,
        };
        let (table, ack) = (memory_table(&[region]), self.acknowledged);
        self.channel.tell(request::SET_MEM_TABLE, &table, &[memory.fd()], ack)?;
        let ring_features = RingFeatures {
            packed: self.features & features::RING_PACKED != 0,
            in_order: self.features & features::IN_ORDER != 0,
            event_idx: self.features & features::EVENT_IDX != 0,
        };
        let mergeable = self.features & features::MRG_RXBUF != 0;
        let indirect = self.features & features::INDIRECT_DESC != 0;
        let mut kicks = Vec::new();
        for (to, from) in &queues {
            let ring = |areas| Ring::new(&memory, areas, ring_features).expect("laid out within this memory");
            let pool = |area, indirect| Pool::new(&memory, area, indirect).expect("laid out within it, too");
            let (rx_kick, kick) = self.kick(device)?;
            kicks.push(kick);
            let mut sink = Sink::new(ring(to.0), pool(to.1, false), rx_kick, mergeable, device.checksum);
            let (tx_kick, kick) = self.kick(device)?;
            kicks.push(kick);
            if receives {
                sink.open();
            }
            self.rx.push(sink);
            self.tx.push(Generator::new(ring(from.0), pool(from.1, indirect), tx_kick, device.gso));
        }
        for (k, (to, from)) in queues.iter().enumerate() {
            for (index, areas) in [(2 * k, to.0), (2 * k + 1, from.0)] {
                self.start_ring(index as u32, areas, &memory, &kicks[index])?;
            }
        }
        for index in 0..2 * u32::from(device.queues) {
            self.set(request::SET_VRING_ENABLE, index, 1)?;
        }
        Ok(())
    }

    /// An eventfd for a ring, and another descriptor of the same for the backend.
    fn kick(&self, device: &Device) -> Result<(Kick, OwnedFd), PortError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(PortError::Event)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 0).map_err(PortError::Event)?;
        Ok((Kick::new(fd, device.kick), copy))
    }

    fn set(&mut self, message: u32, index: u32, value: u32) -> Result<(), ChannelError> {
        self.channel.tell(message, &StateMessage { index, value }.bytes(), &[], self.acknowledged)
    }

    fn start_ring(
        &mut self,
        index: u32,
        areas: Areas,
        memory: &Rc<Shared>,
        kick: &OwnedFd,
    ) -> Result<(), PortError> {
        let user = |offset: usize| memory.user_base() + offset as u64;
        let base = self.tx[0].ring.base();
        self.set(request::SET_VRING_NUM, index, u32::from(areas.size))?;
        self.set(request::SET_VRING_BASE, index, base)?;
        let addresses = AddressMessage {
            index,
            descriptors: user(areas.descriptors),
            driver: user(areas.driver),
            device: user(areas.device),
        };
        self.channel.tell(request::SET_VRING_ADDR, &addresses.bytes(), &[], self.acknowledged)?;
        let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(PortError::Event)?;
        let payload = u64::from(index).to_ne_bytes();
        self.channel.tell(request::SET_VRING_CALL, &payload, &[call.as_fd()], self.acknowledged)?;
        self.channel.tell(request::SET_VRING_KICK, &payload, &[kick.as_fd()], self.acknowledged)?;
        self._calls.push(call);
        Ok(())
    }

    /// Stops all queues, so that the backend is done with the memory.
    pub fn close(&mut self) -> Result<(), ChannelError> {
        let rings = 2 * self.tx.len() as u32;
        for index in 0..rings {
            self.set(request::SET_VRING_ENABLE, index, 0)?;
        }
        for index in 0..rings {
            self.channel.ask(request::GET_VRING_BASE, &StateMessage { index, value: 0 }.bytes())?;
        }
        Ok(())
    }

    /// A descriptor that is readable when the backend is gone.
    pub fn watch(&self) -> Option<OwnedFd> {
        self.channel.watch()
    }

    /// Whether descriptors have come back in the order they were offered, so far.
    pub fn orderly(&self) -> bool {
        self.tx.iter().all(|queue| queue.ring.orderly()) && self.rx.iter().all(|queue| queue.ring.orderly())
    }

    /// How the backend broke the rules, if it did.
    pub fn broken(&self) -> Option<String> {
        let rings = self.rx.iter().map(|q| &q.ring).zip(self.tx.iter().map(|q| &q.ring));
        let mut named = rings.enumerate().flat_map(|(k, (rx, tx))| [(2 * k, rx), (2 * k + 1, tx)]);
        named.find_map(|(index, ring)| Some(format!("virtqueue {index}: {}", ring.broken()?)))
    }
}

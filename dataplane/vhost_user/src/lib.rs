//! One connected vhost-user frontend: its messages, feature bits, virtqueue setup and memory map.
//!
//! [`serve`] runs one frontend on the calling thread until it is gone. What comes of its messages are
//! [`Ring`]s, which are given out to whoever implements [`Queues`], by value, and taken back before anything
//! they point to changes. This crate knows no datapath and does not depend on DPDK.
//!
//! Where to look: `session` is the loop, `messages` the table of what is served, `handler` and
//! `device` what each message does, `vring` what a ring needs before it can run, `memory` the mapping.

mod channel;
mod config_space;
mod device;
pub mod features;
mod handler;
mod listener;
mod memory;
mod messages;
mod refusal;
mod session;
mod sigbus;
#[cfg(test)]
mod testing;
mod vring;
mod wire;

pub use channel::Channel;
pub use listener::{Listener, SocketError};
pub use session::{SessionError, serve};

use virtqueue::Ring;

/// Most queue pairs a frontend can address: SET_VRING_KICK and its kind name a ring with 8 bits.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// Who runs the rings: the engine.
pub trait Queues: Send {
    /// Gives a ring that is fully set up and enabled to the datapath, by value.
    fn give_out(&mut self, ring: Ring);
    /// Takes ring `index` back, quiesced: returns after its owner has let go; `None` if it was not given out.
    fn take_back(&mut self, index: u16) -> Option<Ring>;
    /// What `status` shows. Called when a frontend connects, after every message that changed something and
    /// before that message is answered, and at the end.
    fn observe(&mut self, state: &FrontendState);
    /// The link of the guest's backend.
    fn link(&self) -> Link;
    /// Largest MTU, in bytes, that the guest's backend passes, as far as that is known.
    fn max_mtu(&self) -> Option<u16>;
    /// Tells the network behind the backend that the guest with this address is here (SEND_RARP).
    fn announce(&mut self, mac: [u8; 6]);
    /// Hands over the way to tell the frontend of a changed [`link`](Queues::link), or takes the last one away.
    fn set_channel(&mut self, channel: Option<Channel>);
}

/// A link, as the config space shows it to the guest (virtio 1.2, 5.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up (VIRTIO_NET_S_LINK_UP).
    pub up: bool,
    /// Its speed in Mb/s, if that is known.
    pub speed_mbps: Option<u32>,
    /// Whether it is full duplex, if that is known.
    pub full_duplex: Option<bool>,
}

/// What a frontend has set up so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendState {
    /// Whether there is one.
    pub connected: bool,
    /// Virtio feature bits it acknowledged, VHOST_USER_F_PROTOCOL_FEATURES included; 0 before that.
    pub features: u64,
    /// vhost-user protocol feature bits it acknowledged.
    pub protocol_features: u64,
    /// Regions in its memory table.
    pub memory_regions: usize,
    /// Bytes in these regions.
    pub memory_bytes: u64,
    /// MTU in bytes that it has set with NET_SET_MTU.
    pub mtu: Option<u16>,
    /// The guest's address, if SEND_RARP has told it.
    pub mac: Option<[u8; 6]>,
    /// Device status as SET_STATUS has said last (virtio 1.2, 2.1); 0 before, and from frontends that send none.
    pub status: u8,
    /// Every ring offered, by index.
    pub queues: Vec<QueueState>,
    /// The message that was refused last, and why, in a line; kept when the frontend goes.
    pub refused: Option<String>,
}

/// What a frontend has set up of one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Whether the frontend lets it run.
    pub enabled: bool,
    /// Entries; 0 before they are set.
    pub size: u16,
    /// Whether it is given out.
    pub started: bool,
    /// Whether SET_VRING_ADDR has come.
    pub addresses: bool,
    /// Whether SET_VRING_KICK has come, and no GET_VRING_BASE since.
    pub kick: bool,
    /// Whether SET_VRING_CALL has brought an eventfd.
    pub call: bool,
}

/// What a frontend is offered.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The guest port's name, for logs.
    pub name: String,
    /// Queue pairs, 1 to [`MAX_QUEUE_PAIRS`]; anything else is taken for the nearer of the two.
    pub queue_pairs: u16,
    /// The guest's MAC address, where the frontend does not have one of its own.
    pub mac: [u8; 6],
    /// MTU; `None`: VIRTIO_NET_F_MTU is not offered.
    pub mtu: Option<u16>,
    /// Feature bits of the [checksum and segmentation offloads](features::OFFLOADS) that are offered.
    pub offloads: u64,
}

impl DeviceOptions {
    pub(crate) fn rings(&self) -> u16 {
        2 * self.queue_pairs.clamp(1, MAX_QUEUE_PAIRS)
    }
}

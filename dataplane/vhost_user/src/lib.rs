//! One connected vhost-user frontend: its messages, feature bits, virtqueue setup and memory map.
//!
//! [`serve`] runs one frontend on the calling thread until it is gone. What comes of its messages are
//! [`Ring`]s, which are given out to whoever implements [`Queues`], by value, and taken back before anything
//! they point to changes. This crate knows no datapath and does not depend on DPDK.
//!
//! Where to look: `session` is the loop, `messages` the table of what is served, `handler` and
//! `device` what each message does, `vring` what a ring needs before it can run, `memory` the mapping.

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
    /// Whether the backend's link is up (VIRTIO_NET_S_LINK_UP in the config space).
    fn link_up(&self) -> bool;
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
    /// Every ring offered, by index.
    pub queues: Vec<QueueState>,
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

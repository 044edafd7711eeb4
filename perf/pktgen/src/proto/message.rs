//! Messages (vhost-user.rst, "Message Specification"). All numbers are in the host's byte order.

use std::os::fd::OwnedFd;

/// Requests, by the specification's names.
pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;

    /// The name of a request.
    pub fn name(request: u32) -> &'static str {
        match request {
            GET_FEATURES => "GET_FEATURES",
            SET_FEATURES => "SET_FEATURES",
            SET_OWNER => "SET_OWNER",
            RESET_OWNER => "RESET_OWNER",
            SET_MEM_TABLE => "SET_MEM_TABLE",
            SET_VRING_NUM => "SET_VRING_NUM",
            SET_VRING_ADDR => "SET_VRING_ADDR",
            SET_VRING_BASE => "SET_VRING_BASE",
            GET_VRING_BASE => "GET_VRING_BASE",
            SET_VRING_KICK => "SET_VRING_KICK",
            SET_VRING_CALL => "SET_VRING_CALL",
            SET_VRING_ERR => "SET_VRING_ERR",
            GET_PROTOCOL_FEATURES => "GET_PROTOCOL_FEATURES",
            SET_PROTOCOL_FEATURES => "SET_PROTOCOL_FEATURES",
            GET_QUEUE_NUM => "GET_QUEUE_NUM",
            SET_VRING_ENABLE => "SET_VRING_ENABLE",
            _ => "a request of unknown name",
        }
    }
}

/// Virtio feature bits.
pub mod features {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const GUEST_UFO: u64 = 1 << 10;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const MQ: u64 = 1 << 22;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VHOST_USER_PROTOCOL: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
}

/// Protocol feature bits.
pub mod protocol {
    pub const MQ: u64 = 1 << 0;
    pub const REPLY_ACK: u64 = 1 << 3;
}

pub const VERSION: u32 = 1;
pub const REPLY: u32 = 1 << 2;
pub const NEED_REPLY: u32 = 1 << 3;
/// Longer payloads than this do not exist (the longest is a memory table of 509 regions).
pub const PAYLOAD_MAX: usize = 8 + 509 * 32;

/// A message as received or to be sent.
#[derive(Debug, Default)]
pub struct Message {
    /// One of [`request`].
    pub request: u32,
    /// Version, reply, need-reply.
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Descriptors that came, or go, with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// A message with `payload` and no descriptors.
    pub fn new(request: u32, payload: &[u8]) -> Message {
        Message { request, flags: VERSION, payload: payload.to_vec(), fds: Vec::new() }
    }

    /// The reply to `request`.
    pub fn reply(request: u32, payload: &[u8]) -> Message {
        Message { flags: VERSION | REPLY, ..Message::new(request, payload) }
    }

    /// Whether the sender waits for an acknowledgement.
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// The 64-bit number that starts at byte `at` of the payload.
    pub fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(self.payload.get(at..at + 8)?.try_into().ok()?))
    }

    /// The 32-bit number that starts at byte `at` of the payload.
    pub fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// "A vring state description": SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMessage {
    /// The virtqueue.
    pub index: u32,
    /// Size, base, or 0 and 1.
    pub value: u32,
}

impl StateMessage {
    /// As on the wire.
    pub fn bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.index.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    /// From the wire.
    pub fn of(message: &Message) -> Option<StateMessage> {
        Some(StateMessage { index: message.u32(0)?, value: message.u32(4)? })
    }
}

/// "A vring address description". Addresses are the frontend's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMessage {
    /// The virtqueue.
    pub index: u32,
    /// Descriptor table, or packed ring.
    pub descriptors: u64,
    /// Used ring, or device event structure.
    pub device: u64,
    /// Avail ring, or driver event structure.
    pub driver: u64,
}

impl AddressMessage {
    /// As on the wire: index, flags, descriptor, used, available, log.
    pub fn bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..4].copy_from_slice(&self.index.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.descriptors.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.device.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.driver.to_ne_bytes());
        bytes
    }

    /// From the wire.
    pub fn of(message: &Message) -> Option<AddressMessage> {
        Some(AddressMessage {
            index: message.u32(0)?,
            descriptors: message.u64(8)?,
            device: message.u64(16)?,
            driver: message.u64(24)?,
        })
    }
}

/// One region of "a memory regions description".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionMessage {
    /// Address in descriptors.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// Address in SET_VRING_ADDR.
    pub user: u64,
    /// Where in the descriptor it starts.
    pub offset: u64,
}

/// The payload of SET_MEM_TABLE.
pub fn memory_table(regions: &[RegionMessage]) -> Vec<u8> {
    let mut bytes = (regions.len() as u64).to_ne_bytes().to_vec();
    for region in regions {
        for word in [region.guest, region.size, region.user, region.offset] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
    }
    bytes
}

/// The regions of a SET_MEM_TABLE; `None` if it says more than it holds.
pub fn to_regions(message: &Message) -> Option<Vec<RegionMessage>> {
    let region = |i: usize| {
        let word = |k: usize| message.u64(8 + i * 32 + k * 8);
        Some(RegionMessage { guest: word(0)?, size: word(1)?, user: word(2)?, offset: word(3)? })
    };
    (0..message.u32(0)? as usize).map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_survive_the_wire() {
        let state = StateMessage { index: 3, value: 0x8000_8000 };
        assert_eq!(StateMessage::of(&Message::new(0, &state.bytes())), Some(state));
        let address = AddressMessage { index: 1, descriptors: 2, device: 3, driver: 4 };
        assert_eq!(AddressMessage::of(&Message::new(0, &address.bytes())), Some(address));
        let region = RegionMessage { guest: 1 << 32, size: 4096, user: 7, offset: 0 };
        let table = memory_table(&[region, region]);
        assert_eq!(table.len(), 72);
        assert_eq!(to_regions(&Message::new(0, &table)), Some(vec![region, region]));
    }

    #[test]
    fn short_payloads_are_refused() {
        assert_eq!(StateMessage::of(&Message::new(0, &[0; 7])), None);
        assert_eq!(AddressMessage::of(&Message::new(0, &[0; 31])), None);
        assert_eq!(to_regions(&Message::new(0, &[9; 40])), None);
    }
}

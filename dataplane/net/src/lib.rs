//! What a frame is to a guest: the virtio-net header in front of it, and how long it may be.

mod header;

pub use header::{Header, mergeable};

/// Shortest frame that is one: an Ethernet header, in bytes. Frames carry no check sequence here, and
/// padding to 60 bytes is the NIC's business.
pub const MIN_FRAME: u32 = 14;

/// Bytes of Ethernet header and up to two VLAN tags that an MTU does not count.
pub const FRAME_OVERHEAD: u32 = 14 + 2 * 4;

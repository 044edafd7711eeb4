//! What a frame is to a guest: the virtio-net header in front of it, how long it may be, and what is left to do
//! with it: a checksum to complete, a segmentation.
//!
//! A frame's way from one port to another, whatever kind of ports these are:
//!
//! 1. [`Offload`] is what the header in front of the frame asks for; nearly always [nothing](Offload::asks_nothing).
//! 2. [`Offload::check`] holds it against the frame: what it says is right, or it is a [`BadOffload`]. The result
//!    is a [`Plan`].
//! 3. [`decide`] says what must be done for a destination that [takes](Takes) so and so much: the frame passes on
//!    as it is, or its [`Checksum`] is completed, or it is cut into [`Segments`].
//!
//! Nothing here allocates, and nothing reads guest memory: a frame is checked, summed and cut where it was copied
//! to, so that a guest cannot change it in between.

mod checksum;
mod header;
mod offload;
mod packet;
mod plan;
mod segments;
mod takes;

pub use checksum::{Checksum, Sum};
pub use header::{Header, mergeable};
pub use offload::Offload;
pub use packet::{Layers, Network, Transport};
pub use plan::{Action, BadOffload, Plan, decide};
pub use segments::{Segment, Segments};
pub use takes::Takes;

/// Shortest frame that is one: an Ethernet header, in bytes. Frames carry no check sequence here, and
/// padding to 60 bytes is the NIC's business.
pub const MIN_FRAME: u32 = 14;

/// Bytes of Ethernet header and up to two VLAN tags that an MTU does not count.
pub const FRAME_OVERHEAD: u32 = 14 + 2 * 4;

/// The longest headers, Ethernet to TCP or UDP, of a frame that may be segmented, in bytes. It leaves 134 for IPv6
/// extension headers in front of a TCP header with all its options.
pub const HEADER_MAX: usize = 256;

/// The most segments a frame may be cut into: those of 64 KiB at the smallest segment size Linux uses (48), so that
/// one frame is not work for many.
pub const SEGMENTS_MAX: usize = 1366;

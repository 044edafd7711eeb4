//! The vhost-user protocol: as much of it as a network device needs, for both ends.
//!
//! The `vhost` crate is not used: its frontend cuts ring bases to 16 bits (a packed ring's has 32), has no
//! listening side, and its backend knows no plain loop. What is left to write is this.

mod channel;
mod message;

pub use channel::{Channel, ChannelError, Listener, Meeting, readable};
pub use message::{
    AddressMessage, Message, RegionMessage, StateMessage, features, memory_table, protocol, request,
    to_regions,
};

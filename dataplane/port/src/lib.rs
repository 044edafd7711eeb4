//! Ports: how a guest, a nic and a socket fill and drain a queue.
//!
//! One file a kind. A port's queues are values; each has one owner, which polls them. What a queue counts
//! is shared with the control side through [`counters`], written by the owner alone.

pub mod announce;
pub mod capture;
pub mod counters;
pub mod guest;
pub mod nic;
pub mod outbox;
pub mod punt;
pub mod socket;

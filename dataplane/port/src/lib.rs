//! Ports: how a guest and a nic fill and drain a burst.
//!
//! One file a kind. A port's queues are values; each has one owner, which polls them. What a queue counts
//! is shared with the control side through [`counters`], written by the owner alone.

pub mod counters;
pub mod guest;
pub mod nic;

//! The parts of the daemon: what it reads ([`config`], [`reload`]) and what it serves ([`api`]).

pub mod api;
pub mod args;
pub mod config;
pub mod descriptors;
pub mod log;
pub mod metrics;
mod pcapng;
pub mod rates;
pub mod reload;
pub mod socket;
pub mod systemd;

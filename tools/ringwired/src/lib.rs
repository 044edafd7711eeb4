//! The parts of the daemon: what it reads ([`config`]) and what it serves ([`api`]).

pub mod api;
pub mod args;
pub mod config;
pub mod descriptors;
pub mod log;
pub mod metrics;
pub mod rates;
pub mod socket;
pub mod systemd;

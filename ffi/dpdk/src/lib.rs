//! Safe DPDK: the environment layer, mempools, mbufs, bursts and ports.
//!
//! The only crate that calls DPDK. Order of use: [`eal::Eal::init`], [`mempool::Mempool::new`],
//! [`ethdev::Device::probe`], [`ethdev::Device::start`]; then one thread owns each
//! [`ethdev::RxQueue`] and [`ethdev::TxQueue`] and moves [`burst::Burst`]s. Everything keeps EAL
//! alive that needs it, so the order of drops does not matter.
//!
//! Nothing on the packet path allocates, blocks, logs or spins.

pub mod burst;
pub mod chain;
pub mod cycles;
pub mod eal;
pub mod error;
pub mod ethdev;
pub mod log;
pub mod mbuf;
pub mod mempool;

/// The release of DPDK that this was built with, such as 2211 for 22.11.
pub const RELEASE: u32 = dpdk_sys::RW_DPDK_RELEASE;

/// The most mbufs a [`burst::Burst`] holds.
pub const BURST_MAX: usize = 64;

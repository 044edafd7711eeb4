//! Ports: a NIC, or a virtual device, under one of DPDK's poll-mode drivers.

mod device;
mod error;
mod info;
mod port;
mod queue;
mod start;

pub use device::Device;
pub use error::DeviceError;
pub use info::{DescriptorLimits, DeviceInfo, offload};
pub use port::{Link, Port};
pub use queue::{RxQueue, TxQueue};
pub use start::{DeviceConfig, Started};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Probing, configuring and closing touch lists that DPDK shares between all ports.
static CONTROL: Mutex<()> = Mutex::new(());

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What can go wrong with a port.

use std::ffi::NulError;

use crate::eal::EalError;
use crate::error::Errno;
use crate::log::Said;

/// Why an operation on a device failed. `device` is its name or the device arguments given.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// DPDK is not initialised.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// The device arguments cannot be passed to C.
    #[error("device arguments with a zero byte: {0}")]
    ZeroByte(#[from] NulError),
    /// No driver took the device.
    #[error("cannot probe device \"{device}\": {}", said.of(*errno))]
    Probe {
        /// The device arguments.
        device: String,
        /// What DPDK reported.
        errno: Errno,
        /// What it has logged.
        said: Said,
    },
    /// The device was probed, but is no Ethernet device.
    #[error("device \"{device}\" has no Ethernet port")]
    NoPort {
        /// The device arguments.
        device: String,
    },
    /// Another [`super::Device`] or [`super::Port`], or a bonding driver, has it.
    #[error("device \"{device}\" is in use")]
    InUse {
        /// The device arguments.
        device: String,
    },
    /// More queue pairs were asked for than the device has, or none.
    #[error(
        "{device}: {asked} queue pairs asked for, but the device has {max_rx} receive and {max_tx} \
         transmit queues"
    )]
    Queues {
        /// The device.
        device: String,
        /// Queue pairs asked for.
        asked: u16,
        /// Receive queues the device has.
        max_rx: u16,
        /// Transmit queues the device has.
        max_tx: u16,
    },
    /// A receive or transmit queue could not be set up.
    #[error("{device}: {direction} queue {queue} with {descriptors} descriptors: {errno}")]
    Queue {
        /// The device.
        device: String,
        /// "receive" or "transmit".
        direction: &'static str,
        /// Index of the queue.
        queue: u16,
        /// Its number of descriptors.
        descriptors: u16,
        /// What DPDK reported.
        errno: Errno,
    },
    /// Another call failed.
    #[error("{device}: cannot {action}: {errno}")]
    Call {
        /// The device.
        device: String,
        /// What was tried.
        action: String,
        /// What DPDK reported.
        errno: Errno,
    },
}

impl DeviceError {
    /// Whether DPDK had no memory for its queues.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            DeviceError::Queue { errno, .. } | DeviceError::Call { errno, .. } => errno.is_out_of_memory(),
            _ => false,
        }
    }

    /// Whether it was the driver that refused something.
    pub fn is_from_driver(&self) -> bool {
        matches!(self, DeviceError::Queue { .. } | DeviceError::Call { .. })
    }

    /// A [`DeviceError::Call`].
    pub(super) fn call(device: &str, action: impl Into<String>, errno: Errno) -> DeviceError {
        DeviceError::Call { device: device.to_owned(), action: action.into(), errno }
    }
}

//! Control of a started port, from any thread.

#![allow(unsafe_code, reason = "control calls of DPDK's ports")]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Mutex;

use super::device::Claim;
use super::info::mac;
use super::{DeviceError, DeviceInfo, lock};
use crate::error::Errno;
use crate::mempool::Mempool;

/// State of a port's link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a link.
    pub up: bool,
    /// Speed in Mbit/s, or 0 if unknown.
    pub speed_mbps: u32,
    /// Whether both directions can be used at once.
    pub full_duplex: bool,
}

/// A started port.
///
/// Its methods are safe beside the queues' owners, which may receive and send at the same time.
/// Stopped, closed and removed when this and all its queues are dropped.
#[derive(Debug)]
pub struct Port {
    // Dropped in this order: closing gives the driver's mbufs back to the pool.
    claim: Claim,
    info: DeviceInfo,
    rx_offloads: u64,
    tx_offloads: u64,
    /// DPDK leaves it to the application to make one control call to a port at a time.
    control: Mutex<()>,
    _pool: Mempool,
}

impl Port {
    pub(super) fn new(claim: Claim, info: DeviceInfo, offloads: (u64, u64), pool: Mempool) -> Port {
        Port {
            claim,
            info,
            rx_offloads: offloads.0,
            tx_offloads: offloads.1,
            control: Mutex::new(()),
            _pool: pool,
        }
    }

    /// DPDK's number of the port, as in [`crate::mbuf::Mbuf::port`].
    pub fn id(&self) -> u16 {
        self.claim.port
    }

    /// DPDK's name of the port.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// What the device is and can do.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Receive offloads that are on.
    pub fn rx_offloads(&self) -> u64 {
        self.rx_offloads
    }

    /// Transmit offloads that are on.
    pub fn tx_offloads(&self) -> u64 {
        self.tx_offloads
    }

    /// The link's state now, without waiting for it; down if the driver cannot tell.
    pub fn link(&self) -> Link {
        let mut raw = dpdk_sys::rw_link::default();
        let _guard = lock(&self.control);
        // SAFETY: the port exists, and `raw` is writable.
        if unsafe { dpdk_sys::rw_eth_link(self.id(), &raw mut raw) } != 0 {
            return Link::default();
        }
        Link {
            up: raw.up,
            speed_mbps: if raw.speed_mbps == u32::MAX { 0 } else { raw.speed_mbps },
            full_duplex: raw.full_duplex,
        }
    }

    /// The MTU, in bytes.
    pub fn mtu(&self) -> u16 {
        let _guard = lock(&self.control);
        current_mtu(self.id())
    }

    /// Changes the MTU, in bytes.
    ///
    /// # Errors
    /// [`DeviceError::Call`]; many drivers want the port stopped, or refuse a frame longer than
    /// the mbufs unless scattering was on from the start.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), DeviceError> {
        let _guard = lock(&self.control);
        apply_mtu(self.id(), mtu)
            .map_err(|errno| DeviceError::call(self.name(), format!("set the MTU {mtu}"), errno))
    }

    /// Whether packets for other MAC addresses are received.
    pub fn promiscuous(&self) -> bool {
        let _guard = lock(&self.control);
        // SAFETY: the port exists.
        unsafe { dpdk_sys::rte_eth_promiscuous_get(self.id()) == 1 }
    }

    /// Switches receiving of packets for other MAC addresses.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub fn set_promiscuous(&self, on: bool) -> Result<(), DeviceError> {
        let _guard = lock(&self.control);
        apply_promiscuous(self.id(), on).map_err(|errno| {
            let word = if on { "on" } else { "off" };
            DeviceError::call(self.name(), format!("switch promiscuous mode {word}"), errno)
        })
    }

    /// The MAC address now.
    pub fn mac(&self) -> [u8; 6] {
        let _guard = lock(&self.control);
        mac(self.id())
    }

    /// The driver's counters, which all drivers have; empty if it cannot tell.
    ///
    /// Packets and bytes received and sent; `imissed`: no room in the receive ring; `ierrors`,
    /// `oerrors`: bad, or taken and not sent; `rx_nombuf`: the mempool was empty.
    pub fn stats(&self) -> BTreeMap<String, u64> {
        let mut raw = dpdk_sys::rte_eth_stats::default();
        let _guard = lock(&self.control);
        // SAFETY: the port exists, and `raw` is writable.
        if unsafe { dpdk_sys::rte_eth_stats_get(self.id(), &raw mut raw) } != 0 {
            return BTreeMap::new();
        }
        [
            ("ipackets", raw.ipackets),
            ("opackets", raw.opackets),
            ("ibytes", raw.ibytes),
            ("obytes", raw.obytes),
            ("imissed", raw.imissed),
            ("ierrors", raw.ierrors),
            ("oerrors", raw.oerrors),
            ("rx_nombuf", raw.rx_nombuf),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// All counters the driver has, by the names it gives them; empty if it cannot tell.
    pub fn xstats(&self) -> BTreeMap<String, u64> {
        let _guard = lock(&self.control);
        // SAFETY: the port exists; without room DPDK only counts.
        let ret = unsafe { dpdk_sys::rte_eth_xstats_get_names(self.id(), std::ptr::null_mut(), 0) };
        let Ok(count) = usize::try_from(ret) else {
            return BTreeMap::new();
        };
        let mut names = vec![dpdk_sys::rte_eth_xstat_name::default(); count];
        let mut values = vec![dpdk_sys::rte_eth_xstat::default(); count];
        // SAFETY: the port exists, and both arrays have room for `count` entries.
        let got = unsafe {
            let names = dpdk_sys::rte_eth_xstats_get_names(self.id(), names.as_mut_ptr(), count as u32);
            let values = dpdk_sys::rte_eth_xstats_get(self.id(), values.as_mut_ptr(), count as u32);
            names.min(values)
        };
        // More than there is room for means that the set has just changed, and nothing was written.
        let got = usize::try_from(got).ok().filter(|&got| got <= count);
        values
            .iter()
            .take(got.unwrap_or(0))
            .filter_map(|stat| {
                let name = &names.get(usize::try_from(stat.id).ok()?)?.name;
                // SAFETY: names DPDK wrote are NUL terminated.
                let name = unsafe { CStr::from_ptr(name.as_ptr()) };
                Some((name.to_string_lossy().into_owned(), stat.value))
            })
            .collect()
    }
}

/// The MTU DPDK has in its books; 0 if it has none.
pub(super) fn current_mtu(port: u16) -> u16 {
    let mut mtu = 0;
    // SAFETY: EAL is initialised, and `mtu` is writable; it stays 0 on an error.
    unsafe { dpdk_sys::rte_eth_dev_get_mtu(port, &raw mut mtu) };
    mtu
}

pub(super) fn apply_mtu(port: u16, mtu: u16) -> Result<(), Errno> {
    // SAFETY: EAL is initialised; a port that does not exist is an error.
    Errno::check(unsafe { dpdk_sys::rte_eth_dev_set_mtu(port, mtu) })
}

pub(super) fn apply_promiscuous(port: u16, on: bool) -> Result<(), Errno> {
    // SAFETY: EAL is initialised; a port that does not exist is an error.
    Errno::check(unsafe {
        match on {
            true => dpdk_sys::rte_eth_promiscuous_enable(port),
            false => dpdk_sys::rte_eth_promiscuous_disable(port),
        }
    })
}

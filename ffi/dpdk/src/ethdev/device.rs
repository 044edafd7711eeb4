//! Finding a device and closing it.

#![allow(unsafe_code, reason = "probes and closes DPDK ports")]

use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;

use super::info::offload;
use super::{CONTROL, DeviceError, DeviceInfo, lock};
use crate::eal::{self, EalHandle};
use crate::error::Errno;
use crate::log;

/// A port that is ours: nobody else in the process can take it until this is dropped, which closes
/// it and takes its device out of DPDK.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) port: u16,
    pub(super) started: bool,
    name: String,
    _eal: Arc<EalHandle>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _guard = lock(&CONTROL);
        // SAFETY: EAL is initialised and the port is ours; its queues are gone, since each of them
        // keeps the port.
        let ret = unsafe { dpdk_sys::rw_eth_close(self.port, self.started) };
        if let Err(errno) = Errno::check(ret) {
            tracing::warn!(device = self.name, %errno, "device not closed cleanly");
        }
    }
}

/// A device that was found and is not configured yet; closed on drop.
#[derive(Debug)]
pub struct Device {
    pub(super) claim: Claim,
    pub(super) info: DeviceInfo,
    pub(super) rx_offloads: u64,
    pub(super) tx_offloads: u64,
}

impl Device {
    /// Finds a device, and makes it if it is virtual.
    ///
    /// `devargs` is a PCI address ("0000:03:00.0" or "03:00.0"; EAL must allow it) or a virtual
    /// device such as "net_af_packet0,iface=eth1".
    ///
    /// # Errors
    /// [`DeviceError::Probe`] when no driver takes it, [`DeviceError::InUse`] when it is probed
    /// and not dropped already, and others as they say.
    pub fn probe(devargs: &str) -> Result<Device, DeviceError> {
        let eal = eal::handle()?;
        let device = canonical(devargs);
        let c_devargs = CString::new(device.as_str())?;
        let name = device.split(',').next().unwrap_or_default().to_owned();
        let c_name = CString::new(name.as_str())?;

        let _guard = lock(&CONTROL);
        let port = match port_by_name(&c_name) {
            Some(port) => port,
            None => probe(&c_devargs, &c_name, &device)?,
        };
        claim(port, &device)?;
        let claim = Claim { port, started: false, name, _eal: eal };
        // A failure drops the claim, which takes the lock.
        drop(_guard);
        let info = DeviceInfo::query(port, &device)?;
        Ok(Device { claim, info, rx_offloads: 0, tx_offloads: 0 })
    }

    /// What the device is and can do.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Whether packets of several segments can be sent.
    pub fn supports_multi_seg_tx(&self) -> bool {
        self.info.supports_multi_seg_tx()
    }

    /// Whether the device says that it splits long packets over several mbufs.
    pub fn supports_scatter_rx(&self) -> bool {
        self.info.supports_scatter_rx()
    }

    /// Asks for offloads (see [`offload`]) beyond those [`Device::start`] chooses. What the
    /// device cannot do is left out; [`super::Port::rx_offloads`] and
    /// [`super::Port::tx_offloads`] tell. Offloads can cost a driver its fastest path.
    pub fn request_offloads(&mut self, rx: u64, tx: u64) {
        self.rx_offloads |= rx & self.info.rx_offload_capa & !offload::RX_SCATTER;
        self.tx_offloads |= tx & self.info.tx_offload_capa;
    }
}

/// "03:00.0" with the PCI domain that DPDK's names have.
fn canonical(devargs: &str) -> String {
    let (name, args) = devargs.split_at(devargs.find(',').unwrap_or(devargs.len()));
    let name = name.strip_prefix("pci:").unwrap_or(name);
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let is_short_pci = name.matches(':').count() == 1
        && parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let domain = if is_short_pci { "0000:" } else { "" };
    match name.contains(':') {
        true => format!("{domain}{}{args}", name.to_ascii_lowercase()),
        false => format!("{name}{args}"),
    }
}

fn port_by_name(name: &CStr) -> Option<u16> {
    let mut port = 0;
    // SAFETY: EAL is initialised, the name is NUL terminated and `port` is writable.
    let ret = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) };
    (ret == 0).then_some(port)
}

/// Probes the device and finds its (first) port.
fn probe(devargs: &CStr, name: &CStr, device: &str) -> Result<u16, DeviceError> {
    // SAFETY: EAL is initialised; the string is NUL terminated and copied.
    let (probed, said) = log::listen(|| Errno::check(unsafe { dpdk_sys::rte_dev_probe(devargs.as_ptr()) }));
    if let Err(errno) = probed
        && errno.0 != libc::EEXIST
    {
        // What DPDK says to a name that no bus and no driver knows.
        let errno = if errno.0 == libc::EFAULT { Errno(libc::ENODEV) } else { errno };
        return Err(DeviceError::Probe { device: device.to_owned(), errno, said });
    }
    port_by_name(name)
        .or_else(|| matching_port(devargs))
        .ok_or_else(|| DeviceError::NoPort { device: device.to_owned() })
}

/// The first port of the device: some drivers name their ports otherwise.
fn matching_port(devargs: &CStr) -> Option<u16> {
    let mut iterator = dpdk_sys::rte_dev_iterator::default();
    // SAFETY: EAL is initialised, the string is NUL terminated, and the iterator is zeroed.
    if unsafe { dpdk_sys::rte_eth_iterator_init(&raw mut iterator, devargs.as_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the iterator was initialised.
    let port = unsafe { dpdk_sys::rte_eth_iterator_next(&raw mut iterator) };
    if u32::from(port) == dpdk_sys::RW_MAX_ETHPORTS {
        return None;
    }
    // SAFETY: the iterator was left before its end, and so owns memory.
    unsafe { dpdk_sys::rte_eth_iterator_cleanup(&raw mut iterator) };
    Some(port)
}

/// Makes us the port's owner in DPDK's books.
fn claim(port: u16, device: &str) -> Result<(), DeviceError> {
    let mut owner = dpdk_sys::rte_eth_dev_owner::default();
    for (to, from) in owner.name.iter_mut().zip(b"ringwire") {
        *to = *from as c_char;
    }
    // SAFETY: EAL is initialised; `owner` is writable, and its name is NUL terminated.
    let set = unsafe {
        Errno::check(dpdk_sys::rte_eth_dev_owner_new(&raw mut owner.id))
            .and_then(|()| Errno::check(dpdk_sys::rte_eth_dev_owner_set(port, &raw const owner)))
    };
    set.map_err(|errno| match errno.0 {
        libc::EPERM => DeviceError::InUse { device: device.to_owned() },
        _ => DeviceError::call(device, "take the port", errno),
    })
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn pci_addresses_get_their_domain() {
        assert_eq!(canonical("03:00.0"), "0000:03:00.0");
        assert_eq!(canonical("0000:03:00.0"), "0000:03:00.0");
        assert_eq!(canonical("pci:0001:AF:00.1,x=Y"), "0001:af:00.1,x=Y");
        assert_eq!(canonical("net_pcap0,iface=Eth1"), "net_pcap0,iface=Eth1");
        assert_eq!(canonical("net_null0"), "net_null0");
    }
}

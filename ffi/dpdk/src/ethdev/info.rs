//! What a device can do.

#![allow(unsafe_code, reason = "asks DPDK about a port")]

use std::ffi::{CStr, c_char};

use super::DeviceError;
use crate::error::Errno;

/// Bits of the offload capabilities.
pub mod offload {
    pub use dpdk_sys::{
        RW_RX_OFFLOAD_IPV4_CKSUM as RX_IPV4_CKSUM, RW_RX_OFFLOAD_RSS_HASH as RX_RSS_HASH,
        RW_RX_OFFLOAD_SCATTER as RX_SCATTER, RW_RX_OFFLOAD_TCP_CKSUM as RX_TCP_CKSUM,
        RW_RX_OFFLOAD_TCP_LRO as RX_TCP_LRO, RW_RX_OFFLOAD_UDP_CKSUM as RX_UDP_CKSUM,
        RW_TX_OFFLOAD_IPV4_CKSUM as TX_IPV4_CKSUM, RW_TX_OFFLOAD_MULTI_SEGS as TX_MULTI_SEGS,
        RW_TX_OFFLOAD_TCP_CKSUM as TX_TCP_CKSUM, RW_TX_OFFLOAD_TCP_TSO as TX_TCP_TSO,
        RW_TX_OFFLOAD_UDP_CKSUM as TX_UDP_CKSUM,
    };
}

/// Drivers which send packets of several segments right, but do not say so. Read in DPDK 22.11 and
/// 24.11, and tested.
///
/// - `net_pcap` copies the segments together, up to 16128 bytes. More is cut off in a file, and
///   dropped (as an `oerrors`) on an interface.
/// - `net_null` throws the whole chain away; from 25.11 it says so.
///
/// `net_af_packet`, `net_tap`, `net_ring`, `net_memif` and `net_vhost` say so themselves.
/// `net_af_xdp` says nothing, and rightly: it copies `pkt_len` bytes from the first segment on,
/// past that segment's end.
const MULTI_SEG_TX_UNSAID: &[&str] = &["net_pcap", "net_null"];

/// How many descriptors a queue may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// The fewest.
    pub min: u16,
    /// The most.
    pub max: u16,
    /// The number must be a multiple of this.
    pub align: u16,
    /// Taken when the caller asks for none.
    pub default: u16,
}

/// What a device is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// DPDK's name of the port: a PCI address, or "net_pcap0".
    pub name: String,
    /// The driver, such as "net_ixgbe".
    pub driver: String,
    /// MAC address when the device was probed.
    pub mac: [u8; 6],
    /// Receive queues.
    pub max_rx_queues: u16,
    /// Transmit queues.
    pub max_tx_queues: u16,
    /// Smallest MTU, in bytes.
    pub min_mtu: u16,
    /// Largest MTU, in bytes; 65535 from drivers that name no limit.
    pub max_mtu: u16,
    /// Largest frame received, in bytes with header and CRC; 2^32-1 for no limit.
    pub max_rx_pktlen: u32,
    /// Largest packet that it makes of several it received, in bytes; 0 where the driver does not say.
    pub max_lro_pkt_size: u32,
    /// Index of the kernel's interface that the device is, as far as the driver says; 0 for none.
    pub if_index: u32,
    /// Receive offloads, see [`offload`].
    pub rx_offload_capa: u64,
    /// Transmit offloads, see [`offload`].
    pub tx_offload_capa: u64,
    /// The most segments of a packet which the NIC is to cut.
    pub tx_seg_max: u16,
    /// The most segments of a packet which it is not to cut, and of each that it cuts one into.
    pub tx_mtu_seg_max: u16,
    /// Entries of the RSS redirection table, or 0.
    pub reta_size: u16,
    /// RSS hash functions as DPDK's `RTE_ETH_RSS_*` bits, or 0.
    pub flow_type_rss_offloads: u64,
    /// NUMA node, or -1 if unknown.
    pub socket: i32,
    /// Limits of a receive queue.
    pub rx_desc_lim: DescriptorLimits,
    /// Limits of a transmit queue.
    pub tx_desc_lim: DescriptorLimits,
}

impl DeviceInfo {
    /// Asks DPDK about a port.
    pub(super) fn query(port: u16, device: &str) -> Result<DeviceInfo, DeviceError> {
        let mut raw = dpdk_sys::rw_dev_info::default();
        // SAFETY: EAL is initialised, `raw` is writable; a port that does not exist is an error.
        Errno::check(unsafe { dpdk_sys::rw_eth_info(port, &raw mut raw) })
            .map_err(|errno| DeviceError::call(device, "read the device's limits", errno))?;
        // SAFETY: EAL is initialised; the port exists.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(port) };
        Ok(DeviceInfo {
            name: port_name(port).unwrap_or_else(|| device.to_owned()),
            driver: driver_name(raw.driver),
            mac: mac(port),
            max_rx_queues: raw.max_rx_queues,
            max_tx_queues: raw.max_tx_queues,
            min_mtu: raw.min_mtu,
            max_mtu: raw.max_mtu,
            max_rx_pktlen: raw.max_rx_pktlen,
            max_lro_pkt_size: raw.max_lro_pkt_size,
            if_index: raw.if_index,
            rx_offload_capa: raw.rx_offload_capa,
            tx_offload_capa: raw.tx_offload_capa,
            tx_seg_max: limit(raw.tx_seg_max),
            tx_mtu_seg_max: limit(raw.tx_mtu_seg_max),
            reta_size: raw.reta_size,
            flow_type_rss_offloads: raw.rss_offloads,
            socket,
            rx_desc_lim: raw.rx_desc.into(),
            tx_desc_lim: raw.tx_desc.into(),
        })
    }

    /// Whether packets of several segments can be sent.
    pub fn supports_multi_seg_tx(&self) -> bool {
        self.tx_offload_capa & offload::TX_MULTI_SEGS != 0
            || MULTI_SEG_TX_UNSAID.contains(&self.driver.as_str())
    }

    /// Whether the device says that it splits long packets over several mbufs.
    ///
    /// `net_pcap` does so without saying.
    pub fn supports_scatter_rx(&self) -> bool {
        self.rx_offload_capa & offload::RX_SCATTER != 0
    }

    /// Bytes of a frame beyond the MTU, as DPDK reckons them for this device.
    pub(super) fn frame_overhead(&self) -> u32 {
        let max_mtu = u32::from(self.max_mtu);
        if self.max_mtu != u16::MAX && self.max_rx_pktlen > max_mtu {
            self.max_rx_pktlen - max_mtu
        } else {
            dpdk_sys::RW_ETHER_OVERHEAD
        }
    }

    /// The MTU nearest to `mtu` that DPDK lets the device be configured with.
    pub(super) fn nearest_mtu(&self, mtu: u16) -> u16 {
        let by_frame = self.max_rx_pktlen.saturating_sub(self.frame_overhead());
        let max = self.max_mtu.min(u16::try_from(by_frame).unwrap_or(u16::MAX));
        mtu.min(max).max(self.min_mtu)
    }
}

/// A limit that a driver may leave out.
fn limit(raw: u16) -> u16 {
    if raw == 0 { u16::MAX } else { raw }
}

impl From<dpdk_sys::rw_desc_limits> for DescriptorLimits {
    fn from(raw: dpdk_sys::rw_desc_limits) -> Self {
        DescriptorLimits {
            min: raw.min,
            max: raw.max,
            align: raw.align,
            default: match raw.preferred {
                0 => dpdk_sys::RW_FALLBACK_RING_SIZE as u16,
                size => size,
            },
        }
    }
}

/// The port's MAC address; zeros if it has none.
pub(super) fn mac(port: u16) -> [u8; 6] {
    let mut address = dpdk_sys::rte_ether_addr::default();
    // SAFETY: EAL is initialised and `address` is writable; it stays zero on an error.
    unsafe { dpdk_sys::rte_eth_macaddr_get(port, &raw mut address) };
    address.addr_bytes
}

pub(super) fn port_name(port: u16) -> Option<String> {
    let mut name = [0 as c_char; dpdk_sys::RW_ETH_NAME_MAX as usize];
    // SAFETY: EAL is initialised; the buffer has the size that DPDK documents for this call.
    let ret = unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(port, name.as_mut_ptr()) };
    if ret != 0 {
        return None;
    }
    // SAFETY: after success the buffer is a NUL terminated string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

fn driver_name(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: a driver's name is a NUL terminated string of static lifetime.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(min_mtu: u16, max_mtu: u16, max_rx_pktlen: u32) -> DeviceInfo {
        let limits = DescriptorLimits { min: 0, max: 512, align: 1, default: 512 };
        DeviceInfo {
            name: "net_x0".into(),
            driver: "net_x".into(),
            mac: [0; 6],
            max_rx_queues: 1,
            max_tx_queues: 1,
            min_mtu,
            max_mtu,
            max_rx_pktlen,
            max_lro_pkt_size: 0,
            if_index: 0,
            rx_offload_capa: 0,
            tx_offload_capa: 0,
            tx_seg_max: u16::MAX,
            tx_mtu_seg_max: u16::MAX,
            reta_size: 0,
            flow_type_rss_offloads: 0,
            socket: -1,
            rx_desc_lim: limits,
            tx_desc_lim: limits,
        }
    }

    #[test]
    fn the_mtu_is_kept_within_what_dpdk_accepts() {
        // A NIC with an overhead of 26 bytes.
        assert_eq!(info(68, 9702, 9728).nearest_mtu(65535), 9702);
        assert_eq!(info(68, 9702, 9728).nearest_mtu(60), 68);
        // A driver that names a frame length only.
        assert_eq!(info(46, 65535, 1518).nearest_mtu(9000), 1500);
        // A driver that names no limit.
        assert_eq!(info(46, 65535, u32::MAX).nearest_mtu(9000), 9000);
    }

    #[test]
    fn multi_segment_sending_is_known_of_drivers_that_do_not_say_so() {
        let mut info = info(46, 65535, u32::MAX);
        assert!(!info.supports_multi_seg_tx());
        info.driver = "net_pcap".into();
        assert!(info.supports_multi_seg_tx());
        info.driver = "net_af_xdp".into();
        assert!(!info.supports_multi_seg_tx());
        info.tx_offload_capa = offload::TX_MULTI_SEGS;
        assert!(info.supports_multi_seg_tx());
    }
}

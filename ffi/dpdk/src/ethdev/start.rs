//! From a probed device to a running port with its queues.

#![allow(unsafe_code, reason = "configures and starts DPDK ports")]

use std::sync::Arc;

use dpdk_sys::rw_port_conf;

use super::info::offload;
use super::port::{apply_mtu, apply_promiscuous, current_mtu};
use super::{CONTROL, Device, DeviceError, DeviceInfo, Port, RxQueue, TxQueue, lock};
use crate::error::Errno;
use crate::mempool::Mempool;

/// How to run a device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceConfig<'a> {
    /// Receive and transmit queues, each.
    pub queue_pairs: u16,
    /// Descriptors of each receive queue; 0 for the driver's choice; adjusted to its limits.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; 0 for the driver's choice; adjusted to its limits.
    pub tx_descriptors: u16,
    /// MTU in bytes; `None` keeps what the device has.
    pub mtu: Option<u16>,
    /// Whether to receive packets for other MAC addresses.
    pub promiscuous: bool,
    /// Whether receive queues are to interrupt when asked to; see [`RxQueue::interrupt`].
    pub rx_interrupts: bool,
    /// Where received packets are put. Needs `queue_pairs * rx_descriptors` mbufs and more.
    pub pool: &'a Mempool,
}

/// A running port. The port is closed when all three are dropped.
#[derive(Debug)]
pub struct Started {
    /// For control.
    pub port: Arc<Port>,
    /// Receive queues, in order of their index.
    pub rx: Vec<RxQueue>,
    /// Transmit queues, in order of their index.
    pub tx: Vec<TxQueue>,
}

impl Device {
    /// Configures and starts the device.
    ///
    /// With several queues and a device that can, received packets are spread by a hash over IP
    /// addresses and ports. A frame that is longer than the pool's mbufs is received in several
    /// segments if the device can.
    ///
    /// An MTU or promiscuous mode that the driver refuses is no error but logged, with the device's
    /// name; [`Port::mtu`] and [`Port::promiscuous`] tell what holds.
    ///
    /// # Errors
    /// See [`DeviceError`]. The device is closed then.
    pub fn start(mut self, config: DeviceConfig<'_>) -> Result<Started, DeviceError> {
        let port = self.claim.port;
        let name = self.info.name.clone();
        let asked = config.queue_pairs;
        if asked == 0 || asked > self.info.max_rx_queues.min(self.info.max_tx_queues) {
            return Err(DeviceError::Queues {
                device: name,
                asked,
                max_rx: self.info.max_rx_queues,
                max_tx: self.info.max_tx_queues,
            });
        }

        let conf = self.port_conf(&config);
        let guard = lock(&CONTROL);
        // SAFETY: the port is ours and stopped; `conf` is readable.
        Errno::check(unsafe { dpdk_sys::rw_eth_configure(port, &raw const conf) })
            .map_err(|errno| DeviceError::call(&name, "configure the device", errno))?;
        set_up_queues(port, &self.info, &config, &conf)?;
        if let Some(mtu) = config.mtu {
            // Before the start: several drivers refuse it afterwards.
            report(&name, "the MTU was refused", apply_mtu(port, mtu));
        }
        // SAFETY: the port is ours, and configured with all its queues.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_start(port) })
            .map_err(|errno| DeviceError::call(&name, "start the device", errno))?;
        self.claim.started = true;

        if conf.rss_hash != 0 && self.info.reta_size > 0 {
            // SAFETY: the port is ours and started.
            let ret = unsafe { dpdk_sys::rw_eth_reta_spread(port, self.info.reta_size, asked) };
            report(&name, "the RSS table was refused", Errno::check(ret));
        }
        let promiscuous = apply_promiscuous(port, config.promiscuous);
        report(&name, "promiscuous mode was refused", promiscuous);
        drop(guard);

        let offloads = (conf.rx_offloads, conf.tx_offloads);
        let port = Arc::new(Port::new(self.claim, self.info, offloads, config.pool.clone()));
        Ok(Started {
            rx: (0..asked).map(|queue| RxQueue::new(port.clone(), queue, config.rx_interrupts)).collect(),
            tx: (0..asked).map(|queue| TxQueue::new(port.clone(), queue)).collect(),
            port,
        })
    }

    /// Chooses offloads, hash functions and MTU.
    fn port_conf(&self, config: &DeviceConfig<'_>) -> rw_port_conf {
        let info = &self.info;
        let current = current_mtu(self.claim.port);
        let mtu = info.nearest_mtu(config.mtu.unwrap_or(current));

        // Scattering costs many drivers their vector path: only if a frame may not fit one mbuf.
        let frame = u32::from(mtu) + info.frame_overhead();
        let coalesces = self.rx_offloads & offload::RX_TCP_LRO != 0;
        let long = coalesces || frame > u32::from(config.pool.data_room());
        let scatter = if long { offload::RX_SCATTER } else { 0 };
        // Never MBUF_FAST_FREE: it promises that all mbufs of a queue are single segments from one
        // mempool, while chains are sent here, and packets received into other ports' pools.
        rw_port_conf {
            rx_offloads: self.rx_offloads | (scatter & info.rx_offload_capa),
            tx_offloads: self.tx_offloads | (offload::TX_MULTI_SEGS & info.tx_offload_capa),
            rss_hash: match config.queue_pairs {
                1 => 0,
                _ => info.flow_type_rss_offloads & dpdk_sys::RW_RSS_IP_TCP_UDP,
            },
            max_lro_pkt_size: info.max_lro_pkt_size,
            queue_pairs: config.queue_pairs,
            mtu,
            rx_interrupts: config.rx_interrupts,
        }
    }
}

fn set_up_queues(
    port: u16,
    info: &DeviceInfo,
    config: &DeviceConfig<'_>,
    conf: &rw_port_conf,
) -> Result<(), DeviceError> {
    let choose = |asked, default| if asked == 0 { default } else { asked };
    let mut rx = choose(config.rx_descriptors, info.rx_desc_lim.default);
    let mut tx = choose(config.tx_descriptors, info.tx_desc_lim.default);
    // SAFETY: the port is configured; both numbers are writable.
    Errno::check(unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(port, &raw mut rx, &raw mut tx) })
        .map_err(|errno| DeviceError::call(&info.name, "choose ring sizes", errno))?;

    let error = |direction, queue, descriptors, errno| DeviceError::Queue {
        device: info.name.clone(),
        direction,
        queue,
        descriptors,
        errno,
    };
    for queue in 0..conf.queue_pairs {
        // SAFETY: the port is configured with this queue, and keeps the pool once it is started;
        // until then the caller's reference does.
        Errno::check(unsafe { dpdk_sys::rw_eth_rx_queue_setup(port, queue, rx, conf, config.pool.as_ptr()) })
            .map_err(|errno| error("receive", queue, rx, errno))?;
        // SAFETY: the port is configured with this queue.
        Errno::check(unsafe { dpdk_sys::rw_eth_tx_queue_setup(port, queue, tx, conf) })
            .map_err(|errno| error("transmit", queue, tx, errno))?;
    }
    Ok(())
}

/// Logs a refusal unless the driver merely lacks the operation.
fn report(device: &str, what: &str, result: Result<(), Errno>) {
    if let Err(errno) = result
        && !errno.is_unsupported()
    {
        tracing::warn!(device, %errno, "{what}");
    }
}

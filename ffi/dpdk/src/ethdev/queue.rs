//! The packet path: one call into the driver per burst.

#![allow(unsafe_code, reason = "hands bursts to DPDK's drivers")]

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use super::Port;
use crate::burst::Burst;

/// A receive queue. Its one owner polls it; not `Sync`, not `Clone`.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Port>,
    port_id: u16,
    queue: u16,
    /// Becomes readable when a packet arrives; open as long as the port is started.
    interrupt: Option<RawFd>,
    _one_owner: PhantomData<Cell<()>>,
}

/// A transmit queue. Its one owner fills it; not `Sync`, not `Clone`.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Port>,
    port_id: u16,
    queue: u16,
    _one_owner: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// The only handle to this queue of a started port; `interrupts`: it was started with them.
    pub(super) fn new(port: Arc<Port>, queue: u16, interrupts: bool) -> RxQueue {
        let port_id = port.id();
        let mut new = RxQueue { port, port_id, queue, interrupt: None, _one_owner: PhantomData };
        if interrupts && new.set_interrupts(true) && new.set_interrupts(false) {
            // SAFETY: the port is started.
            let fd = unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(port_id, queue) };
            new.interrupt = (fd >= 0).then_some(fd);
        }
        new
    }

    /// Appends up to `max` received packets to `burst`, as far as it has room; returns how many.
    ///
    /// Polls once. Some drivers return at most 32 at a time, or a multiple of 4 or 8.
    #[inline(always)]
    pub fn receive(&mut self, burst: &mut Burst, max: usize) -> usize {
        let n = max.min(burst.capacity_left());
        if n == 0 {
            return 0;
        }
        let room = burst.room(n);
        // SAFETY: the port is started while `self.port` lives, this is the only user of the queue,
        // and `room` is n writable pointers. n is at most BURST_MAX.
        let received = unsafe { dpdk_sys::rw_eth_rx_burst(self.port_id, self.queue, room, n as u16) };
        // SAFETY: the driver wrote that many mbufs, at most n, which are ours now.
        unsafe { burst.appended(usize::from(received)) };
        usize::from(received)
    }

    /// The descriptor that becomes readable when a packet arrives while interrupts are on; none if the driver has
    /// none, or the device was started without.
    pub fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the driver keeps it open while the port is started, and that is while `self.port` lives.
        self.interrupt.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Switches the queue's interrupt on or off; whether the driver could. A packet that has arrived already may
    /// cause none: receive once more after switching it on.
    pub fn set_interrupts(&mut self, wanted: bool) -> bool {
        // SAFETY: the port is started while `self.port` lives, and this is the only user of the queue.
        let status = unsafe {
            match wanted {
                true => dpdk_sys::rte_eth_dev_rx_intr_enable(self.port_id, self.queue),
                false => dpdk_sys::rte_eth_dev_rx_intr_disable(self.port_id, self.queue),
            }
        };
        status == 0
    }

    /// The queue's index in its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// The port the queue belongs to.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

impl TxQueue {
    /// The only handle to this queue of a started port.
    pub(super) fn new(port: Arc<Port>, queue: u16) -> TxQueue {
        let port_id = port.id();
        TxQueue { port, port_id, queue, _one_owner: PhantomData }
    }

    /// Hands packets from the front of `burst` to the driver; returns how many it took.
    ///
    /// Those leave the burst, the rest stays in order. Tries once. What a driver took it may still
    /// drop; it counts that in its `oerrors`.
    #[inline(always)]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        let n = burst.len();
        if n == 0 {
            return 0;
        }
        // SAFETY: the port is started while `self.port` lives, this is the only user of the queue,
        // and the burst has n packets. n is at most BURST_MAX.
        let sent = usize::from(unsafe {
            dpdk_sys::rw_eth_tx_burst(self.port_id, self.queue, burst.raw(), n as u16)
        });
        // SAFETY: the driver owns the packets it took, which are the first ones.
        unsafe { burst.drop_front(sent) };
        sent
    }

    /// Makes packets with offload flags fit for the driver (pseudo-header checksums, limits).
    ///
    /// Returns how many packets from the front can be sent. If these are not all, the packet
    /// behind them asks for something the driver cannot do. Not needed without offload flags.
    #[inline(always)]
    pub fn prepare(&mut self, burst: &mut Burst) -> usize {
        let n = burst.len();
        if n == 0 {
            return 0;
        }
        // SAFETY: as in `send`; the packets stay ours.
        usize::from(unsafe { dpdk_sys::rw_eth_tx_prepare(self.port_id, self.queue, burst.raw(), n as u16) })
    }

    /// The queue's index in its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// The port the queue belongs to.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

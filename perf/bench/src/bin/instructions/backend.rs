//! The backends, in this process: ringwire's, and DPDK's net_vhost, which is rte_vhost in a poll-mode driver.
//! A frontend connects to their sockets as to any other's; what they do with a burst happens when they are
//! called, and not before.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dpdk::burst::Burst;
use dpdk::ethdev::{Device, DeviceConfig, RxQueue, TxQueue};
use dpdk::mempool::Mempool;
use nix::sys::eventfd::{EfdFlags, EventFd};
use port::counters::{PairCounters, Shared, shared};
use port::guest::{GuestCounters, GuestPair, Limits};
use port::outbox::Outbox;
use vhost_user::features::all_offloads;
use vhost_user::{Channel, DeviceOptions, FrontendState, Link, Listener, Queues};
use virtqueue::Ring;

use crate::Failure;
use crate::steps::BURST;

/// Longest frame taken from the guest.
const MAX_FRAME: u32 = 1518;
/// How long a frontend may take to set its rings up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a connected frontend's packets go through.
pub trait Backend {
    /// Moves up to `max` packets that the guest sent into `outbox`.
    fn receive(&mut self, outbox: &mut Outbox, max: usize) -> usize;
    /// Copies the packets of `burst` into the guest's receive buffers, and frees them.
    fn send(&mut self, burst: &mut Burst) -> usize;
    /// Moves up to `max` packets that the guest sent to the guest that `to` is connected to; `burst` and `pool` are
    /// there for who needs mbufs on the way.
    fn forward(&mut self, to: &mut Self, outbox: &mut Outbox, max: usize) -> usize;
    /// A round in which there is nothing to move, either way.
    fn idle(&mut self, outbox: &mut Outbox);
}

/// A DPDK port with one queue pair: net_vhost, or the NIC's stand-in.
pub struct Ethdev {
    rx: RxQueue,
    tx: TxQueue,
}

impl Ethdev {
    /// The `number`th net_vhost, listening on `socket`.
    pub fn net_vhost(number: usize, socket: &Path, pool: &Mempool) -> Result<Ethdev, Failure> {
        Ethdev::start(&format!("net_vhost{number},iface={},queues=1", socket.display()), pool)
    }

    /// net_null, which gives out packets of `bytes` bytes, and frees what it is sent.
    pub fn net_null(bytes: usize, pool: &Mempool) -> Result<Ethdev, Failure> {
        Ethdev::start(&format!("net_null0,size={bytes}"), pool)
    }

    fn start(devargs: &str, pool: &Mempool) -> Result<Ethdev, Failure> {
        let device = Device::probe(devargs)?;
        let started = device.start(DeviceConfig {
            queue_pairs: 1,
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu: None,
            promiscuous: false,
            rx_interrupts: false,
            pool,
        })?;
        match (started.rx.into_iter().next(), started.tx.into_iter().next()) {
            (Some(rx), Some(tx)) => Ok(Ethdev { rx, tx }),
            _ => Err(Failure(format!("{devargs} has no queue"))),
        }
    }
}

impl Backend for Ethdev {
    #[inline(always)]
    fn receive(&mut self, outbox: &mut Outbox, max: usize) -> usize {
        self.rx.receive(&mut outbox.burst, max)
    }

    #[inline(always)]
    fn send(&mut self, burst: &mut Burst) -> usize {
        self.tx.send(burst)
    }

    /// As testpmd does it.
    #[inline(always)]
    fn forward(&mut self, to: &mut Ethdev, outbox: &mut Outbox, max: usize) -> usize {
        self.receive(outbox, max);
        to.send(&mut outbox.burst)
    }

    #[inline(always)]
    fn idle(&mut self, outbox: &mut Outbox) {
        self.receive(outbox, BURST);
    }
}

/// ringwire's socket: sessions run on a thread, as in the daemon.
pub struct Ringwire {
    rings: Arc<Shelf>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// Where a session leaves its rings, and finds them again.
#[derive(Default)]
struct Shelf {
    rings: Mutex<[Option<Ring>; 2]>,
    came: Condvar,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, [Option<Ring>; 2]> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues for &Shelf {
    fn give_out(&mut self, ring: Ring) {
        let index = usize::from(ring.index());
        self.lock()[index] = Some(ring);
        self.came.notify_all();
    }

    fn take_back(&mut self, index: u16) -> Option<Ring> {
        self.lock()[usize::from(index)].take()
    }

    fn observe(&mut self, _: &FrontendState) {}

    fn link(&self) -> Link {
        Link { up: true, ..Link::default() }
    }

    fn max_mtu(&self) -> Option<u16> {
        None
    }

    fn announce(&mut self, _: [u8; 6]) {}

    fn set_channel(&mut self, _: Option<Channel>) {}
}

impl Ringwire {
    /// Listens on `socket`.
    pub fn start(socket: PathBuf) -> Result<Ringwire, Failure> {
        let listener = Listener::bind(&socket, None, None)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let rings = Arc::<Shelf>::default();
        let (served, stopped) = (rings.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sessions".into())
            .spawn(move || serve(&listener, &served, &stopped))?;
        Ok(Ringwire { rings, stop, thread: Some(thread) })
    }

    /// The queue pair of the frontend that has connected last.
    pub fn pair(&self) -> Result<Pair, Failure> {
        let incomplete = |rings: &mut [Option<Ring>; 2]| rings.iter().any(Option::is_none);
        let waited = self.rings.came.wait_timeout_while(self.rings.lock(), PATIENCE, incomplete);
        let mut rings = waited.unwrap_or_else(PoisonError::into_inner).0;
        let [Some(to), Some(from)] = std::mem::take(&mut *rings) else {
            return Err(Failure("the guest's rings have not come".into()));
        };
        let pair = GuestPair::new("guest", from, to, &GuestCounters::default());
        Ok(Pair { pair, nic: shared() })
    }

    /// Gives the rings back to the session, as it must be before the frontend disconnects.
    pub fn give_back(&self, pair: Pair) {
        let [from, to] = pair.pair.into_rings();
        *self.rings.lock() = [Some(to), Some(from)];
    }
}

impl Drop for Ringwire {
    fn drop(&mut self) {
        // Cannot fail: the counter is 0.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &Listener, rings: &Shelf, stop: &EventFd) {
    let options = DeviceOptions {
        name: "guest".into(),
        queue_pairs: 1,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        offloads: all_offloads(),
    };
    while let Ok(Some(stream)) = listener.accept(stop.as_fd()) {
        if let Err(error) = vhost_user::serve(stream, &options, &mut &*rings, stop.as_fd()) {
            eprintln!("the session ended: {error}");
        }
    }
}

/// A guest's queue pair, run here.
pub struct Pair {
    pair: GuestPair,
    nic: Shared<PairCounters>,
}

impl Backend for Pair {
    #[inline(always)]
    fn receive(&mut self, outbox: &mut Outbox, max: usize) -> usize {
        let limits = Limits { packets: max, cost: u64::MAX, frame: MAX_FRAME };
        self.pair.receive(outbox, limits).packets as usize
    }

    /// As a worker does it: how much room there is decides how much is taken from the NIC, and so belongs to it.
    #[inline(always)]
    fn send(&mut self, burst: &mut Burst) -> usize {
        if self.pair.room(burst.len() as u16) == 0 {
            return 0;
        }
        self.pair.send(burst, &self.nic, u64::MAX).packets as usize
    }

    #[inline(always)]
    fn forward(&mut self, to: &mut Pair, _: &mut Outbox, max: usize) -> usize {
        let limits = Limits { packets: max, cost: u64::MAX, frame: u32::MAX };
        self.pair.forward(&mut to.pair, limits).packets as usize
    }

    #[inline(always)]
    fn idle(&mut self, outbox: &mut Outbox) {
        self.receive(outbox, BURST);
        std::hint::black_box(self.pair.room(BURST as u16));
    }
}

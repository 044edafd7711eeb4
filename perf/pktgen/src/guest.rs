//! A guest that its caller steps, a burst at a time: for benchmarks with the backend in the same process.

use std::path::Path;
use std::time::Duration;

use crate::frame::{Addresses, Checksum, Traffic};
use crate::kick::KickPolicy;
use crate::memory::Hugepages;
use crate::port::{Choice, Device, Port, PortError};
use crate::proto::Meeting;
use crate::track::Tracker;

/// Entries that a virtqueue usually has.
pub const QUEUE_SIZE: u16 = 256;
/// Bytes of a receive buffer, without header.
const BUFFER: usize = 2036;
/// How long to try to connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is negotiated, and what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Packed rings, or split ones.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// Bytes of a frame, without FCS.
    pub frame: usize,
    /// Entries of each virtqueue.
    pub queue_size: u16,
}

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The backend lacks a feature of the shape.
    #[error("the backend does not offer {0}")]
    NotOffered(&'static str),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A connected guest with one queue pair. It expects to receive what it sends, in order.
pub struct Guest {
    port: Port,
    tracker: Tracker,
    /// Bursts sent: the time, as far as stamps are concerned.
    bursts: u64,
}

impl Guest {
    /// Connects to a backend, and offers all its receive buffers.
    pub fn connect(socket: &Path, shape: Shape) -> Result<Guest, GuestError> {
        let choice = |on| if on { Choice::On } else { Choice::Off };
        let device = Device {
            queues: 1,
            queue_size: shape.queue_size,
            packed: choice(shape.packed),
            mergeable: choice(shape.mergeable),
            in_order: choice(shape.in_order),
            event_idx: Choice::Off,
            indirect: Choice::Off,
            hugepages: Hugepages::Never,
            room: shape.frame,
            buffer: BUFFER,
            kick: KickPolicy::Auto,
            checksum: false,
            gso: false,
        };
        let meeting = Meeting { path: socket.to_path_buf(), listen: false, patience: Some(PATIENCE) };
        let mut port = Port::open(&meeting, &device, true).map_err(|error| match error {
            PortError::Missing(feature) => GuestError::NotOffered(feature),
            error => GuestError::Failed(error.to_string()),
        })?;
        let mac = |last| [2, 0x72, 0x77, 0, 0, last];
        port.tx[0].arm(&Traffic {
            sizes: vec![shape.frame],
            flows: 1,
            flow_base: 0,
            addresses: Addresses { to: mac(2), from: mac(1), reverse: false },
            checksum: Checksum::Absent,
            epoch: 0,
        });
        Ok(Guest { port, tracker: Tracker::new(0, 1, 0, false), bursts: 0 })
    }

    /// Sends a burst of `count` packets, or nothing if there is no room for it. Whether it did.
    pub fn send(&mut self, count: u32) -> bool {
        let queue = &mut self.port.tx[0];
        if queue.room(count) < count {
            return false;
        }
        queue.send(count, self.bursts);
        self.bursts += 1;
        true
    }

    /// Receives up to `count` packets, and offers their buffers again. How many.
    pub fn receive(&mut self, count: u32) -> u32 {
        self.port.rx[0].receive(count, self.bursts, &mut self.tracker)
    }

    /// Disconnects, once the backend has let go of the memory. An error if a packet that was received is not
    /// the one that was sent, or if the backend broke the rules of virtio.
    pub fn finish(mut self) -> Result<(), GuestError> {
        let counts = self.tracker.counts;
        if let Some(why) = self.port.broken() {
            return Err(GuestError::Failed(format!("the backend broke the rules of virtio: {why}")));
        }
        if counts.missing + counts.reordered + counts.duplicates + counts.corrupt + counts.foreign > 0 {
            return Err(GuestError::Failed(format!("packets are not those that were sent: {counts:?}")));
        }
        self.port.close().map_err(|error| GuestError::Failed(error.to_string()))
    }
}

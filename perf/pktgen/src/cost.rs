//! `cost`: what one packet costs the frontend, in instructions. A device in the same thread returns each burst
//! before the next one, so the counts are those of full bursts, and the same each time:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*cost_of_tx*' ringwire-pktgen cost --count 100000
//! valgrind --tool=callgrind --toggle-collect='*cost_of_rx*' ringwire-pktgen cost --count 100000
//! ```

use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

use crate::args::Cost;
use crate::generator::Generator;
use crate::kick::{Kick, KickPolicy};
use crate::memory::{GUEST_BASE, Hugepages, Layout, Shared};
use crate::proto::RegionMessage;
use crate::reflect::copy;
use crate::ring::device::{DeviceRing, DeviceSetup, Memory};
use crate::ring::driver::{Ring, RingFeatures};
use crate::ring::{Areas, Pool, PoolArea};
use crate::sink::Sink;
use crate::track::Tracker;
use crate::{Failure, setup, usage};

/// Entries of each ring.
const SIZE: u16 = 256;
/// Bytes of a receive buffer.
const BUFFER: usize = 2036;

/// A burst sent.
#[inline(never)]
fn cost_of_tx(queue: &mut Generator, burst: u32, now: u64) {
    if queue.room(burst) >= burst {
        queue.send(burst, now);
    }
}

/// A burst received.
#[inline(never)]
fn cost_of_rx(queue: &mut Sink, burst: u32, now: u64, tracker: &mut Tracker) {
    queue.receive(burst, now, tracker);
}

/// Sends and receives `--count` packets, and says whether all came.
pub fn cost(args: &Cost) -> Result<u8, Failure> {
    let sizes = setup::sizes(&args.traffic)?;
    let longest = sizes.iter().copied().max().unwrap_or(0);
    let mut layout = Layout::default();
    let areas = [Areas::place(&mut layout, SIZE), Areas::place(&mut layout, SIZE)];
    let pools = [PoolArea::place(&mut layout, SIZE, BUFFER), PoolArea::place(&mut layout, SIZE, longest)];
    let shared = Shared::create(layout.len(), Hugepages::Never).map_err(|e| usage(e.to_string()))?;
    let shared = Rc::new(shared);
    let features = RingFeatures { packed: args.packed, in_order: args.in_order, event_idx: false };
    let ring = |at: usize| Ring::new(&shared, areas[at], features).expect("laid out within this memory");
    let pool = |at: usize| Pool::new(&shared, pools[at], false).expect("laid out within it, too");
    let kick = || {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).map_err(|e| usage(e.to_string()))?;
        Ok(Kick::new(fd, KickPolicy::Auto))
    };
    let mut sink = Sink::new(ring(0), pool(0), kick()?, args.mergeable, args.traffic.checksum);
    let mut generator = Generator::new(ring(1), pool(1), kick()?, false);
    let traffic = setup::traffic(&args.traffic, &sizes, 1, false)?.remove(0);
    let mut tracker = Tracker::new(0, traffic.flows, 0, false);

    let user = shared.user_base();
    let mut memory = Memory::default();
    let region = RegionMessage { guest: GUEST_BASE, size: shared.len() as u64, user, offset: 0 };
    memory.add(region, shared.clone());
    let device = |at: usize| {
        let setup = DeviceSetup {
            size: u32::from(SIZE),
            descriptors: user + areas[at].descriptors as u64,
            driver: user + areas[at].driver as u64,
            device: user + areas[at].device as u64,
            base: generator.ring.base(),
            packed: args.packed,
        };
        DeviceRing::new(&memory, setup).expect("the driver's ring is inside")
    };
    let (mut to, mut from) = (device(0), device(1));
    sink.open();
    generator.arm(&traffic);
    let burst = args.traffic.burst.min(u32::from(SIZE));
    let mut segments = [Vec::new(), Vec::new()];
    for round in 0..args.count / u64::from(burst) {
        cost_of_tx(&mut generator, burst, 1000 * round);
        copy(&memory, &mut to, &mut from, burst, args.mergeable, &mut segments);
        cost_of_rx(&mut sink, burst, 1000 * round + 500, &mut tracker);
    }
    println!("{} sent, {:?}", generator.sent, tracker.counts);
    Ok(u8::from(tracker.counts.received != generator.sent))
}

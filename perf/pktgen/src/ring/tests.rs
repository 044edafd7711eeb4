//! Both sides of both formats against each other, in one process.

use std::rc::Rc;

use super::device::{DeviceRing, DeviceSetup, Memory, Segment};
use super::driver::{Ring, RingFeatures};
use super::*;
use crate::memory::{GUEST_BASE, Hugepages, Layout, Shared};
use crate::proto::RegionMessage;

struct Rig {
    driver: Ring,
    device: DeviceRing,
    memory: Memory,
    pool: Pool,
    shared: Rc<Shared>,
}

/// A ring of `size`, whose device starts where the driver does.
fn rig(size: u16, features: RingFeatures, indirect: bool) -> Rig {
    let mut layout = Layout::default();
    let areas = Areas::place(&mut layout, size);
    let buffers = PoolArea::place(&mut layout, size, 256);
    let shared = Rc::new(Shared::create(layout.len(), Hugepages::Never).expect("memory"));
    let mut driver = Ring::new(&shared, areas, features).expect("inside");
    let pool = Pool::new(&shared, buffers, indirect).expect("inside");
    driver.fill(|slot| {
        let descriptor = pool.describe(slot, 64, 0);
        if features.packed {
            pool.packed_table(slot, 0);
        }
        descriptor
    });
    let user = shared.user_base();
    let mut memory = Memory::default();
    let region = RegionMessage { guest: GUEST_BASE, size: shared.len() as u64, user, offset: 0 };
    memory.add(region, shared.clone());
    let setup = DeviceSetup {
        size: u32::from(size),
        descriptors: user + areas.descriptors as u64,
        driver: user + areas.driver as u64,
        device: user + areas.device as u64,
        base: driver.base(),
        packed: features.packed,
    };
    let device = DeviceRing::new(&memory, setup).expect("inside");
    Rig { driver, device, memory, pool, shared }
}

fn formats() -> [RingFeatures; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(packed, in_order)| RingFeatures {
        packed,
        in_order,
        event_idx: false,
    })
}

#[test]
fn bursts_of_any_size_go_round() {
    for features in formats() {
        let mut rig = rig(16, features, false);
        let mut sent = 0u32;
        for round in 0..1000u32 {
            let burst = (round % 17).min(rig.driver.free());
            rig.driver.offer(burst);
            sent += burst;
            let returned = rig.device.return_all(round % 13, 7);
            let mut expected = (sent - rig.driver.in_flight()) % 16;
            let taken = rig.driver.take(u32::MAX, |slot: Slot, length: u32| {
                assert_eq!((slot.number(), length), (expected, 7), "{features:?}");
                expected = (expected + 1) % 16;
            });
            assert_eq!(taken, returned, "{features:?}");
        }
        assert!(sent > 4000 && rig.driver.orderly() && rig.driver.broken().is_none());
    }
}

#[test]
fn reclaim_is_take_without_looking() {
    for features in formats() {
        let mut rig = rig(8, features, false);
        for _ in 0..100 {
            rig.driver.offer(5);
            assert_eq!(rig.device.return_all(3, 0) + rig.device.return_all(3, 0), 5);
            rig.driver.reclaim();
            assert_eq!(rig.driver.in_flight(), 0, "{features:?}");
        }
    }
}

#[test]
fn descriptors_may_come_back_in_any_order() {
    for features in formats().into_iter().filter(|f| !f.in_order) {
        let mut rig = rig(8, features, false);
        let mut random = fastrand::Rng::with_seed(1);
        let (mut segments, mut held) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            let burst = random.u32(0..=rig.driver.free());
            // What is said to be next is what is offered, with its own buffer.
            let offered: Vec<u32> = (0..burst).map(|k| rig.driver.next(k).number()).collect();
            rig.driver.offer(burst);
            for number in offered {
                let chain = rig.device.pop(&rig.memory, &mut segments).expect("offered");
                assert_eq!((u32::from(chain.id), segments.len()), (number, 1));
                assert_eq!(segments[0].length, HEADER_LEN + 64);
                held.push(chain);
            }
            random.shuffle(&mut held);
            let back = random.usize(0..=held.len());
            let returned: Vec<_> = held.drain(..back).collect();
            returned.iter().for_each(|chain| rig.device.push(*chain, u32::from(chain.id)));
            rig.device.flush();
            let mut each = returned.iter();
            let taken = rig.driver.take(u32::MAX, |slot: Slot, length: u32| {
                let chain = each.next().expect("no more than were returned");
                assert_eq!((slot.number(), length), (u32::from(chain.id), u32::from(chain.id)));
            });
            assert_eq!(taken as usize, back);
            assert_eq!(rig.driver.in_flight() as usize, held.len());
        }
        assert!(!rig.driver.orderly() && rig.driver.broken().is_none());
    }
}

#[test]
fn what_was_not_offered_cannot_come_back() {
    for features in formats().into_iter().filter(|f| !f.in_order) {
        let mut rig = rig(8, features, false);
        let mut segments = Vec::new();
        rig.driver.offer(3);
        rig.device.pop(&rig.memory, &mut segments).expect("offered");
        rig.device.push(device::Chain { id: 5, entries: 1 }, 0);
        rig.device.flush();
        rig.driver.reclaim();
        assert!(rig.driver.broken().is_some(), "{features:?}");
    }
    let mut rig = rig(8, RingFeatures::default(), false);
    rig.driver.offer(1);
    (0..2).for_each(|id| rig.device.push(device::Chain { id, entries: 1 }, 0));
    rig.device.flush();
    rig.driver.reclaim();
    assert!(rig.driver.broken().is_some_and(|why| why.contains("used index 2")));
}

#[test]
fn a_packed_batch_may_have_one_used_descriptor() {
    let features = RingFeatures { packed: true, in_order: true, event_idx: false };
    let mut rig = rig(8, features, false);
    let mut segments = Vec::new();
    for _ in 0..20 {
        rig.driver.offer(5);
        let chains: Vec<_> =
            (0..5).map(|_| rig.device.pop(&rig.memory, &mut segments).expect("offered")).collect();
        rig.device.push(device::Chain { id: chains[4].id, entries: 5 }, 9);
        rig.device.flush();
        let mut lengths = Vec::new();
        rig.driver.take(u32::MAX, |_: Slot, length: u32| lengths.push(length));
        let unknown = driver::UNKNOWN;
        assert_eq!(lengths, [unknown, unknown, unknown, unknown, 9]);
        assert_eq!(rig.driver.in_flight(), 0);
    }
}

#[test]
fn an_indirect_table_is_header_and_frame() {
    for features in formats() {
        let mut rig = rig(4, features, true);
        let slot = rig.driver.next(0);
        assert_eq!(rig.pool.set_length(slot, 99), None);
        rig.driver.offer(1);
        let mut segments: Vec<Segment> = Vec::new();
        rig.device.pop(&rig.memory, &mut segments).expect("offered");
        let lengths: Vec<usize> = segments.iter().map(|s| s.length).collect();
        assert_eq!(lengths, [HEADER_LEN, 99], "{features:?}");
        assert!(Rc::strong_count(&rig.shared) > 1);
    }
}

#[test]
fn lengths_change_from_packet_to_packet() {
    for features in formats() {
        let mut rig = rig(4, features, false);
        for round in 0..10u32 {
            for k in 0..3 {
                let length = rig.pool.set_length(rig.driver.next(k), (60 + round * 3 + k) as usize);
                rig.driver.set_length(k, length.expect("not indirect"));
            }
            rig.driver.offer(3);
            let mut segments: Vec<Segment> = Vec::new();
            for k in 0..3 {
                let chain = rig.device.pop(&rig.memory, &mut segments).expect("offered");
                assert_eq!(segments[0].length, HEADER_LEN + (60 + round * 3 + k) as usize);
                rig.device.push(chain, 0);
            }
            rig.device.flush();
            rig.driver.reclaim();
        }
    }
}

#[test]
fn a_kick_is_wanted_unless_the_device_says_no() {
    for features in formats() {
        let mut rig = rig(8, features, false);
        rig.driver.offer(1);
        assert!(!rig.driver.kick_wanted(), "the device of this crate polls: {features:?}");
        assert!(!rig.device.call_wanted(), "and so does its driver");
    }
    assert!(need_event(5, 6, 5) && need_event(5, 9, 3) && !need_event(5, 5, 3) && !need_event(5, 9, 6));
    assert!(need_event(0xffff, 0, 0xffff) && !need_event(0xfffe, 1, 0xffff));
}

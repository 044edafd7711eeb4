//! What is measured: one kind of work on one kind of virtqueue.

use ringwire_pktgen::guest::{QUEUE_SIZE, Shape};

/// Names of what the NIC's stand-in costs: giving packets out, and freeing them.
pub const STAND_IN: [&str; 2] = ["net_null rx", "net_null tx"];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// From the avail index of the guest's tx virtqueue to filled mbufs (rte_vhost: dequeue).
    FromGuest,
    /// From mbufs to the used index of the guest's rx virtqueue, with the mbufs freed (rte_vhost: enqueue).
    ToGuest,
    /// From the avail index of one guest's tx virtqueue to the used index of another's rx virtqueue.
    BetweenGuests,
    /// A look at both directions, with nothing to do.
    Idle,
}

/// A path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// What is done.
    pub work: Work,
    shape: Shape,
}

impl Path {
    /// Every shape of a guest that sends frames of `bytes`.
    pub fn shapes(bytes: usize) -> impl Iterator<Item = Shape> {
        (0..8).map(move |bits| Shape {
            packed: bits & 4 != 0,
            in_order: bits & 2 != 0,
            mergeable: bits & 1 != 0,
            frame: bytes,
            queue_size: QUEUE_SIZE,
        })
    }

    /// What is measured with guests of that shape: everything where it makes a difference. In groups: a guest looks
    /// at all packets that it gets, and so must get either its own or another's.
    pub fn of(shape: Shape) -> Vec<Vec<Path>> {
        let works: &[&[Work]] = match (shape.mergeable, shape.in_order) {
            (false, false) => &[&[Work::Idle, Work::FromGuest, Work::ToGuest], &[Work::BetweenGuests]],
            (false, true) => &[&[Work::FromGuest, Work::ToGuest]],
            (true, _) => &[&[Work::ToGuest]],
        };
        let path = |work: &Work| Path { work: *work, shape };
        works.iter().map(|works| works.iter().map(path).collect()).collect()
    }

    /// As it is called in tables and in the baseline.
    pub fn name(&self) -> String {
        let Shape { packed, mergeable, in_order, .. } = self.shape;
        let mut name = String::from(match self.work {
            Work::FromGuest => "guest->NIC",
            Work::ToGuest => "NIC->guest",
            Work::BetweenGuests => "guest->guest",
            Work::Idle => "idle round",
        });
        for (has, word) in
            [(!packed, "split"), (packed, "packed"), (mergeable, "mergeable"), (in_order, "in-order")]
        {
            if has {
                name = name + " " + word;
            }
        }
        name
    }
}

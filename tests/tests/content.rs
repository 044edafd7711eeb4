//! Ten thousand frames each way between a virtio-user guest and a pcap NIC arrive
//! unchanged and in order, whatever their layout in the guest's memory, and every counter on the way agrees.

use tests::exchange::{Exchange, Outcome};

/// Bytes of data in a guest's mbuf, so that a long frame has nine of them (the first seven or less go into one
/// indirect descriptor, if the guest may; more are chained) ...
const SMALL: usize = 1024;
/// ... or so that one is enough for any frame.
const LARGE: usize = 9216;

macro_rules! cases {
    ($($name:ident:
        $format:ident $mergeable:literal $indirect:literal $room:ident $queues:literal $order:ident;)*) => {
        $(#[test]
        fn $name() {
            let exchange = Exchange {
                frames: 10_000,
                longest: 9000,
                packed: stringify!($format) == "packed",
                mergeable: $mergeable,
                in_order: stringify!($order) == "in_order",
                indirect: $indirect,
                vectorized: false,
                room: $room,
                queues: $queues,
                ring: 256,
            };
            exchange.run(&mut Outcome::default());
        })*
    };
}

// Any three settings that can be together are so in one of these.
cases! {
    split_mergeable_indirect_small_1: split true true SMALL 1 any_order;
    split_mergeable_direct_large_4: split true false LARGE 4 any_order;
    split_single_indirect_large_4: split false true LARGE 4 any_order;
    split_single_direct_large_1: split false false LARGE 1 any_order;
    packed_mergeable_indirect_large_1: packed true true LARGE 1 any_order;
    packed_single_direct_large_4: packed false false LARGE 4 any_order;
    packed_single_direct_small_4: packed false false SMALL 4 any_order;
    split_mergeable_direct_small_1_in_order: split true false SMALL 1 in_order;
    split_single_direct_small_4_in_order: split false false SMALL 4 in_order;
    packed_mergeable_direct_small_1_in_order: packed true false SMALL 1 in_order;
    // Indirect tables of many segments on a packed ring come in order only: otherwise DPDK's driver writes the
    // buffer id into the table instead of the ring (virtqueue_enqueue_xmit_packed), so that no device can return
    // the chain under its id, and it soon waits for ever. A Linux guest does use such tables.
    packed_mergeable_indirect_small_4_in_order: packed true true SMALL 4 in_order;
    packed_single_indirect_small_1_in_order: packed false true SMALL 1 in_order;
}

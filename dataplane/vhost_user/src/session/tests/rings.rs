//! Rings and memory: when a ring is given out, when it is taken back, and in which order.

use std::os::fd::AsFd;

use crate::testing::*;
use Event::{Back, Out};

#[test]
fn a_ring_is_given_out_once_it_has_everything_in_whatever_order() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    for first in 0..6 {
        let mut client = Client::connect(1);
        client.ask_u64(1);
        assert!(client.tell_u64(16, ALL_PROTOCOL));
        for step in 0..6 {
            assert_eq!(client.engine.events(), [], "before step {step} of {first}");
            assert!(match (first + step) % 6 {
                0 => client.tell_u64(2, FEATURES),
                1 => client.set_table(&[(&guest, guest.region(0))]),
                2 => client.tell_ring(8, 0, SIZE),
                3 => client.set_areas(0, USER),
                4 => client.tell_fd(12, 0, Some(event().as_fd())),
                _ => client.tell_ring(18, 0, 1),
            });
        }
        assert_eq!(client.engine.events(), [Out(0, 0)]);
        client.close().0.unwrap();
    }
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.ask_u64(1);
    assert!(client.tell_u64(16, ALL_PROTOCOL)); // for acks
    assert!(client.tell_u64(2, 1 << 32));
    assert!(client.set_table(&[(&guest, guest.region(0))]));
    assert!(client.tell_ring(8, 0, SIZE));
    assert!(client.set_areas(0, USER));
    assert!(client.tell_fd(12, 0, None), "a ring to be polled has no kick");
    assert_eq!(client.engine.events(), [Out(0, 0)]);
    assert!(!client.tell_ring(18, 0, 0), "and is not disabled");
    // Reset by such a frontend, it stays stopped until it gets a new kick.
    assert!(client.tell(4, &[], &[]));
    assert_eq!(client.engine.events(), [Back(0, true)]);
    assert!(client.tell_fd(13, 0, None));
    assert_eq!(client.engine.events(), []);
    assert!(client.tell_fd(12, 0, None));
    assert_eq!(client.engine.events(), [Out(0, 0)]);
    client.close().0.unwrap();
}

#[test]
fn what_changes_on_a_running_ring_changes_between_taking_back_and_giving_out() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    guest.publish(1, 3);
    for (code, fd) in [(12, Some(event())), (13, None), (13, Some(event())), (14, Some(event()))] {
        assert!(client.tell_fd(code, 1, fd.as_ref().map(AsFd::as_fd)));
        assert_eq!(client.engine.events(), [Back(1, true), Out(1, 3)]);
    }
    assert!(client.set_areas(1, USER + 5 * RING_SPACE));
    assert_eq!(client.engine.events(), [Back(1, true), Out(1, 3)]);
    for (code, num) in [(8, 32), (10, 0)] {
        assert!(!client.tell_ring(code, 1, num), "size and base are refused while it runs");
    }
    assert_eq!(client.engine.events(), []);
    client.close().0.unwrap();
}

#[test]
fn disabling_parks_and_enabling_goes_on() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    guest.publish(0, 9);
    assert!(client.tell_ring(18, 0, 0));
    assert!(client.tell_ring(18, 0, 0));
    assert_eq!(client.engine.events(), [Back(0, true)]);
    assert_eq!(
        client.engine.state().queues[0],
        crate::QueueState { size: 16, addresses: true, kick: true, call: true, ..Default::default() }
    );
    assert!(client.tell_ring(18, 0, 1));
    assert!(client.tell_ring(18, 0, 1));
    assert_eq!(client.engine.events(), [Out(0, 9)]);
    assert!(!client.tell_ring(18, 0, 2));
    client.close().0.unwrap();
}

#[test]
fn get_vring_base_stops_until_the_next_kick() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    guest.publish(1, 5);
    assert_eq!(client.get_base(1), 5);
    assert_eq!(client.engine.events(), [Back(1, true)]);
    assert_eq!(client.get_base(1), 5);
    assert!(client.tell_ring(18, 1, 0) && client.tell_ring(18, 1, 1));
    assert!(client.tell_fd(13, 1, None));
    assert!(client.tell_ring(8, 1, 8));
    assert!(client.tell_ring(10, 1, 4));
    assert_eq!(client.engine.events(), []);
    assert!(client.tell_fd(12, 1, Some(event().as_fd())));
    assert_eq!(client.engine.events(), [Out(1, 4)]);
    assert_eq!(client.engine.look().out[&1].config().size, 8);
    client.close().0.unwrap();
}

#[test]
fn a_new_table_is_mapped_after_every_ring_is_back_and_rings_go_on_in_it() {
    let _alone = alone();
    let (old, new) = (Guest::new(0x10000), Guest::new(0x20000));
    let mut client = Client::running(&old);
    old.publish(1, 2);
    assert!(client.set_table(&[(&new, new.region(0))]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true), Out(0, 0), Out(1, 2)]);
    assert_eq!((old.mapped(), new.mapped()), (0, 1));
    client.close().0.unwrap();
    assert_eq!(new.mapped(), 0);
}

#[test]
fn a_failing_table_leaves_rings_parked_and_no_memory() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    let mut beyond = guest.region(0);
    beyond[3] = 0x1000;
    assert!(!client.set_table(&[(&guest, beyond)]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true)]);
    assert_eq!((guest.mapped(), client.engine.state().memory_regions), (0, 0));
    // Rings whose areas are not in the table: it stands, they stay parked, and say so.
    let elsewhere = [GUEST, guest.len, USER + (1 << 30), 0];
    assert!(!client.set_table(&[(&guest, elsewhere)]));
    assert_eq!(client.engine.events(), []);
    assert!(client.set_table(&[(&guest, guest.region(0))]));
    assert_eq!(client.engine.events(), [Out(0, 0), Out(1, 0)]);
    client.close().0.unwrap();
}

#[test]
fn regions_come_and_go_one_by_one() {
    let _alone = alone();
    let before = open_fds();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    guest.publish(0, 1);
    let more: Vec<Guest> = (0..508).map(|_| Guest::new(0x1000)).collect();
    let region =
        |number: usize| [1 << 40 | (number as u64) << 16, 0x1000, 1 << 41 | (number as u64) << 16, 0];
    assert!(client.tell(37, &single(region(0)), &[more[0].file.as_fd()]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true), Out(0, 1), Out(1, 0)]);
    for (number, guest) in more.iter().enumerate().skip(1) {
        assert!(client.tell(37, &single(region(number)), &[guest.file.as_fd()]));
    }
    client.engine.events();
    let full = single(region(600));
    assert!(!client.tell(37, &full, &[more[0].file.as_fd()]), "509 and no more");
    assert!(!client.tell(37, &single(region(3)), &[more[0].file.as_fd()]), "overlaps");
    assert!(!client.tell(37, &full, &[]), "without a file");
    assert!(!client.tell(38, &full, &[]), "there is none such");
    assert_eq!(client.engine.events(), [], "what is refused changes nothing");
    assert_eq!(client.engine.state().memory_regions, 509);
    let mut other_offset = region(0);
    other_offset[3] = 0x5000;
    assert!(client.tell(38, &single(other_offset), &[more[0].file.as_fd()]), "closes the file it is sent");
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true), Out(0, 1), Out(1, 0)]);
    assert_eq!((more[0].mapped(), more[1].mapped()), (0, 1));
    // The region the rings are in: they cannot go on.
    assert!(!client.tell(38, &single(guest.region(0)), &[]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true)]);
    assert_eq!(guest.mapped(), 0);
    client.close().0.unwrap();
    drop((guest, more));
    assert_eq!(open_fds(), before);
}

#[test]
fn reset_device_keeps_the_memory_and_forgets_the_rest() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    assert!(client.tell(34, &[], &[]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true)]);
    let state = client.engine.state();
    assert_eq!((state.features, state.protocol_features, state.memory_regions), (0, ALL_PROTOCOL, 1));
    assert_eq!(state.queues, [crate::QueueState { call: true, ..Default::default() }; 2]);
    assert_eq!(client.get_base(0), 0);
    assert!(client.tell_u64(2, FEATURES));
    assert!(client.set_up(0));
    assert_eq!(client.engine.events(), [Out(0, 0)]);
    client.close().0.unwrap();
}

#[test]
fn reset_owner_disables_every_ring() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    guest.publish(0, 4);
    assert!(client.tell(4, &[], &[]));
    assert_eq!(client.engine.events(), [Back(0, true), Back(1, true)]);
    assert_eq!(client.engine.state().memory_regions, 1);
    assert!(client.tell_ring(18, 0, 1));
    assert_eq!(client.engine.events(), [Out(0, 4)]);
    client.close().0.unwrap();
}

#[test]
fn the_reply_comes_after_the_rings_are_back() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    // The engine is busy: nothing is answered until it lets go.
    let engine = client.engine.clone();
    let busy = engine.look();
    client.send(11, 0, &state(0, 0), &[]);
    client.stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    assert!(client.reply().is_none());
    drop(busy);
    client.stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    assert_eq!(client.reply().unwrap().0, 11);
    assert_eq!(engine.events(), [Back(0, true)]);
    client.close().0.unwrap();
}

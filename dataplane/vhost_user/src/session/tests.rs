//! Whole sessions: what a frontend sends, what it is told, and what happens to rings, memory and descriptors.

mod hostile;
mod net;
mod random;
mod rings;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures as Protocol};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::Link;
use crate::testing::*;

/// The `vhost` crate's own frontend, as cloud-hypervisor and crosvm use it, brings up 128 pairs.
#[test]
fn the_vhost_crates_frontend_brings_up_every_pair() {
    let _alone = alone();
    let before = open_fds();
    let (theirs, ours) = UnixStream::pair().unwrap();
    let client = Client::over(ours.try_clone().unwrap(), theirs, options(128));
    let guest = Guest::new(256 * RING_SPACE);

    let mut frontend = Frontend::from_stream(ours, 256);
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    frontend.set_features(offered).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    assert_eq!(protocol.bits(), ALL_PROTOCOL);
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    // No get_queue_num: this frontend takes the answer, pairs for net, for the number of rings.
    assert_eq!(frontend.get_max_mem_slots().unwrap(), 509);
    let (_, mac) = frontend.get_config(0, 6, VhostUserConfigFlags::WRITABLE, &[0; 6]).unwrap();
    assert_eq!(mac, [2, 0, 0, 0, 0, 7]);

    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: guest.len,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: guest.file.as_raw_fd(),
    };
    frontend.set_mem_table(&[region]).unwrap();
    for ring in 0..256 {
        let at = USER + ring as u64 * RING_SPACE;
        frontend.set_vring_num(ring, SIZE as u16).unwrap();
        frontend.set_vring_base(ring, 5).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE as u16,
            queue_size: SIZE as u16,
            flags: 0,
            desc_table_addr: at,
            used_ring_addr: at + 0x400,
            avail_ring_addr: at + 0x200,
            log_addr: None,
        };
        frontend.set_vring_addr(ring, &config).unwrap();
    }
    let eventfd = EventFd::new(0).unwrap();
    for ring in 0..256 {
        frontend.set_vring_call(ring, &eventfd).unwrap();
        frontend.set_vring_kick(ring, &eventfd).unwrap();
        frontend.set_vring_enable(ring, true).unwrap();
    }
    assert_eq!(client.engine.look().out.len(), 256);
    let state = client.engine.state();
    assert!(state.queues.len() == 256 && state.queues.iter().all(|queue| queue.started && queue.size == 16));
    assert_eq!((state.memory_regions, state.memory_bytes), (1, guest.len));
    for ring in 0..256 {
        // All that is offered was acknowledged, so the rings are packed: the position twice.
        assert_eq!(frontend.get_vring_base(ring).unwrap(), 5 << 16 | 5);
    }
    frontend.reset_device().unwrap();
    drop((frontend, eventfd));
    let (ended, engine) = client.close();
    ended.unwrap();
    assert!(!engine.state().connected);
    drop((engine, guest));
    assert_eq!(open_fds(), before);
}

#[test]
fn config_space_is_read_and_its_mac_written() {
    let _alone = alone();
    let mut client = Client::connect(4);
    client.engine.look().link = Link { up: true, ..Link::default() };
    client.negotiate();
    assert_eq!((client.ask_u64(17), client.ask_u64(36)), (4, 509));
    let reply = client.ask(24, &config(0, &[0; 12]));
    assert_eq!(reply, config(0, &[2, 0, 0, 0, 0, 7, 1, 0, 4, 0, 0, 0]));
    client.engine.look().link = Link::default();
    assert_eq!(client.ask(24, &config(6, &[0; 2])), config(6, &[0, 0]));
    assert!(client.tell(25, &config(0, &[6; 6]), &[]));
    assert!(!client.tell(25, &config(6, &[1, 0]), &[]));
    assert_eq!(client.ask(24, &config(0, &[0; 6])), config(0, &[6; 6]));
    // Out of bounds, or malformed: a reply of size 0 says so.
    assert_eq!(client.ask(24, &config(250, &[0; 7]))[4..8], [0; 4]);
    assert_eq!(client.ask(24, &config(0, &[])), [0; 12]);
    let mut lies = config(0, &[0; 6]);
    lies[4] = 200;
    assert_eq!(client.ask(24, &lies), [0; 12]);
    assert!(!client.tell(25, &lies, &[]));
    assert!(client.alive());
    client.close().0.unwrap();
}

#[test]
fn features_never_offered_are_refused() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.negotiate();
    assert!(!client.tell_u64(2, FEATURES | 1 << 36));
    assert_eq!(client.engine.state().features, FEATURES);
    assert!(!client.tell_u64(16, ALL_PROTOCOL | 1 << 12));
    assert_eq!(client.engine.state().protocol_features, ALL_PROTOCOL);
    // The refusal leaves the connection as good as it was.
    assert!(client.set_table(&[(&guest, guest.region(0))]));
    assert!(client.set_up(0));
    // While a ring runs, the same set again is fine (QEMU sends it for each pair), another is not.
    assert!(client.tell_u64(2, FEATURES));
    assert!(!client.tell_u64(2, FEATURES | 1 << 15));
    client.close().0.unwrap();
}

#[test]
fn acks_come_only_when_negotiated_and_asked_for() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.send(23, NEED_REPLY, &state(0, 1), &[]);
    client.send(18, NEED_REPLY, &state(9, 1), &[]);
    assert!(client.alive(), "no ack before REPLY_ACK is negotiated");
    client.negotiate();
    client.send(23, 0, &state(0, 1), &[]);
    client.send(18, 0, &state(9, 1), &[]);
    assert!(client.alive(), "no ack that was not asked for");
    assert!(!client.tell(23, &state(0, 1), &[]));
    client.close().0.unwrap();
}

#[test]
fn the_owner_is_set_once() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    assert!(!client.tell(3, &[], &[]));
    assert!(client.tell(4, &[], &[]));
    assert!(client.tell(3, &[], &[]));
    client.close().0.unwrap();
}

#[test]
fn observes_connect_changes_and_the_end() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let client = Client::running(&guest);
    let state = client.engine.state();
    assert!(state.connected && state.queues.iter().all(|queue| queue.enabled && queue.started));
    let (ended, engine) = client.close();
    ended.unwrap();
    let record = engine.look();
    let first = &record.states[0];
    assert!(first.connected && first.features == 0 && first.queues.len() == 2);
    assert!(record.states.windows(2).all(|pair| pair[0] != pair[1]));
    let last = record.states.last().unwrap();
    assert!(!last.connected && last.memory_regions == 0 && !last.queues.iter().any(|queue| queue.started));
}

#[test]
fn what_was_refused_last_is_observed_and_kept() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    assert_eq!(client.engine.state().refused, None);
    assert!(!client.tell_ring(8, 7, 16));
    let refused = Some("SET_VRING_NUM: ring 7 is none of the 2 offered".to_owned());
    assert_eq!(client.engine.state().refused, refused);
    // One that the session refuses before anybody else sees it.
    assert!(!client.tell(8, &[0; 3], &[]));
    let refused = Some("SET_VRING_NUM: 3 bytes of payload".to_owned());
    assert_eq!(client.engine.state().refused, refused);
    let (ended, engine) = client.close();
    ended.unwrap();
    assert_eq!(engine.state().refused, refused);
}

/// Frontends that go at any point, in a tight loop: descriptors, mappings and threads stay level.
#[test]
fn frontends_come_and_go() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let before = open_fds();
    for round in 0..100 {
        let mut client = Client::connect(1);
        if round % 4 > 0 {
            client.negotiate();
        }
        if round % 4 > 1 {
            assert!(client.set_table(&[(&guest, guest.region(0))]));
        }
        if round % 4 > 2 {
            assert!(client.set_up(0) && client.set_up(1));
        }
        let (ended, engine) = client.close();
        ended.unwrap();
        assert!(engine.look().out.is_empty());
    }
    assert_eq!(open_fds(), before);
    assert_eq!(guest.mapped(), 0);
}

#[test]
fn stop_ends_an_idle_session_and_gives_everything_back() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let client = Client::running(&guest);
    stop(&client);
    let asked = std::time::Instant::now();
    let (ended, engine) = client.ended();
    ended.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(engine.events(), [Event::Back(0, true), Event::Back(1, true)]);
    assert_eq!(guest.mapped(), 0);
}

pub(super) fn stop(client: &Client) {
    rustix::io::write(&*client.stop, &1u64.to_ne_bytes()).unwrap();
}

#[test]
fn protocol_features_of_the_crate_are_what_the_tests_say() {
    assert_eq!(crate::features::PROTOCOL.bits(), ALL_PROTOCOL);
    assert!(Protocol::from_bits(ALL_PROTOCOL).is_some());
}

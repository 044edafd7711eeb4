//! What a frontend says beside features and rings: MTU, address, device status, and the backend channel.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::testing::*;
use crate::{DeviceOptions, Link, SessionError};

const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_BACKEND_REQ_FD: u32 = 21;
const RESET_DEVICE: u32 = 34;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;

/// ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK.
const RUNNING: u64 = 0xf;
const UP: Link = Link { up: true, speed_mbps: Some(25_000), full_duplex: Some(true) };

/// A frontend whose guest was configured with an MTU.
fn with_mtu(mtu: u16) -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::over(ours, theirs, DeviceOptions { mtu: Some(mtu), ..options(1) });
    client.negotiate();
    client
}

#[test]
fn an_mtu_is_taken_if_the_guest_and_its_backend_can_have_it() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    for mtu in [68, 1400, 9000, 65535] {
        assert!(client.tell_u64(NET_SET_MTU, mtu), "{mtu}");
        assert_eq!(client.engine.state().mtu, Some(mtu as u16));
    }
    for mtu in [0, 67, 65536, 1 << 32 | 1500, u64::MAX] {
        assert!(!client.tell_u64(NET_SET_MTU, mtu), "{mtu}");
    }
    client.engine.look().max_mtu = Some(1500);
    assert!(!client.tell_u64(NET_SET_MTU, 1501), "more than the backend passes");
    assert_eq!(client.engine.state().mtu, Some(65535), "what was refused changes nothing");
    assert!(client.tell_u64(NET_SET_MTU, 1500));
    assert!(client.tell(RESET_DEVICE, &[], &[]));
    assert_eq!(client.engine.state().mtu, None);
    let (ended, engine) = client.close();
    ended.unwrap();
    assert_eq!(engine.state().mtu, None);

    let mut client = with_mtu(4000);
    client.engine.look().max_mtu = Some(9000);
    assert!(client.tell_u64(NET_SET_MTU, 4000));
    assert!(!client.tell_u64(NET_SET_MTU, 4001), "more than the guest was configured with");
    client.engine.look().max_mtu = Some(1500);
    assert!(!client.tell_u64(NET_SET_MTU, 4000));
    client.close().0.unwrap();
}

#[test]
fn a_guest_is_announced_under_its_address() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    let mac = [0x52, 0x54, 0, 0, 0, 9];
    let payload = [&mac[..], &[0xee, 0xee]].concat();
    assert!(client.tell(SEND_RARP, &payload, &[]));
    assert_eq!((client.engine.state().mac, &client.engine.look().announced[..]), (Some(mac), &[mac][..]));
    for no_guests in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let payload = [&no_guests[..], &[0, 0]].concat();
        assert!(!client.tell(SEND_RARP, &payload, &[]), "{no_guests:?}");
    }
    assert!(client.tell(RESET_DEVICE, &[], &[]));
    assert_eq!(client.engine.state().mac, Some(mac), "a reset does not change where it is");
    let (ended, engine) = client.close();
    ended.unwrap();
    assert_eq!((engine.state().mac, engine.look().announced.len()), (None, 1));
}

#[test]
fn the_device_status_is_kept_and_told() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    assert_eq!(client.ask_u64(GET_STATUS), 0);
    // As DPDK's virtio-user begins.
    assert!(client.tell_u64(SET_STATUS, 0));
    assert_eq!(client.engine.look().out.len(), 2, "nothing was set: nothing is reset");
    for status in [1, 3, 0xb, RUNNING, 0xb, 0x8f] {
        assert!(client.tell_u64(SET_STATUS, status));
        assert_eq!(client.ask_u64(GET_STATUS), status);
        assert_eq!(u64::from(client.engine.state().status), status);
    }
    for status in [0x100, 1 << 32, u64::MAX] {
        assert!(!client.tell_u64(SET_STATUS, status), "{status:#x}");
        assert_eq!(client.ask_u64(GET_STATUS), 0x8f);
    }
    assert!(client.engine.events().is_empty(), "rings do not depend on it");
    client.close().0.unwrap();
}

#[test]
fn status_0_resets_the_device() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::running(&guest);
    assert!(client.tell_u64(SET_STATUS, RUNNING));
    guest.publish(1, 3);
    assert!(client.tell_u64(SET_STATUS, 0));
    assert_eq!(client.engine.events(), [Event::Back(0, true), Event::Back(1, true)]);
    // As QEMU 7.2 does it: where the rings got to is asked for after the reset.
    assert_eq!((client.get_base(0), client.get_base(1)), (0, 3));
    let state = client.engine.state();
    assert_eq!((state.features, state.status, state.memory_regions), (0, 0, 1));
    assert!(state.queues.iter().all(|queue| !queue.enabled && !queue.started && queue.size == 0));
    // Features that were not accepted are not said to be fine.
    assert!(client.tell_u64(SET_STATUS, 0xb));
    assert_eq!(client.ask_u64(GET_STATUS), 3);
    // As QEMU goes on after a guest's reset: the memory table is still the same.
    assert!(client.tell_u64(2, FEATURES));
    assert!(client.tell_u64(SET_STATUS, 0xb));
    assert!(client.set_up(0) && client.set_up(1));
    assert_eq!(client.engine.look().out.len(), 2);
    assert_eq!(client.ask_u64(GET_STATUS), 0xb);
    client.close().0.unwrap();
}

/// What comes over the channel until now.
fn told(channel: &mut UnixStream) -> Vec<u8> {
    channel.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 4096];
    let len = channel.read(&mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

fn tell(client: &Client, link: Link) {
    client.engine.look().channel.as_mut().expect("a channel").tell(link);
}

#[test]
fn the_channel_is_the_frontends_last_and_ends_with_the_session() {
    let _alone = alone();
    let before = open_fds();
    let mut client = Client::connect(1);
    client.negotiate();
    let message = [2u32, 1, 0].map(u32::to_ne_bytes).concat();
    let (mut first, theirs) = UnixStream::pair().unwrap();
    assert!(client.tell(SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]));
    drop(theirs);
    tell(&client, UP);
    assert_eq!(told(&mut first), message);
    let (mut second, theirs) = UnixStream::pair().unwrap();
    assert!(client.tell(SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]));
    drop(theirs);
    first.set_nonblocking(false).unwrap();
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0, "the first one was closed");
    tell(&client, UP);
    assert_eq!(told(&mut second), message, "nobody was told on this one");
    assert!(client.tell(RESET_DEVICE, &[], &[]));
    tell(&client, Link::default());
    assert_eq!(told(&mut second), message);
    let (ended, engine) = client.close();
    ended.unwrap();
    assert!(engine.look().channel.is_none());
    second.set_nonblocking(false).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "closed with the session");
    drop((first, second, engine));
    assert_eq!(open_fds(), before);
}

/// What is in the channel when it comes is let go of: it might be the frontend's end of the session.
#[test]
fn descriptors_in_the_channel_are_not_held() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (mut stays, goes) = UnixStream::pair().unwrap();
    for _ in 0..20 {
        assert_eq!(try_send(&ours, &[0; 5000], &[goes.as_fd()]).unwrap(), 5000);
    }
    drop(goes);
    assert!(client.tell(SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]));
    drop(theirs);
    stays.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    assert_eq!(stays.read(&mut [0]).unwrap(), 0, "closed");
    assert!(try_send(&ours, &[0], &[ours.as_fd()]).is_err(), "nothing can be put there any more");
    tell(&client, UP);
    assert!(!told(&mut ours).is_empty());
    client.close().0.unwrap();
}

#[test]
fn a_frontend_without_config_is_told_nothing() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate_only(ALL_PROTOCOL & !(1 << 9));
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert!(client.tell(SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]));
    tell(&client, UP);
    assert!(told(&mut ours).is_empty());
    client.close().0.unwrap();
}

#[test]
fn what_is_no_channel_is_refused_and_closed() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    let level = open_fds();
    let (datagrams, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (pipe, writer) = std::io::pipe().unwrap();
    let (stream, _other_end) = UnixStream::pair().unwrap();
    let event = event();
    let wrong: [&[BorrowedFd<'_>]; 8] = [
        &[],
        &[datagrams.as_fd()],
        &[tcp.as_fd()],
        &[pipe.as_fd()],
        &[writer.as_fd()],
        &[event.as_fd()],
        &[stream.as_fd(), stream.as_fd()],
        &[stream.as_fd(); 40],
    ];
    for fds in wrong {
        assert!(!client.tell(SET_BACKEND_REQ_FD, &[], fds), "{fds:?}");
    }
    assert!(!client.tell(SET_BACKEND_REQ_FD, &[0; 8], &[stream.as_fd()]), "a payload");
    assert!(client.engine.look().channel.is_none());
    drop((datagrams, _other, tcp, pipe, writer, stream, _other_end, event));
    // Those of the last message are closed by the time of the next one.
    assert!(client.alive());
    assert_eq!(open_fds(), level);
    client.close().0.unwrap();
}

/// Each of these belongs to a protocol feature.
#[test]
fn without_their_protocol_feature_they_are_refused() {
    let _alone = alone();
    let (stream, _other) = UnixStream::pair().unwrap();
    for (bit, code, payload, fds) in [
        (2, SEND_RARP, 2u64.to_ne_bytes().to_vec(), 0),
        (4, NET_SET_MTU, 1500u64.to_ne_bytes().to_vec(), 0),
        (5, SET_BACKEND_REQ_FD, vec![], 1),
        (16, SET_STATUS, RUNNING.to_ne_bytes().to_vec(), 0),
    ] {
        let mut client = Client::connect(1);
        client.negotiate_only(ALL_PROTOCOL & !(1 << bit));
        assert!(!client.tell(code, &payload, &vec![stream.as_fd(); fds]), "{code}");
        assert!(client.engine.look().announced.is_empty() && client.engine.look().channel.is_none());
        let state = client.engine.state();
        assert_eq!((state.mtu, state.mac, state.status), (None, None, 0));
        client.close().0.unwrap();
    }
    let mut client = Client::connect(1);
    client.negotiate_only(ALL_PROTOCOL & !(1 << 16));
    client.send(GET_STATUS, 0, &[], &[]);
    assert!(client.reply().is_none(), "its answer cannot say no");
    assert!(matches!(client.ended().0, Err(SessionError::Unanswerable { .. })));
}

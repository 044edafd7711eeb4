//! Two guests and one real interface: one guest is on the tap, the other on a raw socket of it. What one sends, the
//! other receives.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc::ENETDOWN;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::socket::{SocketOptions, SocketPort, Source};

const F_OFFLOADS: u64 = F_CSUM | F_HOST_TSO4 | F_GUEST_CSUM | F_GUEST_TSO4;
const NOTHING: [u8; 12] = [0; 12];
const MTU: u32 = 65521;

/// This thread goes to a network of its own; `false` if it may not, or there are no taps.
fn in_a_network_of_its_own() -> bool {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace ({errno}); run as root");
        return false;
    }
    if let Err(cause) = std::fs::File::open("/dev/net/tun") {
        println!("skipped: no taps ({cause})");
        return false;
    }
    // So that the kernel sends nothing by itself. (Without IPv6 it does not anyway.)
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    true
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

/// A guest on a socket of that kind, of the interface "rw0".
fn guest_on(kind: SocketKind, setup: Setup) -> (SocketPort, Bench) {
    let options = SocketOptions {
        name: kind.name().to_owned(),
        kind,
        source: Source::Name("rw0".to_owned()),
        queues: 1,
        user: None,
        group: None,
        mtu: (kind == SocketKind::Tap).then_some(MTU),
    };
    let (port, mut pairs) = SocketPort::open(&options).unwrap();
    let mut socket = pairs.remove(0);
    socket.set_offloads(setup.features).unwrap();
    (port, Bench::on(setup, socket))
}

/// Two guests, one at either side of the interface, which is gone with them.
struct Two {
    left: Bench,
    right: Bench,
    _ports: [SocketPort; 2],
}

impl Two {
    fn new(left: Setup, right: Setup) -> Two {
        let (tap, left) = guest_on(SocketKind::Tap, left);
        let (raw, right) = guest_on(SocketKind::Raw, right);
        Two { left, right, _ports: [tap, raw] }
    }

    /// Who sends, and who receives.
    fn ends(&mut self, to_right: bool) -> [&mut Bench; 2] {
        if to_right { [&mut self.left, &mut self.right] } else { [&mut self.right, &mut self.left] }
    }
}

/// What the guest receives next, of the kernel's doing: that may take a moment.
fn next_of(bench: &mut Bench) -> Option<(Vec<u8>, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        bench.receive_from(1);
        if let Some(found) = bench.guest_receives().pop() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn room(bench: &mut Bench, len: usize) {
    let one = if bench.setup.mergeable() { 1526 } else { len as u32 + 12 };
    let chains = (len + 12).div_ceil(one as usize).saturating_sub(bench.receives.posted.len());
    bench.guest_posts(chains, &[one]);
}

#[test]
fn frames_go_both_ways_through_the_kernel() {
    if !in_a_network_of_its_own() {
        return;
    }
    for setup in cells() {
        let mut two = Two::new(setup, setup);
        let lens = [60, 1514, 9014, MTU as usize + 14];
        let kinds = lens.into_iter().flat_map(|len| [(len, false), (len + 4, true)]);
        for (seed, ((len, tag), to_right)) in
            kinds.flat_map(|kind| [true, false].map(|to_right| (kind, to_right))).enumerate()
        {
            let what = format!("{setup:?}: {len} bytes, tag {tag}, to the right {to_right}");
            let [from, to] = two.ends(to_right);
            let sent = frame(seed as u64, len, tag);
            room(to, len);
            assert!(from.guest_sends(&NOTHING, &sent, &[20, 700]));
            assert_eq!((from.send_to(TURN).moved.packets, all_drops(&from.guest.pair)), (1, 0), "{what}");
            let (_, found) = next_of(to).unwrap_or_else(|| panic!("nothing came of {what}"));
            assert!(found == sent, "{what}: it differs");
        }
        for bench in [&two.left, &two.right] {
            assert_eq!((bench.counters.tx.packets.get(), bench.counters.rx.packets.get()), (8, 8));
            assert_eq!(bench.counters.tx.bytes.get(), bench.counters.rx.bytes.get());
        }
    }
}

fn merging(format: Format, features: u64) -> Setup {
    Setup::new(format, F_VERSION_1 | F_MERGEABLE | features)
}

/// A large segment goes as one to who takes it, either way.
#[test]
fn segmentation_is_left_to_who_can() {
    if !in_a_network_of_its_own() {
        return;
    }
    for (format, to_right) in
        [Format::Split, Format::Packed].into_iter().flat_map(|format| [(format, true), (format, false)])
    {
        let setup = merging(format, F_OFFLOADS);
        let mut two = Two::new(setup, setup);
        let [from, to] = two.ends(to_right);
        room(to, 30_100);
        assert!(from.guest_sends(&ASKED, &tcp(30_000), &[12]));
        assert_eq!((from.send_to(TURN).moved.packets, all_drops(&from.guest.pair)), (1, 0));
        let (found, content) = next_of(to).expect("the frame");
        // The kernel's hdr_len is a hint of its own.
        assert_eq!((&found[..2], &found[4..10]), (&ASKED[..2], &ASKED[4..10]));
        assert!(content == tcp(30_000) && !is_complete(&content));
    }
}

/// Out of a raw socket comes whatever is sent: for who cannot take it, it is completed and cut.
#[test]
fn a_raw_sockets_frames_are_what_the_guest_takes() {
    if !in_a_network_of_its_own() {
        return;
    }
    for format in [Format::Split, Format::Packed] {
        let Two { mut left, mut right, _ports } = Two::new(merging(format, F_OFFLOADS), merging(format, 0));
        let small = tcp(900);
        room(&mut right, 60_000);
        assert!(left.guest_sends(&ASKED, &tcp(30_000), &[12]));
        assert!(left.guest_sends(&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], &small, &[]));
        assert_eq!(left.send_to(TURN).moved.packets, 2);
        let mut arrived = vec![0; 54];
        while arrived.len() < 30_000 {
            let (found, content) = next_of(&mut right).expect("a piece");
            assert_eq!(found[..10], [0; 10]);
            assert!(content.len() <= 1454 && is_complete(&content));
            arrived.extend_from_slice(&content[54..]);
        }
        assert!(arrived[54..] == tcp(30_000)[54..]);
        let (found, content) = next_of(&mut right).expect("the small one");
        assert_eq!((found[..10].to_vec(), all_drops(&right.counters)), (vec![0; 10], 0));
        assert!(is_complete(&content) && content[..50] == small[..50] && content[52..] == small[52..]);
    }
}

/// Out of a tap comes what its guest takes: the kernel does the rest.
#[test]
fn a_taps_frames_are_what_the_guest_takes() {
    if !in_a_network_of_its_own() {
        return;
    }
    for format in [Format::Split, Format::Packed] {
        let Two { mut left, mut right, _ports } = Two::new(merging(format, 0), merging(format, F_OFFLOADS));
        room(&mut left, 60_000);
        assert!(right.guest_sends(&ASKED, &tcp(30_000), &[12]));
        assert_eq!((right.send_to(TURN).moved.packets, all_drops(&right.guest.pair)), (1, 0));
        let mut arrived = Vec::new();
        while arrived.len() < 30_000 {
            let (found, content) = next_of(&mut left).expect("a piece");
            assert_eq!(found[..10], [0; 10]);
            assert!(content.len() <= 1454 && is_complete(&content));
            arrived.extend_from_slice(&content[54..]);
        }
        assert!(arrived == tcp(30_000)[54..]);
    }
}

/// What is for the interface to mend waits with the guest; what is the frame's own fault is dropped.
#[test]
fn an_interface_that_is_down_or_gone_loses_nothing() {
    if !in_a_network_of_its_own() {
        return;
    }
    for format in [Format::Split, Format::Packed] {
        let mut two = Two::new(merging(format, 0), merging(format, 0));
        ip(&["link", "set", "rw0", "down"]);
        for (bench, errno) in [(&mut two.left, EIO), (&mut two.right, ENETDOWN)] {
            room(bench, 60);
            assert!(bench.guest_sends(&NOTHING, &frame(7, 60, false), &[]));
            for _ in 0..2 {
                let failed = Turn { moved: Moved::default(), stop: Stop::SocketFailed(errno) };
                assert_eq!(bench.send_to(TURN), failed);
                assert_eq!(bench.receive_from(TURN).moved.packets, 0);
            }
        }
        ip(&["link", "set", "rw0", "up"]);
        for to_right in [true, false] {
            let [from, to] = two.ends(to_right);
            assert_eq!(from.send_to(TURN).moved.packets, 1);
            assert!(next_of(to).expect("the frame that waited").1 == frame(7, 60, false));
        }
        ip(&["link", "set", "rw0", "mtu", "1500"]);
        assert!(two.right.guest_sends(&NOTHING, &frame(8, 1600, false), &[]));
        assert_eq!(two.right.send_to(TURN).moved.packets, 1);
        assert_eq!(Bench::drops(&two.right.guest.pair, DropReason::SocketError), 1);
        ip(&["link", "del", "rw0"]);
        for bench in [&mut two.left, &mut two.right] {
            room(bench, 60);
            assert!(bench.guest_sends(&NOTHING, &frame(9, 60, false), &[]));
            let turn = bench.send_to(TURN);
            assert!(matches!(turn.stop, Stop::SocketFailed(_)) && turn.moved.packets == 0, "{turn:?}");
            assert_eq!(bench.receive_from(TURN).moved.packets, 0);
        }
    }
}

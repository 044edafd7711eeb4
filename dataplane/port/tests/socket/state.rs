//! An interface that goes down, is changed, moved or removed; and what is lost meanwhile is counted.

use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use port::counters::DropReason;
use port::socket::{Fault, LinkState, SocketKind, SocketPair, SocketPort};

use crate::stage::{
    PLAIN, alone, as_nobody, by_name, cable, collect, discard, frame, open, receive, run, send, to_one,
    try_receive, try_send, wait_for,
};

#[track_caller]
fn state(port: &SocketPort, expected: LinkState) {
    // A carrier is noticed by the kernel a moment later.
    let before = port.status().state;
    wait_for(|| {
        let (up, news) = port.refresh_link();
        let now = port.status().state;
        assert_eq!((up, port.link_up()), (now.is_up(), now.is_up()));
        assert!(!news || now != before);
        if now != expected {
            // Each look keeps the interface's network namespace alive until the kernel has freed the socket that it
            // was seen by: with a look a millisecond it never goes. So as seldom as the engine.
            std::thread::sleep(Duration::from_millis(100));
        }
        (now == expected).then_some(())
    });
    assert_eq!(port.refresh_link(), (expected.is_up(), false));
}

#[test]
fn down_and_up_again() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    for (kind, interface) in [(SocketKind::Tap, "t0"), (SocketKind::Raw, "va")] {
        let (port, mut pair) = open(kind, interface);
        state(&port, LinkState::Up);
        run(&format!("ip link set {interface} down"));
        state(&port, LinkState::Down);
        assert_eq!(try_send(&mut pair, PLAIN, &frame(1, 60)), Err(Fault::Down));
        assert!(matches!(try_receive(&mut pair), Err(Fault::Down | Fault::Again)));
        run(&format!("ip link set {interface} up"));
        state(&port, LinkState::Up);
        let (_peer, mut peer) = open(SocketKind::Raw, if kind == SocketKind::Tap { "t0" } else { "vb" });
        discard(std::slice::from_mut(&mut pair));
        wait_for(|| try_send(&mut pair, PLAIN, &frame(1, 60)).ok());
        assert_eq!(receive(&mut peer).1, frame(1, 60));
        send(&mut peer, PLAIN, &frame(2, 60));
        assert_eq!(receive(&mut pair).1, frame(2, 60));
    }
}

#[test]
fn no_carrier_a_new_mtu_a_new_name() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (port, mut pair) = open(SocketKind::Raw, "va");
    run("ip link set vb down");
    state(&port, LinkState::NoCarrier);
    // The kernel would take it, and drop it.
    assert_eq!(try_send(&mut pair, PLAIN, &frame(1, 60)), Err(Fault::Down));
    run("ip link set vb up");
    state(&port, LinkState::Up);
    run("ip link set va mtu 1300");
    run("ip link set va down && ip link set va name vc && ip link set vc up");
    state(&port, LinkState::Up);
    let status = port.status();
    assert_eq!((status.mtu, status.interface.as_str()), (1300, "vc"));
}

#[test]
fn gone_for_good() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    cable("vc", "vd");
    run("ip tuntap add t0 mode tap && ip link set t0 up");
    run("ip link add link vc name m0 type macvtap mode passthru && ip link set m0 up");
    for (kind, interface) in [(SocketKind::Tap, "t0"), (SocketKind::Raw, "va"), (SocketKind::Tap, "m0")] {
        let (port, mut pair) = open(kind, interface);
        state(&port, LinkState::Up);
        run(&format!("ip link del {interface}"));
        // What is written to a macvtap's file after it went, the kernel takes and drops.
        if interface != "m0" {
            let fault = wait_for(|| match try_send(&mut pair, PLAIN, &frame(1, 60)) {
                Err(Fault::Down) => None,
                other => Some(other),
            });
            assert_eq!(fault, Err(Fault::Gone));
        }
        state(&port, LinkState::Gone);
        assert_eq!(try_send(&mut pair, PLAIN, &frame(1, 60)), Err(Fault::Down));
        // Another one of that name is another one.
        run(&format!("ip tuntap add {interface} mode tap && ip link set {interface} up"));
        state(&port, LinkState::Gone);
        drop((port, pair));
        run(&format!("ip link del {interface}"));
    }
}

/// As a tap is for a container: opened here, used there.
#[test]
fn moved_to_another_namespace() {
    if !alone() {
        return;
    }
    let (port, mut pair) = open(SocketKind::Tap, "t0");
    state(&port, LinkState::Up);
    elsewhere(|run_there, thread| {
        run(&format!("ip link set t0 netns {thread}"));
        state(&port, LinkState::Down);
        run_there("ip link set t0 name eth0 mtu 1300 up");
        state(&port, LinkState::Up);
        let status = port.status();
        assert_eq!((status.mtu, status.interface.as_str()), (1300, "eth0"));
        send(&mut pair, PLAIN, &frame(1, 60));
    });
    // With its last thread the namespace is gone, and all that was in it.
    state(&port, LinkState::Gone);
}

#[test]
fn moved_to_where_it_cannot_be_seen() {
    if !alone() {
        return;
    }
    let (port, mut pair) = open(SocketKind::Tap, "t0");
    elsewhere(|run_there, thread| {
        run(&format!("ip link set t0 netns {thread}"));
        as_nobody(65534, || state(&port, LinkState::Elsewhere));
        run_there("ip link set t0 up");
        assert!(port.link_up());
        send(&mut pair, PLAIN, &frame(1, 60));
    });
    as_nobody(65534, || state(&port, LinkState::Gone));
}

/// Calls `act` with a way to run commands in another network namespace, and the thread that this is.
fn elsewhere(act: impl FnOnce(&dyn Fn(&'static str), i32)) {
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (order, orders) = mpsc::channel::<&'static str>();
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid().as_raw()).unwrap();
            for command in orders {
                run(command);
                tell.send(0).unwrap();
            }
        });
        let thread = told.recv().unwrap();
        let run_there = move |command: &'static str| {
            order.send(command).unwrap();
            told.recv().unwrap();
        };
        act(&run_there, thread);
    });
}

#[test]
fn what_waits_for_nobody_is_counted() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    let (_vb, mut vb) = open(SocketKind::Raw, "vb");
    for (kind, interface) in [(SocketKind::Tap, "t0"), (SocketKind::Raw, "va")] {
        let (port, mut pair) = open(kind, interface);
        let mut on_tap;
        let peer = if kind == SocketKind::Tap {
            on_tap = open(SocketKind::Raw, "t0").1;
            &mut on_tap
        } else {
            &mut vb
        };
        pair.discard();
        let before = counts(&pair);
        for _ in 0..50 {
            send(peer, PLAIN, &frame(1, 100));
        }
        let mut discarded = 0;
        wait_for(|| {
            discarded += pair.discard();
            (discarded >= 50).then_some(())
        });
        let [packets, bytes, dropped] = counts(&pair);
        assert_eq!([packets - before[0], bytes - before[1], dropped - before[2]], [50, 5000, 50]);
        assert_eq!(port.status().missed, 0);
    }
}

fn counts(pair: &SocketPair) -> [u64; 3] {
    let counters = &pair.counters;
    let dropped = counters.drops[DropReason::NotConnected as usize].get();
    [counters.rx.packets.get(), counters.rx.bytes.get(), dropped]
}

/// What the kernel drops because nobody reads: with what is read, it is all that came.
#[test]
fn what_the_kernel_drops_is_counted() {
    if !alone() {
        return;
    }
    cable("va", "vb");
    cable("vc", "vd");
    run("ip link add link vc name m0 type macvtap mode passthru && ip link set m0 up");
    for (kind, interface, peer, way, packets) in [
        (SocketKind::Tap, "t0", "t0", "lo", 3000),
        (SocketKind::Tap, "m0", "vd", "vc", 3000),
        (SocketKind::Raw, "va", "vb", "va", 12_000),
    ] {
        let (port, mut pairs) = SocketPort::open(&by_name(kind, interface, 1)).unwrap();
        let (_peer, mut peer) = open(SocketKind::Raw, peer);
        discard(&mut pairs);
        let missed = || {
            port.refresh_link();
            port.status().missed
        };
        // A busy kernel may drop some before they come to where they are counted.
        let on_the_way = || -> u64 {
            let path = format!("/sys/class/net/{way}/statistics/rx_dropped");
            std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
        };
        for round in 1..=2 {
            let before = missed();
            for _ in 0..packets {
                // The queue on the way to a tap is full, too.
                while try_send(&mut peer, PLAIN, &to_one(1, 1000)).is_err() {
                    std::thread::yield_now();
                }
            }
            wait_for(|| (missed() > before).then_some(()));
            let before = pairs[0].counters.rx.packets.get();
            collect(&mut pairs, 1);
            let read = pairs[0].counters.rx.packets.get();
            assert!(read > before, "{interface}");
            let all = wait_for(|| {
                let all = read + missed() + on_the_way();
                (all >= round * packets).then_some(all)
            });
            assert_eq!(all, round * packets, "{interface}");
        }
    }
    // What was lost before is nothing to whoever opens it now.
    let (port, _pair) = open(SocketKind::Tap, "m0");
    port.refresh_link();
    let status = port.status();
    assert!(status.counters.rx_dropped > 0);
    assert_eq!(status.missed, 0);
}

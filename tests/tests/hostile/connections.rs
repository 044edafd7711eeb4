//! Rows of connections: dropped at every point, made again and again; nothing is left behind.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use tests::hostile::client::{NEED_REPLY, VERSION, code, longs, message, words};
use tests::hostile::guest::{HIGH, Hostile, LOW, PROTOCOL, RING, SIZE, USER, areas, feature, table};
use tests::hostile::stage::{Log, Stage, meanwhile};

use crate::{IDLE, assert_fds};

#[test]
fn connections() {
    let mut stage = Stage::start("connections");
    handshake(&mut stage);
    traffic(&mut stage);
    again(&mut stage);
    eventfds(&mut stage);
    stage.finish();
}

/// All that a frontend says to get two rings running, message by message.
fn steps(hostile: &Hostile, features: u64) -> Vec<(u32, Vec<u8>, Vec<RawFd>)> {
    let file = hostile.ram.file.as_raw_fd();
    let features = features | feature::VERSION_1 | feature::PROTOCOL;
    let mut steps = vec![
        (code::GET_FEATURES, vec![], vec![]),
        (code::GET_PROTOCOL_FEATURES, vec![], vec![]),
        (code::SET_PROTOCOL_FEATURES, longs(&[PROTOCOL]), vec![]),
        (code::GET_QUEUE_NUM, vec![], vec![]),
        (code::SET_OWNER, vec![], vec![]),
        (code::SET_FEATURES, longs(&[features]), vec![]),
        (code::SET_MEM_TABLE, table(&[LOW, HIGH]), vec![file, file]),
    ];
    for ring in 0..2u32 {
        let wires = &hostile.wires[ring as usize];
        let [kick, call, err] = [&wires.kick, &wires.call, &wires.err].map(|wire| vec![wire.as_raw_fd()]);
        let base = if features & feature::PACKED != 0 { 0x8000_8000 } else { 0 };
        let number = longs(&[ring.into()]);
        steps.extend([
            (code::SET_VRING_NUM, words(&[ring, SIZE.into()]), vec![]),
            (code::SET_VRING_BASE, words(&[ring, base]), vec![]),
            (code::SET_VRING_ADDR, areas(ring, USER + u64::from(ring) * RING), vec![]),
            (code::SET_VRING_KICK, number.clone(), kick),
            (code::SET_VRING_CALL, number.clone(), call),
            (code::SET_VRING_ERR, number, err),
            (code::SET_VRING_ENABLE, words(&[ring, 1]), vec![]),
        ]);
    }
    steps
}

fn handshake(stage: &mut Stage) {
    let row = "disconnect at every point of the handshake";
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        for (what, reads) in [("after the answer", true), ("without reading it", false)] {
            stage.case(row, &format!("{format}: after each message, {what}"), Log::Silent, |bench| {
                let count = steps(&Hostile::connect(&bench.socket()), features).len();
                for kept in 0..=count {
                    let mut hostile = Hostile::connect(&bench.socket());
                    for (code, payload, fds) in &steps(&hostile, features)[..kept] {
                        assert!(hostile.client.send(*code, NEED_REPLY, payload, fds));
                        // SET_OWNER is the first whose ack was agreed on.
                        if reads && !matches!(*code, code::SET_PROTOCOL_FEATURES) {
                            assert!(hostile.client.reply().is_some(), "a reply to {code}");
                        }
                    }
                }
                format!("{} frontends", count + 1)
            });
        }
    }
    let sent = "within each message, at each byte of SET_MEM_TABLE";
    stage.case(row, sent, Log::Says(&["closed within a message"]), |bench| {
        let probe = Hostile::connect(&bench.socket());
        let all = steps(&probe, 0);
        drop(probe);
        for (n, (code, payload, _)) in all.iter().enumerate() {
            let hostile = Hostile::connect(&bench.socket());
            for (code, payload, fds) in &steps(&hostile, 0)[..n] {
                hostile.client.send(*code, NEED_REPLY, payload, fds);
            }
            let (whole, file) = (message(*code, VERSION, payload), hostile.ram.file.as_raw_fd());
            let cuts = if *code == code::SET_MEM_TABLE { 1..whole.len() } else { 11..12 };
            hostile.client.raw(&whole[..cuts.start], &[file; 2]);
            drop(hostile);
            for cut in cuts.skip(1) {
                let hostile = Hostile::connect(&bench.socket());
                hostile.client.raw(&whole[..cut], &[hostile.ram.file.as_raw_fd(); 2]);
            }
        }
        format!("{} messages", all.len())
    });
}

fn traffic(stage: &mut Stage) {
    let row = "disconnect at every point of the traffic";
    for (format, features) in [("split", 0), ("packed", feature::PACKED | feature::MRG_RXBUF)] {
        stage.case(row, &format!("{format}: 60 frontends at random moments"), Log::Silent, |bench| {
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..60 {
                let mut hostile = Hostile::running(&bench.socket(), features);
                let mut rings = std::mem::take(&mut hostile.rings);
                let fill = |_| {
                    for (index, ring) in rings.iter_mut().take(2).enumerate() {
                        ring.fill(&[tests::hostile::guest::good(index)]);
                    }
                };
                meanwhile(fill, || {
                    std::thread::sleep(Duration::from_micros(random.u64(0..5000)));
                    let _ = hostile.client.stream.shutdown(std::net::Shutdown::Both);
                });
            }
            "60 frontends".to_owned()
        });
    }
}

fn again(stage: &mut Stage) {
    let row = "reconnect in a tight loop";
    stage.case(row, "2000 frontends that say nothing", Log::Any, |bench| {
        (0..2000).for_each(|_| drop(UnixStream::connect(bench.socket()).expect("a connection")));
        "2000 frontends".to_owned()
    });
    stage.case(row, "500 frontends that get both rings running", Log::Silent, |bench| {
        for round in 0..500u64 {
            let features = if round % 2 == 0 { 0 } else { feature::PACKED };
            let mut hostile = Hostile::running(&bench.socket(), features);
            (0..2).for_each(|ring| hostile.post(ring));
        }
        "500 frontends".to_owned()
    });
    stage.case(
        row,
        "500 frontends whose ring breaks at once",
        Log::Says(&["ring stopped: avail entry"]),
        |bench| {
            for _ in 0..500 {
                let mut hostile = Hostile::running(&bench.socket(), 0);
                hostile.rings[1].offer(SIZE);
            }
            "500 frontends".to_owned()
        },
    );
    stage.case(row, "12 more wait while one is served", Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let waiting: Vec<_> =
            (0..12).map(|_| UnixStream::connect(bench.socket()).expect("a connection")).collect();
        hostile.assert_serves();
        drop(waiting);
        hostile.assert_serves();
        "one is served, the others wait".to_owned()
    });
}

fn eventfds(stage: &mut Stage) {
    let row = "SET_VRING_CALL, KICK, ERR over and over";
    for (what, ring) in [("of a running ring", 0u32), ("of a ring that is not set up", IDLE)] {
        stage.case(row, &format!("30000 of them, {what}"), Log::Silent, |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            let level = bench.daemon.child.fds() + if ring == IDLE { 3 } else { 0 };
            let codes = [code::SET_VRING_CALL, code::SET_VRING_KICK, code::SET_VRING_ERR];
            for (round, code) in (0..30_000u64).zip(codes.into_iter().cycle()) {
                let eventfd = EventFd::new().expect("an eventfd");
                let fds = [eventfd.as_raw_fd()];
                // Now and then without one, and more than can be under way at once are waited for.
                let none = if round % 100 < 3 { 0x100 } else { 0 };
                let fds = if none == 0 { &fds[..] } else { &[] };
                let flags = if round % 64 == 0 { NEED_REPLY } else { 0 };
                assert!(hostile.client.send(code, flags, &longs(&[u64::from(ring) | none]), fds));
                if flags == NEED_REPLY {
                    assert_eq!(hostile.client.reply().map(|(_, ack)| ack), Some(longs(&[0])));
                }
            }
            assert!(hostile.client.is_served());
            assert_fds(bench, level);
            hostile.assert_serves();
            "30000 x carried out, rings go on".to_owned()
        });
    }
}

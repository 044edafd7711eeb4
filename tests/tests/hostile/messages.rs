//! Rows of messages: indexes, sizes, addresses, features, logging, inflight, order.

use std::fs::File;
use std::os::fd::AsRawFd;

use tests::hostile::client::{Answer, HEADER, NEED_REPLY, REPLY, VERSION, code, longs, message, words};
use tests::hostile::guest::{
    HIGH, Hostile, LOW, PROTOCOL, RINGS, SEAM, SIZE, USER, addresses, areas, feature, single, table,
};
use tests::hostile::stage::{Log, Stage};

use crate::{IDLE, assert_fds, refused};

#[test]
fn messages() {
    let mut stage = Stage::start("messages");
    indexes(&mut stage);
    sizes(&mut stage);
    places(&mut stage);
    features(&mut stage);
    logs(&mut stage);
    descriptors(&mut stage);
    inflight(&mut stage);
    order(&mut stage);
    lengths(&mut stage);
    unfinished(&mut stage);
    stage.finish();
}

fn indexes(stage: &mut Stage) {
    let row = "vring index";
    let bad = [RINGS, 255, 256, 0x1_0000, 0x1_0001, u32::MAX];
    let sent = "4, 255, 256, 2^16, 2^16+1, 2^32-1 in NUM, BASE, ENABLE, ADDR";
    refused(stage, row, sent, &["ring 4 is none of the 4 offered"], 0, |hostile| {
        let codes = [code::SET_VRING_NUM, code::SET_VRING_BASE, code::SET_VRING_ENABLE];
        let pairs = bad.iter().flat_map(|ring| codes.map(|code| (code, *ring)));
        let mut answers: Vec<_> = pairs.map(|(code, ring)| hostile.tell_ring(code, ring, 1)).collect();
        let address = |ring: &u32| hostile.client.tell(code::SET_VRING_ADDR, &areas(*ring, USER), &[]);
        answers.extend(bad.iter().map(address));
        answers
    });
    // The others have eight bits for it, and two flags above them.
    refused(stage, row, "4 and 255 in KICK, CALL, ERR", &["ring 4 is none of the 4 offered"], 0, |hostile| {
        let codes = [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR];
        let pairs = codes.into_iter().flat_map(|code| [RINGS, 255].map(|ring| (code, ring)));
        let eventfd = hostile.wires[0].kick.as_raw_fd();
        pairs.map(|(code, ring)| hostile.tell_fd(code, ring, Some(eventfd))).collect()
    });
    for index in [RINGS, 0x1_0000, u32::MAX] {
        let cause = format!("ring {index} is none of the 4 offered");
        stage.case(row, &format!("GET_VRING_BASE of ring {index:#x}"), Log::Says(&[&cause]), |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            let reply = hostile.client.ask(code::GET_VRING_BASE, &words(&[index, 0]));
            assert_eq!(reply, None, "the protocol has no way to refuse it");
            "hung up".to_owned()
        });
    }
}

fn sizes(stage: &mut Stage) {
    let row = "queue size";
    let size = |values: &'static [u32]| {
        move |hostile: &mut Hostile| {
            values.iter().map(|value| hostile.tell_ring(code::SET_VRING_NUM, IDLE, *value)).collect()
        }
    };
    let split = &[0, 3, 255, 32767, 32769, 65536, 65537, 0x1_0100, u32::MAX];
    refused(
        stage,
        row,
        "0, no power of two, > 32768, 2^16+256",
        &["ring 3: 0 entries are not"],
        0,
        size(split),
    );
    let packed = &[0, 32769, 40000, 65536, 65537, 0x1_0100, u32::MAX];
    refused(stage, row, "packed: 0, > 32768", &["ring 3: 0 entries are not"], feature::PACKED, size(packed));
    refused(stage, row, "changed while the ring runs", &["ring 0 is running"], 0, |hostile| {
        let sizes = [128, 512, u32::from(SIZE), 32768];
        sizes.map(|size| hostile.tell_ring(code::SET_VRING_NUM, 0, size)).into()
    });
    refused(stage, row, "base changed while the ring runs", &["ring 1 is running"], 0, |hostile| {
        [0, 7, 0xffff].map(|base| hostile.tell_ring(code::SET_VRING_BASE, 1, base)).into()
    });
    refused(stage, row, "a base that is no index", &["ring 3: base 0x10000 is no index"], 0, |hostile| {
        [0x1_0000, u32::MAX].map(|base| hostile.tell_ring(code::SET_VRING_BASE, IDLE, base)).into()
    });
    let cause = "ring 3 cannot start: ring base";
    refused(stage, row, "packed: a base beyond the ring", &[cause], feature::PACKED, |hostile| {
        let start = |hostile: &mut Hostile, base| {
            hostile.tell_ring(code::SET_VRING_ENABLE, IDLE, 0);
            hostile.prepare(IDLE);
            hostile.tell_ring(code::SET_VRING_BASE, IDLE, base);
            hostile.tell_ring(code::SET_VRING_ENABLE, IDLE, 1)
        };
        [0x0100, 0xffff, 0x7fff_7fff, 0x8001_8000, 0x8001_0002].map(|base| start(hostile, base)).into()
    });
}

fn places(stage: &mut Stage) {
    let row = "vring addresses";
    let start = |hostile: &mut Hostile, at: [u64; 3]| {
        hostile.tell_ring(code::SET_VRING_ENABLE, IDLE, 0);
        hostile.prepare(IDLE);
        let answer = hostile.client.tell(code::SET_VRING_ADDR, &addresses(IDLE, 0, at), &[]);
        if answer != Answer::Done { answer } else { hostile.tell_ring(code::SET_VRING_ENABLE, IDLE, 1) }
    };
    refused(stage, row, "unaligned by 1, 2 and 8 bytes", &["SET_VRING_ADDR"], 0, |hostile| {
        let good = [USER + 0x3_0000, USER + 0x3_8000, USER + 0x3_4000];
        // Avail rings are aligned to two bytes, used rings to four, descriptors to sixteen.
        let bad = [(0, 1), (0, 2), (0, 8), (1, 1), (1, 2), (2, 1)];
        let moved = |(area, by): (usize, u64)| {
            let mut at = good;
            at[area] += by;
            start(hostile, at)
        };
        bad.map(moved).into()
    });
    for (format, features) in [("split", 0), ("packed", feature::PACKED)] {
        let cause = "is not within one memory region";
        refused(
            stage,
            row,
            &format!("{format}: unmapped, at an end, wrapping"),
            &[cause],
            features,
            |hostile| {
                let bad =
                    [0, USER - 0x1000, USER + SEAM - 16, USER + SEAM + 0x20_0000, u64::MAX - 0xfff, !15];
                let (good, mut answers) = (USER + 0x3_0000, Vec::new());
                for (area, at) in (0..3).flat_map(|area| bad.map(|at| (area, at))) {
                    let mut places = [good, good + 0x8000, good + 0x4000];
                    // What a packed ring has in place of avail and used ring is four bytes long and fits the end.
                    places[area] = if at == USER + SEAM - 16 && area > 0 { USER + SEAM - 2 } else { at };
                    answers.push(start(hostile, places));
                }
                answers
            },
        );
    }
}

/// A bit for each that the backend's answer to `question` has not.
fn never_offered(hostile: &mut Hostile, question: u32) -> Vec<u64> {
    let offered = hostile.client.ask(question, &[]).expect("an answer");
    let offered = u64::from_ne_bytes(offered.try_into().expect("eight bytes"));
    (0..64).map(|bit| 1 << bit).filter(|bit| offered & bit == 0).collect()
}

fn features(stage: &mut Stage) {
    let row = "features never offered";
    let plain = feature::VERSION_1 | feature::PROTOCOL;
    stage.case(
        row,
        "each bit, and all, before any ring runs",
        Log::Says(&["features never offered"]),
        |bench| {
            let mut hostile = Hostile::connect(&bench.socket());
            hostile.negotiate(plain);
            let bits = never_offered(&mut hostile, code::GET_FEATURES);
            for bits in bits.iter().copied().chain([!0]) {
                let answer = hostile.client.tell(code::SET_FEATURES, &longs(&[plain | bits]), &[]);
                assert_eq!(answer, Answer::Refused(1), "{bits:#x}");
            }
            format!("{} x ack 1", bits.len() + 1)
        },
    );
    refused(stage, row, "the same while rings run", &["features never offered"], 0, |hostile| {
        let bits = never_offered(hostile, code::GET_FEATURES);
        let tell = |bit| hostile.client.tell(code::SET_FEATURES, &longs(&[plain | bit]), &[]);
        bits.into_iter().chain([!0]).map(tell).collect()
    });
    refused(
        stage,
        row,
        "others than the rings run with",
        &["features cannot change while ring 0"],
        0,
        |it| {
            let bits = [feature::PACKED, feature::MRG_RXBUF, feature::EVENT_IDX];
            bits.map(|bits| it.client.tell(code::SET_FEATURES, &longs(&[plain | bits]), &[])).into()
        },
    );
    refused(stage, row, "protocol features", &["SET_PROTOCOL_FEATURES"], 0, |hostile| {
        let bits = never_offered(hostile, code::GET_PROTOCOL_FEATURES);
        let tell = |bit| hostile.client.tell(code::SET_PROTOCOL_FEATURES, &longs(&[PROTOCOL | bit]), &[]);
        bits.into_iter().chain([!0]).map(tell).collect()
    });
}

fn logs(stage: &mut Stage) {
    let row = "log base";
    let sent = "size + offset overflow, size 0, an offset beyond the file, 100 times each";
    refused(stage, row, sent, &["SET_LOG_BASE"], 0, |hostile| {
        let file = hostile.ram.file.as_raw_fd();
        let bad = [[u64::MAX, 1], [u64::MAX, u64::MAX], [0, 0], [0x1000, 1 << 62], [1, 0]];
        let log = |size_and_offset: [u64; 2]| {
            hostile.client.tell(code::SET_LOG_BASE, &longs(&size_and_offset), &[file])
        };
        bad.into_iter().cycle().take(500).map(log).collect()
    });
    refused(stage, row, "SET_LOG_FD, a ring that asks for a log", &["SET_LOG_FD", "logging"], 0, |hostile| {
        let file = hostile.wires[0].call.as_raw_fd();
        let logged = addresses(IDLE, 1, [USER; 3]);
        vec![
            hostile.client.tell(code::SET_LOG_FD, &[], &[file]),
            hostile.client.tell(code::SET_VRING_ADDR, &logged, &[]),
        ]
    });
    stage.skip("dirty log too short", "a bitmap for less than the highest page", "LOG_ALL is not offered");
}

fn descriptors(stage: &mut Stage) {
    let row = "fds where none belong, and too many";
    let none: [(u32, Vec<u8>); 10] = [
        (code::SET_FEATURES, longs(&[0])),
        (code::SET_OWNER, vec![]),
        (code::SET_VRING_NUM, words(&[0, 8])),
        (code::SET_VRING_ADDR, areas(0, USER)),
        (code::SET_VRING_BASE, words(&[0, 0])),
        (code::SET_PROTOCOL_FEATURES, longs(&[0])),
        (code::SET_VRING_ENABLE, words(&[0, 0])),
        (code::SEND_RARP, longs(&[2])),
        (code::NET_SET_MTU, longs(&[1500])),
        (code::SET_STATUS, longs(&[0])),
    ];
    let sent = "1, 8, 33 and 253 with each message that takes none";
    refused(stage, row, sent, &["1 file descriptors attached"], 0, |hostile| {
        let file = hostile.ram.file.as_raw_fd();
        let counts = none.iter().flat_map(|message| [1, 8, 33, 253].map(|count| (message, count)));
        let tell = |((code, payload), count): (&(u32, Vec<u8>), usize)| {
            hostile.client.tell(*code, payload, &vec![file; count])
        };
        counts.map(tell).collect()
    });
    refused(
        stage,
        row,
        "2, 9 and 253 eventfds for one ring",
        &["2 file descriptors attached"],
        0,
        |hostile| {
            let eventfd = hostile.wires[0].call.as_raw_fd();
            let codes = [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR];
            let counts = codes.into_iter().flat_map(|code| [2, 9, 253].map(|count| (code, count)));
            counts
                .map(|(code, count)| hostile.client.tell(code, &longs(&[0]), &vec![eventfd; count]))
                .collect()
        },
    );
    let sent = "fds on questions, on unknown codes, and on every byte of a message, 1000 times";
    stage.case(row, sent, Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let level = bench.daemon.child.fds();
        let file = hostile.ram.file.as_raw_fd();
        for round in 0..1000 {
            hostile.client.send(code::GET_CONFIG, 0, &[0; 18], &[file; 3]);
            assert_eq!(
                hostile.client.reply(),
                Some((code::GET_CONFIG, vec![0; 12])),
                "there is no such config"
            );
            hostile.client.send(100 + round, 0, &[0; 8], &[file; 20]);
        }
        for byte in message(code::SET_VRING_BASE, VERSION | NEED_REPLY, &words(&[IDLE, 0])) {
            hostile.client.raw(&[byte], &[file; 253]);
        }
        assert_eq!(hostile.client.reply().map(|(_, ack)| ack), Some(longs(&[1])));
        hostile.assert_serves();
        assert_fds(bench, level);
        "answered by an empty config, ignored, ack 1".to_owned()
    });
}

fn inflight(stage: &mut Stage) {
    let row = "inflight";
    stage.case(row, "GET_INFLIGHT_FD 10000 times", Log::Says(&["GET_INFLIGHT_FD"]), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let level = bench.daemon.child.fds();
        for round in 0..10_000u64 {
            let sizes = [words(&[(round % 7) as u32 * 0x1111]), words(&[u32::MAX])].concat();
            let reply = hostile.client.ask(code::GET_INFLIGHT_FD, &[longs(&[round, !0]), sizes].concat());
            assert_eq!(reply, Some(vec![0; 24]), "an area of no bytes: none is kept");
        }
        hostile.assert_serves();
        assert_fds(bench, level);
        "10000 x an area of 0 bytes, without fd".to_owned()
    });
    let sent = "SET_INFLIGHT_FD: 0, 1, 65535 queues of 0, 3, 65535 entries, sizes 0, 1, 2^64-1";
    refused(stage, row, sent, &["SET_INFLIGHT_FD"], 0, |hostile| {
        let file = hostile.ram.file.as_raw_fd();
        let mut answers = Vec::new();
        for (queues, entries) in [0u32, 1, 65535].into_iter().flat_map(|n| [0u32, 3, 65535].map(|m| (n, m))) {
            for size in [0, 1, 1 << 62, u64::MAX] {
                let payload = [longs(&[size, !size]), words(&[queues | entries << 16])].concat();
                answers.push(hostile.client.tell(code::SET_INFLIGHT_FD, &payload, &[file]));
            }
        }
        answers
    });
    stage.skip(row, "a queue size unlike the inflight record's", "no such record is kept or taken");
}

fn order(stage: &mut Stage) {
    let row = "messages in any order";
    stage.case(row, "a whole ring before SET_OWNER and SET_FEATURES", Log::Silent, |bench| {
        let mut hostile = Hostile::connect(&bench.socket());
        let file = hostile.ram.file.as_raw_fd();
        let send =
            |hostile: &Hostile, code, payload: &[u8], fds: &[_]| hostile.client.send(code, 0, payload, fds);
        send(&hostile, code::SET_MEM_TABLE, &table(&[LOW, HIGH]), &[file; 2]);
        for ring in 0..2u32 {
            let kick = hostile.wires[ring as usize].kick.as_raw_fd();
            send(&hostile, code::SET_VRING_ENABLE, &words(&[ring, 1]), &[]);
            send(&hostile, code::SET_VRING_KICK, &longs(&[ring.into()]), &[kick]);
            send(&hostile, code::SET_VRING_ADDR, &areas(ring, USER + u64::from(ring) * 0x1_0000), &[]);
            send(&hostile, code::SET_VRING_NUM, &words(&[ring, SIZE.into()]), &[]);
        }
        hostile.negotiate(feature::VERSION_1 | feature::PROTOCOL);
        hostile.assert_serves();
        "carried out: packets move after SET_FEATURES".to_owned()
    });
    stage.case(row, "everything twice", Log::Says(&["has an owner already", "is running"]), |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        let acks = [
            hostile.client.tell(code::SET_OWNER, &[], &[]),
            hostile.client.tell(code::SET_FEATURES, &longs(&[feature::VERSION_1 | feature::PROTOCOL]), &[]),
            hostile.set_table(&[LOW, HIGH]),
            hostile.tell_ring(code::SET_VRING_NUM, 0, SIZE.into()),
            hostile.client.tell(code::SET_VRING_ADDR, &areas(0, USER), &[]),
            hostile.tell_ring(code::SET_VRING_ENABLE, 0, 1),
        ];
        hostile.assert_serves();
        acks.map(|ack| ack.to_string()).join(", ")
    });
    stage.case(row, "RESET_OWNER, then the ring goes on as if nothing was", Log::Any, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        hostile.assert_serves();
        assert_eq!(hostile.client.tell(code::RESET_OWNER, &[], &[]), Answer::Done);
        hostile.post(0);
        hostile.post(1);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let moved = [0, 1].map(|ring: usize| hostile.rings[ring].collect());
        assert_eq!(moved, [3, 3], "a ring that was reset is left alone");
        assert_eq!(hostile.client.tell(code::RESET_OWNER, &[], &[]), Answer::Done);
        (0..2).for_each(|ring| assert_eq!(hostile.tell_ring(code::SET_VRING_ENABLE, ring, 1), Answer::Done));
        hostile.assert_serves();
        "rings stop, and go on when they are enabled".to_owned()
    });
    stage.case(row, "RESET_DEVICE and RESET_OWNER 500 times under traffic", Log::Silent, |bench| {
        let mut hostile = Hostile::running(&bench.socket(), 0);
        for round in 0..500 {
            (0..2).for_each(|ring| hostile.post(ring));
            let code = if round % 2 == 0 { code::RESET_DEVICE } else { code::RESET_OWNER };
            assert_eq!(hostile.client.tell(code, &[], &[]), Answer::Done);
        }
        assert!(hostile.client.is_served());
        "500 x ack 0".to_owned()
    });
}

fn lengths(stage: &mut Stage) {
    let row = "payload length";
    let sent = "one byte less, one, eight and 4096 more than the message has";
    refused(stage, row, sent, &["bytes of payload"], 0, |hostile| {
        let file = hostile.ram.file.as_raw_fd();
        let good: [(u32, Vec<u8>, usize); 13] = [
            (code::SET_FEATURES, longs(&[0]), 0),
            (code::SET_MEM_TABLE, table(&[LOW, HIGH]), 2),
            (code::SET_VRING_NUM, words(&[IDLE, 8]), 0),
            (code::SET_VRING_ADDR, areas(IDLE, USER), 0),
            (code::SET_VRING_BASE, words(&[IDLE, 0]), 0),
            (code::SET_VRING_KICK, longs(&[IDLE.into()]), 1),
            (code::SET_VRING_CALL, longs(&[IDLE.into()]), 1),
            (code::SET_PROTOCOL_FEATURES, longs(&[PROTOCOL]), 0),
            (code::SET_VRING_ENABLE, words(&[IDLE, 1]), 0),
            (code::ADD_MEM_REG, single([1 << 40, 0x1000, 1 << 41, 0]), 1),
            (code::SEND_RARP, longs(&[2]), 0),
            (code::NET_SET_MTU, longs(&[1500]), 0),
            (code::SET_STATUS, longs(&[0]), 0),
        ];
        let mut answers = Vec::new();
        for (code, payload, fds) in good {
            for len in [payload.len() - 1, payload.len() + 1, payload.len() + 8, 4096] {
                let mut other = payload.clone();
                other.resize(len, 0);
                answers.push(hostile.client.tell(code, &other, &vec![file; fds]));
            }
        }
        answers
    });
    refused(stage, row, "messages without their payload", &["0 bytes of payload"], 0, |hostile| {
        let codes = [2, 5, 8, 9, 10, 12, 13, 14, 16, 18, 19, 20, 25, 37, 38, 39];
        codes.map(|code| hostile.client.tell(code, &[], &[])).into()
    });
    refused(stage, row, "a reply, unasked", &["marked as a reply"], 0, |hostile| {
        let codes = [code::SET_FEATURES, code::SET_OWNER, code::SET_MEM_TABLE, code::SET_VRING_KICK];
        let reply = |code| {
            hostile.client.send(code, NEED_REPLY | REPLY, &[0; 8], &[]);
            hostile.client.reply().map_or(Answer::Closed, |_| Answer::Refused(1))
        };
        codes.map(reply).into()
    });
    let headers: [(&str, [u32; 3], &str); 4] = [
        ("announces 4 GiB", [code::SET_FEATURES, VERSION, u32::MAX], "announces 4294967295 bytes"),
        ("announces 4097 bytes", [code::SET_FEATURES, VERSION, 4097], "announces 4097 bytes"),
        ("has version 2", [code::GET_FEATURES, 2, 0], "a message has flags 0x2"),
        ("has unknown flags", [code::GET_FEATURES, VERSION | 1 << 31, 0], "a message has flags 0x80000001"),
    ];
    for (what, header, cause) in headers {
        stage.case(row, &format!("a header that {what}"), Log::Says(&[cause]), |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            hostile.client.raw(&words(&header), &[hostile.ram.file.as_raw_fd()]);
            hostile.client.until_closed();
            "hung up".to_owned()
        });
    }
}

fn unfinished(stage: &mut Stage) {
    let row = "half a header, then silence";
    let whole = message(code::SET_FEATURES, VERSION | NEED_REPLY, &longs(&[feature::VERSION_1]));
    stage.case(
        row,
        "half a header, and waits",
        Log::Says(&["the rest of a message did not arrive"]),
        |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            let null = File::open("/dev/null").expect("/dev/null");
            hostile.client.raw(&whole[..HEADER / 2], &[null.as_raw_fd()]);
            (0..2).for_each(|ring| hostile.assert_moves(ring));
            hostile.client.until_closed();
            "rings go on; hung up after a while".to_owned()
        },
    );
    stage.case(
        row,
        "questions whose answers nobody reads",
        Log::Says(&["does not read its replies"]),
        |bench| {
            let mut hostile = Hostile::running(&bench.socket(), 0);
            hostile.client.stream.set_nonblocking(true).expect("a socket");
            let questions = message(code::GET_FEATURES, VERSION, &[]).repeat(100);
            while std::io::Write::write(&mut &hostile.client.stream, &questions).is_ok() {}
            hostile.client.stream.set_nonblocking(false).expect("a socket");
            (0..2).for_each(|ring| hostile.assert_moves(ring));
            std::thread::sleep(std::time::Duration::from_secs(6));
            hostile.client.until_closed();
            "rings go on; hung up after a while".to_owned()
        },
    );
}

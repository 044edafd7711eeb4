//! Frontends that do what they must not: refused, logged once, and nothing left behind.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::stop;
use crate::SessionError;
use crate::testing::*;

/// Messages with an ack, their payload as it should be.
fn acked() -> Vec<(u32, Vec<u8>)> {
    let u64 = |value: u64| value.to_ne_bytes().to_vec();
    vec![
        (2, u64(FEATURES)),
        (3, vec![]),
        (4, vec![]),
        (8, state(0, SIZE)),
        (9, areas(0, USER)),
        (10, state(0, 0)),
        (12, u64(0x100)),
        (13, u64(0x100)),
        (14, u64(0x100)),
        (16, u64(ALL_PROTOCOL)),
        (18, state(0, 1)),
        (19, u64(2)),
        (20, u64(1500)),
        (25, config(0, &[2; 6])),
        (34, vec![]),
        (37, single([GUEST, 0x1000, USER, 0])),
        (38, single([GUEST, 0x1000, USER, 0])),
        (39, u64(1)),
    ]
}

#[test]
fn payloads_of_the_wrong_length_are_refused() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    for (code, payload) in acked() {
        for len in [payload.len() + 1, payload.len() + 8, 4096] {
            let mut longer = payload.clone();
            longer.resize(len, 0);
            assert!(!client.tell(code, &longer, &[]), "{code} with {len}");
        }
        if !payload.is_empty() {
            assert!(!client.tell(code, &payload[..payload.len() - 1], &[]), "{code}");
            assert!(!client.tell(code, &[], &[]), "{code}");
        }
    }
    for regions in [0, 2, 9, u32::MAX] {
        let guest = Guest::new(0x1000);
        let mut payload = table(&[guest.region(0)]);
        payload[..4].copy_from_slice(&regions.to_ne_bytes());
        assert!(!client.tell(5, &payload, &[guest.file.as_fd()]), "{regions}");
    }
    assert!(client.alive());
    client.close().0.unwrap();
}

#[test]
fn file_descriptors_that_do_not_belong_are_closed() {
    let _alone = alone();
    let before = open_fds();
    let guest = Guest::new(0x1000);
    let mut client = Client::connect(1);
    client.negotiate();
    let level = open_fds();
    for (code, payload) in acked() {
        for count in [1, 2, 8, 32, 33, 100, 253] {
            if (37..=38).contains(&code) && count == 1 {
                continue;
            }
            let fds = vec![guest.file.as_fd(); count];
            assert!(!client.tell(code, &payload, &fds), "{code} with {count}");
        }
    }
    for count in [0, 2, 9, 33, 253] {
        assert!(!client.tell(5, &table(&[guest.region(0)]), &vec![guest.file.as_fd(); count]), "{count}");
    }
    let nine: Vec<_> = (0..9).map(|number| guest.region(number)).collect();
    assert!(!client.tell(5, &table(&nine), &[guest.file.as_fd(); 9]), "more than 8 regions at once");
    for code in [12u32, 13, 14] {
        for (value, fds) in [(0x100u64, 1), (0, 0), (0, 2)] {
            let fds = vec![guest.file.as_fd(); fds];
            assert!(!client.tell(code, &value.to_ne_bytes(), &fds), "{code} {value:#x}");
        }
        assert!(!client.tell_fd(code, 0, Some(guest.file.as_fd())), "no eventfd");
        assert!(!client.tell_fd(code, 2, Some(event().as_fd())), "no such ring");
        assert!(!client.tell_fd(code, 255, None), "no such ring");
    }
    // Descriptors with questions, too: these have no answer but theirs.
    client.send(24, 0, &config(0, &[0; 6]), &[guest.file.as_fd(); 3]);
    assert_eq!(client.reply().unwrap().1, [0; 12]);
    assert!(client.alive());
    assert_eq!(open_fds(), level);
    client.close().0.unwrap();
    drop(guest);
    assert_eq!(open_fds(), before);
}

#[test]
fn unserved_messages_are_answered_where_the_protocol_allows_and_their_descriptors_closed() {
    let _alone = alone();
    let before = open_fds();
    let mut client = Client::connect(1);
    client.negotiate();
    let level = open_fds();
    let null = File::open("/dev/null").unwrap();
    let acked = [6, 7, 22, 23, 26, 27, 29, 30, 32, 33, 35, 44, 45, 99, 0, 1 << 31, u32::MAX];
    for code in acked {
        for (len, count) in [(0, 0), (8, 1), (24, 2), (4096, 253)] {
            assert!(!client.tell(code, &vec![7; len], &vec![null.as_fd(); count]), "{code}");
        }
        client.send(code, 0, &[7; 8], &[null.as_fd()]);
    }
    let answered: [(u32, &[u8]); 5] =
        [(31, &[0; 24]), (28, &[]), (41, &[]), (42, &0x101u64.to_ne_bytes()), (43, &1u64.to_ne_bytes())];
    for (code, answer) in answered {
        for _ in 0..3 {
            client.send(code, 0, &[1; 24], &[null.as_fd()]);
            assert_eq!(client.reply(), Some((code, answer.to_vec())));
        }
    }
    drop(null);
    assert!(client.alive());
    assert_eq!(open_fds(), level);
    client.close().0.unwrap();
    assert_eq!(open_fds(), before);
}

#[test]
fn rings_that_are_not_there_and_values_that_make_no_sense_are_refused() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.negotiate();
    for ring in [2, 255, 256, 0x1_0000, 0x1_0001, u32::MAX] {
        for code in [8, 10, 18] {
            assert!(!client.tell_ring(code, ring, 1), "{code} {ring}");
        }
        assert!(!client.tell(9, &areas(ring, USER), &[]));
    }
    for size in [0, 3, 100, 32767, 65536, 0x1_0010, u32::MAX] {
        assert!(!client.tell_ring(8, 0, size), "{size}");
    }
    assert!(client.tell_ring(8, 0, 32768) && client.tell_ring(8, 0, 1) && client.tell_ring(8, 0, SIZE));
    for base in [0x1_0000, u32::MAX] {
        assert!(!client.tell_ring(10, 0, base));
    }
    let mut logged = areas(0, USER);
    logged[4] = 1;
    assert!(!client.tell(9, &logged, &[]), "logging is not offered");
    logged[4] = 2;
    assert!(!client.tell(9, &logged, &[]), "no such flag");
    for unaligned in [1, 2, 8] {
        assert!(!client.tell(9, &areas(0, USER + unaligned), &[]));
    }
    // Areas that are nowhere: found out when the ring would start.
    assert!(client.set_table(&[(&guest, guest.region(0))]));
    assert!(client.tell_ring(18, 0, 1) && client.tell_fd(12, 0, None));
    for nowhere in [0, USER - 0x100, USER + 0xff00, u64::MAX - 0xfff] {
        assert!(!client.set_areas(0, nowhere), "{nowhere:#x}");
    }
    assert!(client.engine.events().is_empty());
    assert!(client.set_areas(0, USER));
    assert_eq!(client.engine.events(), [Event::Out(0, 0)]);
    client.close().0.unwrap();
}

#[test]
fn tables_that_lie_are_refused() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.negotiate();
    let (size, max) = (guest.len, u64::MAX);
    let bad = [
        [GUEST, 0, USER, 0],
        [GUEST, size + 1, USER, 0],
        [GUEST, size, USER, 1],
        [GUEST, size, USER, max],
        [GUEST, size, USER, max - size + 1],
        [max - 1, size, USER, 0],
        [GUEST, size, max - 1, 0],
        [GUEST, max, USER, 0],
        [GUEST, 1 << 62, USER, 0],
    ];
    for region in bad {
        assert!(!client.set_table(&[(&guest, region)]), "{region:x?}");
        assert!(!client.tell(37, &single(region), &[guest.file.as_fd()]), "{region:x?}");
    }
    let mut close_by = guest.region(1);
    close_by[0] -= 1;
    assert!(!client.set_table(&[(&guest, guest.region(0)), (&guest, close_by)]));
    assert_eq!((guest.mapped(), client.engine.state().memory_regions), (0, 0));
    let null = File::open("/dev/zero").unwrap();
    assert!(!client.tell(5, &table(&[guest.region(0)]), &[null.as_fd()]));
    let (pipe, _writer) = std::io::pipe().unwrap();
    assert!(!client.tell(5, &table(&[guest.region(0)]), &[pipe.as_fd()]));
    let readable = File::open("/proc/self/exe").unwrap();
    assert!(!client.tell(5, &table(&[[GUEST, 0x1000, USER, 0]]), &[readable.as_fd()]));
    let eight: Vec<_> = (0..8).map(|number| (&guest, guest.region(number))).collect();
    assert!(client.set_table(&eight));
    assert_eq!(client.engine.state().memory_bytes, 8 * size);
    client.close().0.unwrap();
    assert_eq!(guest.mapped(), 0);
}

/// Questions that cannot be answered end the session: the frontend would wait for ever.
#[test]
fn unanswerable_questions_end_the_session() {
    let _alone = alone();
    let null = File::open("/dev/null").unwrap();
    let cases: [(u32, Vec<u8>, usize); 8] = [
        (1, vec![0; 8], 0),
        (11, state(2, 0), 0),
        (11, state(u32::MAX, 0), 0),
        (11, state(0, 0), 1),
        (36, vec![0; 1], 0),
        (40, vec![0; 8], 0),
        (40, vec![], 1),
        (15, vec![], 40),
    ];
    for (code, payload, fds) in cases {
        let mut client = Client::connect(1);
        client.negotiate();
        client.send(code, NEED_REPLY, &payload, &vec![null.as_fd(); fds]);
        assert!(client.reply().is_none(), "{code}: no ack that could be taken for data");
        let (ended, _) = client.ended();
        assert!(matches!(ended, Err(SessionError::Unanswerable { .. })), "{code}: {ended:?}");
    }
    // GET_QUEUE_NUM without VHOST_USER_PROTOCOL_F_MQ.
    let client = Client::connect(1);
    client.send(17, 0, &[], &[]);
    assert!(matches!(client.ended().0, Err(SessionError::Unanswerable { .. })));
}

#[test]
fn what_is_no_vhost_user_ends_the_session() {
    let _alone = alone();
    let before = open_fds();
    let null = File::open("/dev/null").unwrap();
    let header = |flags: u32, len: u32| [1u32, flags, len].map(u32::to_ne_bytes).concat();
    for bytes in [header(2, 0), header(0, 0), header(1 | 16, 0), header(1, 4097), header(1, u32::MAX)] {
        let client = Client::connect(1);
        client.raw(&bytes, &[null.as_fd()]);
        let (ended, _) = client.ended();
        assert!(matches!(ended, Err(SessionError::Flags { .. } | SessionError::TooLong { .. })), "{ended:?}");
    }
    drop(null);
    assert_eq!(open_fds(), before);
}

#[test]
fn messages_in_pieces_are_put_together() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.negotiate();
    let whole = message(2, NEED_REPLY, &FEATURES.to_ne_bytes());
    for byte in &whole {
        client.raw(&[*byte], &[]);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(client.reply().unwrap().1, [0; 8]);
    // Descriptors on any piece of the message, the last one behind the others.
    let whole = message(5, NEED_REPLY, &table(&[guest.region(0)]));
    for (cut, with_first) in [(5, true), (12, true), (12, false), (30, false)] {
        let fds = [guest.file.as_fd()];
        client.raw(&whole[..cut], if with_first { &fds } else { &[] });
        std::thread::sleep(Duration::from_millis(20));
        client.raw(&whole[cut..], if with_first { &[] } else { &fds });
        assert_eq!(client.reply().unwrap().1, [0; 8]);
        assert_eq!(guest.mapped(), 1);
    }
    client.close().0.unwrap();
}

#[test]
fn half_a_message_and_silence_does_not_hold_up_a_stop() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    for part in [1, 11, 12, 19] {
        let client = Client::running(&guest);
        let whole = message(2, NEED_REPLY, &FEATURES.to_ne_bytes());
        client.raw(&whole[..part], &[guest.file.as_fd()]);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!client.is_over());
        stop(&client);
        let asked = Instant::now();
        let (ended, engine) = client.ended();
        ended.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1));
        assert!(engine.look().out.is_empty() && guest.mapped() == 0);
    }
}

#[test]
fn half_a_message_is_not_waited_for_for_ever() {
    let _alone = alone();
    let client = Client::connect(1);
    client.raw(&message(2, 0, &[0; 8])[..15], &[]);
    let sent = Instant::now();
    assert!(matches!(client.ended().0, Err(SessionError::Unfinished)));
    assert!(sent.elapsed() < Duration::from_secs(6));

    let client = Client::connect(1);
    client.raw(&message(2, 0, &[0; 8])[..15], &[]);
    std::thread::sleep(Duration::from_millis(20));
    assert!(matches!(client.close().0, Err(SessionError::Truncated)));
}

/// A frontend that asks and never reads: the session must neither hang nor refuse to stop.
#[test]
fn replies_that_nobody_reads_do_not_hang_us() {
    let _alone = alone();
    for asked_to_stop in [true, false] {
        let client = Client::connect(1);
        client.stream.set_nonblocking(true).unwrap();
        let flood = message(1, 0, &[]).repeat(256);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(500) {
            let _ = std::io::Write::write(&mut &client.stream, &flood);
        }
        assert!(!client.is_over());
        let started = Instant::now();
        if asked_to_stop {
            stop(&client);
        }
        let ended = client.session_end();
        match asked_to_stop {
            true => {
                ended.unwrap();
                assert!(started.elapsed() < Duration::from_secs(1));
            }
            false => assert!(matches!(ended, Err(SessionError::NotReading)), "{ended:?}"),
        }
    }
}

/// Messages sent without waiting for answers: each gets its own descriptors, and none of its neighbours'.
#[test]
fn pipelined_messages_keep_their_descriptors_apart() {
    let _alone = alone();
    let guest = Guest::new(0x10000);
    let mut client = Client::connect(1);
    client.negotiate();
    let eventfd = event();
    let mut sent = Vec::new();
    for _ in 0..20 {
        let steps: [(u32, Vec<u8>, Vec<_>); 6] = [
            (8, state(0, SIZE), vec![]),
            (13, 0u64.to_ne_bytes().to_vec(), vec![eventfd.as_fd()]),
            (10, state(0, 0), vec![]),
            (5, table(&[guest.region(0)]), vec![guest.file.as_fd()]),
            (14, 0x101u64.to_ne_bytes().to_vec(), vec![]),
            (12, 1u64.to_ne_bytes().to_vec(), vec![eventfd.as_fd()]),
        ];
        for (code, payload, fds) in steps {
            client.send(code, NEED_REPLY, &payload, &fds);
            sent.push(code);
        }
    }
    for code in sent {
        assert_eq!(client.reply(), Some((code, vec![0; 8])));
    }
    client.close().0.unwrap();
}

/// Pieces that carry 253 descriptors each do not add up.
#[test]
fn descriptors_on_every_byte_of_a_message_do_not_pile_up() {
    let _alone = alone();
    let mut client = Client::connect(1);
    client.negotiate();
    let before = open_fds();
    let null = File::open("/dev/null").unwrap();
    for byte in message(2, NEED_REPLY, &FEATURES.to_ne_bytes()) {
        client.raw(&[byte], &[null.as_fd(); 253]);
        assert!(open_fds() < before + 300);
    }
    assert_ne!(client.reply().unwrap().1, [0; 8]);
    drop(null);
    assert!(client.alive());
    assert_eq!(open_fds(), before);
    client.close().0.unwrap();
}

/// Flooded with messages it never runs out of, the session still stops.
#[test]
fn a_flood_of_messages_does_not_hold_up_a_stop() {
    let _alone = alone();
    let client = Client::connect(1);
    let mut writer = client.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let messages = message(99, 0, &[0; 8]).repeat(256);
        while std::io::Write::write_all(&mut writer, &messages).is_ok() {}
    });
    std::thread::sleep(Duration::from_millis(200));
    stop(&client);
    let asked = Instant::now();
    client.session_end().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    flood.join().unwrap();
}

/// Repeated a thousand times, each offence is one line, and it names the guest.
#[test]
fn each_cause_is_logged_once() {
    let _alone = alone();
    let log = Log::default();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let session = std::thread::spawn({
        let log = log.clone();
        move || {
            tracing::subscriber::with_default(log.subscriber(), || {
                crate::serve(theirs, &options(1), &mut Engine::default(), event().as_fd())
            })
        }
    });
    let null = File::open("/dev/null").unwrap();
    for count in 0..1000u32 {
        try_send(&ours, &message(23, 0, &[0; 8]), &[]).unwrap();
        try_send(&ours, &message(100 + count, 0, &[0; 8]), &[null.as_fd()]).unwrap();
        try_send(&ours, &message(8, 0, &state(1000 + count, 1)), &[]).unwrap();
        try_send(&ours, &message(8, 0, &state(0, 3)), &[]).unwrap();
    }
    drop(ours);
    session.join().unwrap().unwrap();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("vm1")));
    assert!(lines[0].contains("SET_VRING_ENDIAN") && lines[2].contains("ring 1000 is none of the 2 offered"));
}

//! Random sequences of messages, the same in each run, while rings that they start and stop have random bytes in
//! them.

use std::os::fd::{AsRawFd, RawFd};

use fastrand::Rng;
use nix::sys::eventfd::EventFd;
use tests::hostile::client::{NEED_REPLY, VERSION, code, longs, message, words};
use tests::hostile::guest::{HIGH, Hostile, LOW, PROTOCOL, RING, SIZE, USER, areas, feature, single, table};
use tests::hostile::stage::{Log, Stage};

/// One sequence a seed.
const SEEDS: std::ops::Range<u64> = 1..9;
/// Messages of a sequence.
const MESSAGES: usize = 1500;

#[test]
fn random_messages() {
    let mut stage = Stage::start("random messages");
    for seed in SEEDS {
        let sent = format!("seed {seed}: {MESSAGES} messages and rings of random bytes");
        stage.case("messages in any order", &sent, Log::Any, |bench| {
            let mut random = Rng::with_seed(seed);
            let mut hostile = Hostile::connect(&bench.socket());
            let mut frontends = 1;
            for _ in 0..MESSAGES {
                scribble(&hostile, &mut random);
                if !send(&hostile, &mut random) {
                    hostile = Hostile::connect(&bench.socket());
                    frontends += 1;
                }
            }
            format!("survived, {frontends} frontends")
        });
    }
    stage.finish();
}

/// Some random bytes somewhere in the rings.
fn scribble(hostile: &Hostile, random: &mut Rng) {
    let mut bytes = [0; 64];
    random.fill(&mut bytes);
    let ring = random.u64(0..4) * RING;
    let area = random.choice([0, 0x4000, 0x8000]).unwrap_or(0);
    hostile.ram.write(ring + area + 16 * random.u64(0..4), &bytes[..random.usize(0..64)]);
}

/// Sends a message: most are well-formed and many carried out. Whether it could be sent.
fn send(hostile: &Hostile, random: &mut Rng) -> bool {
    let (file, eventfd) = (hostile.ram.file.as_raw_fd(), EventFd::new().expect("an eventfd"));
    let ring = random.u32(0..5);
    let word = *random.choice(&[0, 1, SIZE.into(), 0x8000, 0x8000_8000, u32::MAX]).expect("a word");
    let long = u64::from(word) << random.u32(0..33);
    let bit = 1 << random.u32(0..64);
    let flags = if random.bool() { NEED_REPLY } else { 0 };
    let (code, payload, fds): (u32, Vec<u8>, Vec<RawFd>) = match random.u32(0..28) {
        0 => (code::SET_PROTOCOL_FEATURES, longs(&[PROTOCOL]), vec![]),
        1 => (code::SET_FEATURES, longs(&[feature::VERSION_1 | feature::PROTOCOL]), vec![]),
        2 => (code::SET_FEATURES, longs(&[feature::VERSION_1 | feature::PROTOCOL | bit]), vec![]),
        3 => (code::SET_FEATURES, longs(&[feature::VERSION_1 | feature::PACKED | feature::PROTOCOL]), vec![]),
        4..7 => (code::SET_MEM_TABLE, table(&[LOW, HIGH]), vec![file; 2]),
        7 => (code::SET_MEM_TABLE, table(&[LOW, [long, long, long, long]]), vec![file; 2]),
        8 => (code::ADD_MEM_REG, single([long, 0x1000, long, 0]), vec![file]),
        9 => (code::REM_MEM_REG, single([long, 0x1000, long, 0]), vec![]),
        10 | 11 => (code::SET_VRING_NUM, words(&[ring, SIZE.into()]), vec![]),
        12 => (code::SET_VRING_BASE, words(&[ring, word]), vec![]),
        13 | 14 => (code::SET_VRING_ADDR, areas(ring, USER + u64::from(ring) * RING), vec![]),
        15 => (code::SET_VRING_ADDR, areas(ring, USER ^ long), vec![]),
        16..19 => (random.u32(12..15), longs(&[ring.into()]), vec![eventfd.as_raw_fd()]),
        19..21 => (code::SET_VRING_ENABLE, words(&[ring, random.u32(0..3)]), vec![]),
        21 => (random.u32(0..48), vec![random.u8(..); random.usize(0..64)], vec![file; random.usize(0..4)]),
        22 => (*random.choice(&[code::RESET_DEVICE, code::RESET_OWNER]).expect("one"), vec![], vec![]),
        23 => (code::SEND_RARP, longs(&[long]), vec![]),
        24 => (code::NET_SET_MTU, longs(&[long]), vec![]),
        25 => (code::SET_STATUS, longs(&[long & 0xff]), vec![]),
        // The frontend's end of the connection, too: it then tells itself.
        26 => (code::SET_BACKEND_REQ_FD, vec![], vec![hostile.client.stream.as_raw_fd()]),
        _ => (code::GET_VRING_BASE, words(&[ring % 4, 0]), vec![]),
    };
    let sent = hostile.client.raw(&message(code, VERSION | flags, &payload), &fds);
    drain(hostile);
    sent
}

/// Throws answers away, so that they do not pile up.
fn drain(hostile: &Hostile) {
    let stream = &hostile.client.stream;
    stream.set_nonblocking(true).expect("a socket");
    let mut answers = [0; 4096];
    let _ = std::io::Read::read(&mut &*stream, &mut answers);
    stream.set_nonblocking(false).expect("a socket");
}

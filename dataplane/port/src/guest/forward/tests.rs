//! Guests that check each byte, and what the counters say after each step.

mod cut;
mod guests;
mod seen;

use proptest::prelude::*;
use virtqueue::testing::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, Format, HOLE, RINGS, into, out, pattern};

use super::*;
use crate::counters::{Counter, DropReason};
use guests::{F_MERGEABLE, F_VERSION_1, Receiver, Sender, Setup};

const FORMATS: [[Format; 2]; 4] = [
    [Format::Split, Format::Split],
    [Format::Split, Format::Packed],
    [Format::Packed, Format::Split],
    [Format::Packed, Format::Packed],
];
const ALL: Limits = Limits { packets: 64, cost: u64::MAX, frame: u32::MAX };

/// All of `from`'s packets that `to` has room for.
fn forward(from: &mut Sender, to: &mut Receiver, limits: Limits) -> Moved {
    let moved = from.pair.forward(&mut to.pair, limits);
    check_counters(from, to);
    moved
}

/// Nothing is held, and each chain that is used was counted.
fn check_counters(from: &mut Sender, to: &mut Receiver) {
    from.collect();
    to.collect();
    let (rx, tx) = (&from.counters.pair, &to.counters.pair);
    let drops: u64 = rx.drops.iter().map(Counter::get).sum();
    assert_eq!(rx.rx.packets.get(), tx.tx.packets.get() + drops);
    assert_eq!(from.counters.from.used.get(), from.returned);
    assert_eq!(from.returned, rx.rx.packets.get());
    assert_eq!(to.counters.to.used.get(), to.used);
    assert_eq!(tx.tx.packets.get(), to.frames.len() as u64);
    assert_eq!(tx.tx.bytes.get(), to.frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
}

fn drops(sender: &Sender, reason: DropReason) -> u64 {
    sender.counters.pair.drops[reason as usize].get()
}

fn violation(counters: &crate::counters::RingCounters) -> Option<&'static str> {
    counters.violation.lock().unwrap().map(|violation| violation.name())
}

fn frame(seed: usize, len: usize) -> Vec<u8> {
    pattern(seed as u64, len)
}

/// What is sent: bytes, and where the chain is cut into buffers.
#[derive(Clone, Debug)]
struct Packet {
    len: usize,
    cuts: Vec<usize>,
    indirect: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Post(usize),
    Forward(Limits),
}

#[derive(Clone, Debug)]
struct Case {
    sender: Setup,
    receiver: Setup,
    /// The buffers of each receive chain, and whether they are behind a table.
    buffers: Vec<u32>,
    indirect: bool,
    longest: u32,
    packets: Vec<Packet>,
    steps: Vec<Step>,
}

fn setups() -> impl Strategy<Value = [Setup; 2]> {
    let optional = vec![F_VERSION_1, F_MERGEABLE, F_EVENT_IDX, F_IN_ORDER, F_INDIRECT];
    let features = prop::sample::subsequence(optional, 0..=5).prop_map(|bits| bits.iter().sum());
    let formats = prop::sample::select(FORMATS.to_vec());
    (formats, [3..=8u32, 3..=8u32], [features.clone(), features]).prop_map(|(formats, orders, features)| {
        [0, 1].map(|i| Setup { format: formats[i], size: 1 << orders[i], features: features[i] })
    })
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let common = prop::sample::select(vec![14, 60, 64, 65, 128, 1000, 1518, 9000, 65000]);
    let len = prop_oneof![8 => common, 1 => 0..14usize, 4 => 14..2000usize];
    let cuts = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(1..4000usize, 1..5)];
    let packet = (len, cuts, any::<bool>()).prop_map(|(len, cuts, indirect)| Packet { len, cuts, indirect });
    prop::collection::vec(packet, 1..150)
}

fn cases() -> impl Strategy<Value = Case> {
    let limits = (1..=64usize, prop_oneof![Just(u64::MAX), 1..3000u64]);
    let step = prop_oneof![
        (1..70usize).prop_map(Step::Send),
        (1..70usize).prop_map(Step::Post),
        limits.prop_map(|(packets, cost)| Step::Forward(Limits { packets, cost, frame: 0 })),
    ];
    let buffers = prop_oneof![
        2 => prop::sample::select(vec![200u32, 1530, 2048, 4096, 16000]).prop_map(|len| vec![len]),
        1 => prop::collection::vec(12..4000u32, 1..4),
    ];
    let longest = prop::sample::select(vec![u32::MAX, 65535, 9000, 1518]);
    let steps = prop::collection::vec(step, 0..60);
    (setups(), buffers, any::<bool>(), longest, packets(), steps).prop_map(
        |([sender, receiver], buffers, indirect, longest, packets, steps)| Case {
            sender,
            receiver,
            buffers,
            indirect,
            longest,
            packets,
            steps,
        },
    )
}

/// What must become of a packet: why it is dropped, if it is.
fn fate(packet: &Packet, case: &Case, receiver: &Receiver) -> Option<DropReason> {
    match packet.len {
        ..14 => Some(DropReason::Runt),
        len if len > case.longest as usize => Some(DropReason::Oversize),
        len if len > receiver.longest() => Some(DropReason::GuestBufferTooSmall),
        _ => None,
    }
}

/// `forward` moves what there is room for.
fn run(case: &Case, mut forward: impl FnMut(&mut Sender, &mut Receiver, Limits) -> Moved) {
    let mut from = Sender::new(case.sender);
    let mut to = Receiver::new(case.receiver, &case.buffers, case.indirect);
    // A mergeable receiver that never posts all its descriptors is never known to be too small.
    let sendable = |packet: &&Packet| !to.is_mergeable() || packet.len <= to.longest();
    let packets: Vec<Packet> = case.packets.iter().filter(sendable).cloned().collect();
    let fates: Vec<_> = packets.iter().map(|packet| fate(packet, case, &to)).collect();
    let mut sent = 0;
    let mut send = |from: &mut Sender, most: usize| {
        for packet in packets[sent..].iter().take(most) {
            if !from.send(&frame(sent, packet.len), &packet.cuts, packet.indirect) {
                break;
            }
            sent += 1;
        }
    };
    for step in &case.steps {
        match step {
            Step::Send(most) => send(&mut from, *most),
            Step::Post(most) => (0..*most).for_each(|_| _ = to.post()),
            Step::Forward(limits) => {
                let moved = forward(&mut from, &mut to, Limits { frame: case.longest, ..*limits });
                assert!(moved.packets <= limits.packets as u64);
            }
        }
    }
    let mut turns = 0;
    while from.returned < packets.len() as u64 {
        send(&mut from, usize::MAX);
        while to.post() {}
        forward(&mut from, &mut to, Limits { frame: case.longest, ..ALL });
        turns += 1;
        assert!(turns < 1000, "stuck at {} of {}", from.returned, packets.len());
    }
    let arrived: Vec<_> = (0..packets.len()).filter(|at| fates[*at].is_none()).collect();
    assert_eq!(to.frames.len(), arrived.len());
    for (got, at) in to.frames.iter().zip(arrived) {
        assert!(*got == frame(at, packets[at].len), "frame {at} has changed");
    }
    for reason in DropReason::ALL {
        let due = fates.iter().filter(|fate| **fate == Some(reason)).count();
        assert_eq!(drops(&from, reason), due as u64, "{reason:?}");
    }
    assert_eq!((violation(&from.counters.from), violation(&to.counters.to)), (None, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn everything_arrives_as_it_was_sent_or_is_counted(case in cases()) {
        run(&case, forward);
    }
}

fn setup(format: Format, size: u16) -> Setup {
    Setup { format, size, features: F_VERSION_1 }
}

/// Packets of one piece each, into buffers of one piece each.
fn plain([from, to]: [Format; 2]) -> (Sender, Receiver) {
    (Sender::new(setup(from, 64)), Receiver::new(setup(to, 64), &[1530], false))
}

#[test]
fn what_there_is_no_room_for_stays_with_the_sender() {
    for formats in FORMATS {
        let (mut from, mut to) = plain(formats);
        (0..30).for_each(|seed| assert!(from.send(&frame(seed, 100), &[], false)));
        assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
        (0..10).for_each(|_| assert!(to.post()));
        let moved = forward(&mut from, &mut to, ALL);
        assert_eq!(moved, Moved { packets: 10, bytes: 1000, cost: 1000 });
        assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
        (0..40).for_each(|_| assert!(to.post()));
        assert_eq!(forward(&mut from, &mut to, Limits { packets: 5, ..ALL }).packets, 5);
        assert_eq!(forward(&mut from, &mut to, Limits { cost: 401, ..ALL }).packets, 5);
        assert_eq!(forward(&mut from, &mut to, ALL).packets, 10);
        assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
        assert_eq!(to.frames, (0..30).map(|seed| frame(seed, 100)).collect::<Vec<_>>());
    }
}

/// A packet that needs more buffers than there are waits, and those behind it, until there are enough.
#[test]
fn a_packet_waits_for_enough_buffers() {
    for [sender, receiver] in FORMATS {
        let mut from = Sender::new(setup(sender, 64));
        let features = F_VERSION_1 | F_MERGEABLE;
        let mut to = Receiver::new(Setup { features, ..setup(receiver, 64) }, &[100], false);
        for (seed, len) in [(0, 60), (1, 400), (2, 60)] {
            assert!(from.send(&frame(seed, len), &[], false));
        }
        for (posted, done) in [(1, 1), (1, 0), (3, 0), (1, 1), (0, 0), (1, 1)] {
            (0..posted).for_each(|_| assert!(to.post()));
            assert_eq!(forward(&mut from, &mut to, ALL).packets, done);
        }
        assert_eq!(to.frames, [frame(0, 60), frame(1, 400), frame(2, 60)]);
    }
}

#[test]
fn what_can_never_be_delivered_is_dropped_where_it_came_in() {
    for [sender, receiver] in FORMATS {
        let mut from = Sender::new(setup(sender, 16));
        let features = F_VERSION_1 | F_MERGEABLE;
        let mut to = Receiver::new(Setup { features, ..setup(receiver, 8) }, &[100], false);
        while to.post() {}
        for len in [800 - 12, 800 - 11, 13, 3000, 64] {
            assert!(from.send(&frame(len, len), &[], false));
        }
        while from.returned < 5 {
            assert!(forward(&mut from, &mut to, Limits { frame: 1518, ..ALL }).packets > 0);
            while to.post() {}
        }
        assert_eq!(to.frames, [frame(788, 788), frame(64, 64)]);
        let reasons = [DropReason::Runt, DropReason::Oversize, DropReason::GuestBufferTooSmall];
        assert_eq!(reasons.map(|reason| drops(&from, reason)), [1, 1, 1]);
        let bytes = from.counters.pair.rx.bytes.get();
        assert_eq!(bytes, 788 + 789 + 13 + 3000 + 64);
    }
}

/// A sender that breaks the rules in the middle of a burst: what it sent before arrives, and the receiver goes on
/// with another one.
#[test]
fn a_sender_that_breaks_the_rules_stops_only_its_own_ring() {
    for formats in FORMATS {
        for (bad, name) in [(into(HOLE - 100, 100), "direction"), (out(HOLE, 100), "unmapped")] {
            let (mut from, mut to) = plain(formats);
            while to.post() {}
            (0..10).for_each(|seed| assert!(from.send(&frame(seed, 70), &[], false)));
            from.post(&[bad]);
            (10..20).for_each(|seed| assert!(from.send(&frame(seed, 70), &[], false)));
            assert_eq!(forward(&mut from, &mut to, ALL).packets, 10);
            assert_eq!(violation(&from.counters.from), Some(name));
            assert_eq!(violation(&to.counters.to), None);
            assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
            let mut other = Sender::new(setup(formats[0], 64));
            (30..60).for_each(|seed| assert!(other.send(&frame(seed, 70), &[], false)));
            assert_eq!(other.pair.forward(&mut to.pair, ALL).packets, 30);
            to.collect();
            assert_eq!(to.frames, (0..10).chain(30..60).map(|seed| frame(seed, 70)).collect::<Vec<_>>());
        }
    }
}

/// A receiver that breaks the rules in the middle of a burst: what it has not got is still the sender's, and goes to
/// another one.
#[test]
fn a_receiver_that_breaks_the_rules_stops_only_its_own_ring() {
    let bad = [
        (out(HOLE - 2000, 2000), "direction"),
        (into(HOLE, 2000), "unmapped"),
        (into(HOLE - 9, 9), "no_room"),
    ];
    for formats in FORMATS {
        for (bad, name) in bad {
            for pieces in [vec![], vec![20]] {
                let (mut from, mut to) = plain(formats);
                (0..10).for_each(|_| assert!(to.post()));
                to.post_as(&[bad]);
                while to.post() {}
                (0..30).for_each(|seed| assert!(from.send(&frame(seed, 70), &pieces, false)));
                assert_eq!(forward(&mut from, &mut to, ALL).packets, 10);
                assert_eq!(violation(&to.counters.to), Some(name));
                assert_eq!(violation(&from.counters.from), None);
                assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
                let mut other = Receiver::new(setup(formats[1], 64), &[1530], false);
                while other.post() {}
                assert_eq!(from.pair.forward(&mut other.pair, ALL).packets, 20);
                other.collect();
                from.collect();
                assert_eq!(from.returned, 30);
                let arrived: Vec<_> = to.frames.iter().chain(&other.frames).cloned().collect();
                assert_eq!(arrived, (0..30).map(|seed| frame(seed, 70)).collect::<Vec<_>>());
            }
        }
    }
}

/// The avail index of a split ring jumps: nothing moves, nothing is taken from the other.
#[test]
fn an_avail_index_that_jumps_takes_nothing_from_the_other_ring() {
    let jump = |guest: &virtqueue::testing::Guest| guest.write_u16(RINGS + 16 * 64 + 2, 1000);
    for receives in [false, true] {
        let (mut from, mut to) = plain([Format::Split; 2]);
        (0..10).for_each(|_| assert!(to.post()));
        (0..10).for_each(|seed| assert!(from.send(&frame(seed, 70), &[], false)));
        jump(if receives { to.guest() } else { from.guest() });
        assert_eq!(forward(&mut from, &mut to, ALL), Moved::default());
        let found = [violation(&from.counters.from), violation(&to.counters.to)];
        assert_eq!(found[usize::from(receives)], Some("avail_jump"));
        assert_eq!(found[usize::from(!receives)], None);
        if receives {
            let mut other = Receiver::new(setup(Format::Split, 64), &[1530], false);
            while other.post() {}
            assert_eq!(from.pair.forward(&mut other.pair, ALL).packets, 10);
        } else {
            let mut other = Sender::new(setup(Format::Split, 64));
            (0..12).for_each(|seed| assert!(other.send(&frame(seed, 70), &[], false)));
            assert_eq!(other.pair.forward(&mut to.pair, ALL).packets, 10);
        }
    }
}

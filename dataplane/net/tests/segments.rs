//! Random packets and random headers: what is cut is right, what is wrong is refused, and nothing panics.

mod common;

use common::{
    ECN, Network, Shape, Transport, UDP, complete_segments, in_software, partial_segments, plan, sum_words,
};
use net::{Action, Offload, Segments, Sum, Takes, decide};
use proptest::prelude::*;

fn network() -> impl Strategy<Value = Network> {
    let extension = (prop::sample::select(vec![0u8, 43, 60]), 0u8..3);
    prop_oneof![
        (0usize..=10).prop_map(|options| Network::V4 { options }),
        prop::collection::vec(extension, 0..=4).prop_map(|extensions| Network::V6 { extensions }),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        (0usize..=10, any::<u8>()).prop_map(|(options, flags)| Transport::Tcp { options, flags }),
        Just(Transport::Udp),
    ]
}

fn shape(payload: impl Strategy<Value = usize>) -> impl Strategy<Value = Shape> {
    (0usize..=2, network(), transport(), payload, any::<u64>()).prop_map(
        |(vlan_tags, network, transport, payload, seed)| Shape {
            vlan_tags,
            network,
            transport,
            payload,
            seed,
        },
    )
}

/// Short ones mostly, and those as long as there can be.
fn payload() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0usize..4000, 1 => 4000usize..65_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_good_frame_is_cut_right(
        shape in shape(payload()),
        which in 0usize..2,
        size in prop_oneof![48u16..1500, 1500u16..10_000],
        csum in any::<bool>(),
    ) {
        let gso_type = shape.gso_types()[which];
        // Without NEEDS_CSUM, the checksum must be in the frame, and the destination in its IP header.
        let partial = csum || gso_type == common::UDP_L4 || shape.destination().is_some();
        let frame = if partial { shape.partial() } else { shape.complete() };
        let flags = u8::from(partial);
        let offload = Offload { flags, ..shape.offload(gso_type, size) };
        prop_assume!(frame.len() - shape.l2() < 1 << 16);
        let plan = plan(offload, &frame);
        let behind = frame.len() - if gso_type == UDP { shape.l4() } else { shape.header() };
        let produced = in_software(&plan, &frame);
        if behind <= usize::from(size) {
            prop_assert_eq!(produced, [shape.complete()]);
            prop_assert_eq!(plan.offload().gso_type, 0);
        } else {
            shape.outline().assert_segments(&frame, gso_type, size, &produced);
            prop_assert_eq!(Segments::new(&plan, [&frame[..]]).left(), produced.len());
            prop_assert_eq!(usize::from(plan.offload().hdr_len), shape.header());
        }
    }

    /// The destination completes the checksums of the segments: they come out the same.
    #[test]
    fn partial_and_complete_segments_agree(shape in shape(100usize..9000), which in 0usize..2, size in 90u16..1500) {
        let gso_type = shape.gso_types()[which];
        let frame = shape.partial();
        let plan = plan(shape.offload(gso_type, size), &frame);
        let gso = Takes::TSO4 | Takes::TSO6 | Takes::USO4 | Takes::USO6 | Takes::UFO;
        let Action::Segment { partial } = decide(&plan, Takes::ALL.without(gso)) else {
            prop_assume!(false, "one segment");
            return Ok(());
        };
        prop_assert_eq!(partial, gso_type != UDP);
        let produced: Vec<_> = partial_segments(&plan, &frame)
            .into_iter()
            .map(|(offload, segment)| in_software(&common::plan(offload, &segment), &segment).remove(0))
            .collect();
        prop_assert_eq!(mask_id(&shape, produced), mask_id(&shape, complete_segments(&plan, &frame)));
    }

    /// In how many pieces the frame is does not matter.
    #[test]
    fn frames_come_in_pieces(
        shape in shape(0usize..4000),
        which in 0usize..2,
        cuts in prop::collection::vec(0usize..4000, 0..6),
    ) {
        let frame = shape.partial();
        let plan = plan(shape.offload(shape.gso_types()[which], 700), &frame);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(frame.len())).collect();
        cuts.extend([0, frame.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &frame[cut[0]..cut[1]]).collect();
        match decide(&plan, Takes::NOTHING) {
            Action::Segment { .. } => {
                let mut segments = Segments::new(&plan, pieces);
                let mut produced = Vec::new();
                while let Some(segment) = segments.next_complete(|part| Sum::of(&frame[part])) {
                    produced.push([segment.header, &frame[segment.payload]].concat());
                }
                prop_assert_eq!(mask_id(&shape, produced), mask_id(&shape, complete_segments(&plan, &frame)));
            }
            Action::Checksum(checksum) => {
                let at = checksum.at();
                prop_assert_eq!(&shape.complete()[at..at + 2], checksum.value(pieces));
            }
            action => prop_assert!(false, "{action:?}"),
        }
    }

    /// A good frame with bytes changed here and there, behind a header of any kind: it is refused, or what is made
    /// of it is whole.
    #[test]
    fn hostile_headers_are_refused_or_harmless(
        shape in shape(0usize..3000),
        header in any::<[u8; 10]>(),
        keep in any::<[bool; 10]>(),
        changes in prop::collection::vec((0usize..140, any::<u8>()), 0..4),
        which in 0usize..2,
        cut in 0usize..200,
        takes in 0usize..4,
    ) {
        let mut frame = shape.partial();
        frame.truncate(frame.len().saturating_sub(cut * usize::from(cut > 100)));
        for (at, byte) in changes {
            if let Some(changed) = frame.get_mut(at) {
                *changed = byte;
            }
        }
        let good = shape.offload(shape.gso_types()[which], 500).to_bytes();
        let bytes: Vec<u8> = (0..10).map(|at| if keep[at] { good[at] } else { header[at] }).collect();
        let offload = Offload::from_bytes(&bytes.try_into().unwrap());
        let seen = &frame[..frame.len().min(common::HEADER_MAX)];
        let Ok(plan) = offload.check(seen, frame.len(), Takes::ALL) else { return Ok(()) };
        let csum = Takes::TCP_CSUM | Takes::UDP_CSUM;
        let takes = [Takes::NOTHING, csum, Takes::ALL, Takes::ALL.without(Takes::ECN)][takes];
        match decide(&plan, takes) {
            Action::PassOn(passed) => {
                // Nobody behind us would refuse it.
                let again = passed.check(seen, frame.len(), takes);
                prop_assert_eq!(again.map(|plan| plan.offload()), Ok(passed));
            }
            Action::Checksum(checksum) => checksum.complete(&mut frame),
            Action::Segment { partial } => {
                let produced = if partial {
                    partial_segments(&plan, &frame).into_iter().map(|(_, segment)| segment).collect()
                } else {
                    complete_segments(&plan, &frame)
                };
                prop_assert!((2..=net::SEGMENTS_MAX).contains(&produced.len()));
                let layers = plan.layers().unwrap();
                let header = usize::from(layers.l2_len + layers.l3_len);
                let most = header + usize::from(layers.l4_len + plan.offload().gso_size) + 8;
                prop_assert!(produced.iter().all(|segment| segment.len() <= most));
                if offload.gso_type & !ECN != UDP {
                    let header = header + usize::from(layers.l4_len);
                    let payload: Vec<u8> = produced.iter().flat_map(|segment| segment[header..].to_vec()).collect();
                    prop_assert!(payload == frame[header..]);
                }
            }
        }
    }

    /// Bytes that are no packet at all.
    #[test]
    fn noise_is_refused_or_harmless(header in any::<[u8; 10]>(), frame in prop::collection::vec(any::<u8>(), 0..300)) {
        let offload = Offload::from_bytes(&header);
        if let Ok(plan) = offload.check(&frame[..frame.len().min(common::HEADER_MAX)], frame.len(), Takes::ALL) {
            prop_assert!(in_software(&plan, &frame).iter().all(|made| !made.is_empty() || frame.is_empty()));
        }
    }
}

/// IPv6 fragments have an identification of their own, another each time.
fn mask_id(shape: &Shape, mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let fragments = frames.first().is_some_and(|frame| !shape.is_v4() && frame.get(shape.l4()) == Some(&17));
    if fragments && !shape.is_tcp() {
        frames.iter_mut().for_each(|frame| frame[shape.l4() + 4..shape.l4() + 8].fill(0));
    }
    frames
}

#[test]
fn fragments_of_different_datagrams_differ() {
    let network = Network::V6 { extensions: vec![] };
    let shape = Shape { vlan_tags: 0, network, transport: Transport::Udp, payload: 3000, seed: 1 };
    let frame = shape.partial();
    let plan = plan(shape.offload(UDP, 1440), &frame);
    let id = || complete_segments(&plan, &frame)[1][shape.l4() + 4..shape.l4() + 8].to_vec();
    let mut ids: Vec<_> = (0..1000).map(|_| id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
}

/// A UDP checksum that comes out as 0 is sent as 0xffff: 0 would say that there is none.
#[test]
fn a_udp_checksum_is_never_zero() {
    let network = Network::V4 { options: 0 };
    let shape = Shape { vlan_tags: 0, network, transport: Transport::Udp, payload: 1600, seed: 9 };
    let mut frame = shape.partial();
    // The first datagram of 800 bytes: its last word makes up for the rest.
    let l4 = shape.l4();
    let gso = plan(shape.offload(common::UDP_L4, 800), &frame);
    let mut first = complete_segments(&gso, &frame).remove(0);
    let end = first.len();
    common::put(&mut first, l4 + 6, 0);
    common::put(&mut first, end - 2, 0);
    let rest = [sum_words(&first[l4..]), shape.outline().pseudo_header(&first, 808)].map(u16::to_be_bytes);
    common::put(&mut frame, end - 2, !sum_words(rest.as_flattened()));
    let first = complete_segments(&gso, &frame).remove(0);
    assert_eq!(common::get(&first, l4 + 6), 0xffff);
    // And when it is completed, not cut.
    let mut one = first;
    let pseudo = shape.outline().pseudo_header(&one, 808);
    common::put(&mut one, l4 + 6, pseudo);
    let whole = shape.offload(0, 0);
    let made = in_software(&plan(whole, &one), &one).remove(0);
    assert_eq!(common::get(&made, l4 + 6), 0xffff);
}

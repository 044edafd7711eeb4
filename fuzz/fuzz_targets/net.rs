//! A virtio-net header and a frame behind it: refused, or what becomes of the frame is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{Action, Network, Offload, Plan, Takes, Transport, decide};

#[path = "../../dataplane/net/tests/common/mod.rs"]
mod common;

use common::check::Outline;
use common::{HEADER_MAX, UDP, complete_segments, get, partial_segments, sum_words};

const GSO: Takes = Takes::TSO4.and(Takes::TSO6).and(Takes::USO4).and(Takes::USO6).and(Takes::UFO);

// What the destination takes (the first byte), the header, the frame.
fuzz_target!(|data: &[u8]| {
    let Some((takes, rest)) = data.split_first() else { return };
    let Some((header, frame)) = rest.split_first_chunk() else { return };
    let takes = match takes % 4 {
        0 => Takes::NOTHING,
        1 => Takes::ALL.without(GSO),
        2 => Takes::ALL.without(Takes::ECN).without(Takes::ANY_CSUM),
        _ => Takes::ALL,
    };
    let offload = Offload::from_bytes(header);
    let Ok(plan) = check(offload, frame, Takes::ALL) else { return };
    assert!(!offload.asks_nothing() || decide(&plan, Takes::NOTHING) == Action::PassOn(Offload::default()));
    match decide(&plan, takes) {
        // Whoever takes it finds nothing wrong.
        Action::PassOn(passed) => {
            assert_eq!(check(passed, frame, takes).map(|plan| plan.offload()), Ok(passed))
        }
        Action::Checksum(checksum) => {
            let mut summed = frame.to_vec();
            checksum.complete(&mut summed);
            assert_ne!(get(&summed, checksum.at()), 0);
            // Its field was a part of what is summed, and is not any more.
            if offload.csum_offset.is_multiple_of(2) {
                let sum = sum_words(&summed[usize::from(offload.csum_start)..]);
                let all = [sum.to_be_bytes(), get(frame, checksum.at()).to_be_bytes()];
                assert_eq!(sum_words(all.as_flattened()), 0xffff);
            }
        }
        Action::Segment { partial: false } => check_segments(&plan, frame),
        Action::Segment { partial: true } => {
            let summed = |(offload, mut segment): (Offload, Vec<u8>)| {
                offload.checksum().expect("it is partial").complete(&mut segment);
                segment
            };
            let segments: Vec<_> = partial_segments(&plan, frame).into_iter().map(summed).collect();
            assert_eq!(segments.len(), complete_segments(&plan, frame).len());
            outline(&plan, frame).assert_segments(
                frame,
                plan.offload().gso_type,
                plan.offload().gso_size,
                &segments,
            );
        }
    }
});

fn check(offload: Offload, frame: &[u8], allowed: Takes) -> Result<Plan, net::BadOffload> {
    offload.check(&frame[..frame.len().min(HEADER_MAX)], frame.len(), allowed)
}

fn check_segments(plan: &Plan, frame: &[u8]) {
    let segments = complete_segments(plan, frame);
    let offload = plan.offload();
    outline(plan, frame).assert_segments(frame, offload.gso_type, offload.gso_size, &segments);
}

/// The frame's headers. What it left to be summed may be anything: it stays as wrong as it was.
fn outline(plan: &Plan, frame: &[u8]) -> Outline {
    let layers = plan.layers().expect("what is segmented is known");
    let [l2, l3, l4] = [layers.l2_len, layers.l3_len, layers.l4_len].map(usize::from);
    let mut outline = Outline {
        v4: layers.network == Network::V4,
        tcp: layers.transport == Transport::Tcp,
        l2,
        l4: l2 + l3,
        header: l2 + l3 + l4,
        destination: None,
        error: 0,
    };
    let offload = plan.offload();
    if let Some(checksum) = offload.checksum() {
        // As complete as the sender would have it.
        let mut frame = frame.to_vec();
        checksum.complete(&mut frame);
        outline.error = outline.error_of(&frame, &frame[outline.l4..]);
    } else if offload.gso_type == UDP {
        outline.error = outline.error_of(frame, &frame[outline.l4..]);
    }
    outline
}

//! What somebody who looks sees of the frames that go from guest to guest: each that leaves the sender's ring, once, in
//! order, and as it was.

use super::*;
use crate::guest::seen::Frames;

/// Sees it all, and does what [`forward`] does. The frames are numbered.
fn watch(case: &Case) {
    let (mut frames, mut next) = (Frames::new(), 0);
    run(case, |from, to, limits| {
        let (moved, gone) = from.pair.forward_seen(&mut to.pair, limits, &mut frames);
        assert_eq!(moved.packets, gone as u64);
        for (bytes, len) in frames.iter().take(gone) {
            assert!(bytes == frame(next, len as usize), "frame {next} was seen otherwise");
            next += 1;
        }
        check_counters(from, to);
        assert_eq!(next as u64, from.returned);
        moved
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn everything_that_goes_is_seen(case in cases()) {
        watch(&case);
    }
}

/// A sender that breaks the rules is found out by the look, and its ring is stopped.
#[test]
fn a_sender_that_breaks_the_rules_is_stopped_by_who_looks() {
    for formats in FORMATS {
        let (mut from, mut to) = plain(formats);
        assert!(to.post());
        assert!(from.send(&frame(0, 100), &[], false));
        from.post(&[into(HOLE, 100)]);
        let mut frames = Frames::new();
        let mut see = || from.pair.forward_seen(&mut to.pair, ALL, &mut frames).1;
        assert_eq!((see(), see(), see()), (1, 0, 0));
        assert_eq!(violation(&from.counters.from), Some("direction"));
        assert_eq!(violation(&to.counters.to), None);
    }
}

use proptest::prelude::*;

use super::*;

fn lengths(lens: &[u32]) -> Lengths {
    Lengths {
        packets: lens.len() as u64,
        bytes: lens.iter().map(|len| u64::from(*len)).sum(),
        any: lens.iter().fold(0, |any, len| any | len),
    }
}

/// Counted the plain way.
fn expected(lens: &[u32]) -> [u64; SIZE_CLASSES] {
    let mut sizes = [0; SIZE_CLASSES];
    for len in lens {
        let class = match len + 4 {
            ..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            1024..=1518 => 5,
            1519.. => 6,
        };
        sizes[class] += 1;
    }
    sizes
}

#[test]
fn each_size_is_in_its_class() {
    for len in (0..3000).chain([9014, 65549, u32::MAX - 4]) {
        let (one, four, each) = (Sizes::default(), Sizes::default(), Sizes::default());
        one.add(len);
        four.add_burst(lengths(&[len; 4]), std::iter::empty());
        each.add_each([len; 4].into_iter());
        assert_eq!(one.get(), expected(&[len]), "{len}");
        assert_eq!(four.get(), expected(&[len; 4]), "{len}");
        assert_eq!(each.get(), expected(&[len; 4]), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Lengths that are no multiple of each other's bits, and bursts that come to what one of equal frames would.
    #[test]
    fn bursts_of_any_frames_are_counted(
        lens in prop::collection::vec(prop_oneof![Just(60u32), Just(124), 14u32..130, 14u32..1600, 0u32..70000], 0..200)
    ) {
        let sizes = Sizes::default();
        sizes.add_burst(lengths(&lens), lens.iter().copied());
        prop_assert_eq!(sizes.get(), expected(&lens));
        let alike = lengths(&lens).each();
        prop_assert_eq!(alike.is_some(), lens.iter().all(|len| *len == lens[0]));
    }
}

#[test]
fn a_frame_is_a_burst() {
    let passed = Passed::default();
    passed.add_frame(60);
    passed.add_frame(1514);
    passed.add(30, 3000);
    let counts = [&passed.packets, &passed.bytes, &passed.bursts].map(Counter::get);
    assert_eq!((counts, passed.sizes.get()), ([32, 4574, 3], [1, 0, 0, 0, 0, 1, 0]));
}

#[test]
fn a_stopwatch_runs_only_in_between() {
    let watch = Stopwatch::default();
    assert_eq!(watch.at(50), 0);
    watch.run(true, 100);
    assert_eq!((watch.at(100), watch.at(130)), (0, 30));
    watch.run(true, 140);
    assert_eq!(watch.at(150), 50, "it ran already");
    watch.run(false, 160);
    assert_eq!((watch.at(160), watch.at(1000)), (60, 60));
    watch.run(false, 500);
    watch.run(true, 1000);
    assert_eq!(watch.at(1007), 67);
    watch.run(false, 1010);
    assert_eq!(watch.at(u64::MAX), 70);
    // As a counter that has run for long has it.
    let late = RUNS - 10;
    watch.run(true, late);
    assert_eq!(watch.at(late + 30), 100);
}

#[test]
fn held_time_is_that_of_any_packets() {
    let held = Held::default();
    assert_eq!((held.get(), held.cycles()), (0, 0));
    held.set(0);
    assert_eq!(held.cycles(), 0);
    held.set(3);
    let first = held.cycles();
    held.set(5);
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert!(held.cycles() > first, "it goes on while they wait");
    held.set(0);
    let total = held.cycles();
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert_eq!((held.get(), held.cycles()), (0, total));
    assert!(total > 0);
}

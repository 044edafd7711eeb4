//! Positions against plain counting: descriptor number n of all laps is in slot n mod size, and the wrap
//! counter is set in even laps (virtio 1.2, 2.8.1).

use super::Position;

fn at(count: u32, size: u16) -> Position {
    let size = u32::from(size);
    Position { slot: (count % size) as u16, wrap: (count / size).is_multiple_of(2) }
}

const SIZES: [u16; 9] = [1, 2, 3, 4, 5, 7, 8, 13, 32768];

/// Places on two laps of a ring: all of them, or those at the edges.
fn places(size: u16) -> Vec<u32> {
    match size {
        32768 => [0, 1, 2, 16384, 32765, 32766, 32767, 32768, 32769, 49152, 65534, 65535].to_vec(),
        size => (0..2 * u32::from(size)).collect(),
    }
}

/// A start and a step of up to `laps` laps from there.
fn steps(size: u16, laps: u32) -> Vec<(u32, u32)> {
    let most = laps * u32::from(size);
    let by = move |start: u32| places(size).into_iter().chain([most]).map(move |by| (start, by));
    places(size).into_iter().flat_map(by).filter(|(_, by)| *by <= most).collect()
}

#[test]
fn steps_are_counted_round_the_ring() {
    for size in SIZES {
        for (start, by) in steps(size, 1) {
            let (old, new) = (at(start, size), at(start + by, size));
            assert_eq!(old.after(by as u16, size), new, "size {size}: {start} + {by}");
        }
    }
}

#[test]
fn no_distance_is_more_than_once_round() {
    for size in SIZES {
        for (start, by) in steps(size, 2) {
            let distance = at(start + by, size).distance(at(start, size), size);
            // Two laps on, all is the same again.
            let by = by % (2 * u32::from(size));
            let expected = (by <= u32::from(size)).then_some(by as u16);
            assert_eq!(distance, expected, "size {size}: {start} + {by}");
        }
    }
}

/// The event is passed if it is one of the descriptors of the step.
#[test]
fn an_event_is_passed_by_the_step_it_is_in() {
    for size in SIZES {
        let laps = 2 * u32::from(size);
        for (start, by) in steps(size, 1) {
            let (old, new) = (at(start, size), at(start + by, size));
            for event in places(size) {
                let ahead = (event + laps - start) % laps;
                let passed = Position::passed(at(event, size), old, new, size);
                assert_eq!(passed, ahead < by, "size {size}: {start} + {by}, {event}");
            }
        }
    }
}

#[test]
fn positions_survive_their_bits() {
    for bits in 0..=u16::MAX {
        assert_eq!(Position::from_bits(bits).bits(), bits);
    }
    assert_eq!(Position { slot: 3, wrap: true }.bits(), 0x8003);
}

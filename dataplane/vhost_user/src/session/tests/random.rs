//! Random frontends: whatever comes in whatever order, nothing panics and nothing is left behind.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use proptest::prelude::*;

use crate::testing::*;

#[derive(Clone, Debug)]
enum Step {
    /// A well-formed message with small numbers: most are valid.
    Likely(u32, u32, u32),
    /// Any message, any payload, any number of descriptors.
    Any(u32, u32, Vec<u8>, usize),
    /// A table or a region, with these words.
    Region(u32, u64, u64, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop_oneof![Just(0u64), Just(0x1000), Just(0x8000), Just(u64::MAX - 0xfff), any::<u64>()];
    prop_oneof![
        8 => (1u32..=24, 0u32..3, prop_oneof![0u32..3, Just(16u32), any::<u32>()])
            .prop_map(|(code, ring, num)| Step::Likely(code, ring, num)),
        2 => (prop_oneof![0u32..48, any::<u32>()], 0u32..16, prop::collection::vec(any::<u8>(), 0..64), 0usize..4)
            .prop_map(|(code, flags, payload, fds)| Step::Any(code, flags, payload, fds)),
        3 => (prop_oneof![Just(5u32), Just(37), Just(38)], word.clone(), word.clone(), word.clone(), word)
            .prop_map(|(code, a, b, c, d)| Step::Region(code, a, b, c, d)),
    ]
}

fn play(client: &Client, guest: &Guest, steps: &[Step]) {
    let null = File::open("/dev/null").unwrap();
    let eventfd = event();
    let (channel, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
    let send = |code: u32, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]| {
        // The session may have ended already.
        let _ = try_send(&client.stream, &message(code, flags & !3, payload), fds);
    };
    for step in steps {
        match step {
            Step::Likely(code, ring, num) => match code {
                1 | 3 | 4 | 15 | 17 => send(*code, 8, &[], &[]),
                2 => send(2, 8, &(FEATURES | u64::from(*num) << 15).to_ne_bytes(), &[]),
                5 => send(5, 8, &table(&[guest.region(0)]), &[guest.file.as_fd()]),
                6 | 7 => send(34, 8, &[], &[]),
                9 => send(9, 8, &areas(*ring, USER + u64::from(*ring) * RING_SPACE), &[]),
                12..=14 => send(*code, 8, &u64::from(*ring).to_ne_bytes(), &[eventfd.as_fd()]),
                16 => send(16, 8, &ALL_PROTOCOL.to_ne_bytes(), &[]),
                19 => send(37, 8, &single(guest.region(1 + u64::from(*num))), &[guest.file.as_fd()]),
                20 => send(38, 8, &single(guest.region(1 + u64::from(*num))), &[]),
                21 => send(19, 8, &u64::from(*num).to_ne_bytes(), &[]),
                22 => send(20, 8, &u64::from(*num).to_ne_bytes(), &[]),
                23 => send(39, 8, &u64::from(*num).to_ne_bytes(), &[]),
                24 => send(21, 8, &[], &[channel.as_fd()]),
                _ => send(*code, 8, &state(*ring, *num), &[]),
            },
            Step::Any(code, flags, payload, fds) => {
                send(*code, *flags, payload, &vec![null.as_fd(); *fds]);
            }
            Step::Region(code, a, b, c, d) => {
                let region = [*a, *b, *c, *d];
                let payload = if *code == 5 { table(&[region]) } else { single(region) };
                send(*code, 8, &payload, &[guest.file.as_fd()]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_panics_and_nothing_is_left(negotiated: bool, steps in prop::collection::vec(step(), 0..60)) {
        let _alone = alone();
        let before = open_fds();
        let guest = Guest::new(0x10000);
        let mut client = Client::connect(1);
        if negotiated {
            client.negotiate();
            assert!(client.set_table(&[(&guest, guest.region(0))]));
            assert!(client.set_up(0));
        }
        play(&client, &guest, &steps);
        let (_, engine) = client.close();
        prop_assert!(engine.look().out.is_empty());
        prop_assert!(!engine.state().connected);
        prop_assert_eq!(guest.mapped(), 0);
        drop((guest, engine));
        prop_assert_eq!(open_fds(), before);
    }

    #[test]
    fn any_bytes_at_all(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let _alone = alone();
        let before = open_fds();
        let client = Client::connect(1);
        let null = File::open("/dev/null").unwrap();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let _ = try_send(&client.stream, first, &[null.as_fd()]);
        let _ = try_send(&client.stream, second, &[]);
        let _ = client.close();
        drop(null);
        prop_assert_eq!(open_fds(), before);
    }
}

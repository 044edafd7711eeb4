#![allow(unsafe_code)] // SO_ATTACH_FILTER

use std::mem::size_of_val;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::libc;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The kernel's own interpreter: a socket whose filter is the program. A datagram gets through if it is wanted, cut to
/// as many bytes as the program returns.
struct Kernel {
    from: UnixDatagram,
    to: UnixDatagram,
}

impl Kernel {
    /// `None` if the kernel refuses the program.
    fn with(program: &[Instruction]) -> Option<Kernel> {
        let (from, to) = UnixDatagram::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let mut filter: Vec<libc::sock_filter> = program
            .iter()
            .map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k })
            .collect();
        let fprog = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program lives until the call is over, and is as long as it says.
        let status = unsafe {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
            let value = (&raw const fprog).cast();
            libc::setsockopt(to.as_raw_fd(), level, option, value, size_of_val(&fprog) as u32)
        };
        (status == 0).then_some(Kernel { from, to })
    }

    /// How many bytes of the frame it wants.
    fn run(&self, frame: &[u8]) -> usize {
        self.from.send(frame).unwrap();
        self.to.recv(&mut vec![0; frame.len()]).unwrap_or(0)
    }
}

fn ours(program: &Program, frame: &[u8]) -> usize {
    program.run(frame, frame.len() as u32).map_or(0, |most| frame.len().min(most as usize))
}

/// Instructions that are mostly good. A shift by X is left out: what 32 bits and more come to is not agreed on. So are
/// places near 2^32, where the kernel has its extensions.
fn instruction() -> impl Strategy<Value = Instruction> {
    const CODES: [u16; 48] = [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20, 0x24, 0x25,
        0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c, 0x4d, 0x50, 0x54, 0x5c,
        0x60, 0x61, 0x64, 0x74, 0x80, 0x81, 0x84, 0x87, 0x94, 0x9c, 0xa4, 0xac, 0xb1, 0x1c,
    ];
    let k = prop_oneof![8 => 0..20u32, 2 => 0..200u32, 1 => 0..0x8000_0000u32];
    let code = prop_oneof![60 => prop::sample::select(&CODES[..]), 1 => 0..0x200u16];
    (code, 0..4u8, 0..4u8, k).prop_map(|(code, jt, jf, k)| insn(code, jt, jf, k))
}

fn is_shift_by_x(one: &Instruction) -> bool {
    matches!(one.code, 0x6c | 0x7c)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random programs on random frames do what the kernel does with them, and those it refuses are refused.
    #[test]
    fn the_kernel_agrees(
        body in prop::collection::vec(instruction(), 1..24),
        result in prop_oneof![Just(insn(0x16, 0, 0, 0)), (0..100u32).prop_map(|k| insn(0x06, 0, 0, k))],
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..4),
    ) {
        prop_assume!(!body.iter().any(is_shift_by_x));
        // The kernel refuses to load what was not stored.
        let stored = (0..WORDS as u32).map(|word| insn(0x02, 0, 0, word));
        // So that no jump is too far for want of anywhere to go.
        let ends = [result; 5];
        let program: Vec<_> = stored.chain(body).chain(ends).collect();
        match (Program::new(&program), Kernel::with(&program)) {
            (Ok(checked), Some(kernel)) => {
                for frame in &frames {
                    prop_assert_eq!(ours(&checked, frame), kernel.run(frame), "{:?} on {:?}", program, frame);
                }
            }
            (Err(_), None) => {}
            (checked, kernel) => {
                prop_assert!(false, "{checked:?}, and the kernel takes it: {}: {program:?}", kernel.is_some());
            }
        }
    }

    /// Whatever the numbers, it ends, and panics at nothing.
    #[test]
    fn any_numbers_are_refused_or_run(
        numbers in prop::collection::vec((0..0x100u16, any::<u8>(), any::<u8>(), any::<u32>()), 0..40),
        frame in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let program: Vec<_> = numbers.iter().map(|(code, jt, jf, k)| insn(*code, *jt, *jf, *k)).collect();
        if let Ok(program) = Program::new(&program) {
            program.wants(&frame, u32::MAX);
        }
    }
}

/// As many random programs as are worth something: neither all refused, nor all without a wanted frame.
#[test]
fn random_programs_are_of_all_sorts() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut good, mut wanted) = (0, 0);
    for _ in 0..1000 {
        let tree = prop::collection::vec(instruction(), 1..24).new_tree(&mut runner).unwrap();
        let program: Vec<_> = tree.current().into_iter().chain([insn(0x06, 0, 0, 9); 5]).collect();
        if let Ok(program) = Program::new(&program) {
            good += 1;
            wanted += u32::from(program.wants(&[0x45; 60], 60));
        }
    }
    assert!(good > 300 && wanted > 50 && wanted < good, "{good} good, {wanted} wanted");
}

/// `udp port 7`, as tcpdump -ddd has it.
#[test]
fn a_compiled_expression_finds_its_frames() {
    const PORT_7: [(u16, u8, u8, u32); 20] = [
        (40, 0, 0, 12),
        (21, 0, 6, 34525),
        (48, 0, 0, 20),
        (21, 0, 15, 17),
        (40, 0, 0, 54),
        (21, 12, 0, 7),
        (40, 0, 0, 56),
        (21, 10, 11, 7),
        (21, 0, 10, 2048),
        (48, 0, 0, 23),
        (21, 0, 8, 17),
        (40, 0, 0, 20),
        (69, 6, 0, 8191),
        (177, 0, 0, 14),
        (72, 0, 0, 14),
        (21, 2, 0, 7),
        (72, 0, 0, 16),
        (21, 0, 1, 7),
        (6, 0, 0, 262144),
        (6, 0, 0, 0),
    ];
    let program = PORT_7.map(|(code, jt, jf, k)| insn(code, jt, jf, k));
    let program = Program::new(&program).unwrap();
    let mut frame = vec![0; 60];
    (frame[12], frame[14], frame[23]) = (8, 0x45, 17);
    frame[36..38].copy_from_slice(&7u16.to_be_bytes());
    assert!(program.wants(&frame, 60));
    frame[37] = 8;
    assert!(!program.wants(&frame, 60));
    // With options, the ports are further behind.
    (frame[14], frame[39]) = (0x46, 7);
    assert!(program.wants(&frame, 60));
    // The second fragment has none.
    frame[20] = 1;
    assert!(!program.wants(&frame, 60));
    assert!(!program.wants(&frame[..30], 60));
}

#[test]
fn what_is_wrong_is_named() {
    let end = insn(0x06, 0, 0, 0);
    for (program, problem) in [
        (vec![], "a filter has from 1 to 4096 instructions, not 0"),
        (vec![end; 4097], "a filter has from 1 to 4096 instructions, not 4097"),
        (vec![insn(0xff, 0, 0, 0), end], "instruction 0 of the filter is unknown: code 0xff"),
        (vec![end, insn(0x05, 0, 0, 1), end], "instruction 1 of the filter goes on behind its end"),
        (vec![insn(0x05, 0, 0, u32::MAX), end], "instruction 0 of the filter goes on behind its end"),
        (vec![insn(0x15, 0, 1, 0), end], "instruction 0 of the filter goes on behind its end"),
        (vec![insn(0x00, 0, 0, 0)], "instruction 0 of the filter goes on behind its end"),
        (vec![insn(0x34, 0, 0, 0), end], "instruction 0 of the filter has an operand that cannot be: 0"),
        (vec![insn(0x64, 0, 0, 32), end], "instruction 0 of the filter has an operand that cannot be: 32"),
        (vec![insn(0x60, 0, 0, 16), end], "instruction 0 of the filter has an operand that cannot be: 16"),
    ] {
        assert_eq!(Program::new(&program).unwrap_err().to_string(), problem);
    }
    assert!(Program::new(&[end; 4096]).is_ok());
}

#[test]
fn what_is_behind_x_may_be_before_it() {
    // As in the kernel: -4 and 5 are 1.
    let program =
        [insn(0, 0, 0, 4), insn(0x84, 0, 0, 0), insn(7, 0, 0, 0), insn(0x50, 0, 0, 5), insn(0x16, 0, 0, 0)];
    assert_eq!(Program::new(&program).unwrap().run(&[8, 9], 2), Some(9));
    assert!(Kernel::with(&program).is_some_and(|kernel| kernel.run(&[8; 20]) == 8));
}

#[test]
fn a_shift_by_too_much_leaves_nothing_and_a_division_by_zero_wants_nothing() {
    let run = |code, x| {
        let program = [insn(0, 0, 0, 1), insn(1, 0, 0, x), insn(code, 0, 0, 0), insn(0x16, 0, 0, 0)];
        Program::new(&program).unwrap().run(&[], 0)
    };
    assert_eq!((run(0x6c, 31), run(0x6c, 32), run(0x7c, 33)), (Some(1 << 31), Some(0), Some(0)));
    assert_eq!((run(0x3c, 0), run(0x9c, 0)), (None, None));
}

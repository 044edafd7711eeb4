//! Classic BPF programs (McCanne and Jacobson, 1993; pcap-filter(7) is compiled to them): checked once, then run on
//! each frame.
//!
//! A program has no loops, for jumps only go forward: it takes as many steps as it has instructions, at most. A frame
//! may be anything: what lies outside it ends the program, which then does not want it.

/// Most instructions of a program, as in the Linux kernel (BPF_MAXINSNS).
pub const MOST: usize = 4096;
/// Words of memory a program has (BPF_MEMWORDS).
const WORDS: usize = 16;

/// An instruction as libpcap and the kernel have it (struct bpf_insn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a condition is true.
    pub jt: u8,
    /// If it is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// What is wrong with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProgram {
    /// None at all, or too many.
    #[error("a filter has from 1 to {MOST} instructions, not {0}")]
    Length(usize),
    /// There is no such instruction.
    #[error("instruction {at} of the filter is unknown: code {code:#x}")]
    Code {
        /// Which.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// It goes on behind the program's end.
    #[error("instruction {0} of the filter goes on behind its end")]
    Jump(usize),
    /// A divisor of zero, a shift by more than 31 bits, or a word of memory that there is not.
    #[error("instruction {at} of the filter has an operand that cannot be: {k}")]
    Operand {
        /// Which.
        at: usize,
        /// The operand.
        k: u32,
    },
}

/// A program that can be run.
#[derive(Clone, Debug)]
pub struct Program(Box<[Step]>);

/// A number that an instruction works with.
#[derive(Clone, Copy, Debug)]
enum Operand {
    K(u32),
    X,
}

#[derive(Clone, Copy, Debug)]
enum Width {
    Byte,
    Half,
    Word,
}

#[derive(Clone, Copy, Debug)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Shl,
    Shr,
    Neg,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equal,
    Greater,
    AtLeast,
    Bits,
}

/// An instruction that was found good. A is the accumulator, X the index register.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A = what the frame has there.
    Load(Width, u32),
    /// A = what the frame has so many bytes behind X, modulo 2^32.
    LoadBehind(Width, u32),
    /// A = the frame's length.
    LoadLen,
    /// A = the number.
    LoadNumber(u32),
    /// A = the word of memory.
    LoadWord(usize),
    /// X = four times the lower half of a byte: the length of an IPv4 header.
    IndexHeader(u32),
    IndexLen,
    IndexNumber(u32),
    IndexWord(usize),
    Store(usize),
    StoreIndex(usize),
    /// A = A, and what is done to it.
    Alu(Alu, Operand),
    /// So many instructions are skipped.
    Jump(usize),
    /// So many if it is true, and if it is false.
    JumpIf(Test, Operand, usize, usize),
    Return(u32),
    ReturnA,
    /// X = A.
    ToIndex,
    /// A = X.
    FromIndex,
}

impl Program {
    /// Checks a program, as the kernel does (bpf_check_classic).
    pub fn new(instructions: &[Instruction]) -> Result<Program, BadProgram> {
        let count = instructions.len();
        if !(1..=MOST).contains(&count) {
            return Err(BadProgram::Length(count));
        }
        let steps = instructions.iter().enumerate().map(|(at, instruction)| {
            let step = Step::of(at, instruction)?;
            let furthest = match step {
                Step::Return(_) | Step::ReturnA => return Ok(step),
                Step::Jump(over) => over,
                Step::JumpIf(.., yes, no) => yes.max(no),
                _ => 0,
            };
            if furthest < count - at - 1 { Ok(step) } else { Err(BadProgram::Jump(at)) }
        });
        steps.collect::<Result<_, _>>().map(Program)
    }

    /// Whether a frame is wanted: `frame` is all of it, or its beginning, and `len` its length.
    pub fn wants(&self, frame: &[u8], len: u32) -> bool {
        self.run(frame, len).unwrap_or(0) != 0
    }

    /// What the program returns; `None` where the frame has no such byte, or at a division by zero.
    fn run(&self, frame: &[u8], len: u32) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0; WORDS]);
        let mut at = 0;
        loop {
            let value = |operand| if let Operand::K(k) = operand { k } else { x };
            // Each jump was checked, so there is one.
            match *self.0.get(at)? {
                Step::Load(width, place) => a = width.load(frame, place)?,
                Step::LoadBehind(width, k) => a = width.load(frame, x.wrapping_add(k))?,
                Step::LoadLen => a = len,
                Step::LoadNumber(k) => a = k,
                Step::LoadWord(word) => a = memory[word],
                Step::IndexHeader(place) => x = (Width::Byte.load(frame, place)? & 0xf) << 2,
                Step::IndexLen => x = len,
                Step::IndexNumber(k) => x = k,
                Step::IndexWord(word) => x = memory[word],
                Step::Store(word) => memory[word] = a,
                Step::StoreIndex(word) => memory[word] = x,
                Step::Alu(alu, operand) => a = alu.of(a, value(operand))?,
                Step::Jump(over) => at += over,
                Step::JumpIf(test, operand, yes, no) => {
                    at += if test.holds(a, value(operand)) { yes } else { no };
                }
                Step::Return(k) => return Some(k),
                Step::ReturnA => return Some(a),
                Step::ToIndex => x = a,
                Step::FromIndex => a = x,
            }
            at += 1;
        }
    }
}

impl Step {
    fn of(at: usize, instruction: &Instruction) -> Result<Step, BadProgram> {
        let Instruction { code, jt, jf, k } = *instruction;
        let word = || usize::try_from(k).ok().filter(|word| *word < WORDS);
        let word = || word().ok_or(BadProgram::Operand { at, k });
        let operand = if code & 0x08 == 0 { Operand::K(k) } else { Operand::X };
        // The class is in the lowest three bits; <linux/bpf_common.h> names them all.
        Ok(match code {
            0x00 => Step::LoadNumber(k),
            0x20 => Step::Load(Width::Word, k),
            0x28 => Step::Load(Width::Half, k),
            0x30 => Step::Load(Width::Byte, k),
            0x40 => Step::LoadBehind(Width::Word, k),
            0x48 => Step::LoadBehind(Width::Half, k),
            0x50 => Step::LoadBehind(Width::Byte, k),
            0x60 => Step::LoadWord(word()?),
            0x80 => Step::LoadLen,
            0x01 => Step::IndexNumber(k),
            0x61 => Step::IndexWord(word()?),
            0x81 => Step::IndexLen,
            0xb1 => Step::IndexHeader(k),
            0x02 => Step::Store(word()?),
            0x03 => Step::StoreIndex(word()?),
            0x84 => Step::Alu(Alu::Neg, operand),
            0x05 => Step::Jump(k as usize),
            0x06 => Step::Return(k),
            0x16 => Step::ReturnA,
            0x07 => Step::ToIndex,
            0x87 => Step::FromIndex,
            _ => {
                let (alu, test) = (Alu::of_code(code), Test::of_code(code));
                return match (alu, test) {
                    (Some(Alu::Div | Alu::Mod), _) if matches!(operand, Operand::K(0)) => {
                        Err(BadProgram::Operand { at, k })
                    }
                    (Some(Alu::Shl | Alu::Shr), _) if matches!(operand, Operand::K(32..)) => {
                        Err(BadProgram::Operand { at, k })
                    }
                    (Some(alu), _) => Ok(Step::Alu(alu, operand)),
                    (_, Some(test)) => Ok(Step::JumpIf(test, operand, jt.into(), jf.into())),
                    (None, None) => Err(BadProgram::Code { at, code }),
                };
            }
        })
    }
}

impl Width {
    fn load(self, frame: &[u8], place: u32) -> Option<u32> {
        let bytes = frame.get(place as usize..)?;
        match self {
            Width::Byte => bytes.first().map(|byte| u32::from(*byte)),
            Width::Half => bytes.first_chunk().map(|half| u32::from(u16::from_be_bytes(*half))),
            Width::Word => bytes.first_chunk().map(|word| u32::from_be_bytes(*word)),
        }
    }
}

impl Alu {
    fn of_code(code: u16) -> Option<Alu> {
        let operations = [
            (0x04, Alu::Add),
            (0x14, Alu::Sub),
            (0x24, Alu::Mul),
            (0x34, Alu::Div),
            (0x44, Alu::Or),
            (0x54, Alu::And),
            (0x64, Alu::Shl),
            (0x74, Alu::Shr),
            (0x94, Alu::Mod),
            (0xa4, Alu::Xor),
        ];
        operations.iter().find(|(known, _)| *known == code & !0x08).map(|(_, alu)| *alu)
    }

    fn of(self, a: u32, b: u32) -> Option<u32> {
        match self {
            Alu::Add => Some(a.wrapping_add(b)),
            Alu::Sub => Some(a.wrapping_sub(b)),
            Alu::Mul => Some(a.wrapping_mul(b)),
            Alu::Div => a.checked_div(b),
            Alu::Mod => a.checked_rem(b),
            Alu::Or => Some(a | b),
            Alu::And => Some(a & b),
            Alu::Xor => Some(a ^ b),
            Alu::Shl => Some(a.checked_shl(b).unwrap_or(0)),
            Alu::Shr => Some(a.checked_shr(b).unwrap_or(0)),
            Alu::Neg => Some(a.wrapping_neg()),
        }
    }
}

impl Test {
    fn of_code(code: u16) -> Option<Test> {
        match code & !0x08 {
            0x15 => Some(Test::Equal),
            0x25 => Some(Test::Greater),
            0x35 => Some(Test::AtLeast),
            0x45 => Some(Test::Bits),
            _ => None,
        }
    }

    fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Test::Equal => a == b,
            Test::Greater => a > b,
            Test::AtLeast => a >= b,
            Test::Bits => a & b != 0,
        }
    }
}

#[cfg(test)]
mod tests;

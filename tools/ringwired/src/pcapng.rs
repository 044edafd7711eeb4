//! Writes pcapng, the format of Wireshark's captures (draft-ietf-opsawg-pcapng).
//!
//! One section in this machine's byte order, one interface of Ethernet for each queue pair, times in nanoseconds.

use engine::{Direction, Record};

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// By which a reader tells the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// Options: shb_userappl, if_name, if_tsresol, epb_flags, and those of an interface's statistics.
const APPLICATION: u16 = 4;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
const ACCEPTED: u16 = 6;
const DELIVERED: u16 = 8;
/// Times are in units of ten to the power of minus this.
const NANOSECONDS: u8 = 9;

/// What there is to say of an interface at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames seen.
    pub seen: u64,
    /// Of these, those that the filter wants.
    pub matched: u64,
    /// Of these, those there was no room for.
    pub dropped: u64,
    /// Those that were written.
    pub written: u64,
}

/// Blocks on their way to a file.
#[derive(Default)]
pub struct Blocks(Vec<u8>);

impl Blocks {
    /// A section's beginning, and its interfaces, of whose frames `snaplen` bytes are kept at most.
    pub fn start(names: impl Iterator<Item = String>, snaplen: u32) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.block(SECTION_HEADER, |blocks| {
            // Version 1.0, of a length that is not known yet.
            blocks.words(&[MAGIC]);
            blocks.halves([1, 0]);
            blocks.words(&[u32::MAX, u32::MAX]);
            blocks.option(APPLICATION, concat!("ringwired ", env!("CARGO_PKG_VERSION")).as_bytes());
            blocks.end_of_options();
        });
        for name in names {
            blocks.block(INTERFACE, |blocks| {
                blocks.halves([ETHERNET, 0]);
                blocks.words(&[snaplen]);
                blocks.option(NAME, name.as_bytes());
                blocks.option(RESOLUTION, &[NANOSECONDS]);
                blocks.end_of_options();
            });
        }
        blocks
    }

    /// A frame at an interface.
    pub fn packet(&mut self, interface: u32, record: &Record<'_>) {
        let Record { at, direction, len, data, .. } = *record;
        let flags: u32 = if direction == Direction::Rx { 1 } else { 2 };
        self.block(PACKET, |blocks| {
            blocks.words(&[interface, (at >> 32) as u32, at as u32, data.len() as u32, len]);
            blocks.padded(data);
            blocks.option(FLAGS, &flags.to_ne_bytes());
            blocks.end_of_options();
        });
    }

    /// What an interface has come to, at a time in nanoseconds since 1970.
    pub fn statistics(&mut self, interface: u32, at: u64, statistics: &Statistics) {
        let Statistics { seen, matched, dropped, written } = *statistics;
        self.block(STATISTICS, |blocks| {
            blocks.words(&[interface, (at >> 32) as u32, at as u32]);
            for (option, count) in
                [(RECEIVED, seen), (DROPPED, dropped), (ACCEPTED, matched), (DELIVERED, written)]
            {
                blocks.option(option, &count.to_ne_bytes());
            }
            blocks.end_of_options();
        });
    }

    /// Bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them; there are none then.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// A block: its type, its length, `body`, and its length again.
    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Blocks)) {
        let start = self.0.len();
        self.words(&[kind, 0]);
        body(self);
        let len = (self.0.len() - start + 4) as u32;
        self.words(&[len]);
        self.0[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
    }

    fn words(&mut self, words: &[u32]) {
        self.0.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn halves(&mut self, halves: [u16; 2]) {
        self.0.extend(halves.iter().flat_map(|half| half.to_ne_bytes()));
    }

    /// Filled up to whole words.
    fn padded(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.halves([code, value.len() as u16]);
        self.padded(value);
    }

    fn end_of_options(&mut self) {
        self.words(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and bodies of all blocks. Whether they can be read is tshark's to say, in the whole-system tests.
    fn split(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!((word(len - 4) as usize, len % 4), (len, 0));
            found.push((word(0), &bytes[8..len - 4]));
            bytes = &bytes[len..];
        }
        found
    }

    #[test]
    fn each_block_is_framed_and_padded() {
        let mut blocks = Blocks::start(["vm1:0".to_owned(), "vm1:1".to_owned()].into_iter(), 60);
        let record = Record { at: 5 << 32 | 6, pair: 1, direction: Direction::Tx, len: 70, data: &[7; 61] };
        blocks.packet(1, &record);
        blocks.statistics(0, 1, &Statistics { seen: 4, matched: 3, dropped: 2, written: 1 });
        let bytes = blocks.take();
        assert!(blocks.is_empty());
        let found = split(&bytes);
        let kinds: Vec<u32> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, INTERFACE, PACKET, STATISTICS]);
        let packet = found[3].1;
        let words: Vec<u32> =
            packet[..20].chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [1, 5, 6, 61, 70]);
        assert_eq!((&packet[20..81], &packet[81..84]), (&[7; 61][..], &[0; 3][..]));
        assert_eq!(
            packet[84..],
            [&FLAGS.to_ne_bytes()[..], &4u16.to_ne_bytes(), &2u32.to_ne_bytes(), &[0; 4]].concat()
        );
        assert!(found[2].1.windows(5).any(|name| name == b"vm1:1"));
    }
}

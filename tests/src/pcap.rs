//! Capture files, as far as DPDK's pcap driver reads and writes them: one section, Ethernet, whole frames.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Writes `frames` into a new file.
pub fn write<F: AsRef<[u8]>>(path: &Path, frames: impl IntoIterator<Item = F>) {
    let file = File::create(path).expect("a capture file");
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let header = [MAGIC_MICROSECONDS, 4 << 16 | 2, 0, 0, 0x4_0000, ETHERNET];
    let mut words = |words: &[u32], frame: &[u8]| {
        words.iter().for_each(|word| file.write_all(&word.to_ne_bytes()).expect("write a capture file"));
        file.write_all(frame).expect("write a capture file");
    };
    words(&header, &[]);
    for (n, frame) in (0..).zip(frames) {
        let frame = frame.as_ref();
        words(&[n, 0, frame.len() as u32, frame.len() as u32], frame);
    }
    file.flush().expect("write a capture file");
}

/// Reads all frames. A last frame of which only a part is there, because its writer was killed or still
/// writes, is left out.
pub fn read(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if bytes.len() < FILE_HEADER {
        return Vec::new();
    }
    assert!([MAGIC_MICROSECONDS, MAGIC_NANOSECONDS].contains(&word(0)), "{}: no capture", path.display());
    let (mut at, mut frames) = (FILE_HEADER, Vec::new());
    while at + RECORD_HEADER <= bytes.len() {
        let (kept, length) = (word(at + 8) as usize, word(at + 12) as usize);
        assert_eq!(kept, length, "{}: frame {} is cut", path.display(), frames.len());
        let start = at + RECORD_HEADER;
        let Some(frame) = bytes.get(start..start + kept) else {
            break;
        };
        frames.push(frame.to_vec());
        at = start + kept;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn reads_back_what_it_wrote_and_leaves_out_half_a_frame() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.pcap");
        let frames = vec![vec![1; 60], vec![2; 9000], vec![]];
        write(&path, &frames);
        assert_eq!(read(&path), frames);
        let bytes = std::fs::read(&path).expect("the file");
        std::fs::write(&path, &bytes[..24 + 16 + 60 + 16 + 8999]).expect("the file");
        assert_eq!(read(&path), frames[..1]);
        std::fs::write(&path, &bytes[..10]).expect("the file");
        assert!(read(&path).is_empty());
    }
}

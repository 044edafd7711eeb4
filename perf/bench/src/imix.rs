//! A capture of IMIX for net_pcap to repeat.

use std::path::Path;

/// Its name.
pub const FILE: &str = "imix.pcap";
/// What IMIX means, mixed as `ringwire-pktgen --imix` mixes it.
const LENGTHS: [u32; 12] = [64, 64, 570, 64, 64, 570, 64, 64, 570, 64, 570, 1518];
/// Bytes of a frame on average.
pub const MEAN: u16 = 353;

/// Writes it into `directory`: once around, with frames of zeroes from and to locally administered addresses.
pub fn write(directory: &Path) -> std::io::Result<()> {
    std::fs::write(directory.join(FILE), capture())
}

/// A pcap file: its header, and for each frame a header and the frame.
fn capture() -> Vec<u8> {
    // Magic number, version 2.4, time zone, accuracy, longest frame, Ethernet.
    let words: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65535, 1];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for length in LENGTHS {
        // Seconds, microseconds, bytes kept, bytes there were.
        bytes.extend([0, 0, length, length].iter().flat_map(|word| word.to_ne_bytes()));
        let start = bytes.len();
        bytes.resize(start + length as usize, 0);
        (bytes[start], bytes[start + 6]) = (2, 2);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_mean() {
        assert_eq!(LENGTHS.iter().sum::<u32>() / 12, u32::from(MEAN));
        assert_eq!(capture().len() as u32, 24 + 12 * 16 + LENGTHS.iter().sum::<u32>());
    }
}

//! Frames of several kinds: those that a filter wants, and others.

/// Where its number is in a frame.
const NUMBER: usize = 46;

/// Frame number `number` of `len` bytes, in turn: UDP to port 7, UDP to port 9, UDP to port 7 behind a VLAN tag, and
/// something that is no IP. `from` tells those of two senders apart.
pub fn frame(from: u8, number: u64, len: usize) -> Vec<u8> {
    assert!(len >= NUMBER + 8);
    let mut frame: Vec<u8> = (0..len).map(|n| (n as u64 * 7 + number) as u8).collect();
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, from]);
    let ip = match number % 4 {
        2 => {
            frame[12..18].copy_from_slice(&[0x81, 0, 0, 5, 8, 0]);
            18
        }
        3 => {
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
            return frame;
        }
        _ => {
            frame[12..14].copy_from_slice(&[8, 0]);
            14
        }
    };
    let total = (len - ip) as u16;
    let port: u16 = if number % 4 == 1 { 9 } else { 7 };
    let header =
        [0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    frame[ip..ip + 20].copy_from_slice(&header);
    let checksum = !header.chunks(2).fold(0u32, |sum, pair| {
        let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        (sum & 0xffff) + (sum >> 16)
    }) as u16;
    frame[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    let udp = total - 20;
    let (source, sum) = (1000u16.to_be_bytes(), [0, 0]);
    frame[ip + 20..ip + 28].copy_from_slice(&[source, port.to_be_bytes(), udp.to_be_bytes(), sum].concat());
    frame[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
    frame
}

/// `count` of them, of lengths from 60 to `longest`; both are among them.
pub fn frames(from: u8, count: u64, longest: usize) -> Vec<Vec<u8>> {
    let len = |number| match number {
        0 => 60,
        1 => longest,
        _ => 60 + (number as usize * 997) % (longest - 60),
    };
    (0..count).map(|number| frame(from, number, len(number))).collect()
}

/// Those to UDP port 7, without a VLAN tag: `udp port 7`, to tcpdump.
pub fn to_port_7(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().step_by(4).cloned().collect()
}

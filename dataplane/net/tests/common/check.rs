//! Whether segments are those of a frame: told field by field, from the frame and the segments alone.

use super::{ECN, TCPV4, TCPV6, UDP, get, put, sum_words};

/// Where a frame's headers are.
#[derive(Clone, Copy, Debug)]
pub struct Outline {
    pub v4: bool,
    pub tcp: bool,
    pub l2: usize,
    pub l4: usize,
    pub header: usize,
    /// The address that counts, if not that in the IPv6 header.
    pub destination: Option<usize>,
    /// How wrong the checksum was in the frame, and is in whatever becomes of it; 0 if it was right.
    pub error: u16,
}

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

impl Outline {
    /// The pseudo header's sum, for `len` bytes of TCP or UDP.
    pub fn pseudo_header(&self, frame: &[u8], len: usize) -> u16 {
        let ip = &frame[self.l2..];
        let (source, to) = if self.v4 { (&ip[12..16], &ip[16..20]) } else { (&ip[8..24], &ip[24..40]) };
        let to = self.destination.map_or(to, |at| &frame[at..at + 16]);
        let protocol = if self.tcp { 6 } else { 17 };
        sum_words(&[source, to, &(len as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat())
    }

    /// What is missing for the checksum in `l4` to be right, the headers being those of `frame`.
    pub fn error_of(&self, frame: &[u8], l4: &[u8]) -> u16 {
        let sums = [self.pseudo_header(frame, l4.len()).to_be_bytes(), sum_words(l4).to_be_bytes()];
        !sum_words(sums.as_flattened())
    }

    /// `segments` are what becomes of `frame`.
    ///
    /// # Panics
    /// If not.
    pub fn assert_segments(&self, frame: &[u8], gso_type: u8, gso_size: u16, segments: &[Vec<u8>]) {
        assert!(segments.len() > 1);
        match gso_type & !ECN {
            UDP => self.assert_fragments(frame, gso_size, segments),
            TCPV4 | TCPV6 => {
                let parts = self.assert_payload(frame, gso_size, segments);
                for (n, (segment, at)) in segments.iter().zip(parts).enumerate() {
                    let (first, last) = (n == 0, n + 1 == segments.len());
                    self.assert_tcp(frame, segment, at, first, last);
                    self.assert_rest(frame, segment, n as u16);
                }
            }
            _ => {
                self.assert_payload(frame, gso_size, segments);
                for (n, segment) in segments.iter().enumerate() {
                    assert_eq!(usize::from(get(segment, self.l4 + 4)), segment.len() - self.l4);
                    assert_ne!(get(segment, self.l4 + 6), 0);
                    self.assert_rest(frame, segment, n as u16);
                }
            }
        }
    }

    /// Together they carry what the frame does. Where each begins in it.
    fn assert_payload(&self, frame: &[u8], gso_size: u16, segments: &[Vec<u8>]) -> Vec<usize> {
        let mut all = Vec::new();
        let mut starts = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            let payload = &segment[self.header..];
            let full = payload.len() == usize::from(gso_size);
            assert!(full || n + 1 == segments.len() && (1..usize::from(gso_size)).contains(&payload.len()));
            starts.push(all.len());
            all.extend_from_slice(payload);
        }
        assert!(all == frame[self.header..]);
        starts
    }

    fn assert_tcp(&self, frame: &[u8], segment: &[u8], at: usize, first: bool, last: bool) {
        let sequence = |frame: &[u8]| {
            u32::from_be_bytes(frame[self.l4 + 4..self.l4 + 8].try_into().expect("four bytes"))
        };
        assert_eq!(sequence(segment), sequence(frame).wrapping_add(at as u32));
        let mut flags = frame[self.l4 + 13];
        flags &= if last { 0xff } else { !(FIN | PSH) };
        flags &= if first { 0xff } else { !CWR };
        assert_eq!(segment[self.l4 + 13], flags);
    }

    /// Lengths and checksums are right, and what need not differ does not.
    fn assert_rest(&self, frame: &[u8], segment: &[u8], number: u16) {
        let l4 = &segment[self.l4..];
        assert_eq!(self.error_of(segment, l4), self.error, "checksum of TCP or UDP");
        let mut expected = frame[..self.header].to_vec();
        self.put_ip(&mut expected, segment.len(), number);
        let differing = if self.tcp { vec![4..8, 13..14, 16..18] } else { vec![4..6, 6..8] };
        for part in differing {
            let part = self.l4 + part.start..self.l4 + part.end;
            expected[part.clone()].copy_from_slice(&segment[part]);
        }
        assert_eq!(segment[..self.header], expected);
    }

    /// The IP header of segment `number`, `len` bytes long with the Ethernet header.
    fn put_ip(&self, header: &mut [u8], len: usize, number: u16) {
        if !self.v4 {
            put(header, self.l2 + 4, (len - self.l2 - 40) as u16);
            return;
        }
        let id = get(header, self.l2 + 4);
        put(header, self.l2 + 2, (len - self.l2) as u16);
        put(header, self.l2 + 4, id.wrapping_add(number));
        put(header, self.l2 + 10, 0);
        let checksum = !sum_words(&header[self.l2..self.l4]);
        put(header, self.l2 + 10, checksum);
    }

    /// Put together again they are the datagram, with its checksum complete.
    fn assert_fragments(&self, frame: &[u8], gso_size: u16, segments: &[Vec<u8>]) {
        let unit = usize::from(gso_size) / 8 * 8;
        let mut datagram = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            let last = n + 1 == segments.len();
            let (header, offset, more) = self.fragment(frame, segment, &segments[0]);
            let part = &segment[header..];
            assert_eq!((offset, more), (datagram.len(), !last));
            assert!(part.len() == unit || last && part.len() < unit);
            datagram.extend_from_slice(part);
        }
        let mut expected = frame[self.l4..].to_vec();
        expected[6..8].copy_from_slice(&datagram[6..8]);
        assert!(datagram == expected);
        assert_eq!(self.error_of(frame, &datagram), self.error, "checksum of the datagram");
    }

    /// Length of its headers, where its payload belongs, and whether there are more; all else is as in `frame`, or
    /// as in the `first` fragment.
    fn fragment(&self, frame: &[u8], segment: &[u8], first: &[u8]) -> (usize, usize, bool) {
        let mut expected = frame[..self.l4].to_vec();
        if self.v4 {
            let word = get(segment, self.l2 + 6);
            put(&mut expected, self.l2 + 6, word);
            self.put_ip(&mut expected, segment.len(), 0);
            assert_eq!(segment[..self.l4], expected);
            assert_eq!(word & 0xc000, 0);
            return (self.l4, usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
        }
        let header = &segment[self.l4..self.l4 + 8];
        assert_eq!((header[0], header[1]), (17, 0));
        assert_eq!(header[4..], first[self.l4 + 4..self.l4 + 8]);
        self.put_ip(&mut expected, segment.len(), 0);
        let changed: Vec<usize> = (0..self.l4).filter(|at| segment[*at] != expected[*at]).collect();
        assert!(matches!(changed[..], [at] if expected[at] == 17 && segment[at] == 44), "{changed:?}");
        let word = get(header, 2);
        assert_eq!(word & 6, 0);
        (self.l4 + 8, usize::from(word & 0xfff8), word & 1 != 0)
    }
}

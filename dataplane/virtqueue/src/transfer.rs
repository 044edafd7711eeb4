//! Guest memory as the kernel wants it, to copy to and from it by itself: readv(2), sendmsg(2) and the like.

use nix::libc::iovec;

use crate::Segment;

/// The pieces of `segments` behind the first `skip` bytes, `most` bytes of them at most.
///
/// To name guest memory is safe; whoever hands it to the kernel promises that it is mapped: as long as the loan of
/// the segments lasts. Where a frontend has truncated the file behind it, the kernel says EFAULT, and raises no
/// SIGBUS.
pub fn iovecs(segments: &[Segment], skip: usize, most: usize) -> impl Iterator<Item = iovec> {
    let (mut skip, mut most) = (skip, most);
    let pieces = segments.iter().map(move |segment| {
        let front = skip.min(segment.len());
        let len = most.min(segment.len() - front);
        (skip, most) = (skip - front, most - len);
        iovec { iov_base: segment.ptr().wrapping_add(front).cast(), iov_len: len }
    });
    // Nothing is left of the header's pieces, and of those behind the end.
    pieces.skip_while(|piece| piece.iov_len == 0).take_while(|piece| piece.iov_len > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, RingDriver, SEAM, into, split::Driver};
    use crate::{SplitRing, Virtqueue};

    /// Pieces of 8, 4 and 1 bytes, and of 3 and 4 to both sides of a seam, one ring's loan.
    fn lent() -> (Driver, SplitRing) {
        let mut driver = Driver::new(8, 0);
        let bufs = [into(DATA, 8), into(DATA + 100, 4), into(DATA + 200, 1), into(SEAM - 3, 7)];
        driver.post_in(&[0, 1, 2, 3], &bufs);
        let mut ring = driver.start();
        assert_eq!(ring.offer(20, 12, 1).unwrap().room, 20);
        (driver, ring)
    }

    fn found(driver: &Driver, ring: &SplitRing, skip: usize, most: usize) -> Vec<(u64, usize)> {
        let start = |segment: &Segment| (segment.ptr().addr(), driver.guest.addr_of(segment));
        let starts: Vec<_> = ring.segments().iter().map(start).collect();
        let place = |piece: iovec| {
            let (host, guest) = starts.iter().rfind(|(host, _)| *host <= piece.iov_base.addr()).unwrap();
            (guest + (piece.iov_base.addr() - host) as u64, piece.iov_len)
        };
        iovecs(ring.segments(), skip, most).map(place).collect()
    }

    #[test]
    fn names_what_is_behind_the_header_and_no_more() {
        let (driver, ring) = lent();
        let all = [(DATA, 8), (DATA + 100, 4), (DATA + 200, 1), (SEAM - 3, 3), (SEAM, 4)];
        assert_eq!(found(&driver, &ring, 0, usize::MAX), all);
        assert_eq!(found(&driver, &ring, 8, 5), all[1..3]);
        assert_eq!(found(&driver, &ring, 10, 4), [(DATA + 102, 2), (DATA + 200, 1), (SEAM - 3, 1)]);
        assert_eq!(found(&driver, &ring, 12, 1), [(DATA + 200, 1)]);
        assert_eq!(found(&driver, &ring, 19, 9), [(SEAM + 3, 1)]);
        for (skip, most) in [(20, 1), (usize::MAX, usize::MAX), (3, 0)] {
            assert_eq!(found(&driver, &ring, skip, most), []);
        }
    }

    /// Every cut: as many bytes as asked for, or as there are, in order.
    #[test]
    fn every_cut_has_the_right_bytes() {
        let (driver, ring) = lent();
        let bytes = |pieces: &[(u64, usize)]| -> Vec<u64> {
            pieces.iter().flat_map(|(addr, len)| (0..*len as u64).map(move |i| addr + i)).collect()
        };
        let all = bytes(&found(&driver, &ring, 0, usize::MAX));
        for (skip, most) in (0..=21).flat_map(|skip| (0..=21).map(move |most| (skip, most))) {
            let cut: Vec<_> = all.iter().copied().skip(skip).take(most).collect();
            assert_eq!(bytes(&found(&driver, &ring, skip, most)), cut, "{most} behind {skip}");
        }
    }
}

//! Copies a frame's bytes. Most are few, and to call a function for them takes longer than the copy.
#![allow(unsafe_code)] // guest memory is only ever copied by raw pointer

/// Copies `n` bytes from `from` to `to`. The lengths that are most common are done without a call, by blocks that
/// overlap in the middle. Where `from` and `to` overlap (a guest's memory may be another's, too), what arrives is
/// any mix of the two.
///
/// # Safety
///
/// Both have `n` mapped bytes.
#[inline(always)]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, n: usize) {
    // SAFETY: blocks from the front end before `n`, those from the back start at 0 or later.
    unsafe {
        match n {
            33..=64 => {
                block::<32, 1>(from, to);
                block::<32, 1>(from.add(n - 32), to.add(n - 32));
            }
            65..=128 => {
                block::<32, 2>(from, to);
                block::<32, 2>(from.add(n - 64), to.add(n - 64));
            }
            17..=32 => {
                block::<16, 1>(from, to);
                block::<16, 1>(from.add(n - 16), to.add(n - 16));
            }
            8..=16 => {
                block::<8, 1>(from, to);
                block::<8, 1>(from.add(n - 8), to.add(n - 8));
            }
            _ => std::ptr::copy(from, to, n),
        }
    }
}

/// Copies `K` times `N` bytes.
#[inline(always)]
unsafe fn block<const N: usize, const K: usize>(from: *const u8, to: *mut u8) {
    for k in 0..K {
        // SAFETY: the caller's `K * N` bytes; arrays of bytes need no alignment.
        unsafe {
            let bytes = from.add(k * N).cast::<[u8; N]>().read();
            to.add(k * N).cast::<[u8; N]>().write(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::copy;

    #[test]
    fn every_length_is_copied_and_nothing_beside_it() {
        let from: Vec<u8> = (0..300u32).map(|i| (i * 7 + 1) as u8).collect();
        for n in 0..=280 {
            let mut to = vec![0; 300];
            // SAFETY: both have n bytes behind their tenth.
            unsafe { copy(from[10..].as_ptr(), to[10..].as_mut_ptr(), n) };
            assert_eq!(to[10..10 + n], from[10..10 + n]);
            assert!(to[..10].iter().chain(&to[10 + n..]).all(|byte| *byte == 0), "{n}");
        }
    }
}

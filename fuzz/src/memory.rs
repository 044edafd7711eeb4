//! A guest's memory: three regions, the first two adjacent for the guest, a hole before the third. Each is
//! a heap allocation of its own and exactly as long as the region, so that AddressSanitizer sees every
//! access that leaves it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Arc;

use virtqueue::{Memory, Region};

use crate::input::Input;

/// Where the first region is, for the guest.
const GUEST: u64 = 0x1_0000;
/// Where it is for the frontend; the others follow at this distance.
const USER: u64 = 0x7000_0000_0000;
const USER_STEP: u64 = 0x1_0000_0000;
/// Lengths of the regions behind the first.
const BEHIND: [usize; 2] = [0x1ff3, 0x801];
const HOLE: u64 = 0x1000;

/// A heap allocation, aligned as ring areas ask for.
struct Block {
    at: *mut u8,
    layout: Layout,
}

// SAFETY: plain memory without an owner's thread.
unsafe impl Send for Block {}
// SAFETY: shared references do nothing.
unsafe impl Sync for Block {}

impl Block {
    fn new(len: usize) -> Block {
        let layout = Layout::from_size_align(len, 16).expect("a sane length");
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() {
            handle_alloc_error(layout);
        }
        Block { at, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.at, self.layout) }
    }
}

/// A place in guest memory: region and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Region.
    pub region: usize,
    /// Offset in it.
    pub at: usize,
}

impl Spot {
    /// `by` bytes further.
    pub fn plus(self, by: usize) -> Spot {
        Spot { at: self.at + by, ..self }
    }
}

/// A contiguous range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub spot: Spot,
    /// Bytes.
    pub len: usize,
}

/// The memory, and what it should hold.
pub struct Guest {
    /// What the device is given.
    pub memory: Arc<Memory>,
    blocks: Vec<Arc<Block>>,
    starts: Vec<u64>,
    shadow: Vec<Vec<u8>>,
}

impl Guest {
    /// Memory with room for rings of `len` bytes in the first region. The others hold a pattern in which
    /// every place looks different.
    pub fn new(len: usize) -> Guest {
        let lens = [len.max(64), BEHIND[0], BEHIND[1]];
        let starts = vec![GUEST, GUEST + lens[0] as u64, GUEST + (lens[0] + lens[1]) as u64 + HOLE];
        let blocks: Vec<_> = lens.iter().map(|len| Arc::new(Block::new(*len))).collect();
        let regions = (0..lens.len()).map(|n| {
            let user = USER + n as u64 * USER_STEP;
            // SAFETY: the block is as long as the region, and the region keeps it.
            unsafe { Region::new(starts[n], user, lens[n] as u64, blocks[n].at, blocks[n].clone()) }
        });
        let memory = Arc::new(Memory::new(regions.collect()).expect("regions that do not overlap"));
        let shadow = lens.iter().map(|len| vec![0; *len]).collect();
        let mut guest = Guest { memory, blocks, starts, shadow };
        for (region, len) in lens.iter().enumerate().skip(1) {
            let byte = |at: usize| (at as u32 ^ (region as u32) << 13).wrapping_mul(0x9e37_79b1) >> 24;
            let pattern: Vec<u8> = (0..*len).map(|at| byte(at) as u8).collect();
            guest.write(Spot { region, at: 0 }, &pattern);
        }
        guest
    }

    /// Bytes in a region.
    pub fn len(&self, region: usize) -> usize {
        self.shadow[region].len()
    }

    /// Address for the guest.
    pub fn guest_addr(&self, spot: Spot) -> u64 {
        self.starts[spot.region] + spot.at as u64
    }

    /// Address in the frontend.
    pub fn user_addr(&self, spot: Spot) -> u64 {
        USER + spot.region as u64 * USER_STEP + spot.at as u64
    }

    /// Whether `len` bytes fit there.
    pub fn fits(&self, spot: Spot, len: usize) -> bool {
        spot.at <= self.len(spot.region) && len <= self.len(spot.region) - spot.at
    }

    /// What is there now.
    pub fn read<const N: usize>(&self, spot: Spot) -> [u8; N] {
        let mut bytes = [0; N];
        self.read_into(spot, &mut bytes);
        bytes
    }

    fn read_into(&self, spot: Spot, to: &mut [u8]) {
        assert!(self.fits(spot, to.len()), "the reference reads outside");
        // SAFETY: just checked.
        unsafe { self.blocks[spot.region].at.add(spot.at).copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
    }

    /// A word of a ring.
    pub fn u16(&self, spot: Spot) -> u16 {
        u16::from_le_bytes(self.read(spot))
    }

    /// A double word of a ring.
    pub fn u32(&self, spot: Spot) -> u32 {
        u32::from_le_bytes(self.read(spot))
    }

    /// Writes as the guest, as much as fits.
    pub fn write(&mut self, spot: Spot, bytes: &[u8]) {
        let room = self.len(spot.region).saturating_sub(spot.at);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return;
        }
        // SAFETY: cut to what fits.
        unsafe {
            self.blocks[spot.region].at.add(spot.at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
        self.expect(spot, bytes);
    }

    /// Notes what the device must have written.
    pub fn expect(&mut self, spot: Spot, bytes: &[u8]) {
        self.shadow[spot.region][spot.at..spot.at + bytes.len()].copy_from_slice(bytes);
    }

    /// Takes over what the device may write by itself.
    pub fn accept(&mut self, area: Piece) {
        let mut bytes = vec![0; area.len];
        self.read_into(area.spot, &mut bytes);
        self.expect(area.spot, &bytes);
    }

    /// Panics if the device has written anything that was not expected.
    pub fn check(&self) {
        for (region, shadow) in self.shadow.iter().enumerate() {
            // SAFETY: the block is as long as its shadow, and nobody writes to it meanwhile.
            let found = unsafe { std::slice::from_raw_parts(self.blocks[region].at, shadow.len()) };
            if found != shadow {
                let at = found.iter().zip(shadow).position(|(found, expected)| found != expected);
                let at = at.expect("a difference");
                panic!("region {region} at {at:#x}: {:#x} instead of {:#x}", found[at], shadow[at]);
            }
        }
    }

    /// Where `len` bytes at `addr` are, region by region; `None` if some are nowhere.
    pub fn pieces(&self, addr: u64, len: u32) -> Option<Vec<Piece>> {
        let (mut addr, mut left, mut pieces) = (u128::from(addr), len as usize, Vec::new());
        while left > 0 {
            let inside = |n: &usize| {
                let start = u128::from(self.starts[*n]);
                addr >= start && addr < start + self.len(*n) as u128
            };
            let region = (0..self.starts.len()).find(inside)?;
            let at = (addr - u128::from(self.starts[region])) as usize;
            let len = left.min(self.len(region) - at);
            pieces.push(Piece { spot: Spot { region, at }, len });
            addr += len as u128;
            left -= len;
        }
        Some(pieces)
    }

    /// The first bytes of `pieces`, at most `most`.
    pub fn content(&self, pieces: &[Piece], most: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for piece in pieces {
            let at = content.len();
            content.resize(at + piece.len.min(most - at), 0);
            self.read_into(piece.spot, &mut content[at..]);
        }
        content
    }
}

/// A guest address: mostly somewhere in memory, sometimes at an edge, in the hole, or anything.
pub fn address(input: &mut Input<'_>, guest: &Guest) -> u64 {
    let kind = input.u8();
    let region = usize::from(kind & 3);
    match kind >> 2 & 7 {
        0..=3 if region < 3 => {
            let at = usize::from(input.u16()) % guest.len(region);
            guest.guest_addr(Spot { region, at })
        }
        4 if region < 3 => {
            // Around its end.
            guest.guest_addr(Spot { region, at: guest.len(region) }).wrapping_add(input.u8() as i8 as u64)
        }
        5 => u64::MAX - u64::from(input.u8()),
        6 => GUEST.wrapping_add(input.u16() as i16 as u64),
        _ => input.u64(),
    }
}

/// A length: short, long, a number of descriptors, or anything.
pub fn length(input: &mut Input<'_>) -> u32 {
    let kind = input.u8();
    match kind & 7 {
        0..=2 => input.u8().into(),
        3 => u32::from(kind >> 3) * 16,
        4 => input.u16().into(),
        5 => u32::MAX - u32::from(input.u8()),
        6 => input.u32(),
        _ => u32::from(kind >> 3) + 1,
    }
}

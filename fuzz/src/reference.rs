//! What the two ring formats have in common for the reference: descriptors, chains, and what is asked of a
//! format.

use crate::input::Input;
use crate::memory::{Guest, Piece, Spot};

/// A buffer continues in the next descriptor.
pub const NEXT: u16 = 1;
/// The device writes to it.
pub const WRITE: u16 = 2;
/// It is a table of descriptors.
pub const INDIRECT: u16 = 4;
/// Descriptors that are walked for one chain, and chains for one packet.
pub const MAX_CHAIN: u32 = 1024;

/// How a ring was started.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Entries.
    pub size: u16,
    /// Descriptors; avail or driver events; used or device events.
    pub areas: [Spot; 3],
    /// Whether the device writes to the buffers.
    pub writable: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC.
    pub indirect: bool,
    /// One used entry stands for all that are published together (VIRTIO_F_IN_ORDER, and the guest sends).
    pub batched: bool,
}

/// A chain, as the reference sees it.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Head (split) or buffer id (packed).
    pub id: u16,
    /// Ring slots it takes up.
    pub slots: u16,
    /// Descriptors that had to be read.
    pub descriptors: u32,
    /// Bytes.
    pub len: u64,
    /// Where they are.
    pub pieces: Vec<Piece>,
    /// Where its indirect table is.
    pub table: Option<Piece>,
}

impl Chain {
    /// Adds a buffer; `None` if it cannot be part of a chain.
    pub fn add(&mut self, guest: &Guest, addr: u64, len: u32) -> Option<()> {
        self.pieces.extend(guest.pieces(addr, len)?);
        self.len += u64::from(len);
        (len > 0 && self.len <= u64::from(u32::MAX)).then_some(())
    }
}

/// What is next on a ring.
#[derive(Clone, Debug)]
pub enum Peek {
    /// Nothing is available.
    Nothing,
    /// Something that must be refused.
    Bad,
    /// A chain in order.
    Chain(Chain),
}

/// A ring format: the guest's moves on it, and the device's as they must look.
pub trait Format {
    /// Bit of the feature that selects it, or 0.
    const FEATURE: u64;
    /// Where the device is in the ring.
    type Position: Copy + Eq + std::fmt::Debug;

    /// Lengths and alignments of the areas.
    fn areas(size: u16) -> [(usize, usize); 3];
    /// Whether such a queue may be started.
    fn size_allowed(size: u16) -> bool;
    /// The ring base as a position, and the slots that a former owner has left in flight; `None` if it is no
    /// base.
    fn position(size: u16, base: u32) -> Option<(Self::Position, u16)>;
    /// A base somewhere near `at`, with nothing in flight.
    fn fresh_base(size: u16, at: u8) -> u32;
    /// A guest that goes on at `base`, too.
    fn new(setup: Setup, guest: &Guest, base: u32) -> Self;
    /// What the device may write by itself.
    fn device_areas(&self) -> Vec<Piece>;

    /// One of the guest's moves, selected by `kind`.
    fn guest_move(&mut self, kind: u8, guest: &mut Guest, input: &mut Input<'_>);

    /// What is next at `position`, with `busy` slots in flight or not published.
    fn peek(&self, guest: &Guest, position: Self::Position, busy: u16) -> Peek;
    /// The position behind `chain`.
    fn behind(&self, position: Self::Position, chain: &Chain) -> Self::Position;
    /// The ring base.
    fn base(&self, position: Self::Position) -> u32;
    /// What of `known` chains or slots is left when `chain` was taken.
    fn left(known: u16, chain: &Chain) -> u16;
    /// Panics unless `found` may be the answer to `available(wanted)` at `position`.
    fn check_available(&self, guest: &Guest, position: Self::Position, busy: u16, wanted: u16, found: u16);
    /// How many chains the guest offers behind `position`, if it has an index and keeps to the rules; any number
    /// where a chain says so itself.
    fn offered(&self, guest: &Guest, position: Self::Position, busy: u16) -> Option<u16>;
    /// How many chains a device sees that knew of `known` and wants `most`, where a chain does not say so itself
    /// (any number, then); `None` if the guest breaks the rules.
    fn seen(&self, guest: &Guest, position: Self::Position, busy: u16, known: u16, most: u16) -> Option<u16> {
        if known >= most { Some(known) } else { self.offered(guest, position, busy) }
    }
    /// What a device that knew of `known` knows of when it has looked, saw `seen` as above, and found so many.
    fn known_with(seen: u16, known: u16, found: u16) -> u16;
    /// Panics unless the device has just written this used entry, or keeps it for `check_published`.
    fn check_used(&mut self, guest: &Guest, chain: &Chain, len: u32);
    /// Panics unless the device has just shown all used entries written so far; `any`: whether there are some.
    fn check_published(&mut self, guest: &Guest, any: bool);
}

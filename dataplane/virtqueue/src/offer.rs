//! Receive buffers for a packet whose length is not known before it is there: chains that were looked at, and are
//! taken only once it is.

use crate::Token;
use crate::chain::MAX_CHAIN;

/// What a guest has posted for one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Chains.
    pub chains: u16,
    /// Their room in bytes, as far as 32 bits say.
    pub room: u32,
    /// Less room than was asked for, and the guest cannot add to it: these are as many chains as a packet may have,
    /// or all descriptors that there are.
    pub all: bool,
}

/// The chains of the last offer: head (split) or id (packed), descriptors, room.
pub(crate) struct Offered {
    chains: Box<[(u16, u16, u32)]>,
    count: u16,
}

impl Offered {
    /// For a ring of `size`.
    pub(crate) fn new(size: u16) -> Offered {
        Offered { chains: vec![(0, 0, 0); size.min(MAX_CHAIN).into()].into(), count: 0 }
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a chain; there are never more than a ring has descriptors, or [`MAX_CHAIN`].
    #[inline(always)]
    pub(crate) fn add(&mut self, token: &Token, room: u32) {
        self.chains[usize::from(self.count)] = (token.id, token.descs, room);
        self.count += 1;
    }

    /// The chain at `index`, and its room.
    #[inline(always)]
    pub(crate) fn chain(&self, index: u16) -> (Token, u32) {
        let (id, descs, room) = self.chains[usize::from(index)];
        (Token { id, descs }, room)
    }
}

//! Exception paths: taps that are a guest's way to the host itself, for as long as there is the guest.

use std::sync::Arc;

use port::counters::DropReason;
use port::punt::{Punt, PuntError};
use port::socket::SocketPair;

use super::{Control, Queues};
use crate::slow_path::PuntId;

/// The exception path of a guest, and the tap that it is.
pub(super) struct PuntPath {
    pub(super) punt: Arc<Punt>,
    tap: String,
    id: PuntId,
}

impl Control {
    /// Makes a tap the exception path of a guest, for as long as there is the guest.
    pub fn add_punt(
        &mut self,
        guest: &str,
        tap: &str,
        make: impl FnOnce(&SocketPair) -> Result<Arc<Punt>, PuntError>,
    ) -> Result<(), PuntError> {
        let Some(Queues::Socket(pairs)) = self.ports.get_mut(tap) else { return Ok(()) };
        let Some(pair) = pairs.pop() else { return Ok(()) };
        let punt = match make(&pair) {
            Ok(punt) => punt,
            Err(cause) => {
                pairs.push(pair);
                return Err(cause);
            }
        };
        let id = self.slow_path.serve_punt(punt.clone(), pair);
        self.ports.insert(tap.to_owned(), Queues::Punt(guest.to_owned()));
        self.punts.insert(guest.to_owned(), PuntPath { punt, tap: tap.to_owned(), id });
        Ok(())
    }

    /// The exception path of a guest, if it has one.
    pub fn punt(&self, guest: &str) -> Option<&Punt> {
        self.punts.get(guest).map(|path| &*path.punt)
    }

    /// The exception path that a tap is, if it is one.
    pub fn punt_by_tap(&self, tap: &str) -> Option<&Punt> {
        self.punt(self.punt_of(tap)?)
    }

    /// The guest whose exception path a tap is, if it is one.
    pub fn punt_of(&self, tap: &str) -> Option<&str> {
        match self.ports.get(tap) {
            Some(Queues::Punt(guest)) => Some(guest),
            _ => None,
        }
    }

    /// Makes the tap that was a guest's exception path an ordinary one again.
    pub(super) fn end_punt(&mut self, guest: &str) {
        let Some(PuntPath { punt, tap, id }) = self.punts.remove(guest) else { return };
        let (mut pair, unsent) = self.slow_path.take_punt(id);
        pair.drop_held(DropReason::WireRemoved);
        let unsent = unsent + punt.clear(DropReason::WireRemoved);
        if let Some(Queues::Guest(_, counters)) = self.ports.get(guest)
            && let Some(first) = counters.first()
        {
            first.pair.dropped(DropReason::WireRemoved, unsent);
            first.pair.dropped(DropReason::SocketError, punt.refused.get());
        }
        self.ports.insert(tap, Queues::Socket(vec![pair]));
    }
}

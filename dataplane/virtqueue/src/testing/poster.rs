//! A well-behaved guest on a ring of either format.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::RingConfig;

/// A ring format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Virtio 1.2, section 2.7.
    Split,
    /// Virtio 1.2, section 2.8.
    Packed,
}

/// A guest that knows which of its descriptors are free.
pub trait Poster {
    fn guest(&self) -> &Guest;

    /// The configuration of a ring over what is posted and not collected yet.
    fn config(&self) -> RingConfig;

    /// Posts a chain, whole or behind an indirect table written to `table`; `None` if there are too few
    /// free descriptors.
    fn post(&mut self, bufs: &[Buf], table: Option<u64>) -> Option<u16>;

    /// Takes back what is used: (what `post` returned, length).
    fn collect(&mut self) -> Vec<(u16, u32)>;

    /// Whether a guest that has just posted one chain would kick.
    fn would_kick(&self) -> bool;

    /// Calls since the last look; `expected` where there are no eventfds.
    fn calls(&self, expected: u64) -> u64;

    /// Errors since the last look; `expected` where there are no eventfds.
    fn errors(&self, expected: u64) -> u64;
}

/// Free descriptors or ids. IN_ORDER asks a guest to use its descriptors round and round (virtio 1.2, 2.7.9);
/// without it, those freed last come first.
struct Free {
    free: VecDeque<u16>,
    in_order: bool,
}

impl Free {
    fn new(size: u16, features: u64) -> Free {
        Free { free: (0..size).collect(), in_order: features & F_IN_ORDER != 0 }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u16>> {
        (count <= self.free.len()).then(|| self.free.drain(..count).collect())
    }

    fn put(&mut self, freed: impl IntoIterator<Item = u16>) {
        for id in freed {
            if self.in_order { self.free.push_back(id) } else { self.free.push_front(id) }
        }
    }
}

/// A guest with a ring of `size` entries.
pub fn poster(format: Format, size: u16, features: u64) -> Box<dyn Poster> {
    let free = Free::new(size, features);
    match format {
        Format::Split => {
            let driver = split::Driver::new(size, features);
            Box::new(Split { driver, free, posted: HashMap::new(), last: 0 })
        }
        Format::Packed => Box::new(Packed { driver: packed::Driver::new(size, features), free, last: 0 }),
    }
}

struct Split {
    driver: split::Driver,
    free: Free,
    /// Descriptors by head.
    posted: HashMap<u16, Vec<u16>>,
    /// Avail index before the last post.
    last: u16,
}

impl Poster for Split {
    fn guest(&self) -> &Guest {
        &self.driver.guest
    }

    fn config(&self) -> RingConfig {
        self.driver.config()
    }

    fn post(&mut self, bufs: &[Buf], table: Option<u64>) -> Option<u16> {
        let needed = if table.is_some() { 1 } else { bufs.len() };
        let slots = self.free.take(needed)?;
        self.last = self.driver.avail;
        match table {
            Some(at) => self.driver.post_in(&slots, &[self.driver.table(at, bufs)]),
            None => self.driver.post_in(&slots, bufs),
        }
        let head = slots[0];
        self.posted.insert(head, slots);
        Some(head)
    }

    fn collect(&mut self) -> Vec<(u16, u32)> {
        let back = |(head, len)| {
            self.free.put(self.posted.remove(&head).expect("a chain that is not posted was used"));
            (head, len)
        };
        self.driver.used().into_iter().map(back).collect()
    }

    fn would_kick(&self) -> bool {
        self.driver.would_kick(self.last.into())
    }

    fn calls(&self, expected: u64) -> u64 {
        self.driver.calls(expected)
    }

    fn errors(&self, expected: u64) -> u64 {
        self.driver.errors(expected)
    }
}

struct Packed {
    driver: packed::Driver,
    /// Free ids.
    free: Free,
    /// Descriptors made available before the last post.
    last: u64,
}

impl Poster for Packed {
    fn guest(&self) -> &Guest {
        &self.driver.guest
    }

    fn config(&self) -> RingConfig {
        self.driver.config()
    }

    fn post(&mut self, bufs: &[Buf], table: Option<u64>) -> Option<u16> {
        let needed = if table.is_some() { 1 } else { bufs.len() as u64 };
        if self.driver.avail - self.driver.seen + needed > u64::from(self.driver.size) {
            return None;
        }
        let id = self.free.take(1)?[0];
        self.last = self.driver.avail;
        match table {
            Some(at) => self.driver.post(id, &[self.driver.table(at, bufs)]),
            None => self.driver.post(id, bufs),
        }
        Some(id)
    }

    fn collect(&mut self) -> Vec<(u16, u32)> {
        let used = self.driver.used();
        self.free.put(used.iter().map(|(id, _)| *id));
        used
    }

    fn would_kick(&self) -> bool {
        self.driver.would_kick(self.last)
    }

    fn calls(&self, expected: u64) -> u64 {
        self.driver.calls(expected)
    }

    fn errors(&self, expected: u64) -> u64 {
        self.driver.errors(expected)
    }
}

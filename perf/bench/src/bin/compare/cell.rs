//! What is compared: kinds of traffic through kinds of virtqueues, and the other end for each.

use ringwire_bench::far::{Far, Nic, ORDINARY};
use ringwire_bench::frontend::Rings;
use serde::Serialize;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Traffic {
    /// The guest sends, the NIC drops.
    #[serde(rename = "guest->NIC")]
    FromGuest,
    /// The NIC makes packets up.
    #[serde(rename = "NIC->guest")]
    ToGuest,
    /// Both at once.
    #[serde(rename = "both ways")]
    Both,
    /// One guest sends to another.
    #[serde(rename = "guest->guest")]
    Between,
}

/// How long frames are, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Size {
    /// All the same.
    Bytes(u16),
    /// 64, 570 and 1518 bytes, 7:4:1.
    Imix,
    /// [`GSO_BYTES`] each, left to be cut.
    Gso,
}

/// As long as a guest's stack makes them.
pub const GSO_BYTES: u16 = 65226;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Which way.
    pub traffic: Traffic,
    /// Packed rings, or split ones.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// Frames.
    pub size: Size,
}

const SIZES: [Size; 10] = [
    Size::Bytes(64),
    Size::Bytes(128),
    Size::Bytes(256),
    Size::Bytes(512),
    Size::Bytes(1024),
    Size::Bytes(1280),
    Size::Bytes(1518),
    Size::Imix,
    Size::Bytes(9000),
    Size::Gso,
];
const QUICK_SIZES: [Size; 2] = [Size::Bytes(64), Size::Bytes(1518)];

impl Cell {
    /// Every cell, or those that tell most in a few minutes: those with the same other end next to each other.
    pub fn all(full: bool) -> Vec<Cell> {
        let sizes: &[Size] = if full { &SIZES } else { &QUICK_SIZES };
        let mut cells = Vec::new();
        for traffic in [Traffic::FromGuest, Traffic::ToGuest, Traffic::Both, Traffic::Between] {
            for size in sizes {
                for packed in [false, true] {
                    for (mergeable, in_order) in [(false, false), (true, false), (false, true)] {
                        cells.push(Cell { traffic, packed, mergeable, in_order, size: *size });
                    }
                }
            }
        }
        cells.retain(|cell| cell.possible() && (full || cell.telling()));
        cells
    }

    /// Mergeable buffers make no difference to what the guest sends. net_null gives out nothing that is longer than
    /// an mbuf, and two guests with an MTU of 1500 send each other nothing that is, but what is left to be cut. To cut
    /// it for a NIC is a matter of its own (`perf/offloads`): testpmd would not.
    fn possible(&self) -> bool {
        match self.traffic {
            Traffic::Between if self.size == Size::Gso => true,
            _ if self.size == Size::Gso => false,
            Traffic::FromGuest => !self.mergeable,
            _ => !matches!(self.size, Size::Bytes(bytes) if bytes > ORDINARY),
        }
    }

    /// In the quick subset: a plain guest, and mergeable buffers in both directions at once, as Linux guests have.
    fn telling(&self) -> bool {
        !self.in_order && self.mergeable == (self.traffic == Traffic::Both)
    }

    /// As it is called in tables.
    pub fn name(&self) -> String {
        let traffic = match self.traffic {
            Traffic::FromGuest => "guest->NIC",
            Traffic::ToGuest => "NIC->guest",
            Traffic::Both => "both ways",
            Traffic::Between => "guest->guest",
        };
        let size = match self.size {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Imix => "IMIX".into(),
            Size::Gso => "64K-GSO".into(),
        };
        let mut name = format!("{traffic} {size} {}", if self.packed { "packed" } else { "split" });
        for (has, word) in [(self.mergeable, " mergeable"), (self.in_order, " in-order")] {
            name += if has { word } else { "" };
        }
        name
    }

    /// What is at the other end.
    pub fn far(&self) -> Far {
        Far::Nic(match (self.traffic, self.size) {
            (Traffic::Between, _) => return Far::Guest,
            (Traffic::FromGuest, Size::Bytes(bytes)) => Nic::Sink { longest: bytes.max(ORDINARY) },
            (Traffic::FromGuest, Size::Imix | Size::Gso) => Nic::Sink { longest: ORDINARY },
            (_, Size::Bytes(bytes)) => Nic::Source { bytes },
            (_, Size::Imix | Size::Gso) => Nic::Imix,
        })
    }

    /// What the guest negotiates.
    pub fn rings(&self) -> Rings {
        Rings { packed: self.packed, mergeable: self.mergeable, in_order: self.in_order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_subset_is_small_and_part_of_the_full_table() {
        let (quick, full) = (Cell::all(false), Cell::all(true));
        assert_eq!(quick.len(), 16);
        assert!(quick.iter().all(|cell| full.contains(cell)));
        let mut names: Vec<String> = full.iter().map(Cell::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), full.len());
    }

    #[test]
    fn other_ends_are_not_changed_to_and_fro() {
        for cells in [Cell::all(false), Cell::all(true)] {
            let mut fars: Vec<(Traffic, Far)> = cells.iter().map(|cell| (cell.traffic, cell.far())).collect();
            fars.dedup();
            for (at, far) in fars.iter().enumerate().filter(|(_, far)| far.0 != Traffic::FromGuest) {
                assert!(!fars[..at].contains(far), "{far:?}");
            }
        }
    }
}

//! What is compared: kinds of traffic through kinds of virtqueues, and the NIC's stand-in for each.
//!
//! Not yet here: guest to guest, and segments of 64 KiB, which ringwire does not forward yet.

use std::path::Path;

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
}

/// How long frames are, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Size {
    /// All the same.
    Bytes(u16),
    /// 64, 570 and 1518 bytes, 7:4:1.
    Imix,
}

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

/// What stands in for the NIC, the same for every backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// net_null that frees what it is sent, and gives out nothing.
    Sink {
        /// Longest frame it takes.
        longest: u16,
    },
    /// net_null that gives out packets of one length without end.
    Source {
        /// That length.
        bytes: u16,
    },
    /// net_pcap that repeats IMIX without end: net_null knows one length only.
    Imix,
}

const SIZES: [Size; 9] = [
    Size::Bytes(64),
    Size::Bytes(128),
    Size::Bytes(256),
    Size::Bytes(512),
    Size::Bytes(1024),
    Size::Bytes(1280),
    Size::Bytes(1518),
    Size::Imix,
    Size::Bytes(9000),
];
const QUICK_SIZES: [Size; 2] = [Size::Bytes(64), Size::Bytes(1518)];
/// Longest frame with an MTU of 1500, and what a NIC's stand-in puts into one mbuf.
const ORDINARY: u16 = 1518;

impl Cell {
    /// Every cell, or those that tell most in a few minutes: those with the same stand-in next to each other.
    pub fn all(full: bool) -> Vec<Cell> {
        let sizes: &[Size] = if full { &SIZES } else { &QUICK_SIZES };
        let mut cells = Vec::new();
        for traffic in [Traffic::FromGuest, Traffic::ToGuest, Traffic::Both] {
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
    /// an mbuf.
    fn possible(&self) -> bool {
        match self.traffic {
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
        };
        let size = match self.size {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Imix => "IMIX".into(),
        };
        let mut name = format!("{traffic} {size} {}", if self.packed { "packed" } else { "split" });
        for (has, word) in [(self.mergeable, " mergeable"), (self.in_order, " in-order")] {
            name += if has { word } else { "" };
        }
        name
    }

    /// The stand-in it needs.
    pub fn nic(&self) -> Nic {
        match (self.traffic, self.size) {
            (Traffic::FromGuest, Size::Bytes(bytes)) => Nic::Sink { longest: bytes.max(ORDINARY) },
            (Traffic::FromGuest, Size::Imix) => Nic::Sink { longest: ORDINARY },
            (_, Size::Bytes(bytes)) => Nic::Source { bytes },
            (_, Size::Imix) => Nic::Imix,
        }
    }
}

impl Nic {
    /// DPDK's devargs. Files it needs are in `directory`: see [`crate::imix`].
    pub fn devargs(self, directory: &Path) -> String {
        match self {
            Nic::Sink { .. } => "net_null0,no-rx=1".into(),
            Nic::Source { bytes } => format!("net_null0,size={bytes}"),
            Nic::Imix => {
                let file = directory.join(crate::imix::FILE);
                format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display())
            }
        }
    }

    /// The MTU it needs, where it is not 1500.
    pub fn mtu(self) -> Option<u16> {
        match self {
            Nic::Sink { longest } if longest > ORDINARY => Some(longest),
            _ => None,
        }
    }

    /// Bytes of the frames it gives out, on average; 0 if none.
    pub fn gives(self) -> u16 {
        match self {
            Nic::Sink { .. } => 0,
            Nic::Source { bytes } => bytes,
            Nic::Imix => crate::imix::MEAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_subset_is_small_and_part_of_the_full_table() {
        let (quick, full) = (Cell::all(false), Cell::all(true));
        assert_eq!(quick.len(), 12);
        assert!(quick.iter().all(|cell| full.contains(cell)));
        let mut names: Vec<String> = full.iter().map(Cell::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), full.len());
    }

    #[test]
    fn stand_ins_are_not_changed_to_and_fro() {
        for cells in [Cell::all(false), Cell::all(true)] {
            let mut nics: Vec<(Traffic, Nic)> = cells.iter().map(|cell| (cell.traffic, cell.nic())).collect();
            nics.dedup();
            for (at, nic) in nics.iter().enumerate().filter(|(_, nic)| nic.0 != Traffic::FromGuest) {
                assert!(!nics[..at].contains(nic), "{nic:?}");
            }
        }
    }
}

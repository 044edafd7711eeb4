//! What a backend sends a guest's packets to, the same for every backend: a NIC's stand-in, or another guest.

use std::path::Path;

/// Longest frame with an MTU of 1500, and what a NIC's stand-in puts into one mbuf.
pub const ORDINARY: u16 = 1518;

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// A NIC's stand-in.
    Nic(Nic),
    /// A second guest of the same backend.
    Guest,
}

/// What stands in for a NIC.
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
    /// net_ring that gives out what it was sent.
    Returns,
}

impl Nic {
    /// DPDK's devargs of the `at`-th. Files it needs are in `directory`: see [`crate::imix`].
    pub fn devargs(self, at: usize, directory: &Path) -> String {
        match self {
            Nic::Sink { .. } => format!("net_null{at},no-rx=1"),
            Nic::Source { bytes } => format!("net_null{at},size={bytes}"),
            Nic::Imix => {
                let file = directory.join(crate::imix::FILE);
                format!("net_pcap{at},rx_pcap={},infinite_rx=1", file.display())
            }
            Nic::Returns => format!("net_ring{at}"),
        }
    }

    /// The MTU it needs, where it is not 1500.
    pub fn mtu(self) -> Option<u16> {
        match self {
            Nic::Sink { longest } if longest > ORDINARY => Some(longest),
            _ => None,
        }
    }

    /// Bytes of the frames it makes up, on average; 0 if it makes up none.
    pub fn gives(self) -> u16 {
        match self {
            Nic::Sink { .. } | Nic::Returns => 0,
            Nic::Source { bytes } => bytes,
            Nic::Imix => crate::imix::MEAN,
        }
    }
}

//! What has to arrive of each frame, by where it comes from and where it goes to.

use serde_json::Value;

use crate::cells::{Cell, JUMBO, Kind, Size};
use crate::stage::{Backend, Taker};

/// What has to arrive of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The frame as it was sent, with the header that says what is left to do.
    Same,
    /// Finished frames behind a header of zeroes.
    Plain,
    /// Finished frames.
    Cut,
    /// At least one frame with segments left to cut.
    Long,
    /// Frames of which a checksum is left to complete, at most.
    Sums,
    /// Whatever is right.
    Any,
    /// Nothing is sent, and why.
    Nothing(&'static str),
}

/// What testpmd's TSO is to cut into, in bytes: one size for all.
pub const TESTPMD_TSO: usize = 1428;

const NOT_UDP: Want = Want::Nothing("UFO is for UDP");
const WRONG_OFFSETS: Want =
    Want::Nothing("Linux counts the length of extension headers into the offset of each fragment");
/// It sets PACKET_FANOUT_FLAG_DEFRAG.
const PUT_TOGETHER: Want = Want::Nothing(
    "DPDK's af_packet driver has the kernel put IPv4 fragments together, and cuts what is too long then",
);
const NOT_JUMBO: Want =
    Want::Nothing("shorter frames only (net_tap: 1522 bytes; net_af_packet, as set up here: framesz=2048)");

impl Want {
    /// Whether anything is sent.
    pub fn is_asked(self) -> bool {
        !matches!(self, Want::Nothing(_))
    }

    /// What the judge calls it.
    pub fn name(self) -> Value {
        let name = match self {
            Want::Same => "same",
            Want::Plain => "plain",
            Want::Cut => "cut",
            Want::Long => "long",
            Want::Sums => "sums",
            Want::Any => "any",
            Want::Nothing(_) => return Value::Null,
        };
        name.into()
    }

    /// Behind a backend, of what a guest leaves to the device.
    pub fn behind(backend: Backend, cell: &Cell) -> Want {
        match (backend, cell.size, cell.kind) {
            (_, Size::Fragments, kind) if kind.is_tcp() => NOT_UDP,
            (_, Size::Jumbo | Size::CutJumbo, _) if backend.mtu() < JUMBO => NOT_JUMBO,
            (Backend::Tap | Backend::Raw, Size::Fragments, Kind::ExtUdp6) => WRONG_OFFSETS,
            // Linux takes them whole, and cuts them where they leave it.
            (Backend::Tap | Backend::Raw, Size::Fragments, _) => Want::Cut,
            (Backend::Tap | Backend::Raw, _, _) => Want::Same,
            _ => Want::Cut,
        }
    }

    /// The same of what testpmd offloads.
    pub fn of_testpmd(backend: Backend, cell: &Cell) -> Want {
        match (cell.kind, cell.size) {
            (Kind::ExtTcp6 | Kind::ExtUdp6, _) => Want::Nothing("testpmd looks behind no extension headers"),
            (_, Size::CutJumbo | Size::Fragments) => {
                Want::Nothing("testpmd knows one size of TSO, and no UFO")
            }
            (kind, Size::Mtu | Size::Jumbo) if kind.is_tcp() && kind.payload(cell.size) > TESTPMD_TSO => {
                Want::Nothing("testpmd has all TCP cut that is longer than what it cuts into")
            }
            (kind, Size::Cut) if !kind.is_tcp() => Want::Nothing("testpmd knows no USO"),
            _ => Want::behind(backend, cell),
        }
    }

    /// At another guest.
    pub fn of(taker: Taker, cell: &Cell) -> Want {
        match taker {
            _ if cell.size == Size::Fragments && cell.kind.is_tcp() => NOT_UDP,
            Taker::Whole | Taker::Merged => Want::Same,
            Taker::Sums => Want::Sums,
            Taker::Nothing => Want::Plain,
        }
    }

    /// At a guest, of what the kernel forwards through `backend`.
    pub fn of_forwarded(backend: Backend, taker: Taker, cell: &Cell) -> Want {
        match (cell.size, cell.kind) {
            (Size::Fragments, Kind::ExtUdp6) => WRONG_OFFSETS,
            (Size::Fragments, kind) if kind.is_tcp() => NOT_UDP,
            (Size::Jumbo | Size::CutJumbo, _) if backend.mtu() < JUMBO => NOT_JUMBO,
            (Size::Fragments, Kind::Udp4) if backend == Backend::AfPacket => PUT_TOGETHER,
            _ if taker == Taker::Nothing => Want::Plain,
            _ if taker == Taker::Sums => Want::Sums,
            // It cuts these itself, and everything for who takes nothing.
            (Size::Fragments, _) => Want::Cut,
            _ if backend == Backend::AfPacket => Want::Cut,
            _ => Want::Same,
        }
    }

    /// At a guest, of what the kernel leaves to who is behind `backend`.
    pub fn of_kernel(backend: Backend, taker: Taker, vlans: bool, cell: &Cell) -> Want {
        match (cell.kind, cell.size) {
            (Kind::VlanTcp4, _) if !vlans => Want::Nothing("this kernel has no VLAN interfaces"),
            (kind, Size::Fragments) if kind.is_tcp() => Want::Nothing("Linux sends no TCP in fragments"),
            (Kind::ExtUdp6, Size::Cut | Size::CutJumbo) => {
                Want::Nothing("Linux has no UDP_SEGMENT behind extension headers")
            }
            (_, Size::Jumbo | Size::CutJumbo) if backend.mtu() < JUMBO => NOT_JUMBO,
            (Kind::Udp4, Size::Fragments) if backend == Backend::AfPacket => PUT_TOGETHER,
            _ if taker == Taker::Nothing => Want::Plain,
            _ if taker == Taker::Sums => Want::Sums,
            _ if matches!(backend, Backend::AfPacket | Backend::NetTap) => Want::Cut,
            (kind, Size::Cut | Size::CutJumbo) if kind != Kind::ExtTcp6 => Want::Long,
            _ => Want::Any,
        }
    }
}

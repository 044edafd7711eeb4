//! What is counted for each queue pair, and for each worker.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One queue pair of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePair {
    /// Pair number.
    pub index: u16,
    /// What entered the datapath here; `held` is what of that waits for room at the other end.
    pub rx: Passed,
    /// What left it here; `held` is what came from the other end and waits in this pair to leave.
    pub tx: Passed,
    /// Packets that entered here and were dropped, by reason; reasons without any are left out.
    pub drops: BTreeMap<String, u64>,
}

/// What passed a queue pair in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Passed {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, without virtio-net header and frame check sequence.
    pub bytes: u64,
    /// Bursts they came in, none of them empty: `packets` by `bursts` is how full one was.
    pub bursts: u64,
    /// Packets by size on the wire.
    pub sizes: Sizes,
    /// Packets that wait for room.
    pub held: u64,
    /// For how long any packets have waited so, in nanoseconds.
    pub held_ns: u64,
}

/// Packets by the octets that each has on the wire, its frame check sequence (4 octets, which the datapath never sees)
/// included: the classes of RFC 2819, and one for those that are longer. What is too short for the wire counts as 64
/// octets, to which a NIC fills it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sizes {
    /// 64 octets.
    pub octets_64: u64,
    /// 65 to 127.
    pub octets_65_to_127: u64,
    /// 128 to 255.
    pub octets_128_to_255: u64,
    /// 256 to 511.
    pub octets_256_to_511: u64,
    /// 512 to 1023.
    pub octets_512_to_1023: u64,
    /// 1024 to 1518.
    pub octets_1024_to_1518: u64,
    /// 1519 and more.
    pub octets_1519_up: u64,
}

/// How many classes of sizes there are.
pub const SIZE_CLASSES: usize = 7;

impl Sizes {
    /// The last size of each class but the last one, which has no end.
    pub const LAST: [u32; SIZE_CLASSES - 1] = [64, 127, 255, 511, 1023, 1518];
    /// What each class is called.
    pub const NAMES: [&str; SIZE_CLASSES] =
        ["64", "65-127", "128-255", "256-511", "512-1023", "1024-1518", "1519+"];

    /// All classes, the shortest first.
    pub fn classes(&self) -> [u64; SIZE_CLASSES] {
        [
            self.octets_64,
            self.octets_65_to_127,
            self.octets_128_to_255,
            self.octets_256_to_511,
            self.octets_512_to_1023,
            self.octets_1024_to_1518,
            self.octets_1519_up,
        ]
    }
}

impl From<[u64; SIZE_CLASSES]> for Sizes {
    fn from(classes: [u64; SIZE_CLASSES]) -> Sizes {
        let [first, second, third, fourth, fifth, sixth, last] = classes;
        Sizes {
            octets_64: first,
            octets_65_to_127: second,
            octets_128_to_255: third,
            octets_256_to_511: fourth,
            octets_512_to_1023: fifth,
            octets_1024_to_1518: sixth,
            octets_1519_up: last,
        }
    }
}

/// What a worker has done with its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerTime {
    /// Packets that it has moved from one port to another, dropped ones included.
    pub packets: u64,
    /// Cycles of the time-stamp counter in poll rounds that moved at least one packet.
    pub busy_cycles: u64,
    /// Those in rounds that found nothing to do. Sleep is neither.
    pub idle_cycles: u64,
    /// Cycles in a second.
    pub cycles_per_second: u64,
}

/// How busy one worker was. `ringwired` fills this in from two samples, as it does [`Rates`](crate::Rates).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerRates {
    /// Share of the poll rounds that moved at least one packet, 0 to 100.
    pub busy_percent: f64,
    /// Poll rounds a second; 0 means that the worker is stuck.
    pub rounds_per_second: f64,
    /// Share of the time that was spent in rounds that moved at least one packet, 0 to 100.
    #[serde(default)]
    pub utilisation_percent: f64,
    /// Packets moved a second.
    #[serde(default)]
    pub pps: f64,
    /// Cycles of the time-stamp counter in such rounds for each packet; absent when none moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles_per_packet: Option<f64>,
}

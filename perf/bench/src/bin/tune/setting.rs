//! What can be set, and to what.

use std::fmt;

use clap::ValueEnum;
use ringwire_bench::frontend::Rings;
use serde::Serialize;

use crate::target::Target;

/// Something that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// Split or packed rings, and whether descriptors are used in order: the guest's.
    Format,
    /// Entries of each virtqueue: the guest's.
    RingSize,
    /// Packets that the guest hands over at a time.
    Burst,
    /// Queue pairs, of the guest and the NIC.
    Queues,
    /// Cores with a worker.
    Workers,
    /// Packets that a worker moves at a time: so far ahead of their use are buffers prefetched.
    WorkerBurst,
    /// What a worker does when there is nothing to do.
    Idle,
}

impl Knob {
    /// All, in the order in which they are swept: what the guest decides comes first.
    pub const ALL: [Knob; 7] = [
        Knob::Format,
        Knob::RingSize,
        Knob::Burst,
        Knob::Queues,
        Knob::Workers,
        Knob::WorkerBurst,
        Knob::Idle,
    ];

    /// Settings that differ from `from` in this alone.
    pub fn values(self, cores: &[usize], from: Setting) -> Vec<Setting> {
        let sizes = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
        match self {
            Knob::Format => [(false, false), (false, true), (true, false), (true, true)]
                .map(|(packed, in_order)| Setting { packed, in_order, ..from })
                .into(),
            Knob::RingSize => {
                sizes[5..].iter().map(|ring_size| Setting { ring_size: *ring_size, ..from }).collect()
            }
            Knob::Burst => sizes[..5].iter().map(|burst| Setting { burst: *burst, ..from }).collect(),
            Knob::Queues => {
                let most = (2 * cores.len() as u16).max(2);
                let counts = sizes_from_one().take_while(|queues| *queues <= most);
                counts.map(|queues| Setting { queues, ..from }).collect()
            }
            // A queue has one owner: more workers than queues have nothing to do.
            Knob::Workers => {
                let counts = sizes_from_one().take_while(|workers| usize::from(*workers) <= cores.len());
                counts.map(|workers| Setting { workers, queues: from.queues.max(workers), ..from }).collect()
            }
            Knob::WorkerBurst => {
                [64, 32, 16, 8, 4].map(|worker_burst| Setting { worker_burst, ..from }).into()
            }
            Knob::Idle => [false, true].map(|adaptive| Setting { adaptive, ..from }).into(),
        }
    }

    /// Its value in a setting.
    pub fn value(self, setting: Setting) -> String {
        match self {
            Knob::Format => setting.format(),
            Knob::RingSize => setting.ring_size.to_string(),
            Knob::Burst => setting.burst.to_string(),
            Knob::Queues => setting.queues.to_string(),
            Knob::Workers => setting.workers.to_string(),
            Knob::WorkerBurst => setting.worker_burst.to_string(),
            Knob::Idle => setting.idle().to_owned(),
        }
    }
}

/// 1, 2, 4, ...
fn sizes_from_one() -> impl Iterator<Item = u16> {
    (0..8).map(|power| 1 << power)
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Knob::Format => "format",
            Knob::RingSize => "ring-size",
            Knob::Burst => "burst",
            Knob::Queues => "queues",
            Knob::Workers => "workers",
            Knob::WorkerBurst => "worker-burst",
            Knob::Idle => "idle",
        })
    }
}

/// A value for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Packed rings.
    pub packed: bool,
    /// VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// Entries of a virtqueue.
    pub ring_size: u16,
    /// Packets at a time.
    pub burst: u16,
    /// Queue pairs.
    pub queues: u16,
    /// Workers.
    pub workers: u16,
    /// `burst` under `[datapath]`.
    pub worker_burst: u16,
    /// `idle = "adaptive"`.
    pub adaptive: bool,
}

impl Setting {
    /// Where the sweep begins: as QEMU's guests are, and the configuration says.
    pub fn first(target: &Target) -> Setting {
        Setting {
            packed: false,
            in_order: false,
            ring_size: 256,
            burst: 32,
            queues: target.queues(),
            workers: 1,
            worker_burst: 64,
            adaptive: false,
        }
    }

    /// What the guest negotiates.
    pub fn rings(self) -> Rings {
        Rings { packed: self.packed, mergeable: false, in_order: self.in_order }
    }

    /// Its rings in words.
    pub fn format(self) -> String {
        let format = if self.packed { "packed" } else { "split" };
        if self.in_order { format!("{format} in-order") } else { format.into() }
    }

    /// As in ringwired's configuration.
    pub fn idle(self) -> &'static str {
        if self.adaptive { "adaptive" } else { "poll" }
    }
}

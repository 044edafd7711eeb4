//! `perf/rings/run`: nanoseconds and instructions a packet of ringwire's rings and of rust-vmm's `virtio-queue`, which
//! do the same work on the same guest memory.
//!
//! ```text
//! guest (driver's side, not measured) <-> ours, theirs (a burst: measured) <-> packets (private buffers)
//! ```
//!
//! Instructions are counted by callgrind, which runs this program again for each number.

mod callgrind;
mod guest;
mod ours;
mod theirs;

use std::sync::Arc;
use std::time::Instant;

use guest::{ENTRIES, Format, Guest, Path, Work};
use vm_memory::GuestMemoryMmap;

/// Packets of a burst.
const BURST: usize = 32;
/// Bytes of a virtio-net header (VERSION_1).
const HEADER: usize = 12;
/// A header that says that the packet is in one buffer.
const ONE_BUFFER: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// How often both sides are timed, in turns.
const ALTERNATIONS: usize = 11;
/// Laps of the ring in each: half a million packets.
const LAPS: u32 = 2000;

/// The table's rows.
const ROWS: [Work; 8] = [
    Work { path: Path::Dequeue, format: Format::Split, frame: 64 },
    Work { path: Path::Dequeue, format: Format::Split, frame: 1518 },
    Work { path: Path::Dequeue, format: Format::Packed, frame: 64 },
    Work { path: Path::Dequeue, format: Format::Packed, frame: 1518 },
    Work { path: Path::Enqueue, format: Format::Split, frame: 64 },
    Work { path: Path::Enqueue, format: Format::Split, frame: 1518 },
    Work { path: Path::Enqueue, format: Format::Packed, frame: 64 },
    Work { path: Path::Enqueue, format: Format::Packed, frame: 1518 },
];

/// Where packets come from or go to: as long as the longest frame, and separate cache lines.
type Packets = [[u8; 1536]; BURST];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// ringwire's `virtqueue`.
    Ours,
    /// rust-vmm's `virtio-queue`.
    Theirs,
}

/// The measured side of a ring.
trait Device {
    /// Moves up to a burst of packets, and publishes them. How many.
    fn device_burst(&mut self, packets: &mut Packets) -> usize;
}

/// A side at work: its device, and the guest it serves.
struct Scene {
    guest: Guest,
    device: Box<dyn Device>,
    packets: Box<Packets>,
}

impl Scene {
    fn new(side: Side, work: Work, memory: &Arc<GuestMemoryMmap>) -> Scene {
        // virtio-queue has no packed ring.
        let work = if side == Side::Theirs { Work { format: Format::Split, ..work } } else { work };
        let guest = Guest::new(memory.clone(), work);
        let device = match side {
            Side::Ours => ours::device(guest.ring(), work.path, work.frame),
            Side::Theirs => theirs::device(guest.queue(), memory.clone(), work.path, work.frame),
        };
        let mut packets = Box::new([[0; 1536]; BURST]);
        packets.iter_mut().flatten().zip(0u32..).for_each(|(byte, at)| *byte = (at * 11) as u8);
        Scene { guest, device, packets }
    }

    /// So many laps: the guest posts all it has, and the device works it off in full bursts. Nanoseconds a packet
    /// that the device took in each; the guest does not count.
    fn run(&mut self, laps: u32) -> Vec<f64> {
        let lap = |_| {
            self.guest.post();
            let mut moved = 0;
            let start = Instant::now();
            for _ in 0..usize::from(ENTRIES) / BURST {
                moved += self.device.device_burst(&mut self.packets);
            }
            let taken = start.elapsed();
            assert_eq!(moved, usize::from(ENTRIES));
            taken.as_nanos() as f64 / f64::from(ENTRIES)
        };
        let times = (0..laps).map(lap).collect();
        self.guest.check_content(&self.packets);
        times
    }
}

/// Nanoseconds a packet: one number for each alternation.
fn time(work: Work, memory: &Arc<GuestMemoryMmap>) -> [Vec<f64>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ALTERNATIONS {
        for (side, times) in [Side::Ours, Side::Theirs].into_iter().zip(&mut times) {
            let mut scene = Scene::new(side, work, memory);
            scene.run(LAPS / 20);
            // Not the mean: laps in which something else had the core do not count.
            times.push(median(&scene.run(LAPS)));
        }
    }
    times
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// "median (lowest-highest)".
fn spread(numbers: &[f64]) -> String {
    let lowest = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = numbers.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({lowest:.1}-{highest:.1})", median(numbers))
}

/// One row of the table.
fn row(number: usize, memory: &Arc<GuestMemoryMmap>) -> String {
    let work = ROWS[number];
    let [ours, theirs] = time(work, memory);
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
    let [our_count, their_count] =
        [Side::Ours, Side::Theirs].map(|side| callgrind::instructions(side, number));
    format!(
        "{:<8} {:<7} {:>5} | {:>18} {:>18} {:>16} | {our_count:>6.1} {their_count:>12.1} {:>6.2}",
        format!("{:?}", work.path).to_lowercase(),
        format!("{:?}", work.format).to_lowercase(),
        work.frame,
        spread(&ours),
        spread(&theirs),
        spread(&ratios),
        their_count / our_count,
    )
}

fn main() {
    if let [_, side, row] = &std::env::args().collect::<Vec<_>>()[..] {
        return callgrind::run(side, row);
    }
    // The last core: interrupts and other programs prefer the first.
    let core = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
    if !core.is_some_and(core_affinity::set_for_current) {
        eprintln!("warning: not pinned to a core: times will spread");
    }
    println!(
        "{:22} | {:^54} | {:^26}",
        "", "nanoseconds a packet: median (lowest-highest)", "instructions a packet"
    );
    println!(
        "{:<8} {:<7} {:>5} | {:>18} {:>18} {:>16} | {:>6} {:>12} {:>6}",
        "path", "format", "bytes", "ours", "virtio-queue", "ratio", "ours", "virtio-queue", "ratio"
    );
    let memory = Guest::memory();
    for number in 0..ROWS.len() {
        println!("{}", row(number, &memory));
    }
    println!("virtio-queue has no packed ring: those rows compare with its split ring");
}

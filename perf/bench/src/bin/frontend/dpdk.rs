//! testpmd with DPDK's virtio-user, as a frontend.

use std::time::Duration;

use ringwire_bench::Failure;
use ringwire_bench::backend::{Backend, dpdk_memory, words};
use ringwire_bench::frontend::Rings;
use ringwire_bench::place::Place;
use ringwire_bench::process::Process;
use tests::testpmd::{virtio_path, virtio_user};

use crate::{WARM_UP, Way};

/// Entries of a virtqueue, as ringwire-pktgen has them.
const RING: usize = 256;
/// What testpmd's statistics end with.
const END: &str = "############################################################################\n";

/// Packets a second that it sends or receives, as it counts them; and the function that its driver has chosen for that, in
/// its own words: "vectorized", "inorder", "standard", ...
pub fn run(
    backend: &Backend,
    way: Way,
    rings: Rings,
    place: &Place,
    seconds: f64,
) -> Result<(f64, String), Failure> {
    let on = u8::from;
    // Line by line, or what it says would stay in its buffer.
    let mut arguments = words("stdbuf -oL dpdk-testpmd");
    arguments.extend(dpdk_memory(place, "frontend"));
    // Its prompt sleeps but for the moments in which it is asked.
    arguments.push(format!("--lcores=0@{0},1@{0}", place.front));
    arguments.push(format!(
        "--vdev={},packed_vq={},mrg_rxbuf=0,in_order={},vectorized=1",
        virtio_user(&backend.sockets[0], 1, RING),
        on(rings.packed),
        on(rings.in_order)
    ));
    // Without it, packed rings are not vectorised.
    arguments.extend(words("--force-max-simd-bitwidth=512 --log-level=pmd.net.virtio.*:info"));
    let (mode, direction) = match way {
        Way::Sends => ("txonly", "Tx"),
        Way::Receives => ("rxonly", "Rx"),
    };
    arguments.extend(words(&format!("-- -i --no-flush-rx --total-num-mbufs=8192 --forward-mode={mode}")));
    let mut process = Process::start("frontend", &arguments, place)?;
    process.wait_until(|said| said.contains("Checking link statuses..."))?;
    process.say("start")?;
    std::thread::sleep(Duration::from_secs_f64(WARM_UP));
    // Rates are since the statistics were last shown.
    shown(&mut process, 1)?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    shown(&mut process, 2)?;
    let said = process.said();
    let key = format!("{direction}-pps:");
    let value = said.rsplit_once(&key).and_then(|(_, rest)| rest.split_whitespace().next());
    let pps: f64 = value
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| process.failure(&format!("shows no {key}")))?;
    if pps == 0.0 {
        return Err(process.failure("moved no packet"));
    }
    process.say("quit")?;
    process.ended()?;
    Ok((pps, virtio_path(&said, direction)))
}

/// Has it show its statistics for the `nth` time.
fn shown(process: &mut Process, nth: usize) -> Result<(), Failure> {
    process.say("show port stats 0")?;
    process.wait_until(|said| said.matches(END).count() >= nth)
}

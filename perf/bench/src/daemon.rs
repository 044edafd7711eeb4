//! ringwired, and its configuration.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::place::Place;
use crate::process::Process;

/// A guest.
pub struct Guest {
    /// Where its frontend connects.
    pub socket: PathBuf,
    /// A NIC's or another guest's name.
    pub backend: String,
}

/// A NIC: DPDK's devargs, and the MTU if it is not the device's own.
pub struct Nic {
    /// Devargs.
    pub device: String,
    /// MTU.
    pub mtu: Option<u16>,
}

/// ringwired's configuration with one worker: NICs are called `nic0`, `nic1`, ..., and guests `vm0`, `vm1`, ...
pub fn config(place: &Place, api: &Path, nics: &[Nic], guests: &[Guest]) -> String {
    let hugepages = if place.hugepages { "require" } else { "never" };
    let mut text = format!(
        "[api]\nsocket = {api:?}\n[eal]\nhugepages = \"{hugepages}\"\n[datapath]\ncores = [{}]\n",
        place.back,
    );
    for (at, Nic { device, mtu }) in nics.iter().enumerate() {
        let mtu = mtu.map_or(String::new(), |mtu| format!("mtu = {mtu}\n"));
        let _ = write!(text, "[[nic]]\nname = \"nic{at}\"\ndevice = {device:?}\n{mtu}");
    }
    for (at, Guest { socket, backend }) in guests.iter().enumerate() {
        let _ = write!(text, "[[guest]]\nname = \"vm{at}\"\nsocket = {socket:?}\nbackend = {backend:?}\n");
    }
    text
}

/// What starts ringwired with the configuration `text`, kept under `name`.
pub fn command(place: &Place, name: &str, text: &str) -> Result<Vec<String>, Failure> {
    let file = place.directory.join(format!("{name}.toml"));
    std::fs::write(&file, text)?;
    Ok(vec![place.program("ringwired"), "--config".into(), file.display().to_string()])
}

/// ringwired, serving `sockets`.
pub fn start(place: &Place, name: &str, text: &str, sockets: &[PathBuf]) -> Result<Process, Failure> {
    let mut process = Process::start(name, &command(place, name, text)?, place)?;
    process.wait_until(|_| sockets.iter().all(|socket| socket.exists()))?;
    Ok(process)
}

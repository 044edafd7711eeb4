//! The user's end of a tap: what a network hands to whoever is behind it, with the virtio-net header that says what is
//! left to do; and the other way.
#![allow(unsafe_code)] // ioctls

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc::{IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, O_NONBLOCK, c_int, ifreq};

use crate::offload_guest::{NetHeader, Packet};
use crate::wait;

nix::ioctl_write_ptr_bad!(
    /// TUNSETIFF
    tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), ifreq);
nix::ioctl_write_int_bad!(
    /// TUNSETOFFLOAD
    tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<c_int>()));

/// TUN_F_CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6. (The kernel cuts fragments itself, whatever is said of UFO.)
const TAKES: c_int = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;
/// The longest frame, with its header.
const LONGEST: usize = 1 << 17;

/// It; the interface goes with it.
pub struct Tap(File);

impl Tap {
    /// Makes the interface `name`, in the network this thread is in. All checksums and segments may be left to it.
    pub fn make(name: &str) -> Tap {
        let mut options = OpenOptions::new();
        let tap = options.read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/net/tun");
        let tap = tap.expect("/dev/net/tun (as root)");
        // SAFETY: all fields may be zero.
        let mut request: ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as _;
        }
        request.ifr_ifru.ifru_flags = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) as i16;
        // SAFETY: it is an ifreq.
        unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.expect("TUNSETIFF");
        // SAFETY: the argument is a number.
        unsafe { tun_set_offload(tap.as_raw_fd(), TAKES) }.expect("TUNSETOFFLOAD");
        Tap(tap)
    }

    /// Sends a frame, and says in its header what is left to do with it.
    pub fn send(&mut self, header: &NetHeader, frame: &[u8]) {
        let bytes = [header, frame].concat();
        assert_eq!(self.0.write(&bytes).expect("a frame that the kernel takes"), bytes.len());
    }

    /// What arrives next, within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Option<Packet> {
        wait::poll(limit, || self.take())
    }

    fn take(&mut self) -> Option<Packet> {
        let mut bytes = vec![0; LONGEST];
        match self.0.read(&mut bytes) {
            Ok(len) => {
                let (header, frame) = bytes[..len].split_at(size_of::<NetHeader>());
                Some((header.try_into().expect("ten bytes"), frame.to_vec()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("a tap: {error}"),
        }
    }
}

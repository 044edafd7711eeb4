//! The eventfds between driver and device.

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{Notifier, RingConfig};

/// Kick, call and err; none under Miri, which has no /proc/self/fd to tell an eventfd by.
pub struct Wires(Option<[EventFd; 3]>);

impl Wires {
    #[allow(clippy::new_without_default)] // it opens files
    pub fn new() -> Wires {
        let wire = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        Wires((!cfg!(miri)).then(|| [wire(), wire(), wire()]))
    }

    /// `config` with these eventfds.
    pub fn connect(&self, config: RingConfig) -> RingConfig {
        let wire = |i: usize| {
            let fd = self.0.as_ref()?[i].as_fd().try_clone_to_owned().unwrap();
            Some(Notifier::new(File::from(fd)).unwrap())
        };
        RingConfig { kick: wire(0), call: wire(1), err: wire(2), ..config }
    }

    /// Calls since the last look; `expected` where there are no eventfds.
    pub fn calls(&self, expected: u64) -> u64 {
        self.count(1, expected)
    }

    /// Errors since the last look; `expected` where there are no eventfds.
    pub fn errors(&self, expected: u64) -> u64 {
        self.count(2, expected)
    }

    fn count(&self, wire: usize, expected: u64) -> u64 {
        self.0.as_ref().map_or(expected, |wires| wires[wire].read().unwrap_or(0))
    }

    /// Sleeps until called; `false` after ten seconds.
    pub fn sleep(&self) -> bool {
        self.wait(1)
    }

    /// Sleeps until kicked, as the device would; `false` after ten seconds.
    pub fn sleep_until_kicked(&self) -> bool {
        self.wait(0)
    }

    fn wait(&self, wire: usize) -> bool {
        let eventfd = &self.0.as_ref().unwrap()[wire];
        let woken = poll(&mut [PollFd::new(eventfd.as_fd(), PollFlags::POLLIN)], 10_000u16) == Ok(1);
        self.count(wire, 0);
        woken
    }

    /// Kicks the device.
    pub fn kick(&self) {
        if let Some(wires) = &self.0 {
            wires[0].write(1).unwrap();
        }
    }
}

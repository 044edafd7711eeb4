//! What changes while the datapath runs, and what it is made of now.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use snapshot::Port;

use crate::capture::{CaptureError, Capturing, Wanted};
use crate::config::{Config, GuestConfig, NicConfig, Polling, SocketConfig};
use crate::control::{Arrived, BackendError, Pair};
use crate::cores::ranges;
use crate::frontend::Serving;
use crate::guest::Route;
use crate::intended::{self, Connected};
use crate::ports::{NoSuchGuest, PortError};
use crate::worker::{Worker, WorkerError};
use crate::{Changes, Datapath};

impl Datapath {
    /// Connects a guest to another port, or to none.
    ///
    /// # Errors
    /// If there is no such guest or port, or the port is another guest's; nothing has changed then.
    pub fn set_backend(&self, guest: &str, backend: Option<&str>) -> Result<(), BackendError> {
        self.ports.set_backend(guest, backend)
    }

    /// Replaces what takes a guest's backend's place while that has no link, and how long it must have one again.
    ///
    /// # Errors
    /// If there is no such guest, or no such nic, tap or raw port; nothing has changed then.
    pub fn set_fallback(&self, guest: &str, port: Option<&str>, hold: Duration) -> Result<(), BackendError> {
        let _one_at_a_time = self.changes();
        self.ports.set_fallback(guest, port, hold)
    }

    /// Replaces the offloads that a guest is offered, as feature bits. In force from its next frontend on: what a
    /// driver has negotiated, it keeps.
    ///
    /// # Errors
    /// If there is no such guest.
    pub fn set_offloads(&self, guest: &str, offloads: u64) -> Result<(), NoSuchGuest> {
        self.ports.set_offloads(guest, offloads)
    }

    /// Opens a NIC: DPDK makes the device, or finds it, if it is none that the datapath was started with.
    ///
    /// # Errors
    /// If it cannot be opened, its packets have no room, or the name is taken; nothing has changed then.
    pub fn add_nic(&self, config: NicConfig) -> Result<(), PortError> {
        let _one_at_a_time = self.changes();
        self.ports.add_nic(config).map_err(|error| match error {
            PortError::Nic(error) if error.is_out_of_memory() && !self.eal.hugepages() => {
                PortError::Memory(error)
            }
            error => error,
        })
    }

    /// Adds a tap or raw socket; `fds`, if there are any, are open already.
    ///
    /// # Errors
    /// If it cannot be opened, or the name is taken; nothing has changed then.
    pub fn add_socket(&self, config: SocketConfig, fds: Vec<OwnedFd>) -> Result<(), PortError> {
        let _one_at_a_time = self.changes();
        self.ports.add_socket(config, fds)
    }

    /// Adds a guest, and serves whoever connects to its socket.
    ///
    /// # Errors
    /// If its socket cannot be listened on, its backend, fallback or exception path cannot be had, or the name is taken;
    /// nothing has changed then.
    pub fn add_guest(&self, config: GuestConfig) -> Result<(), PortError> {
        let mut changes = self.changes();
        let (guest, listener) = self.ports.add_guest(config)?;
        let name = guest.config.name.clone();
        let started = self
            .ports
            .connect_as_configured(&guest, Arrived::Dropped)
            .and_then(|()| Serving::start(&self.ports, guest.clone(), listener));
        match started {
            Ok(started) => changes.serving.insert(name, started),
            Err(error) => {
                self.ports.remove_guest(guest);
                return Err(error);
            }
        };
        Ok(())
    }

    /// Removes a port of any kind. A guest's rings are given back to its frontend, which is hung up on, and its socket
    /// is removed. What the port has counted at the end: all that had come to it is sent on, or among its drops.
    ///
    /// # Errors
    /// If there is none of that name, or another guest needs it; nothing has changed then.
    pub fn remove_port(&self, name: &str) -> Result<Port, PortError> {
        let mut changes = self.changes();
        self.ports.check_unused(name)?;
        let last = match self.ports.guest(name) {
            Some(guest) => {
                drop(changes.serving.remove(name));
                self.ports.remove_guest(guest)
            }
            None => self.ports.close(name)?,
        };
        let Port { rx_packets, tx_packets, .. } = last;
        let drops: Vec<String> = last.drops.iter().filter(|(_, count)| **count > 0).map(drop_count).collect();
        tracing::info!(port = name, rx_packets, tx_packets, drops = drops.join(" "), "removed");
        Ok(last)
    }

    /// Starts a worker on a core, which control's threads leave. It takes lanes over from the workers that have most,
    /// until it has as many, but none that was assigned.
    ///
    /// # Errors
    /// If the process may not run there, or the core has one already; nothing has changed then.
    pub fn add_worker(&self, core: usize) -> Result<(), WorkerError> {
        let mut changes = self.changes();
        let allowed = changes.cores.allowed();
        if !allowed.contains(&core) {
            return Err(WorkerError::NotAllowed { core, allowed: ranges(&allowed) });
        }
        let (mut cores, polling) = {
            let control = self.ports.control();
            (control.cores(), control.polling())
        };
        if cores.contains(&core) {
            return Err(WorkerError::Taken(core));
        }
        let worker = Worker::start(core, polling)?;
        cores.push(core);
        changes.cores.leave_to(&cores);
        self.ports.control().add_worker(worker);
        tracing::info!(core, "worker added");
        Ok(())
    }

    /// Ends the worker on a core, which control's threads may use again. The others get its lanes, also those that were
    /// assigned to it.
    ///
    /// # Errors
    /// If there is none, or it is the last one; nothing has changed then.
    pub fn remove_worker(&self, core: usize) -> Result<(), WorkerError> {
        let mut changes = self.changes();
        let removed = self.ports.control().remove_worker(core)?;
        // The thread ends, without anybody waiting for control meanwhile.
        drop(removed);
        let cores = self.ports.control().cores();
        changes.cores.leave_to(&cores);
        tracing::info!(core, "worker removed");
        Ok(())
    }

    /// Has a guest's queue pair polled by the worker on `core`, for as long as there are both, also when the pair is
    /// stopped and started; `None`: by any. Pairs that share a lane move together: all that moved, or none, if the pair is
    /// not polled now.
    ///
    /// # Errors
    /// If there is no such pair, or no worker; nothing has changed then.
    pub fn assign(&self, guest: &str, pair: u16, core: Option<usize>) -> Result<Vec<Pair>, WorkerError> {
        let moved = self.ports.control().assign(Pair { guest: guest.to_owned(), index: pair }, core)?;
        tracing::info!(port = guest, pair, core, "assigned");
        Ok(moved)
    }

    /// Likewise for all queue pairs of a guest: those without a core may have any worker. Of several in one lane, the
    /// first counts.
    ///
    /// # Errors
    /// If there is no such guest or pair, or no worker; nothing has changed then.
    pub fn assign_all(&self, guest: &str, cores: &BTreeMap<u16, usize>) -> Result<(), WorkerError> {
        self.ports.control().assign_all(guest, cores)?;
        tracing::info!(port = guest, ?cores, "assigned");
        Ok(())
    }

    /// Has workers poll otherwise, as `change` makes it of what they do now.
    ///
    /// # Errors
    /// If there are no descriptors left to sleep with; nothing has changed then.
    pub fn set_polling(&self, change: impl FnOnce(Polling) -> Polling) -> std::io::Result<()> {
        let _one_at_a_time = self.changes();
        let mut control = self.ports.control();
        let polling = change(control.polling());
        control.set_polling(polling)?;
        drop(control);
        tracing::info!(idle = ?polling.idle, burst = polling.burst, "how workers poll");
        Ok(())
    }

    /// Copies what passes a port from now on, for as long as what is returned is kept. Should the port go, nothing more
    /// passes, until there is one of that name again.
    ///
    /// # Errors
    /// If there is no such port or queue.
    pub fn capture(&self, wanted: Wanted) -> Result<Capturing, CaptureError> {
        self.captures.start(wanted)
    }

    /// What the datapath is made of now: started so, it would be the same.
    pub fn config(&self) -> Config {
        let guests = self.ports.guests();
        // Before control is locked: whoever changes a route locks the two in this order.
        let routes: Vec<Route> = guests.iter().map(|guest| guest.route().clone()).collect();
        let control = self.ports.control();
        let (cores, polling) = (control.cores(), control.polling());
        let connected = guests.iter().zip(routes).map(|(guest, route)| {
            let name = guest.config.name.clone();
            Connected { to: control.backend(&name).map(str::to_owned), name, route }
        });
        let connected: Vec<Connected> = connected.collect();
        let assigned: Vec<_> = guests.iter().map(|guest| control.assignments(&guest.config.name)).collect();
        drop(control);
        let backends = intended::backends(&connected);
        let now = connected.into_iter().zip(backends).zip(assigned);
        let guests = guests.iter().zip(now).map(|(guest, ((now, backend), assign))| GuestConfig {
            assign,
            backend,
            fallback: now.route.fallback,
            fallback_hold: now.route.hold,
            offloads: guest.offloads(),
            ..guest.config.clone()
        });
        Config {
            eal_args: self.eal_args.clone(),
            hugepages: self.hugepages,
            cores,
            polling,
            nics: self.ports.nics().iter().map(|nic| nic.config.clone()).collect(),
            sockets: self.ports.sockets().iter().map(|entry| entry.by_name()).collect(),
            guests: guests.collect(),
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_count((reason, count): (&String, &u64)) -> String {
    format!("{reason} {count}")
}

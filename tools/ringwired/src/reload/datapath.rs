//! How the datapath makes a change.

use std::error::Error;

use engine::Datapath;
use engine::config::Config;

use super::Running;
use super::change::{Change, PortConfig};

impl Running for Datapath {
    fn config(&self) -> Config {
        Datapath::config(self)
    }

    fn change(&self, change: &Change) -> Result<(), String> {
        match change {
            Change::Add(PortConfig::Nic(nic)) => self.add_nic(nic.clone()).map_err(text),
            Change::Add(PortConfig::Socket(socket)) => {
                self.add_socket(socket.clone(), Vec::new()).map_err(text)
            }
            Change::Add(PortConfig::Guest(guest)) => self.add_guest(guest.clone()).map_err(text),
            Change::Remove(port) => self.remove_port(port.name()).map(drop).map_err(text),
            Change::Backend { guest, to, .. } => self.set_backend(guest, to.as_deref()).map_err(text),
            Change::Fallback { guest, to, .. } => {
                self.set_fallback(guest, to.port.as_deref(), to.hold).map_err(text)
            }
            Change::Offloads { guest, to, .. } => self.set_offloads(guest, *to).map_err(text),
            Change::Assign { guest, to, .. } => self.assign_all(guest, to).map_err(text),
            Change::Polling { to, .. } => self.set_polling(|_| *to).map_err(text),
            Change::AddWorker(core) => self.add_worker(*core).map_err(text),
            Change::RemoveWorker(core) => self.remove_worker(*core).map_err(text),
        }
    }
}

fn text(error: impl Error) -> String {
    error.to_string()
}

//! Whether everybody who owns queues still answers.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Control;
use crate::Datapath;

impl Datapath {
    /// Asks all workers and the slow path for an answer, which they give between two rounds, and waits for `within`
    /// altogether. The first that is silent, by its name; `None` if nobody is. Waits, too, for whoever has control
    /// locked, and for that without an end.
    pub fn find_silent(&self, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        let asked = self.ports.control().ask_all();
        let silent = asked.into_iter().find(|(_, answer)| answer.recv_deadline(deadline).is_err());
        silent.map(|(name, _)| name)
    }
}

impl Control {
    /// Asks every owner of queues, by name, for an answer.
    fn ask_all(&self) -> Vec<(String, Receiver<()>)> {
        let workers = self.workers.iter().map(|worker| (format!("worker:{}", worker.core), worker.ask()));
        workers.chain([("slow-path".to_owned(), self.slow_path.ask())]).collect()
    }
}

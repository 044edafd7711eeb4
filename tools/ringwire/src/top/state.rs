//! What `ringwire top` shows: the last look, and a little of what was before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use snapshot::{Port, Status};

/// Seconds of history kept for each port.
const HISTORY: usize = 120;

/// The order of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// As ringwired lists them.
    #[default]
    Listed,
    /// Most packets received a second first.
    Rx,
    /// Most packets sent.
    Tx,
    /// Most packets dropped.
    Drops,
}

impl Sort {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Listed => "as listed",
            Sort::Rx => "rx",
            Sort::Tx => "tx",
            Sort::Drops => "drops",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Listed => Sort::Rx,
            Sort::Rx => Sort::Tx,
            Sort::Tx => Sort::Drops,
            Sort::Drops => Sort::Listed,
        }
    }
}

/// What is known so far.
#[derive(Default)]
pub struct Top {
    /// The last look.
    pub status: Option<Status>,
    /// Why there was none this time.
    pub problem: Option<String>,
    /// The order of ports.
    pub sort: Sort,
    /// Ports that are scrolled past.
    pub skipped: usize,
    taken: Option<Instant>,
    drops: BTreeMap<String, (u64, f64)>,
    history: BTreeMap<String, VecDeque<f64>>,
}

impl Top {
    /// Takes in a look, or why there is none.
    pub fn observe(&mut self, look: Result<Status, String>, at: Instant) {
        let status = match look {
            Ok(status) => status,
            Err(problem) => {
                self.problem = Some(problem);
                return;
            }
        };
        let seconds = self.taken.map_or(0.0, |taken| at.duration_since(taken).as_secs_f64());
        let named = |name: &String| status.ports.iter().any(|port| port.name == *name);
        self.drops.retain(|name, _| named(name));
        self.history.retain(|name, _| named(name));
        for port in &status.ports {
            let total = port.drops.values().sum();
            let (before, _) = self.drops.get(&port.name).copied().unwrap_or((total, 0.0));
            let dropped = total.saturating_sub(before) as f64;
            let rate = if seconds > 0.0 { dropped / seconds } else { 0.0 };
            self.drops.insert(port.name.clone(), (total, rate));
            let history = self.history.entry(port.name.clone()).or_default();
            history.push_back(port.rates.map_or(0.0, |rates| rates.rx_pps + rates.tx_pps));
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
        (self.status, self.taken, self.problem) = (Some(status), Some(at), None);
    }

    /// Packets a second that entered a port and were dropped.
    pub fn drop_rate(&self, port: &Port) -> f64 {
        self.drops.get(&port.name).map_or(0.0, |(_, rate)| *rate)
    }

    /// Packets a second, both ways, of the last `most` looks, the oldest first.
    pub fn history(&self, port: &Port, most: usize) -> Vec<f64> {
        let history = self.history.get(&port.name);
        history.map_or(Vec::new(), |all| all.iter().skip(all.len().saturating_sub(most)).copied().collect())
    }

    /// The ports in the order asked for.
    pub fn ports(&self) -> Vec<&Port> {
        let mut ports: Vec<&Port> = self.status.iter().flat_map(|status| &status.ports).collect();
        let key = |port: &Port| {
            let rates = port.rates.unwrap_or_default();
            match self.sort {
                Sort::Listed => 0.0,
                Sort::Rx => rates.rx_pps,
                Sort::Tx => rates.tx_pps,
                Sort::Drops => self.drop_rate(port),
            }
        };
        ports.sort_by(|a, b| key(b).total_cmp(&key(a)));
        ports
    }

    /// The next order.
    pub fn sort_otherwise(&mut self) {
        self.sort = self.sort.next();
        self.skipped = 0;
    }

    /// Scrolls by so many ports.
    pub fn scroll(&mut self, by: isize) {
        let last = self.status.as_ref().map_or(0, |status| status.ports.len().saturating_sub(1));
        self.skipped = self.skipped.saturating_add_signed(by).min(last);
    }
}

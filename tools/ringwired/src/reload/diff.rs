//! What is different between what runs and what a file says.

use engine::config::Config;

use super::change::PortConfig;
use crate::config;
use crate::config::file::{self, File};

/// Keys of a guest that change while it runs. Any other key of any port makes the port anew.
const LIVE: [&str; 5] = ["assign", "backend", "fallback", "fallback_hold", "offloads"];

/// The differences between two configurations in canonical order.
pub struct Differences {
    /// Ports that go, as they run: those that are in the file no more, and those to be made anew.
    pub gone: Vec<PortConfig>,
    /// Ports that come, as the file has them: new ones, and those to be made anew.
    pub come: Vec<PortConfig>,
    /// All differences, a line each.
    pub lines: Vec<String>,
}

/// Keys that cannot change while ringwired runs, but would have to: `api.mode: 0660 -> 0600`.
pub fn fixed(now: &config::Config, wanted: &config::Config) -> Vec<String> {
    let (now, wanted) = (File::of(now), File::of(wanted));
    let api = changes(&file::table(&now.api), &file::table(&wanted.api));
    let eal = changes(&file::table(&now.eal), &file::table(&wanted.eal));
    let api = api.into_iter().map(|(key, change)| format!("api.{key}: {change}"));
    api.chain(eal.into_iter().map(|(key, change)| format!("eal.{key}: {change}"))).collect()
}

/// All other differences.
pub fn between(now: &Config, wanted: &Config) -> Differences {
    let (old, new) = (ports(now), ports(wanted));
    let like = |port: &PortConfig, others: &[PortConfig]| {
        others.iter().find(|other| (other.kind(), other.name()) == (port.kind(), port.name())).cloned()
    };
    let mut found = Differences { gone: Vec::new(), come: Vec::new(), lines: workers(now, wanted) };
    for port in old.iter().filter(|port| like(port, &new).is_none()) {
        found.lines.push(format!("{port}: removed"));
        found.gone.push(port.clone());
    }
    for port in new.iter().filter(|port| like(port, &old).is_none()) {
        found.lines.push(format!("{port}: added"));
        found.come.push(port.clone());
    }
    // Guests come last, so that it is known whether their exception paths go.
    for (port, wanted) in old.iter().filter_map(|port| Some((port, like(port, &new)?))) {
        found.compare(port, &wanted);
    }
    found
}

impl Differences {
    /// Of one port, as it runs and as it is wanted.
    fn compare(&mut self, port: &PortConfig, wanted: &PortConfig) {
        let (now, then) = (port.keys(), wanted.keys());
        let changes = changes(&now, &then);
        let is_guest = matches!(port, PortConfig::Guest(_));
        let lives = changes.iter().all(|(key, _)| is_guest && LIVE.contains(&key.as_str()));
        let punt_goes = match port {
            PortConfig::Guest(guest) => guest.punt.as_ref().filter(|punt| self.goes(&punt.port)),
            _ => None,
        };
        let mut what: Vec<String> = changes.iter().map(|(key, change)| format!("{key} {change}")).collect();
        if !lives || punt_goes.is_some() {
            what.extend(punt_goes.filter(|_| lives).map(|punt| format!("its exception path {}", punt.port)));
            let frontend = if is_guest { ": its frontend must connect again" } else { "" };
            self.lines.push(format!("{port}: {} (made anew{frontend})", what.join(", ")));
            self.gone.push(port.clone());
            self.come.push(wanted.clone());
        } else if !what.is_empty() {
            self.lines.push(format!("{port}: {}", what.join(", ")));
        }
    }

    /// Whether the port of this name goes.
    pub fn goes(&self, name: &str) -> bool {
        self.gone.iter().any(|port| port.name() == name)
    }
}

fn workers(now: &Config, wanted: &Config) -> Vec<String> {
    let (old, new) = (&now.cores, &wanted.cores);
    let gone = old.iter().filter(|core| !new.contains(core)).map(|core| format!("worker:{core}: removed"));
    let come = new.iter().filter(|core| !old.contains(core)).map(|core| format!("worker:{core}: added"));
    let (now, wanted) = (now.polling, wanted.polling);
    let idle = (now.idle != wanted.idle)
        .then(|| format!("workers: idle {} -> {}", now.idle.name(), wanted.idle.name()));
    let burst =
        (now.burst != wanted.burst).then(|| format!("workers: burst {} -> {}", now.burst, wanted.burst));
    gone.chain(come).chain(idle).chain(burst).collect()
}

fn ports(config: &Config) -> Vec<PortConfig> {
    let nics = config.nics.iter().cloned().map(PortConfig::Nic);
    let sockets = config.sockets.iter().cloned().map(PortConfig::Socket);
    let guests = config.guests.iter().cloned().map(PortConfig::Guest);
    nics.chain(sockets).chain(guests).collect()
}

/// The keys of which the values differ, and how: `wire0 -> tap0`.
fn changes(now: &toml::Table, then: &toml::Table) -> Vec<(String, String)> {
    let value = |table: &toml::Table, key: &str| match table.get(key) {
        None => "none".to_owned(),
        Some(toml::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let mut keys: Vec<&String> =
        now.keys().chain(then.keys()).filter(|key| now.get(*key) != then.get(*key)).collect();
    keys.sort_unstable();
    keys.dedup();
    let change = |key: &String| (key.clone(), format!("{} -> {}", value(now, key), value(then, key)));
    keys.into_iter().map(change).collect()
}

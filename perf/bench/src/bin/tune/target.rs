//! ringwired's configuration: given or made, with the settings that are tried.

use std::path::Path;

use ringwire_bench::Failure;
use toml::{Table, Value};

use crate::setting::Setting;

/// One guest and its NIC, and whatever else the configuration says of DPDK.
pub struct Target {
    eal: Table,
    cores: Vec<usize>,
    nic: Table,
    guest: Table,
}

/// Keys of a guest that have to do with how its frontend connects, or with other ports.
const OTHERS: [&str; 6] = ["mode", "fallback", "fallback_hold", "socket_mode", "socket_group", "backend"];

impl Target {
    /// `device`, and a guest.
    pub fn made(device: &str, hugepages: bool) -> Target {
        let table = |entries: &[(&str, &str)]| -> Table {
            entries.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
        };
        Target {
            eal: table(&[("hugepages", if hugepages { "require" } else { "never" })]),
            cores: Vec::new(),
            nic: table(&[("name", "nic"), ("device", device)]),
            guest: table(&[("name", "vm")]),
        }
    }

    /// The guest called `name` of the configuration in `file`, or the first one whose backend is a nic.
    pub fn read(file: &Path, name: Option<&str>) -> Result<Target, Failure> {
        let error = |why: String| Failure(format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|cause| error(cause.to_string()))?;
        Target::parse(&text, name).map_err(|Failure(why)| error(why))
    }

    fn parse(text: &str, name: Option<&str>) -> Result<Target, Failure> {
        let config: Table = text.parse()?;
        let string = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let (nics, guests) = (tables(&config, "nic"), tables(&config, "guest"));
        let nic_of = |guest: &Table| {
            let backend = string(guest, "backend")?;
            nics.iter().find(|nic| string(nic, "name").as_deref() == Some(&backend)).cloned()
        };
        let mut wanted =
            guests.into_iter().filter(|guest| name.is_none() || string(guest, "name").as_deref() == name);
        let found = wanted.find_map(|guest| Some((nic_of(&guest)?, guest)));
        let (nic, mut guest) = found.ok_or_else(|| {
            let which = name.map_or("no guest".into(), |name| format!("guest {name}: none of that name"));
            Failure(format!("{which} has a nic for its backend"))
        })?;
        OTHERS.iter().for_each(|key| {
            guest.remove(*key);
        });
        let section = |key: &str| config.get(key).and_then(Value::as_table).cloned().unwrap_or_default();
        let cores = section("datapath").get("cores").and_then(Value::as_array).cloned().unwrap_or_default();
        let cores = cores.iter().filter_map(Value::as_integer).map(|core| core as usize).collect();
        Ok(Target { eal: section("eal"), cores, nic, guest })
    }

    /// Cores that the configuration names; none if it was made.
    pub fn cores(&self) -> Vec<usize> {
        self.cores.clone()
    }

    /// Queue pairs of the guest.
    pub fn queues(&self) -> u16 {
        self.guest.get("queues").and_then(Value::as_integer).map_or(1, |queues| queues as u16)
    }

    /// The NIC, as DPDK knows it.
    pub fn device(&self) -> &str {
        self.nic.get("device").and_then(Value::as_str).unwrap_or_default()
    }

    /// A whole configuration with `setting`: the API and the guest have their sockets in `directory`.
    pub fn config(&self, setting: Setting, cores: &[usize], directory: &Path) -> Table {
        let socket = |name: &str| Value::from(directory.join(name).display().to_string());
        let (mut nic, mut guest) = (self.nic.clone(), self.guest.clone());
        for port in [&mut nic, &mut guest] {
            port.insert("queues".into(), i64::from(setting.queues).into());
        }
        let nic_name = nic.get("name").cloned().unwrap_or(Value::from(""));
        guest.insert("backend".into(), nic_name);
        guest.insert("socket".into(), socket("guest.sock"));
        let one = |table: Table| Value::Array(vec![Value::Table(table)]);
        Table::from_iter([
            ("api".into(), Value::Table(Table::from_iter([("socket".into(), socket("api.sock"))]))),
            ("eal".into(), Value::Table(self.eal.clone())),
            ("datapath".into(), Value::Table(datapath(setting, cores))),
            ("nic".into(), one(nic)),
            ("guest".into(), one(guest)),
        ])
    }

    /// The best setting, for people: what to write into a configuration, and what to tell the VMM.
    pub fn fragment(&self, setting: Setting, cores: &[usize]) -> String {
        let name = |table: &Table| table.get("name").map_or(String::new(), Value::to_string);
        let (size, packed) = (setting.ring_size, if setting.packed { "on" } else { "off" });
        format!(
            "# Found by perf/tune. Of the keys of these sections, those that were tried.\n\
             [datapath]\n{}\n\
             [[nic]]\nname = {}\nqueues = {}\n\n\
             [[guest]]\nname = {}\nqueues = {}\n\
             # The guest's part, with QEMU: -device virtio-net-pci,...,rx_queue_size={size},tx_queue_size={size},\
             packed={packed}\n\
             # (QEMU takes at most 1024.) In order: {}.\n",
            datapath(setting, cores),
            name(&self.nic),
            setting.queues,
            name(&self.guest),
            setting.queues,
            if setting.in_order { "yes (in_order=on, where the VMM offers it)" } else { "no" },
        )
    }
}

fn datapath(setting: Setting, cores: &[usize]) -> Table {
    let cores = cores.iter().take(usize::from(setting.workers)).map(|core| Value::from(*core as i64));
    Table::from_iter([
        ("cores".into(), Value::Array(cores.collect())),
        ("idle".into(), Value::from(setting.idle())),
        ("burst".into(), i64::from(setting.worker_burst).into()),
    ])
}

fn tables(config: &Table, key: &str) -> Vec<Table> {
    let all = config.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().filter_map(Value::as_table).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [api]
        socket = "/run/ringwire/api.sock"
        [eal]
        hugepages = "require"
        [datapath]
        cores = [2, 3]
        [[nic]]
        name = "wire0"
        device = "0000:03:00.0"
        mtu = 9000
        [[tap]]
        name = "tap0"
        interface = "rw-tap0"
        [[guest]]
        name = "vm1"
        socket = "/run/ringwire/vm1.sock"
        backend = "tap0"
        [[guest]]
        name = "vm2"
        socket = "/run/ringwire/vm2.sock"
        mode = "client"
        backend = "wire0"
        fallback = "tap0"
    "#;

    fn setting() -> Setting {
        Setting {
            packed: true,
            in_order: false,
            ring_size: 1024,
            burst: 64,
            queues: 2,
            workers: 2,
            worker_burst: 16,
            adaptive: false,
        }
    }

    #[test]
    fn a_given_configuration_is_reduced_to_one_guest_and_its_nic() {
        let target = Target::parse(CONFIG, None).expect("vm2 has a nic");
        assert_eq!((target.cores(), target.device(), target.queues()), (vec![2, 3], "0000:03:00.0", 1));
        let text = target.config(setting(), &[2, 3], Path::new("/tmp/x")).to_string();
        let config = ringwired::config::Config::parse("tune", &text, &[2, 3]).expect("valid");
        assert_eq!(config.api.socket, Path::new("/tmp/x/api.sock"));
        let datapath = config.datapath;
        assert_eq!(
            (datapath.cores.as_slice(), datapath.nics.len(), datapath.guests.len()),
            (&[2, 3][..], 1, 1)
        );
        assert_eq!((datapath.polling.burst, datapath.polling.idle.name()), (16, "poll"));
        assert_eq!((datapath.nics[0].mtu, datapath.nics[0].queues), (Some(9000), 2));
        assert_eq!(datapath.guests[0].socket, Path::new("/tmp/x/guest.sock"));
        assert_eq!(datapath.guests[0].queues, 2);
    }

    #[test]
    fn what_is_made_is_valid_too() {
        let target = Target::made("net_null0", false);
        let text = target.config(setting(), &[1, 2], Path::new("/tmp/x")).to_string();
        let config = ringwired::config::Config::parse("tune", &text, &[1, 2]);
        assert_eq!(config.expect("valid").datapath.nics[0].device, "net_null0");
    }

    #[test]
    fn a_guest_without_a_nic_is_refused() {
        for name in ["vm1", "vm3"] {
            let Err(Failure(why)) = Target::parse(CONFIG, Some(name)) else { panic!("{name} was taken") };
            assert!(why.contains(name), "{why}");
        }
        assert!(Target::parse("[[guest]]", None).is_err());
    }

    #[test]
    fn the_fragment_is_toml() {
        let fragment = Target::made("net_null0", false).fragment(setting(), &[1, 2]);
        let table: Table = fragment.parse().expect("TOML");
        assert_eq!(table["datapath"]["cores"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["nic"][0]["queues"].as_integer(), Some(2));
    }
}

//! The configuration file: whatever it holds, it is read, or refused in one line that says where.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringwired::config::{Config, ConfigError};

const CORES: [usize; 4] = [0, 1, 2, 6];
const NAME: &str = "rw.toml";

fuzz_target!(|data: &[u8]| {
    match std::str::from_utf8(data) {
        Ok(text) => check(Config::parse(NAME, text, &CORES), NAME, data),
        Err(_) => {
            let (file, path) = file_with(data);
            let name = path.display().to_string();
            check(Config::load(&path, &CORES), &name, data);
            drop(file);
        }
    }
});

/// A file that is read by its descriptor.
fn file_with(data: &[u8]) -> (File, PathBuf) {
    let mut file = File::from(memfd_create(c"rw.toml", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    file.write_all(data).expect("room in memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

fn check(read: Result<Config, ConfigError>, name: &str, data: &[u8]) {
    let refusal = match read {
        Ok(config) => return check_config(&config),
        Err(error) => error.to_string(),
    };
    let rest = refusal.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
    let (line, rest) = rest.and_then(|rest| rest.split_once(':')).expect(&refusal);
    let line: usize = line.parse().expect(&refusal);
    let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
    assert!((1..=lines).contains(&line), "{refusal}");
    // KEY: what is wrong.
    assert!(rest.contains(": "), "{refusal}");
    assert!(!refusal.contains(char::is_control), "{refusal:?}");
}

/// What the parts behind it rely on.
fn check_config(config: &Config) {
    let datapath = &config.datapath;
    assert!(!datapath.cores.is_empty() && datapath.cores.iter().all(|core| CORES.contains(core)));
    assert!(config.api.mode <= 0o777);
    let mut names: Vec<&str> = datapath.nics.iter().map(|nic| &nic.name[..]).collect();
    names.extend(datapath.sockets.iter().map(|port| &port.name[..]));
    let others = names.clone();
    names.extend(datapath.guests.iter().map(|guest| &guest.name[..]));
    assert!(names.iter().all(|name| (1..=64).contains(&name.len())));
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    for guest in &datapath.guests {
        assert!((1..=128).contains(&guest.queues));
        assert!(
            guest.assign.iter().all(|(pair, core)| *pair < guest.queues && datapath.cores.contains(core))
        );
        assert!(guest.backend.as_ref().is_none_or(|port| names.contains(&&port[..])), "{guest:?}");
        assert!(guest.fallback.as_ref().is_none_or(|port| others.contains(&&port[..])), "{guest:?}");
    }
}

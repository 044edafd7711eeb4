//! The host as /proc and /sys show it, under a root that tests replace.

use std::fs;
use std::path::{Path, PathBuf};

/// Where to look.
pub struct Host {
    root: PathBuf,
}

/// A running process.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program's name, 15 bytes at most.
    pub name: String,
    /// Its effective user.
    pub user: u32,
    /// Its effective group, and the others it is in.
    pub groups: Vec<u32>,
    /// Whether permission bits mean nothing to it (CAP_DAC_OVERRIDE).
    pub overrides: bool,
}

/// Number of the capability, see capabilities(7).
const CAP_DAC_OVERRIDE: u32 = 1;

impl Host {
    /// This host.
    pub fn real() -> Host {
        Host::at(Path::new("/"))
    }

    /// A made-up one, if `root` is not `/`.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, without white space at its ends; `None` where there is none that can be read.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file that holds one number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a directory, sorted; none if it cannot be read.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of what a symbolic link leads to.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Processes, but for this one, with `text` in their command line.
    pub fn processes_naming(&self, text: &str) -> Vec<Process> {
        let numbers = self.list("/proc").into_iter().filter_map(|name| name.parse().ok());
        let others = numbers.filter(|pid| *pid != std::process::id());
        let naming = others.filter(|pid| {
            let command = fs::read(self.path(&format!("/proc/{pid}/cmdline"))).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(text)
        });
        naming.filter_map(|pid| self.process(pid)).collect()
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let status = self.read(&format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let numbers = |name| -> Vec<u32> {
            field(name).unwrap_or("").split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        // Real, effective, saved, file system (proc(5)).
        let effective = |name| numbers(name).get(1).copied();
        let capabilities = u64::from_str_radix(field("CapEff")?, 16).ok()?;
        Some(Process {
            pid,
            name: field("Name")?.to_owned(),
            user: effective("Uid")?,
            groups: effective("Gid").into_iter().chain(numbers("Groups")).collect(),
            overrides: capabilities & 1 << CAP_DAC_OVERRIDE != 0,
        })
    }
}

impl Process {
    /// Whether it may do what `bit` stands for (2: write, 1: execute or search) to a file of this mode and owner.
    pub fn may(&self, bit: u32, mode: u32, user: u32, group: u32) -> bool {
        let shift = match () {
            () if self.overrides => return true,
            () if self.user == user => 6,
            () if self.groups.contains(&group) => 3,
            () => 0,
        };
        mode >> shift & bit != 0
    }
}

/// Numbers of a kernel list such as `0-3,8`.
pub fn cpu_list(text: &str) -> Vec<usize> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
pub mod made_up {
    //! A host out of a temporary directory.

    use super::*;

    /// Files by path; what ends in `->` is a link to the text.
    pub struct MadeUp {
        directory: tempfile::TempDir,
    }

    impl MadeUp {
        /// With these files.
        pub fn new(files: &[(&str, &str)]) -> MadeUp {
            let host = MadeUp { directory: tempfile::tempdir().unwrap() };
            files.iter().for_each(|(path, text)| host.write(path, text));
            host
        }

        /// Writes a file, or makes a link.
        pub fn write(&self, path: &str, text: &str) {
            let at = self.directory.path().join(path.trim_start_matches('/').trim_end_matches("->"));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match path.ends_with("->") {
                true => std::os::unix::fs::symlink(text, at).unwrap(),
                false => fs::write(at, text).unwrap(),
            }
        }

        /// Looks at it.
        pub fn host(&self) -> Host {
            Host::at(self.directory.path())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::MadeUp;
    use super::*;

    #[test]
    fn files_lists_and_links() {
        let made = MadeUp::new(&[("/sys/a/n", " 7\n"), ("/sys/a/driver->", "../../bus/vfio-pci")]);
        let host = made.host();
        assert_eq!((host.number("/sys/a/n"), host.number("/sys/b")), (Some(7), None));
        assert_eq!(host.list("/sys/a"), ["driver", "n"]);
        assert_eq!(host.list("/sys/b"), [""; 0]);
        assert_eq!(host.link("/sys/a/driver").as_deref(), Some("vfio-pci"));
        assert_eq!(host.link("/sys/a/n"), None);
    }

    #[test]
    fn kernel_lists() {
        assert_eq!(cpu_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(cpu_list(""), [0; 0]);
        assert_eq!(cpu_list("domain,managed_irq,1"), [1]);
    }

    #[test]
    fn processes_and_what_they_may() {
        let status =
            "Name:\tqemu\nUid:\t1\t64\t1\t1\nGid:\t5\t6\t5\t5\nGroups:\t7 8\nCapEff:\t0000000000000000\n";
        let root = "Name:\troot\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\nCapEff:\t000001ffffffffff\n";
        let made = MadeUp::new(&[
            ("/proc/1000001/cmdline", "qemu\0-chardev\0socket,path=/run/vm1.sock\0"),
            ("/proc/1000001/status", status),
            ("/proc/1000002/cmdline", "other\0"),
            ("/proc/1000002/status", status),
            ("/proc/1000003/cmdline", "x\0/run/vm1.sock"),
            ("/proc/1000003/status", root),
            ("/proc/version", "Linux"),
        ]);
        let found = made.host().processes_naming("/run/vm1.sock");
        let [qemu, root] = &found[..] else { panic!("{found:?}") };
        assert_eq!((qemu.pid, qemu.name.as_str(), qemu.user), (1000001, "qemu", 64));
        assert_eq!(qemu.groups, [6, 7, 8]);
        for (mode, user, group, may) in [
            (0o600, 64, 0, true),
            (0o600, 0, 0, false),
            (0o660, 0, 8, true),
            (0o600, 0, 8, false),
            (0o606, 0, 0, true),
            (0o066, 64, 8, false),
        ] {
            assert_eq!(qemu.may(2, mode, user, group), may, "{mode:o} {user} {group}");
        }
        assert!(!qemu.may(1, 0o700, 0, 0) && qemu.may(1, 0o711, 0, 0));
        assert!(root.may(2, 0, 1, 1));
    }
}

//! Which arguments EAL gets: a pure function of the configuration and of [`Facts`].

use super::EalError;
use super::host::Facts;

/// Whether DPDK's memory is made of hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugepagePolicy {
    /// Hugepages if enough are free, else ordinary pages.
    #[default]
    Auto,
    /// Hugepages, or an error.
    Require,
    /// Ordinary pages.
    Never,
}

/// What the caller decides about EAL.
#[derive(Debug, Clone)]
pub struct EalArgs {
    /// Whether to use hugepages.
    pub hugepages: HugepagePolicy,
    /// PCI devices DPDK takes at once: an address ("0000:03:00.0"), or one with device arguments. It
    /// takes no other until that is probed.
    pub pci: Vec<String>,
    /// Memory for mempools, rings and drivers, in MB: allocated without hugepages, and looked for
    /// among the free hugepages with them (which are then taken as needed).
    pub memory_mb: u32,
    /// Memory for what may be added later, in MB, where it cannot be taken as needed: without hugepages. It
    /// costs address space, and one part in a hundred of it, until it is used.
    pub spare_mb: u32,
    /// Arguments appended to the others. They win: nothing is chosen that is given here.
    pub extra: Vec<String>,
}

impl Default for EalArgs {
    /// Hugepages if there are any, no PCI devices, 256 MB.
    fn default() -> Self {
        EalArgs {
            hugepages: HugepagePolicy::Auto,
            pci: Vec::new(),
            memory_mb: 256,
            spare_mb: 0,
            extra: Vec::new(),
        }
    }
}

/// What was chosen.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) argv: Vec<String>,
    pub(super) hugepages: bool,
    /// EAL's runtime directory is no other process's, and is empty.
    pub(super) own_runtime_dir: bool,
}

/// Options of which any one means that `extra` decides about memory.
const MEMORY_MODE: &[&str] = &["--no-huge", "--in-memory", "--legacy-mem", "--huge-unlink", "--huge-dir"];

/// A PCI device that no host has: to allow it is to allow no other.
const NO_DEVICE: &str = "ffff:ff:1f.7";

/// Options of which any one means that `extra` decides about lcores.
const LCORES: &[&str] = &["-c", "-l", "--coremask", "--lcores"];

pub(super) fn choose(args: &EalArgs, facts: &Facts) -> Result<Choice, EalError> {
    let given =
        |options: &[&str]| args.extra.iter().any(|arg| options.iter().any(|option| is_option(arg, option)));
    let mut argv = vec!["ringwired".to_owned()];

    // Warnings and errors of everything; a later option wins, so `extra` can ask for more.
    argv.push("--log-level=*:warning".into());
    if !given(&["--telemetry", "--no-telemetry"]) {
        argv.push("--no-telemetry".into());
    }
    if !given(LCORES)
        && let Some(cpus) = cpu_list(&facts.cpus)
    {
        // One lcore floating over all CPUs this thread may use: EAL pins its main thread to the
        // CPUs of its lcore, and would pick a single one.
        argv.push("--lcores".into());
        argv.push(format!("0@({cpus})"));
    }
    pci(args, facts, &given, &mut argv);
    let (hugepages, own_runtime_dir) = memory(args, facts, &given, &mut argv)?;

    argv.extend(args.extra.iter().cloned());
    Ok(Choice { argv, hugepages, own_runtime_dir })
}

fn pci(args: &EalArgs, facts: &Facts, given: &dyn Fn(&[&str]) -> bool, argv: &mut Vec<String>) {
    if args.pci.is_empty() {
        if !given(&["--no-pci", "-a", "--allow", "-b", "--block"]) {
            // With --no-pci, none could be probed later either.
            argv.extend(if facts.pci {
                vec!["-a".into(), NO_DEVICE.into()]
            } else {
                vec!["--no-pci".into()]
            });
        }
        return;
    }
    for address in &args.pci {
        argv.push("-a".into());
        argv.push(address.clone());
    }
}

/// Returns whether hugepages are used, and whether the runtime directory is this process's own.
fn memory(
    args: &EalArgs,
    facts: &Facts,
    given: &dyn Fn(&[&str]) -> bool,
    argv: &mut Vec<String>,
) -> Result<(bool, bool), EalError> {
    let wanted_mb = u64::from(args.memory_mb.max(1));
    let enough = facts.free_hugepage_mb >= wanted_mb;
    let hugepages = if given(MEMORY_MODE) {
        !given(&["--no-huge"])
    } else {
        match args.hugepages {
            HugepagePolicy::Never => false,
            HugepagePolicy::Auto => enough,
            HugepagePolicy::Require if enough => true,
            HugepagePolicy::Require => {
                return Err(EalError::NoHugepages {
                    free_mb: facts.free_hugepage_mb,
                    wanted_mb,
                    pages: wanted_mb.div_ceil(2),
                });
            }
        }
    };

    if !given(MEMORY_MODE) {
        // --in-memory leaves no files behind and shares nothing; it cannot be had without
        // hugepages, because --no-huge implies --legacy-mem, which excludes it.
        argv.push(if hugepages { "--in-memory" } else { "--no-huge" }.into());
    }
    if !hugepages && !given(&["-m", "--socket-mem", "--memory-size", "--numa-mem"]) {
        argv.push("-m".into());
        argv.push((wanted_mb + u64::from(args.spare_mb)).to_string());
    }
    let in_memory = hugepages && !given(MEMORY_MODE) || given(&["--in-memory"]);
    if in_memory {
        return Ok((hugepages, false));
    }
    // What --in-memory does about files: no configuration, sockets or locks that another process
    // could find, and an empty runtime directory.
    if !given(&["--no-shconf"]) {
        argv.push("--no-shconf".into());
    }
    let own_runtime_dir = !given(&["--file-prefix"]);
    if own_runtime_dir {
        argv.push(format!("--file-prefix=ringwire-{}", facts.pid));
    }
    Ok((hugepages, own_runtime_dir))
}

/// Whether `arg` is `option`, with or without a value in the same word.
fn is_option(arg: &str, option: &str) -> bool {
    match arg.strip_prefix(option) {
        Some("") => true,
        Some(rest) => rest.starts_with('=') || !option.starts_with("--"),
        None => false,
    }
}

/// "0-3,8" of the CPU numbers DPDK knows; `None` if it knows none of them.
fn cpu_list(cpus: &[usize]) -> Option<String> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus.iter().filter(|&&cpu| cpu < dpdk_sys::RW_MAX_LCORE as usize) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    (!words.is_empty()).then(|| words.join(","))
}

#[cfg(test)]
mod tests;

//! What a report has to say about the host: a rate means nothing without it.

/// Names and values.
pub fn facts() -> Vec<(&'static str, String)> {
    let first_line = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    };
    let value = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
        line.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let isolated = first_line("/sys/devices/system/cpu/isolated");
    vec![
        ("Processor", value("/proc/cpuinfo", "model name")),
        ("Cores online", first_line("/sys/devices/system/cpu/online")),
        (
            "Cores isolated",
            if isolated.is_empty() || isolated == "unknown" { "none".into() } else { isolated },
        ),
        ("Frequency governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        ("Huge pages, free", value("/proc/meminfo", "HugePages_Free")),
        ("Kernel", first_line("/proc/sys/kernel/osrelease")),
        ("Kernel command line", first_line("/proc/cmdline")),
        ("DPDK", env!("BENCH_DPDK").to_owned()),
        ("ringwire", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

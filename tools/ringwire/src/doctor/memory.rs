//! Hugepages of each NUMA node, and transparent ones.

use super::{Finding, Setup, Severity, numa};
use crate::host::Host;
use crate::units::memory;

const NODES: &str = "/sys/devices/system/node";

/// Hugepages of one size on one node.
struct Pages {
    directory: String,
    bytes: u64,
    total: u64,
    free: u64,
}

/// Hugepages where they are needed: on each node that has a worker or a NIC, or else on any.
pub fn hugepages(host: &Host, setup: &Setup) -> Vec<Finding> {
    let nodes = numa::nodes(host);
    let needed = numa::needed(host, setup);
    let mut findings = Vec::new();
    let mut any = false;
    for node in &nodes {
        let sizes = pages(host, *node);
        let reserved: Vec<&Pages> = sizes.iter().filter(|pages| pages.total > 0).collect();
        any |= !reserved.is_empty();
        for Pages { bytes, total, free, .. } in &reserved {
            let found = format!("node {node}: {total} of {}, free: {free}", memory(*bytes));
            findings.push(Finding::ok("hugepages", found));
        }
        if reserved.is_empty() && needed.contains(node) {
            findings
                .push(none(&format!("node {node} has none, and a worker or NIC is there"), sizes.first()));
        }
    }
    if !any && needed.is_empty() {
        let first = nodes.first().map(|node| pages(host, *node)).unwrap_or_default();
        findings.push(none("none are reserved", first.first()));
    }
    findings
}

fn none(found: &str, pages: Option<&Pages>) -> Finding {
    let directory =
        pages.map_or("/sys/kernel/mm/hugepages/hugepages-2048kB", |pages| pages.directory.as_str());
    let found = format!(
        "{found}: DPDK's memory and guests' lie in small pages, and [eal] hugepages = \"require\" fails"
    );
    let fix = format!(
        "echo 1024 >{directory}/nr_hugepages; to keep them: vm.nr_hugepages in /etc/sysctl.d, or hugepages=1024 on the \
         kernel command line"
    );
    Finding::bad("hugepages", Severity::Warning, found, fix)
}

/// Smallest size first.
fn pages(host: &Host, node: usize) -> Vec<Pages> {
    let parent = format!("{NODES}/node{node}/hugepages");
    let size = |name: String| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let directory = format!("{parent}/{name}");
        let count = |file| host.number(&format!("{directory}/{file}")).unwrap_or(0);
        let (total, free) = (count("nr_hugepages"), count("free_hugepages"));
        Some(Pages { directory, bytes: kib << 10, total, free })
    };
    let mut sizes: Vec<Pages> = host.list(&parent).into_iter().filter_map(size).collect();
    sizes.sort_by_key(|pages| pages.bytes);
    sizes
}

/// Transparent hugepages for those that ask for them: for everybody, the kernel stops threads to make them.
pub fn transparent(host: &Host, _: &Setup) -> Vec<Finding> {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Some(modes) = host.read(FILE) else { return Vec::new() };
    let chosen = modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'));
    vec![match chosen {
        Some("always") => {
            let found = "always: the kernel may stop a worker to make one";
            let fix =
                format!("echo madvise >{FILE}, or transparent_hugepage=madvise on the kernel command line");
            Finding::bad("transparent hugepages", Severity::Note, found, fix)
        }
        chosen => Finding::ok("transparent hugepages", chosen.unwrap_or(&modes)),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found};
    use super::*;

    const NODE0: [(&str, &str); 4] = [
        ("/sys/devices/system/node/online", "0-1"),
        ("/sys/devices/system/cpu/cpu1/node0/x", ""),
        ("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "512"),
        ("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "100"),
    ];
    const NODE1: [(&str, &str); 2] = [
        ("/sys/devices/system/cpu/cpu3/node1/x", ""),
        ("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "0"),
    ];

    #[test]
    fn hugepages_where_they_are_needed() {
        let host = [&NODE0[..], &NODE1].concat();
        assert_one(&found(hugepages, &[1], &host), Severity::Ok, &["node 0: 512 of 2 MiB, free: 100"]);
        let both = found(hugepages, &[1, 3], &host);
        assert_eq!(both.len(), 2);
        let fix = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages";
        assert_one(&both[1..], Severity::Warning, &["node 1 has none", "echo 1024 >", fix]);
    }

    #[test]
    fn no_hugepages_at_all() {
        assert_one(
            &found(hugepages, &[], &NODE1),
            Severity::Warning,
            &["none are reserved", "echo 1024 >/sys/"],
        );
    }

    #[test]
    fn transparent_hugepages() {
        let file = "/sys/kernel/mm/transparent_hugepage/enabled";
        assert_one(&found(transparent, &[], &[(file, "always [madvise] never")]), Severity::Ok, &["madvise"]);
        let bad = found(transparent, &[], &[(file, "[always] madvise never")]);
        assert_one(&bad, Severity::Note, &["always", "echo madvise >"]);
    }
}

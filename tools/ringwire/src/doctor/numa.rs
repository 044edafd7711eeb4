//! Which NUMA node cores and NICs are on, and how far they are from each other.

use std::collections::BTreeSet;

use super::{Finding, Setup, Severity, list, nics};
use crate::host::{Host, cpu_list};

/// The nodes there are.
pub fn nodes(host: &Host) -> Vec<usize> {
    let nodes = host.read("/sys/devices/system/node/online").map(|nodes| cpu_list(&nodes));
    nodes.filter(|nodes| !nodes.is_empty()).unwrap_or_else(|| vec![0])
}

/// A core's node.
fn of_core(host: &Host, core: usize) -> Option<usize> {
    let names = host.list(&format!("/sys/devices/system/cpu/cpu{core}"));
    names.iter().find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// A PCI device's node; on a host with one node the kernel says -1.
fn of_nic(host: &Host, address: &str) -> Option<usize> {
    host.read(&format!("/sys/bus/pci/devices/{address}/numa_node"))?.parse().ok()
}

/// Nodes with a worker or a NIC of ringwired.
pub fn needed(host: &Host, setup: &Setup) -> BTreeSet<usize> {
    let cores = setup.cores.iter().filter_map(|core| of_core(host, *core));
    let nics = setup.nics.iter().filter_map(|nic| of_nic(host, nic));
    cores.chain(nics).collect()
}

/// Workers on another node than the NIC that they may poll.
pub fn distances(host: &Host, setup: &Setup) -> Vec<Finding> {
    let used = if setup.nics.is_empty() { nics::given_to_dpdk(host) } else { setup.nics.clone() };
    let mut findings = Vec::new();
    for nic in used {
        let Some(node) = of_nic(host, &nic) else { continue };
        let far: Vec<usize> = setup
            .cores
            .iter()
            .copied()
            .filter(|core| of_core(host, *core).is_some_and(|at| at != node))
            .collect();
        if far.is_empty() {
            findings.push(Finding::ok("NUMA", format!("{nic} is on node {node}, as the workers' cores are")));
            continue;
        }
        let local = host.read(&format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
        let distance = far.first().and_then(|core| distance(host, of_core(host, *core)?, node));
        let distance =
            distance.map_or(String::new(), |distance| format!(" (distance {distance}; 10 is none)"));
        let found = format!("{nic} is on node {node}, worker cores {} are not{distance}", list(&far));
        let fix = format!("[datapath] cores = [...] of {local}, and memory of that node for its guests");
        findings.push(Finding::bad("NUMA", Severity::Warning, found, fix));
    }
    findings
}

fn distance(host: &Host, from: usize, to: usize) -> Option<u64> {
    let row = host.read(&format!("/sys/devices/system/node/node{from}/distance"))?;
    row.split_whitespace().nth(to)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found_with};
    use super::*;

    #[test]
    fn a_nic_beside_its_workers_or_far_from_them() {
        let host = [
            ("/sys/bus/pci/devices/0000:03:00.0/numa_node", "1\n"),
            ("/sys/devices/system/cpu/cpu1/node0/x", ""),
            ("/sys/devices/system/cpu/cpu9/node1/x", ""),
            ("/sys/devices/system/node/node0/distance", "10 21"),
            ("/sys/devices/system/node/node1/cpulist", "8-15"),
        ];
        let setup = |core| Setup { cores: vec![core], nics: vec!["0000:03:00.0".into()], pid: None };
        assert_one(&found_with(distances, &setup(9), &host), Severity::Ok, &["0000:03:00.0 is on node 1"]);
        let bad = found_with(distances, &setup(1), &host);
        assert_one(&bad, Severity::Warning, &["worker cores 1 are not", "distance 21", "of 8-15"]);
    }

    #[test]
    fn one_node_is_no_matter() {
        let host = [("/sys/bus/pci/devices/0000:03:00.0/numa_node", "-1")];
        let setup = Setup { cores: vec![1], nics: vec!["0000:03:00.0".into()], pid: None };
        assert_eq!(found_with(distances, &setup, &host), []);
    }
}

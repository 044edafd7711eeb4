//! The driver of each PCI NIC.

use super::{Finding, Setup, Severity};
use crate::host::Host;

const DEVICES: &str = "/sys/bus/pci/devices";
/// Drivers through which DPDK's own run a NIC.
const FOR_DPDK: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "uio_hv_generic"];
/// Drivers that let DPDK and the kernel run a NIC together.
const SHARED: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

/// Whether `device` is a PCI address, as in `0000:03:00.0`.
pub fn is_address(device: &str) -> bool {
    let parts: Vec<&str> = device.split([':', '.']).collect();
    let is_hex = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 4 && parts.iter().all(is_hex)
}

/// PCI devices of class network controller, Ethernet (0200).
fn ethernet(host: &Host) -> Vec<String> {
    let class = |address: &String| host.read(&format!("{DEVICES}/{address}/class"));
    let is_ethernet = |address: &String| class(address).is_some_and(|class| class.starts_with("0x0200"));
    host.list(DEVICES).into_iter().filter(is_ethernet).collect()
}

fn driver(host: &Host, address: &str) -> Option<String> {
    host.link(&format!("{DEVICES}/{address}/driver"))
}

/// NICs that DPDK can have as they are.
pub fn given_to_dpdk(host: &Host) -> Vec<String> {
    let is_given =
        |address: &String| driver(host, address).is_some_and(|driver| FOR_DPDK.contains(&driver.as_str()));
    ethernet(host).into_iter().filter(is_given).collect()
}

/// What each NIC is bound to; ringwired's own must be DPDK's.
pub fn drivers(host: &Host, setup: &Setup) -> Vec<Finding> {
    let mut addresses = ethernet(host);
    addresses.extend(setup.nics.iter().filter(|nic| !addresses.contains(nic)).cloned().collect::<Vec<_>>());
    if addresses.is_empty() {
        let fix = "none is needed for taps, raw sockets, and NICs behind net_af_packet or net_af_xdp";
        return vec![Finding::bad("NIC", Severity::Note, "this host has no PCI NIC", fix)];
    }
    addresses.iter().map(|address| of(host, setup, address)).collect()
}

fn of(host: &Host, setup: &Setup, address: &str) -> Finding {
    let used = setup.nics.iter().any(|nic| nic == address);
    let severity = if used { Severity::Error } else { Severity::Note };
    if used && host.list(&format!("{DEVICES}/{address}")).is_empty() {
        let fix = "lspci -nn; then device under [[nic]]";
        return Finding::bad("NIC", severity, format!("{address} is not there"), fix);
    }
    let whose = if used { ", ringwired's," } else { "" };
    let bind = format!("dpdk-devbind.py --bind=vfio-pci {address}");
    match driver(host, address) {
        Some(driver) if FOR_DPDK.contains(&driver.as_str()) => {
            Finding::ok("NIC", format!("{address}{whose} is bound to {driver}"))
        }
        Some(driver) if SHARED.contains(&driver.as_str()) => {
            Finding::ok("NIC", format!("{address}{whose} is bound to {driver}, which DPDK works beside"))
        }
        Some(driver) => {
            let found = format!("{address}{whose} is bound to {driver}, the kernel's driver");
            Finding::bad("NIC", severity, found, format!("to give it to ringwired: {bind}"))
        }
        None => Finding::bad("NIC", severity, format!("{address}{whose} has no driver"), bind),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found, found_with};
    use super::*;

    const NIC: &str = "/sys/bus/pci/devices/0000:03:00.0/class";
    const DRIVER: &str = "/sys/bus/pci/devices/0000:03:00.0/driver->";

    fn bound(driver: &str) -> Vec<(&'static str, String)> {
        vec![(NIC, "0x020000".into()), (DRIVER, format!("../../../bus/pci/drivers/{driver}"))]
    }

    #[test]
    fn each_driver_is_judged() {
        let ours = Setup { nics: vec!["0000:03:00.0".into()], ..Setup::default() };
        for (driver, severity, words) in [
            ("vfio-pci", Severity::Ok, "is bound to vfio-pci"),
            ("mlx5_core", Severity::Ok, "works beside"),
            ("ixgbe", Severity::Error, "dpdk-devbind.py --bind=vfio-pci 0000:03:00.0"),
        ] {
            let files = bound(driver);
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            assert_one(&found_with(drivers, &ours, &files), severity, &["0000:03:00.0", words]);
            let others = if severity == Severity::Error { Severity::Note } else { severity };
            assert_one(&found(drivers, &[], &files), others, &[words]);
        }
        assert_one(&found(drivers, &[], &[(NIC, "0x020000")]), Severity::Note, &["has no driver"]);
        assert_one(&found_with(drivers, &ours, &[]), Severity::Error, &["0000:03:00.0 is not there"]);
        assert_one(&found(drivers, &[], &[(NIC, "0x010802")]), Severity::Note, &["no PCI NIC"]);
    }

    #[test]
    fn addresses() {
        assert!(is_address("0000:03:00.0") && is_address("10000:aF:1f.7"));
        assert!(!is_address("net_tap0,iface=x") && !is_address("0000:03:00") && !is_address("0000::00.0"));
    }
}

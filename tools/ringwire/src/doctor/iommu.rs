//! An IOMMU, and vfio to reach it through.

use super::{Finding, Setup, Severity, nics};
use crate::host::Host;

/// What vfio-pci needs, on a host with PCI NICs.
pub fn iommu(host: &Host, setup: &Setup) -> Vec<Finding> {
    let units = host.list("/sys/class/iommu");
    let wanted = !setup.nics.is_empty() || !nics::given_to_dpdk(host).is_empty();
    if units.is_empty() {
        let severity = if wanted { Severity::Warning } else { Severity::Note };
        let found = "none is in use: vfio-pci refuses NICs, or runs them unprotected";
        let option = match host.read("/proc/cpuinfo").unwrap_or_default() {
            text if text.contains("AuthenticAMD") => "iommu=pt",
            _ => "intel_iommu=on iommu=pt",
        };
        let fix = format!(
            "switch it on in the firmware (VT-d, AMD-Vi), and boot with {option}; in a VM without one: \
             /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        );
        return vec![Finding::bad("IOMMU", severity, found, fix)];
    }
    let found = format!("in use: {}", units.join(", "));
    let vfio = match host.list("/sys/bus/pci/drivers/vfio-pci").is_empty() {
        false => Finding::ok("vfio", "vfio-pci is loaded"),
        true => Finding::bad("vfio", Severity::Note, "vfio-pci is not loaded", "modprobe vfio-pci"),
    };
    vec![Finding::ok("IOMMU", found), vfio]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_one, found, found_with};
    use super::*;

    #[test]
    fn with_and_without() {
        let good = [("/sys/class/iommu/dmar0/x", ""), ("/sys/bus/pci/drivers/vfio-pci/bind", "")];
        let both = found(iommu, &[], &good);
        assert_one(&both[..1], Severity::Ok, &["dmar0"]);
        assert_one(&both[1..], Severity::Ok, &["vfio-pci is loaded"]);
        assert_one(&found(iommu, &[], &good[..1])[1..], Severity::Note, &["modprobe vfio-pci"]);
        assert_one(&found(iommu, &[], &[]), Severity::Note, &["none is in use", "intel_iommu=on"]);
        let amd = [("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\n")];
        let setup = Setup { nics: vec!["0000:03:00.0".into()], ..Setup::default() };
        let found = found_with(iommu, &setup, &amd);
        assert_one(&found, Severity::Warning, &["boot with iommu=pt"]);
    }
}

//! Binds to whatever DPDK pkg-config finds: 22.11 (Debian 12), 24.11 (Debian 13), 25.11.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dpdk-sys: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    for file in ["wrapper.h", "shim.c", "build.rs"] {
        println!("cargo:rerun-if-changed={file}");
    }

    // Prints the link lines too. Dynamic: the PMDs are plugins which EAL loads at run time.
    let library = pkg_config::Config::new().atleast_version("22.11").probe("libdpdk").map_err(|error| {
        format!(
            "DPDK 22.11 or newer was not found through pkg-config (libdpdk.pc). \
                 On Debian: apt-get install libdpdk-dev pkg-config\n{error}"
        )
    })?;
    println!("cargo:version={}", library.version);

    let cflags = cflags()?;
    let mut shim = cc::Build::new();
    shim.file("shim.c").warnings(true).extra_warnings(true);
    for flag in &cflags {
        shim.flag(flag);
    }
    shim.try_compile("ringwire_dpdk_shim")?;

    let bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(&cflags)
        .allowlist_file(".*/?wrapper\\.h")
        .allowlist_function("rte_eal_(init|cleanup|get_runtime_dir)")
        .allowlist_function("rte_(strerror|thread_register|thread_unregister|get_tsc_hz)")
        .allowlist_function("rte_pktmbuf_pool_create_by_ops")
        .allowlist_function("rte_mempool_(free|avail_count|in_use_count)")
        .allowlist_function("rte_dev_probe")
        .allowlist_function("rte_eth_iterator_(init|next|cleanup)")
        .allowlist_function("rte_eth_dev_(get_port_by_name|get_name_by_port|socket_id)")
        .allowlist_function("rte_eth_dev_(owner_new|owner_set|owner_get)")
        .allowlist_function("rte_eth_dev_(start|get_mtu|set_mtu|adjust_nb_rx_tx_desc)")
        .allowlist_function("rte_eth_dev_rx_intr_(enable|disable|ctl_q_get_fd)")
        .allowlist_function("rte_eth_(promiscuous_enable|promiscuous_disable|promiscuous_get)")
        .allowlist_function("rte_eth_(macaddr_get|stats_get|xstats_get|xstats_get_names)")
        // Their layouts differ between releases: fields are reached through the shim's constants.
        .opaque_type("rte_mbuf")
        .opaque_type("rte_mempool")
        .opaque_type("rte_(bus|class|device)")
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false)
        .generate()?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    bindings.write_to_file(out)?;
    Ok(())
}

/// All flags DPDK's headers need: the `pkg-config` crate leaves out `-march` and `-include`.
///
/// Include paths become system paths, so that our warnings are about our code.
fn cflags() -> Result<Vec<String>, Box<dyn Error>> {
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(&tool)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("cannot run {tool}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .split_whitespace()
        .map(|flag| match flag.strip_prefix("-I") {
            Some(path) => format!("-isystem{path}"),
            None => flag.to_owned(),
        })
        .collect())
}

//! Compiles `rte_vhost_io.c`, and says which DPDK and which compiler there are: what a packet costs depends on them.

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwire-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    for file in ["rte_vhost_io.c", "build.rs"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut io = cc::Build::new();
    io.file("rte_vhost_io.c").warnings(true).extra_warnings(true);
    // As system paths, so that warnings are about our code. dpdk-sys has found DPDK, and links it.
    let cflags = said_by("pkg-config", &["--cflags", "libdpdk"])?;
    for flag in cflags.split_whitespace() {
        match flag.strip_prefix("-I") {
            Some(path) => io.flag(format!("-isystem{path}")),
            None => io.flag(flag),
        };
    }
    io.try_compile("rte_vhost_io")?;

    println!("cargo:rustc-env=BENCH_DPDK={}", env::var("DEP_DPDK_VERSION")?);
    println!("cargo:rustc-env=BENCH_RUSTC={}", said_by(&env::var("RUSTC")?, &["--version"])?.trim());
    Ok(())
}

fn said_by(program: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8(output.stdout)?)
}

//! Raw bindings to the installed DPDK: bindgen over `wrapper.h`, and the functions of `shim.c`.
//!
//! Nothing here is safe or documented; use the crate `dpdk`. The layout of `rte_mbuf` is not bound:
//! its fields are reached through the `RW_MBUF_*` offsets taken from the installed headers.

#![allow(unsafe_code, reason = "declarations of foreign functions, generated")]
#![allow(missing_docs, reason = "generated from C; see DPDK's own documentation")]
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

//! `rte-vhost-io`: forwards between a guest and a NIC by calling rte_vhost directly. See `rte_vhost_io.c`.
#![allow(unsafe_code, reason = "the program is in C, as rte_vhost's users are")]

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

// Links DPDK.
use dpdk_sys as _;
// Links the part in C: a build script's is linked to the package's library.
use ringwire_bench as _;

unsafe extern "C" {
    fn rte_vhost_io(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

fn main() -> ExitCode {
    // Arguments have no zero bytes in them: they came as C strings.
    let arguments = std::env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok());
    let mut pointers: Vec<*mut c_char> = arguments.map(CString::into_raw).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    // EAL may permute the pointers and keep some of the strings: they live as long as the process.
    let argv = pointers.leak().as_mut_ptr();
    // SAFETY: argv has as many writable strings as it says, and a null behind them.
    let status = unsafe { rte_vhost_io(count, argv) };
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

//! A vhost-user session and a hostile frontend.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ringwire_fuzz::session::run(data));

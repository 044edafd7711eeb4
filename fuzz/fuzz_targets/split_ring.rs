//! A split ring and a hostile guest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringwire_fuzz::split::Split;

fuzz_target!(|data: &[u8]| ringwire_fuzz::ring::run::<Split>(data));

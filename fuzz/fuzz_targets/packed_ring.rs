//! A packed ring and a hostile guest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringwire_fuzz::packed::Packed;

fuzz_target!(|data: &[u8]| ringwire_fuzz::ring::run::<Packed>(data));

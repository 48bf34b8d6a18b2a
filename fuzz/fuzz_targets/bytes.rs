//! Files changed byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(init: planish_fuzz::write_seeds(), |data: &[u8]| planish_fuzz::run(data));

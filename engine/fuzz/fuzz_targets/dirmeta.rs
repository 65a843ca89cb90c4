//! Fuzzes metadata of directories.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::dirmeta(data));

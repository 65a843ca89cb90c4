//! Fuzzes compressed payloads and their recipes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::recoding(data));

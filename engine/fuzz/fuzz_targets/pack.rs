//! Fuzzes packs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::pack(data));

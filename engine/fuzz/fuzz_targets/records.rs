//! Fuzzes file records and import records.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::records(data));

//! Fuzzes deltas of our own.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::own_delta(data));

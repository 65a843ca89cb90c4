//! Fuzzes values given as text.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::variant_text(data));

//! Fuzzes whole packages.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_compose_fuzz::package(data));

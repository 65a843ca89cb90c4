//! Fuzzes objects of archives and key files of OSTree repositories.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::foreign_files(data));

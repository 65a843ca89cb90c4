//! Fuzzes superblocks of static deltas.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::static_superblock(data));

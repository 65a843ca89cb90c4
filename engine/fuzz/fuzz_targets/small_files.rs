//! Fuzzes refs, doomed packs and stat caches.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::small_files(data));

//! Fuzzes parts of static deltas.

#![no_main]

use std::sync::LazyLock;

use grove_engine::Repository;

/// Parts that take bytes from it fail; the tests have one with files.
static REPO: LazyLock<Repository> = LazyLock::new(|| {
    let path = std::env::temp_dir().join("grove-fuzz-static-part");
    let opened = Repository::open(&path).or_else(|_| Repository::init(&path));
    opened.expect("because the temporary directory can be written to")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| grove_engine_fuzz::static_part(&REPO, data));

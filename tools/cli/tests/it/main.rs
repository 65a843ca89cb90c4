//! The binary as a whole: text, JSON, errors and exit codes, and comparison with `ostree`.

/// Compares a text with its file in `snapshots`, without repeating the commands there.
macro_rules! snapshot {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

mod bench;
mod compare;
mod conformance;
mod delta;
mod diff;
mod docs;
mod env;
mod errors;
mod exchange;
mod interrupt;
mod kill;
mod look;
mod mount;
mod mount_service;
mod mount_uses;
mod ostree;
mod progress;
mod prune;
mod readme;
mod refused;
mod repair;
mod report;
mod size;
mod static_delta;
mod storm;
mod upkeep;

/// A file that is not named above would not be tested.
#[test]
fn every_file_here_is_a_module() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(dir).expect("the tests' directory") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8");
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(
                main.contains(&format!("mod {module};")),
                "{name} is forgotten"
            );
        }
    }
}

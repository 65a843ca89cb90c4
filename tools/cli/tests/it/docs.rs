//! Documentation that is generated: docs/cli.md, manual pages, completions.

use std::fs;
use std::path::Path;

use crate::env::Env;

/// To write the file anew: `GROVE_REGENERATE=1 cargo test -p grove-cli docs`.
#[test]
fn docs_cli_md_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let text = Env::new().ok(&["markdown-help"]);
    if std::env::var_os("GROVE_REGENERATE").is_some() {
        fs::write(&path, &text).expect("docs/cli.md");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/cli.md is stale: run this test with GROVE_REGENERATE=1"
    );
}

#[test]
fn every_verb_has_a_manual_page() {
    let env = Env::new();
    env.ok(&["man", "man1"]);
    let docs = env.ok(&["markdown-help"]);
    for verb in docs
        .lines()
        .filter_map(|line| line.strip_prefix("## grove "))
    {
        assert!(env.path(&format!("man1/grove-{verb}.1")).exists(), "{verb}");
    }
    assert!(env.path("man1/grove.1").exists());
}

#[test]
fn completions_know_the_verbs() {
    let env = Env::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            env.ok(&["completion", shell]).contains("rev-parse"),
            "{shell}"
        );
    }
}

#[test]
fn the_version_is_told_in_both_ways() {
    let env = Env::new();
    assert_eq!(env.ok(&["--version"]), env.ok(&["version"]));
    assert!(env.ok(&["-Vv"]).contains("sha256: "));
}

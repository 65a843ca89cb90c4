//! Documentation that is generated: docs/cli.md, manual pages, completions.

use std::fs;
use std::path::Path;

use crate::env::{Env, have};

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
fn a_manual_page_has_the_examples_and_leads_to_the_page_above() {
    let env = Env::new();
    env.ok(&["man", "man1"]);
    let page =
        |name: &str| fs::read_to_string(env.path(&format!("man1/{name}.1"))).expect("a page");
    for (name, example, above) in [
        ("grove-rev-parse", "grove rev\\-parse os/stable", "grove"),
        (
            "grove-static-delta-generate",
            "grove static\\-delta generate \\-\\-empty os/stable",
            "grove\\-static\\-delta",
        ),
    ] {
        let page = page(name);
        let (_, examples) = page.split_once(".SH EXAMPLES\n.nf\n").expect("examples");
        let (examples, rest) = examples.split_once("\n.fi\n").expect("their end");
        assert!(examples.lines().any(|line| line == example), "{examples}");
        assert!(rest.contains(&format!("\\fB{above}\\fR(1)")), "{rest}");
    }
    assert!(
        page("grove").contains(".SH \"EXIT STATUS\""),
        "{}",
        page("grove")
    );
}

/// The unit that packages bring is the one that the documentation shows.
#[test]
fn the_unit_of_the_documentation_is_the_one_that_is_installed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |name: &str| fs::read_to_string(Path::new(root).join(name)).expect("a file");
    let unit = read("tools/cli/dist/grove@.service");
    assert!(read("docs/mount.md").contains(&format!("```text\n# grove@.service\n{unit}```\n")));
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
fn help_is_plain_where_no_colours_are_wanted() {
    if !have("script") {
        return;
    }
    let env = Env::new();
    let help = |no_colour: &str| {
        let mut command = env.on_terminal(&["--help"]);
        let output = command.env("NO_COLOR", no_colour).output();
        let output = output.expect("script runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(help("").contains('\x1b'));
    let plain = help("1");
    assert!(
        plain.contains("rev-parse") && !plain.contains('\x1b'),
        "{plain:?}"
    );
}

#[test]
fn the_version_is_told_in_both_ways() {
    let env = Env::new();
    assert_eq!(env.ok(&["--version"]), env.ok(&["version"]));
    let long = env.ok(&["-Vv"]);
    assert!(
        long.contains("sha256: ") && long.contains("derived"),
        "{long}"
    );
    let report = env.ok(&["version", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["repository_format"], 1);
}

//! The examples of README.md and docs/guide.md, run as they stand.

use std::env;
use std::path::Path;
use std::process::Command;

use grove_fixtures::mini::{Scale, build_distribution};

use crate::env::GROVE;
use crate::mount::can_mount;

/// The first blocks of commands in a document.
fn blocks(text: &str, count: usize) -> String {
    let mut script = String::new();
    let mut rest = text;
    for _ in 0..count {
        let Some((_, from)) = rest.split_once("```sh\n") else {
            break;
        };
        let (block, after) = from.split_once("```\n").expect("a block ends");
        script.push_str(block);
        rest = after;
    }
    script
}

#[test]
fn the_examples_of_the_readme_run() {
    let example = blocks(include_str!("../../../../README.md"), usize::MAX);
    runs(
        &example,
        &[
            "Release 1",
            "Release 2",
            "Modified:",
            "os/stable",
            "requests",
        ],
    );
}

#[test]
fn the_commands_of_the_guide_run() {
    let guide = blocks(include_str!("../../../../docs/guide.md"), usize::MAX);
    runs(
        &guide,
        &[
            "Modified:",
            "os/stable",
            "without a delta:",
            "static delta:",
            "walk, again",
        ],
    );
}

/// Runs the lines in a directory with the packages of two releases; what they print has the signs.
fn runs(example: &str, signs: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for release in [1, 2] {
        let packages = dir.path().join(format!("release-{release}"));
        build_distribution(&packages, release, Scale::Small).expect("packages");
    }
    let mut script = String::from("set -eux\n");
    let mounts = can_mount();
    for line in example.lines() {
        let mounting = line.contains("mnt") || line.contains("grove bench");
        if mounts || !mounting {
            script.push_str(&format!("{line}\n"));
        }
    }
    assert!(script.lines().count() >= 10, "no example found: {script}");

    let bin = Path::new(GROVE).parent().expect("a directory");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([bin.to_owned()].into_iter().chain(env::split_paths(&path)));
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .env("PATH", path.expect("no separator in names"))
        .env_remove("GROVE_REPO")
        .output()
        .expect("sh runs");
    if !output.status.success() && mounts {
        drop(
            Command::new(GROVE)
                .args(["umount", "mnt"])
                .current_dir(dir.path())
                .output(),
        );
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for sign in signs {
        let found = stdout.contains(sign) || !mounts;
        assert!(found, "{sign} is not in:\n{stdout}");
    }
}

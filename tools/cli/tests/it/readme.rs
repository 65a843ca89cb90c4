//! The example of README.md, run as it stands.

use std::env;
use std::path::Path;
use std::process::Command;

use grove_fixtures::mini::{Scale, build_distribution};

use crate::env::GROVE;
use crate::mount::can_mount;

/// The first block of commands in README.md.
fn example() -> String {
    let text = include_str!("../../../../README.md");
    let block = text
        .lines()
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| *line != "```");
    block.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_example_of_the_readme_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for release in [1, 2] {
        let packages = dir.path().join(format!("release-{release}"));
        build_distribution(&packages, release, Scale::Small).expect("packages");
    }
    let mut script = String::from("set -eux\n");
    let mounts = can_mount();
    for line in example().lines() {
        if mounts || !line.contains("mnt") {
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
    for sign in ["Release 1", "Release 2", "Modified:", "os/stable"] {
        assert!(stdout.contains(sign), "{sign} is not in:\n{stdout}");
    }
}

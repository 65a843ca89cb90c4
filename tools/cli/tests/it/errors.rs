//! Errors: what they say and which exit code they have.

use std::fs;

use crate::env::{Env, FIXED};

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let env = Env::new();
    snapshot!(env.runs(&[
        &["commit"],
        &["commit", "-b", "x", "--tree=zip=a"],
        &["commit", "-b", "x", "--timestamp=yesterday", "one"],
        &["commit", "-b", "x", "--add-metadata=k=[", "one"],
        &["commit", "-b", "x", "--add-metadata-string=k", "one"],
        &["refs", "--create=x"],
        &["init", "--repo", "repo", "other"],
        &["prune", "--keep-younger-than=soon"],
        &["diff", "--stat"],
    ]));
}

#[test]
fn what_is_no_repository_has_its_own_exit_code() {
    let env = Env::new();
    fs::write(env.path("file"), "text").expect("a file");
    snapshot!(env.runs(&[
        &["--repo", "nothing", "refs"],
        &["--repo", "one", "refs"],
        &["--repo", "file", "refs"],
        &["init", "one"],
        &["init"],
    ]));
}

#[test]
fn a_newer_format_is_refused() {
    let env = Env::new();
    let path = env.path("repo/meta.json");
    let text = fs::read_to_string(&path).expect("meta.json");
    fs::write(
        &path,
        text.replacen("\"version\": 1", "\"version\": 999", 1),
    )
    .expect("meta.json");
    snapshot!(env.run(&["refs"]));
}

#[test]
fn a_failed_commit_leaves_the_repository_as_it_was() {
    let env = Env::with_commits();
    let before = env.ok(&["refs", "-r"]);
    let garbage = "not an archive, and longer than one block of one: ".repeat(30);
    env.file("garbage.tar", &garbage, 0o644);
    snapshot!(env.runs(&[
        &["commit", "-b", "os/main", "--tree=dir=nothing"],
        &["commit", "-b", "os/main", "--tree=tar=garbage.tar"],
        &["commit", "-b", "os/main", "--tree=rpm=garbage.tar"],
        &[
            "commit",
            "-b",
            "os/main",
            "--tree=dir=one",
            "--tree=dir=two"
        ],
        &["commit", "-b", "os", "one"],
        &["commit", "-b", "os/main", "--parent=nothing", "one"],
        &["commit", "-b", "os/new", "--keep-metadata=version", "one"],
    ]));
    assert_eq!(env.ok(&["refs", "-r"]), before);
    assert!(env.output(&["fsck", "--deep"]).status.success());
}

#[test]
fn what_a_commit_cannot_hold_is_named_or_left_out_on_request() {
    let env = Env::new();
    let pipe = env.path("one/pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "mkfifo is part of every system"
    );
    let args = [&["commit", "-b", "x", "--timestamp=@1", "one"][..], &FIXED].concat();
    let refused = env.run(&args);
    let skipped = env.run(&[&args[..], &["--skip-special"]].concat());
    snapshot!(format!("{refused}\n{skipped}"));
}

#[test]
fn damage_is_found_and_has_its_own_exit_codes() {
    let env = Env::with_commits();
    for pack in packs(&env) {
        let mut bytes = fs::read(&pack).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(&pack, bytes).expect("a pack");
    }
    let fsck = env.output(&["fsck", "--deep"]);
    let text = String::from_utf8_lossy(&fsck.stdout).into_owned();
    let errors = String::from_utf8_lossy(&fsck.stderr).into_owned();
    assert_eq!(fsck.status.code(), Some(3), "{text}{errors}");
    assert!(text.contains("problem: "), "{text}");
    let ls = env.output(&["ls", "-R", "os/main"]);
    let cat = env.output(&["cat", "os/main", "/hello"]);
    assert!(
        [ls, cat]
            .iter()
            .any(|output| output.status.code() == Some(13))
    );
}

fn packs(env: &Env) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![env.path("repo/packs")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

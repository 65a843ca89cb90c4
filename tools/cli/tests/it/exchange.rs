//! `grove import` and `grove export` as they are met at the terminal.

use std::fs;
use std::process::Command;

use crate::env::{Env, GROVE, have};

fn ostree(env: &Env, args: &[&str]) {
    let mut command = Command::new("ostree");
    let done = command
        .arg("--repo=ostree")
        .args(args)
        .current_dir(env.path("."));
    let done = done.output().expect("ostree runs");
    assert!(done.status.success(), "{args:?}: {done:?}");
}

/// What packs take changes with every improvement of their compression.
fn without_stored_sizes(text: &str) -> String {
    let line = |line: &str| match line.split_once("; ") {
        Some((head, tail)) if tail.ends_with(" stored") => {
            let kept = tail.rsplit_once("; ").map_or(tail, |(kept, _)| kept);
            format!("{head}; {kept}; N stored\n")
        }
        _ if line.trim_start().starts_with("\"stored_bytes\"") => {
            "  \"stored_bytes\": N\n".to_owned()
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn an_import_and_an_export_say_what_they_did() {
    if !have("ostree") {
        return;
    }
    let env = Env::new();
    ostree(&env, &["init", "--mode=archive"]);
    for (tree, time) in [("one", "@1700000000"), ("two", "@1700000001")] {
        let time = format!("--timestamp={time}");
        let fixed = ["--owner-uid=0", "--owner-gid=0", "--no-xattrs"];
        ostree(
            &env,
            &[&["commit", "-b", "os/main", &time, tree][..], &fixed].concat(),
        );
    }
    let runs = env.runs(&[
        &["import", "ostree", "--bytes"],
        &["import", "ostree", "os/main", "--json"],
        &["log", "os/main"],
        &["export", "--mode=bare-user", "--bytes", "out"],
        &["export", "out", "--json"],
        &["export", "--mode=archive", "out"],
        &["import", "ostree", "nothing"],
        &["import", "one"],
        &["import", "--depth=0", "ostree", "os/main"],
    ]);
    snapshot!(without_stored_sizes(&runs));
}

#[test]
fn an_export_is_made_durable_or_not_and_never_file_by_file() {
    let env = Env::with_commits();
    let refused = env.output(&["export", "--fsync=each", "out"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("each") && !env.path("out").exists(),
        "{errors}"
    );
    if !have("strace") {
        return;
    }
    for (policy, is_durable) in [("yes", true), ("true", true), ("no", false), ("0", false)] {
        let mut traced = Command::new("strace");
        let fsync = format!("--fsync={policy}");
        let out = format!("out-{policy}");
        traced
            .args([
                "-f",
                "-e",
                "trace=syncfs",
                "-o",
                "calls",
                GROVE,
                "--repo=repo",
            ])
            .args(["export", &fsync, &out])
            .current_dir(env.path("."));
        let done = traced.output().expect("strace runs");
        if !done.status.success() {
            println!("skipped: strace: {}", String::from_utf8_lossy(&done.stderr));
            return;
        }
        let calls = fs::read_to_string(env.path("calls")).expect("the calls");
        assert_eq!(calls.contains("syncfs("), is_durable, "{policy}: {calls}");
    }
}

#[test]
fn a_damaged_object_is_named_and_has_its_own_exit_code() {
    if !have("ostree") {
        return;
    }
    let env = Env::new();
    ostree(&env, &["init", "--mode=archive"]);
    ostree(&env, &["commit", "-b", "os/main", "one"]);
    let refs = env.ok(&["refs"]);
    let objects = fs::read_dir(env.path("ostree/objects")).expect("objects");
    let mut files =
        objects.flat_map(|dir| fs::read_dir(dir.expect("a directory").path()).expect("one"));
    let filez = files.find_map(|file| {
        let path = file.expect("an object").path();
        let is_large = fs::metadata(&path).expect("metadata").len() > 36;
        (is_large && path.extension().is_some_and(|e| e == "filez")).then_some(path)
    });
    let filez = filez.expect("a file object");
    let bytes = fs::read(&filez).expect("its bytes");
    fs::write(&filez, &bytes[..bytes.len() / 2]).expect("half of them");
    let output = env.output(&["import", "ostree"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(13), "{errors}");
    let stem = filez
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("a name");
    for part in [
        stem,
        "error: file object",
        "caused by:",
        "hint: 'ostree fsck'",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    assert_eq!(env.ok(&["refs"]), refs);
}

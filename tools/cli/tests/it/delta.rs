//! `grove delta`: what it prints, and how it fails.

use std::fs;

use serde_json::Value;

use crate::env::Env;

fn rev(env: &Env, rev: &str) -> String {
    env.ok(&["rev-parse", rev]).trim().to_owned()
}

fn json(env: &Env, args: &[&str]) -> Value {
    serde_json::from_str(&env.ok(args)).expect("JSON")
}

#[test]
fn a_repository_follows_another_one_by_deltas_alone() {
    let env = Env::with_commits();
    let (old, new) = (rev(&env, "os/main^"), rev(&env, "os/main"));
    env.ok(&["delta", "create", "--empty", "os/main^", "first.delta"]);
    let told = env.ok(&["delta", "create", "os/main", "second.delta"]);
    assert!(
        told.starts_with(&format!("From: {old}\nTo:   {new}\nSize: ")),
        "{told}"
    );
    assert_eq!(env.ok(&["delta", "show", "second.delta"]), told);
    let shown = json(&env, &["delta", "show", "--json", "second.delta"]);
    assert_eq!(
        (shown["from"].as_str(), shown["to"].as_str()),
        (Some(&*old), Some(&*new))
    );
    let size = fs::metadata(env.path("second.delta"))
        .expect("a delta")
        .len();
    assert_eq!(shown["size"].as_u64(), Some(size));
    env.ok(&["init", "--repo=other"]);
    for (delta, commit) in [("first.delta", &old), ("second.delta", &new)] {
        let verified = json(&env, &["delta", "verify", "--repo=other", "--json", delta]);
        assert_eq!(verified["to"].as_str(), Some(commit.as_str()));
        let applied = env.ok(&["delta", "apply", "--repo=other", "--ref=os/main", delta]);
        assert_eq!(applied.trim(), commit);
        assert_eq!(
            env.ok(&["rev-parse", "--repo=other", "os/main"]).trim(),
            commit
        );
        let again = json(&env, &["delta", "apply", "--repo=other", "--json", delta]);
        assert_eq!(again["was_there"].as_bool(), Some(true));
    }
    for args in [&["log", "os/main"][..], &["ls", "-RCX", "os/main"]] {
        assert_eq!(env.ok(&[args, &["--repo=other"]].concat()), env.ok(args));
    }
    env.ok(&["fsck", "--deep", "--repo=other"]);
}

#[test]
fn what_is_wrong_with_a_delta_is_said_with_a_hint() {
    let env = Env::with_commits();
    env.ok(&["delta", "create", "os/main", "good.delta"]);
    let good = fs::read(env.path("good.delta")).expect("a delta");
    fs::write(env.path("cut.delta"), &good[..good.len() - 1]).expect("a file");
    let mut newer = good;
    newer[8] = 2;
    fs::write(env.path("newer.delta"), newer).expect("a file");
    env.ok(&["init", "--repo=other"]);
    let old = rev(&env, "os/main^");
    for (args, code, message, hint) in [
        (
            &["apply", "good.delta"][..],
            1,
            old.as_str(),
            "bring the repository to that commit",
        ),
        (
            &["verify", "cut.delta"],
            1,
            "cut short",
            "get the delta again",
        ),
        (
            &["show", "newer.delta"],
            12,
            "version 2",
            "newer version of grove",
        ),
        (
            &["show", "repo/meta.json"],
            1,
            "no delta of Grove",
            "get the delta again",
        ),
        (&["apply", "missing.delta"], 1, "missing.delta", ""),
        (&["create", "--level=23", "os/main", "x"], 2, "23", ""),
    ] {
        let output = env.output(&[&["delta", "--repo=other"], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(
            errors.contains(message) && errors.contains(hint),
            "{args:?}: {errors}"
        );
    }
    let output = env.output(&["delta", "create", "os/main^", "x"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("has no parent") && errors.contains("--empty"),
        "{errors}"
    );
    assert!(!env.path("x").exists());
}

//! `grove bench`: every step is run, and nothing is left behind.

use std::fs;

use serde_json::Value;

use crate::env::{Env, have};
use crate::mount::can_mount;

fn steps(report: &Value, program: &str) -> Vec<String> {
    let rows = report["steps"].as_array().expect("steps");
    let of = rows.iter().filter(|row| row["program"] == program);
    of.map(|row| row["step"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn every_step_is_measured_and_nothing_stays() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("work")).expect("a directory");
    let text = env.ok(&["bench", "--runs=2", "--json", "--work=work", "os/main"]);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["commit"], env.ok(&["rev-parse", "os/main"]).trim());
    assert_eq!(report["from"], env.ok(&["rev-parse", "os/main^"]).trim());
    let wanted = [
        "checkout -U",
        "checkout",
        "checkout --update",
        "commit",
        "commit again",
        "checkout -H, first",
        "checkout -H",
        "mount",
        "walk, first",
        "walk, again",
        "read, first",
        "read, again",
        "diff",
    ];
    let ours = steps(&report, "grove");
    let is_root = rustix::process::geteuid().is_root();
    let wanted: Vec<_> = wanted
        .into_iter()
        .filter(|step| is_root || *step != "checkout")
        .collect();
    assert_eq!(ours, wanted);
    for row in report["steps"].as_array().expect("steps") {
        assert!(
            row["wall_seconds"].as_f64().is_some_and(|time| time > 0.0),
            "{row}"
        );
        let is_walk = row["step"]
            .as_str()
            .is_some_and(|step| step.starts_with("walk"));
        assert!(
            !is_walk || row["peak_bytes"].as_u64() > Some(1 << 20),
            "{row}"
        );
    }
    if have("ostree") {
        let theirs = steps(&report, "ostree");
        assert!(
            theirs.contains(&"checkout -U".to_owned()) && theirs.contains(&"diff".to_owned()),
            "{theirs:?}"
        );
        assert_eq!(
            theirs.contains(&"checkout -H".to_owned()),
            is_root,
            "{theirs:?}"
        );
    }
    assert_eq!(
        fs::read_dir(env.path("work")).expect("a directory").count(),
        0
    );
}

#[test]
fn a_step_that_cannot_run_ends_it() {
    let env = Env::with_commits();
    let text = env.run(&["bench", "--work=none", "os/main"]);
    assert!(
        text.contains("none") && text.contains("exit code"),
        "{text}"
    );
    let text = env.run(&["bench", "nothing"]);
    assert!(
        text.contains("nothing") && text.contains("exit code"),
        "{text}"
    );
}

//! What `grove stats --compare` says, beside what `ostree` and `grove` really store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use grove_fixtures::mini::{Scale, build_tree};

use crate::env::{Env, have};

/// Sizes and number of all files below a directory.
fn sum(dir: &Path) -> (u64, u64) {
    let mut total = (0, 0);
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("its metadata");
        if meta.is_dir() {
            let below = sum(&entry.path());
            total = (total.0 + below.0, total.1 + below.1);
        } else {
            total = (total.0 + meta.size(), total.1 + 1);
        }
    }
    total
}

#[test]
fn a_comparison_says_what_ostree_and_grove_would_really_store() {
    let env = Env::new();
    let trees = [env.path("june"), env.path("july")];
    for (release, tree) in (1..).zip(&trees) {
        build_tree(tree, release, Scale::Small).expect("a tree");
    }
    fs::create_dir(env.path("scratch")).expect("a directory");
    let args = [
        "stats",
        "--json",
        "--scratch=scratch",
        "--compare",
        "june",
        "july",
    ];
    let said: serde_json::Value = serde_json::from_str(&env.ok(&args)).expect("JSON");
    assert_eq!(sum(&env.path("scratch")), (0, 0), "the scratch is removed");
    let figure = |release: usize, what: &str, name: &str| {
        said["releases"][release][what][name]
            .as_u64()
            .unwrap_or_else(|| panic!("{what}.{name} in {said}"))
    };
    let with_ostree = have("ostree");
    for (release, tree) in trees.iter().enumerate() {
        let tree = format!("--tree=dir={}", tree.display());
        let ours = [
            "--repo=other",
            "commit",
            "-b",
            "os",
            "-q",
            "--no-stat-cache",
            &tree,
        ];
        if release == 0 {
            env.ok(&["--repo=other", "init"]);
        }
        env.ok(&ours);
        let stored = sum(&env.path("other/packs")).0;
        let wanted = figure(release, "grove", "stored_bytes");
        // Packs are all but a few files, and the commit's text differs.
        assert!(
            (stored..stored + (1 << 20)).contains(&wanted),
            "{wanted} for {stored}"
        );
        if with_ostree {
            ostree(&env, release, &tree);
            let (bytes, files) = sum(&env.path("archive/objects"));
            assert_eq!(figure(release, "ostree_archive", "files"), files);
            let wanted = figure(release, "ostree_archive", "stored_bytes");
            assert!(
                wanted.abs_diff(bytes) * 100 <= bytes,
                "{wanted} for {bytes}"
            );
        }
        assert!(figure(release, "chunks", "stored_bytes") > 0);
    }
    let added = figure(1, "grove", "stored_bytes") - figure(0, "grove", "stored_bytes");
    assert_eq!(figure(1, "grove", "added_bytes"), added);
}

fn ostree(env: &Env, release: usize, tree: &str) {
    let run = |args: &[&str]| {
        let done = Command::new("ostree")
            .current_dir(env.path("."))
            .arg("--repo=archive")
            .args(args)
            .output()
            .expect("ostree");
        assert!(done.status.success(), "{done:?}");
    };
    if release == 0 {
        run(&["init", "--mode=archive"]);
    }
    run(&["commit", "-b", "os", tree]);
}

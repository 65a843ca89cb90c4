//! Verbs that make and look after repositories.

use crate::env::{Env, FIXED};

#[test]
fn a_commit_prints_its_checksum_or_figures() {
    let env = Env::new();
    let base = [&["commit", "-b", "x", "--timestamp=@1", "one"][..], &FIXED].concat();
    let with = |more: &[&'static str]| [&base[..], more].concat();
    snapshot!(env.runs(&[
        &base,
        &with(&["--skip-if-unchanged"]),
        &with(&["--table-output", "--parent=none"]),
        &with(&["--skip-if-unchanged", "--json"])[..],
    ]));
}

#[test]
fn the_time_comes_from_the_option_then_the_environment() {
    let env = Env::new();
    let commit = ["commit", "-b", "x", "one", "--no-bindings"];
    let run = |args: &[&str]| {
        let output = env
            .command(args)
            .env("SOURCE_DATE_EPOCH", "86400")
            .output()
            .expect("grove");
        assert!(output.status.success());
        env.ok(&["log", "-n1", "x"])
    };
    assert!(run(&commit).contains("Date:  1970-01-02 00:00:00 +0000"));
    let option = [&commit[..], &["--timestamp=@0"]].concat();
    assert!(run(&option).contains("Date:  1970-01-01 00:00:00 +0000"));
}

#[test]
fn checkouts_refuse_replace_or_keep_what_is_there() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["checkout", "-U", "os/main", "out"],
        &["checkout", "-U", "os/main^", "out"],
        &["checkout", "-U", "--union-identical", "os/main", "out"],
        &[
            "checkout",
            "-U",
            "--union-identical",
            "--subpath=/hello",
            "os/main^",
            "out"
        ],
        &[
            "checkout",
            "-U",
            "--union-add",
            "--subpath=/hello",
            "os/main^",
            "out"
        ],
        &[
            "checkout",
            "-U",
            "--union",
            "--subpath=/sub/deep",
            "os/main^",
            "out"
        ],
        &["checkout", "-U", "--subpath=/nothing", "os/main^", "none"],
        &[
            "checkout",
            "-U",
            "--subpath=/nothing",
            "--allow-noent",
            "os/main^",
            "none"
        ],
    ]));
    let text = |name: &str| std::fs::read_to_string(env.path(name)).expect("a file");
    assert_eq!(text("out/hello"), "hello, world\n");
    assert_eq!(text("out/y"), "y");
    env.ok(&[
        "checkout",
        "-U",
        "--union",
        "--subpath=/hello",
        "os/main^",
        "out",
    ]);
    assert_eq!(text("out/hello"), "hello\n");
}

#[test]
fn an_update_says_what_it_does_not_do() {
    let env = Env::with_commits();
    let part = ["checkout", "-U", "--subpath=/new"];
    env.ok(&[&part[..], &["os/main", "out"]].concat());
    let refused = env.output(&["checkout", "-C", "--update", "os/main^", "out"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--force-copy"), "{errors}");
    // The other commit has no such directory.
    let update = ["checkout", "--update", "os/main^", "out"];
    let failed = env.output(&update);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    env.ok(&[&update[..], &["--allow-noent"]].concat());
    let text = std::fs::read_to_string(env.path("out/n")).expect("the file of before");
    assert_eq!(text, "new\n");
    env.ok(&["checkout", "--update", "os/main", "out"]);
}

#[test]
fn a_checkout_does_not_follow_links_in_its_way() {
    let env = Env::with_commits();
    env.file("victim/z", "untouched", 0o644);
    env.file("out/keep", "", 0o644);
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, env.path(name)).expect("a link");
    };
    link("../victim/z", "out/hello");
    link("../victim", "out/sub");
    let output = env.output(&["checkout", "-U", "--union", "os/main^", "out"]);
    assert_eq!(output.status.code(), Some(1));
    std::fs::remove_file(env.path("out/sub")).expect("the link");
    env.ok(&["checkout", "-U", "--union", "os/main^", "out"]);
    let text = |name: &str| std::fs::read_to_string(env.path(name)).expect("a file");
    assert_eq!(
        (text("victim/z").as_str(), text("out/hello").as_str()),
        ("untouched", "hello\n")
    );
}

#[test]
fn upkeep_reports_what_it_did() {
    let env = Env::with_commits();
    env.ok(&["reset", "os/main", "os/main^"]);
    let runs = env.runs(&[
        &["stats"],
        &["stats", "--json"],
        &["fsck"],
        &["fsck", "--quick"],
        &["prune"],
        &["prune", "--refs-only", "--no-prune"],
        &["prune", "--refs-only"],
        &["prune", "--json"],
        &["reindex"],
        &["fsck", "--deep", "--json"],
    ]);
    // Sizes of packs change with every improvement of the format.
    snapshot!(without_stored_sizes(&runs));
}

fn without_stored_sizes(text: &str) -> String {
    let words = [
        "KiB",
        " B  ",
        "_bytes",
        "Stored:",
        "of that metadata",
        "freed",
        "checked",
        "all of them",
        "oldest_check",
    ];
    let fixed = ["logical_bytes", "unique_bytes", "Logical:", "Unique:"];
    let blank = |line: &str| -> String {
        let any = |words: &[&str]| words.iter().any(|word| line.contains(word));
        if !any(&words) || any(&fixed) {
            return format!("{line}\n");
        }
        let kept: String = line
            .chars()
            .map(|c| {
                if c.is_ascii_digit() || c == '.' {
                    '#'
                } else {
                    c
                }
            })
            .collect();
        let mut short = kept;
        while short.contains("##") {
            short = short.replace("##", "#");
        }
        format!("{}\n", short.replace("KiB", "B").replace("MiB", "B"))
    };
    text.lines().map(blank).collect()
}

//! `grove prune` against `ostree prune`, beside mounts, and what it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::env::{Env, FIXED, have};
use crate::mount::can_mount;

/// Both tools get these commits: branch, timestamp.
const COMMITS: &[(&str, u64)] = &[
    ("os/a", 1_000_000),
    ("os/a", 2_000_000),
    ("os/a", 3_000_000),
    ("os/a", 4_000_000),
    ("os/b", 1_500_000),
    ("os/b", 2_500_000),
    ("os/b", 500_000),
    ("os/b", 3_500_000),
    ("old", 1_200_000),
    ("old", 3_200_000),
];

/// Makes `ours` and `theirs` with the commits; the ref `old` is deleted again.
fn histories(env: &Env) -> Vec<String> {
    env.ok(&["init", "--repo=ours"]);
    ostree(env, "theirs", &["init", "--mode=archive"]);
    let mut ids = Vec::new();
    for (n, (branch, time)) in COMMITS.iter().enumerate() {
        env.file("tree/changing", &format!("release {n}"), 0o644);
        env.file("tree/same", "same", 0o644);
        let branch = format!("--branch={branch}");
        let time = format!("--timestamp=@{time}");
        let commit = [&["commit", &branch, &time, "--tree=dir=tree"][..], &FIXED].concat();
        let id = ostree(env, "theirs", &commit);
        assert_eq!(env.ok(&[&["--repo=ours"][..], &commit].concat()), id);
        ids.push(id.trim().to_owned());
    }
    ostree(env, "theirs", &["refs", "--delete", "old"]);
    env.ok(&["--repo=ours", "refs", "--delete", "old"]);
    ids
}

fn ostree(env: &Env, repo: &str, args: &[&str]) -> String {
    let mut command = Command::new("ostree");
    command
        .arg(format!("--repo={repo}"))
        .args(args)
        .current_dir(env.path(""));
    let output = command
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("ostree");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn copy(env: &Env, from: &str, to: &str) {
    drop(fs::remove_dir_all(env.path(to)));
    let mut command = Command::new("cp");
    command.arg("-r").arg(env.path(from)).arg(env.path(to));
    assert!(command.status().expect("cp").success());
}

fn their_commits(env: &Env, repo: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for dir in fs::read_dir(env.path(repo).join("objects")).expect("objects") {
        let dir = dir.expect("an entry").path();
        let first = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for entry in fs::read_dir(&dir).expect("a directory") {
            let name = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8");
            ids.extend(
                name.strip_suffix(".commit")
                    .map(|rest| format!("{first}{rest}")),
            );
        }
    }
    ids.sort();
    ids
}

fn json(env: &Env, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&env.ok(args)).expect("JSON")
}

fn our_commits(env: &Env, repo: &str) -> Vec<String> {
    let stats = json(env, &["--repo", repo, "stats", "--json"]);
    let history = stats["history"].as_array().expect("a list");
    let ids = history
        .iter()
        .map(|row| row["commit"].as_str().expect("text").to_owned());
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

#[test]
fn the_same_commits_stay_as_with_ostree() {
    if !have("ostree") {
        return;
    }
    let env = Env::new();
    let ids = histories(&env);
    let delete = |n: usize| format!("--delete-commit={}", ids[n]);
    let (oldest, middle, orphan) = (delete(0), delete(5), delete(8));
    let cases: &[&[&str]] = &[
        &[],
        &["--refs-only"],
        &["--refs-only", "--depth=0"],
        &["--refs-only", "--depth=1"],
        &["--depth=1"],
        &["--refs-only", "--depth=-1"],
        &["--keep-younger-than=@2200000"],
        &["--keep-younger-than=@9000000"],
        &["--keep-younger-than=@2200000", "--depth=0"],
        &["--retain-branch-depth=os/a=1"],
        &["--retain-branch-depth=os/a=2", "--depth=0"],
        &[
            "--retain-branch-depth=os/b=-1",
            "--keep-younger-than=@3200000",
        ],
        &[
            "--retain-branch-depth=os/a=1",
            "--retain-branch-depth=os/b=2",
        ],
        &["--retain-branch-depth=nothing=0"],
        &["--only-branch=os/a", "--depth=0"],
        &["--only-branch=os/a", "--keep-younger-than=@2200000"],
        &["--only-branch=os/a", "--only-branch=os/b", "--depth=1"],
        &[
            "--only-branch=os/a",
            "--depth=0",
            "--retain-branch-depth=os/b=2",
        ],
        &["--commit-only", "--refs-only", "--depth=0"],
        &[&oldest],
        &[&middle, "--refs-only"],
        &[&orphan],
    ];
    for args in cases {
        copy(&env, "theirs", "theirs.now");
        copy(&env, "ours", "ours.now");
        // Times that both read.
        let times = |arg: &&str| match arg.strip_prefix("--keep-younger-than=@") {
            Some(seconds) => {
                let seconds = seconds.parse().expect("a number");
                let time = jiff::Timestamp::from_second(seconds).expect("a time");
                format!(
                    "--keep-younger-than={}",
                    time.strftime("%Y-%m-%d %H:%M:%S +0000")
                )
            }
            None => (*arg).to_owned(),
        };
        let args: Vec<String> = args.iter().map(times).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let prune = [&["prune"][..], &args].concat();
        ostree(&env, "theirs.now", &prune);
        let plan = [&["--repo=ours.now"][..], &prune, &["--dry-run", "--json"]].concat();
        let plan = json(&env, &plan);
        let done = [&["--repo=ours.now"][..], &prune, &["--json"]].concat();
        let done = json(&env, &done);
        assert_eq!(plan["commits_deleted"], done["commits_deleted"], "{args:?}");
        assert_eq!(plan["entries_deleted"], done["entries_deleted"], "{args:?}");
        assert_eq!(
            our_commits(&env, "ours.now"),
            their_commits(&env, "theirs.now"),
            "{args:?}"
        );
        env.ok(&["--repo=ours.now", "fsck", "--deep"]);
    }
    // Where ostree takes a depth of 0 for none given, and keeps everything.
    let none = [
        "--repo=ours",
        "prune",
        "--retain-branch-depth=os/a=0",
        "--only-branch=os/a",
    ];
    env.ok(&none);
    assert_eq!(our_commits(&env, "ours").len(), 5);
}

#[test]
fn what_is_in_use_is_not_deleted_and_wrong_words_are_refused() {
    let env = Env::with_commits();
    snapshot!(env.runs(&[
        &["prune", "--delete-commit=os/main"],
        &["prune", "--delete-commit=nothing"],
        &["prune", "--only-branch=nothing"],
        &["prune", "--retain-branch-depth=os/main"],
        &["prune", "--keep-younger-than=soon"],
        &["prune", "--delete-commit=os/main^"],
        &["log", "os/main"],
    ]));
    env.ok(&["fsck", "--deep"]);
}

#[test]
fn a_dry_run_says_what_each_commit_gives_back() {
    let env = Env::with_commits();
    for (n, time) in [(3, "@1730000000"), (4, "@1740000000")] {
        let big = "0123456789abcdef".repeat(n * 1000);
        env.file("two/big", &big, 0o644);
        let time = format!("--timestamp={time}");
        let commit = [
            "commit",
            "-b",
            "os/main",
            "-s",
            "Big",
            &time,
            "--tree=dir=two",
        ];
        env.ok(&[&commit[..], &FIXED].concat());
    }
    let prune = ["prune", "--refs-only", "--depth=0", "--dry-run", "--json"];
    let plan = json(&env, &prune);
    let gone = plan["gone"]["commits"].as_array().expect("a list");
    assert_eq!(gone.len(), 3);
    assert_eq!(gone[2]["subject"], "Big");
    let alone = gone
        .iter()
        .map(|row| row["exclusive_bytes"].as_u64().expect("a number"));
    let alone: u64 = alone.sum();
    let together = plan["gone"]["bytes"].as_u64().expect("a number");
    assert!(alone > 0 && alone <= together, "{alone} {together}");
    let sum = |name: &str| plan[name].as_u64().expect("a number");
    assert_eq!(sum("freed_bytes") + sum("left_bytes"), together);
    let text = env.ok(&["prune", "--refs-only", "--depth=0", "--no-prune"]);
    assert!(text.contains("all of them together"), "{text}");
    assert_eq!(our_commits(&env, "repo").len(), 4);
}

/// Reads all files below a directory; gives how many.
fn read_all(dir: &Path) -> u64 {
    let mut files = 0;
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("metadata");
        if meta.is_dir() {
            files += read_all(&path);
        } else if meta.is_file() {
            let read = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(read.len() as u64, meta.len());
            files += 1;
        }
    }
    files
}

#[test]
fn a_prune_beside_a_mount_keeps_what_is_mounted() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("mnt")).expect("a directory");
    env.ok(&["mount", "os/main^", "mnt"]);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(read_all(&env.path("mnt")), 5);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        for n in 0..8 {
            let tree = env.path("one");
            fs::write(tree.join("hello"), format!("number {n}")).expect("a file");
            let commit = ["commit", "-b", "os/main", "--parent=none", "--tree=dir=one"];
            env.ok(&[&commit[..], &FIXED].concat());
            let done = json(&env, &["prune", "--refs-only", "--json"]);
            assert_eq!(
                done["leased_commits"].as_array().map(Vec::len),
                Some(1),
                "{done}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(rounds.load(Ordering::Relaxed) > 0);
    let text = env.ok(&["prune", "--refs-only"]);
    assert!(text.contains("mounted or being read"), "{text}");
    env.ok(&["umount", "mnt"]);
    // The server may take a moment to end.
    let begin = std::time::Instant::now();
    while our_commits(&env, "repo").len() > 1 {
        env.ok(&["prune", "--refs-only"]);
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    }
    env.ok(&["fsck", "--deep"]);
    assert_eq!(
        fs::read_dir(env.path("repo/leases"))
            .expect("leases")
            .count(),
        0
    );
}

#[test]
fn a_mount_of_everything_loses_only_what_was_pruned() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("mnt")).expect("a directory");
    env.ok(&["mount", "--all", "mnt"]);
    let id = |rev: &str| env.ok(&["rev-parse", rev]).trim().to_owned();
    let (parent, head) = (id("os/main^"), id("os/main"));
    let at = |id: &str| env.path("mnt/commits").join(id);
    assert_eq!((read_all(&at(&parent)), read_all(&at(&head))), (5, 5));
    env.ok(&["prune", "--refs-only", "--depth=0"]);
    // Names and attributes of the top level hold for a second.
    let begin = std::time::Instant::now();
    while fs::read_dir(env.path("mnt/commits"))
        .expect("commits")
        .count()
        != 1
        || at(&parent).exists()
    {
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(read_all(&at(&head)), 5);
    env.ok(&["umount", "mnt"]);
}

#[test]
fn stats_add_up() {
    let env = Env::with_commits();
    env.file("two/copy", &"text that compresses ".repeat(500), 0o644);
    env.file("two/copy-2", &"text that compresses ".repeat(500), 0o600);
    env.ok(&[&["commit", "-b", "os/main", "--tree=dir=two"][..], &FIXED].concat());
    let stats = json(&env, &["stats", "--json"]);
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let saved = |name: &str| number(&stats["saved"][name]);
    let (logical, unique) = (
        number(&stats["logical_bytes"]),
        number(&stats["unique_bytes"]),
    );
    assert_eq!(
        saved("file_dedup_bytes") + saved("header_split_bytes"),
        logical - unique
    );
    assert!(
        saved("header_split_bytes") >= 10_500,
        "the copy has another mode"
    );
    let history = stats["history"].as_array().expect("a list");
    assert_eq!(history.len(), 3);
    assert_eq!(history[0]["refs"][0], "os/main");
    for row in history {
        assert!(number(&row["exclusive_bytes"]) > 0);
        assert!(number(&row["exclusive_bytes"]) < number(&row["stored_bytes"]));
    }
    // One ref has it all.
    let all = number(&stats["refs"][0]["exclusive_bytes"]);
    assert!(
        all <= number(&stats["stored_bytes"]) && all > number(&stats["refs"][0]["stored_bytes"])
    );
    let largest = &stats["largest"][0];
    assert_eq!(
        (number(&largest["bytes"]), number(&largest["commits"])),
        (10_500, 1)
    );
    assert!(largest["path"].as_str().expect("text").starts_with("/copy"));
    assert_eq!(number(&stats["unreachable_bytes"]), 0);
    let text = env.ok(&["stats", "--commits"]);
    assert!(
        text.contains("Largest contents") && text.contains("Exclusive"),
        "{text}"
    );
}

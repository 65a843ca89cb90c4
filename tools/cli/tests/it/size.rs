//! What `grove size` says, beside what `ostree pull` asks a server for.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use grove_fixtures::http::{Request, Server, total};
use grove_fixtures::mini::{Scale, build_tree};
use serde_json::Value;

use crate::env::{Env, have};

struct Client<'e> {
    env: &'e Env,
    repo: &'static str,
    server: Server,
}

impl<'e> Client<'e> {
    fn new(env: &'e Env, repo: &'static str, server: &str) -> Self {
        let server = Server::start(env.path(server)).expect("a port");
        let client = Self { env, repo, server };
        client.ostree(&["init", "--mode=bare-user"]);
        let url = client.server.url();
        client.ostree(&["remote", "add", "--no-gpg-verify", "o", url]);
        client
    }

    fn ostree(&self, args: &[&str]) -> String {
        ostree(self.env, self.repo, args)
    }

    /// Requests of a pull, and the bytes that it brought.
    fn pull(&self, args: &[&str]) -> Vec<Request> {
        self.server.take();
        self.ostree(&[&["pull"][..], args].concat());
        self.server.take()
    }
}

fn ostree(env: &Env, repo: &str, args: &[&str]) -> String {
    let mut command = Command::new("ostree");
    command
        .arg(format!("--repo={repo}"))
        .args(args)
        .current_dir(env.path("."));
    let done = command.output().expect("ostree runs");
    assert!(done.status.success(), "{args:?}: {done:?}");
    String::from_utf8(done.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

fn said(report: &Value, what: &str) -> (u64, u64) {
    let figure = |name: &str| {
        report[what][name]
            .as_u64()
            .unwrap_or_else(|| panic!("{report}"))
    };
    (figure("requests"), figure("bytes"))
}

/// 1.5 MB that do not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..1_500_000).map(next).collect()
}

/// Two releases in `repo`, exported to `www`.
fn releases() -> Env {
    let env = Env::new();
    for (release, version) in [(1, "june"), (2, "july")] {
        build_tree(&env.path(version), release, Scale::Small).expect("a tree");
        // Large enough to become a fallback object of a static delta.
        let noise = noise(release.into());
        fs::write(env.path(version).join("noise"), noise).expect("a file");
        let version = format!("--add-metadata-string=version={version}");
        let tree = format!("--tree=dir={}", version.rsplit('=').next().expect("a name"));
        env.ok(&[
            "commit",
            "-b",
            "os",
            "--owner-uid=0",
            "--owner-gid=0",
            &version,
            &tree,
        ]);
    }
    env.ok(&["export", "www"]);
    env
}

fn json(env: &Env, args: &[&str]) -> Value {
    let text = env.ok(&[&["size", "--json"][..], args].concat());
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_stock_client_transfers_what_was_said() {
    if !have("ostree") {
        return;
    }
    let env = releases();
    ostree(&env, "www", &["fsck"]);
    let client = Client::new(&env, "client", "www");
    let first = client.pull(&["o", &format!("os@{}", env.ok(&["rev-parse", "os^"]).trim())]);
    let fresh = json(&env, &["os^"]);
    // A commit that is named is looked for in the configuration alone.
    let asked = first
        .iter()
        .filter(|request| request.path.starts_with("objects/"));
    let objects: Vec<_> = asked.cloned().collect();
    let (requests, bytes) = said(&fresh, "metadata");
    let (files, file_bytes) = said(&fresh, "files");
    assert_eq!(total(&objects), (requests + files + 1, bytes + file_bytes));

    let update = json(&env, &["os^", "os"]);
    let log = client.pull(&["o", "os"]);
    assert_eq!(total(&log), said(&update, "without_delta"), "{log:?}");
    assert_eq!(
        client.ostree(&["rev-parse", "o:os"]),
        env.ok(&["rev-parse", "os"]).trim()
    );
    client.ostree(&["fsck"]);
    let again = json(&env, &["os", "os"]);
    assert_eq!(
        total(&client.pull(&["o", "os"])),
        said(&again, "without_delta")
    );

    let fresh = Client::new(&env, "fresh", "www");
    assert_eq!(
        total(&fresh.pull(&["o", "os"])),
        said(&json(&env, &["os"]), "without_delta")
    );
}

#[test]
fn a_static_delta_is_carried_over_and_told() {
    if !have("ostree") {
        return;
    }
    let env = releases();
    let revs = ["os^", "os"].map(|rev| env.ok(&["rev-parse", rev]).trim().to_owned());
    let [from, to] = &revs;
    let (from, to) = (format!("--from={from}"), format!("--to={to}"));
    for fallback in ["0", "1"] {
        // Some files become fallback objects, or none.
        let fallback = format!("--min-fallback-size={fallback}");
        let made = [
            "static-delta",
            "generate",
            "--disable-bsdiff",
            &fallback,
            &from,
            &to,
        ];
        ostree(&env, "www", &made);
        let deltas = env.path("repo/deltas");
        drop(fs::remove_dir_all(&deltas));
        let mut copy = Command::new("cp");
        assert!(
            copy.arg("-r")
                .arg(env.path("www/deltas"))
                .arg(&deltas)
                .status()
                .expect("cp")
                .success()
        );
        let www: &'static str = if fallback.ends_with('0') {
            "www-0"
        } else {
            "www-1"
        };
        env.ok(&["export", www]);
        let listed = ostree(&env, www, &["static-delta", "list"]);
        assert!(listed.contains(&revs.join("-")), "{listed}");
        let summary = ostree(&env, www, &["summary", "-v"]);
        assert!(summary.contains(&revs.join("-")), "{summary}");

        let update = json(&env, &["os^", "os"]);
        let client = Client::new(
            &env,
            if www == "www-0" {
                "client-0"
            } else {
                "client-1"
            },
            www,
        );
        client.pull(&["--disable-static-deltas", "o", &format!("os@{}", revs[0])]);
        let log = client.pull(&["o", "os"]);
        // Clients before 2023.6 load objects beside the delta that brings them, some more and some
        // fewer.
        assert!(
            log.iter()
                .any(|request| request.path.ends_with("/superblock")),
            "the delta was used: {log:?}"
        );
        let (requests, bytes) = said(&update, "with_delta");
        let (loaded, loaded_bytes) = total(&log);
        assert!(loaded >= requests && loaded_bytes >= bytes, "{log:?}");
        let objects = log
            .iter()
            .filter(|request| request.path.ends_with(".filez"));
        let (distinct, all): (BTreeSet<_>, Vec<_>) = (objects.clone().collect(), objects.collect());
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        client.ostree(&["fsck"]);
    }
}

#[test]
fn a_fleet_is_summed_up() {
    let env = releases();
    fs::write(
        env.path("fleet"),
        "june 7000 # the last one\nos,20\n- 3\n\n",
    )
    .expect("a file");
    let report = json(&env, &["--fleet=fleet", "os"]);
    assert_eq!(report["clients"], 7023);
    let one = |args: &[&str]| said(&json(&env, args), "without_delta");
    let (june, july, none) = (one(&["os^", "os"]), one(&["os", "os"]), one(&["os"]));
    let sum = |n: fn((u64, u64)) -> u64| 7000 * n(june) + 20 * n(july) + 3 * n(none);
    assert_eq!(
        said(&report, "without_deltas"),
        (sum(|s| s.0), sum(|s| s.1))
    );
    assert_eq!(
        said(&report, "with_deltas"),
        said(&report, "without_deltas")
    );
    let table = env.ok(&["size", "--fleet=fleet", "os"]);
    assert!(
        table
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("all")),
        "{table}"
    );
    for (line, says) in [
        ("june", "line 1"),
        ("june x", "line 1"),
        ("may 5", "no commit"),
    ] {
        fs::write(env.path("fleet"), line).expect("a file");
        let output = env.output(&["size", "--fleet=fleet", "os"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && errors.contains(says),
            "{errors}"
        );
    }
}

#[test]
fn a_delta_of_grove_is_set_beside_the_other_ways() {
    let env = Env::with_commits();
    let [first, second] = ["os/main^", "os/main"];
    env.ok(&["delta", "create", second, "update.delta"]);
    env.ok(&["delta", "create", "--empty", second, "whole.delta"]);
    let size = |name: &str| fs::metadata(env.path(name)).expect("a delta").len();
    let (update, whole) = (size("update.delta"), size("whole.delta"));
    let with_update = ["--delta=update.delta", first, second];
    assert_eq!(said(&json(&env, &with_update), "grove_delta"), (1, update));
    let with_whole = json(&env, &["--delta=whole.delta", second]);
    assert_eq!(said(&with_whole, "grove_delta"), (1, whole));
    assert!(json(&env, &[first, second])["grove_delta"].is_null());
    let table = env.ok(&[&["size", "--bytes"][..], &with_update].concat());
    assert!(
        table.contains(&format!("\ngrove delta:{update:>18}  1 request\n")),
        "{table}"
    );

    let fleet = format!("{first} 10\n{second} 5\n- 2\n");
    fs::write(env.path("fleet"), fleet).expect("a file");
    let fleet = ["--fleet=fleet", "--delta=update.delta", second];
    let report = json(&env, &fleet);
    let one = |args: &[&str]| said(&json(&env, args), "without_delta");
    let (same, none) = (one(&[second, second]), one(&[second]));
    let sum = (
        10 + 5 * same.0 + 2 * none.0,
        10 * update + 5 * same.1 + 2 * none.1,
    );
    assert_eq!(said(&report, "with_grove_delta"), sum);
    let takes = |at: usize| !report["versions"][at]["grove_delta"].is_null();
    assert_eq!([takes(0), takes(1), takes(2)], [true, false, false]);
    let table = env.ok(&[&["size", "--bytes"][..], &fleet].concat());
    let last = table.lines().last().unwrap_or_default();
    assert!(last.ends_with(&format!(" {}", sum.1)), "{table}");
}

#[test]
fn a_delta_between_other_commits_is_refused() {
    let env = Env::with_commits();
    let [first, second] =
        ["os/main^", "os/main"].map(|rev| env.ok(&["rev-parse", rev]).trim().to_owned());
    env.ok(&["delta", "create", "os/main", "update.delta"]);
    fs::write(env.path("fleet"), "os/main 1\n").expect("a file");
    for (args, says) in [
        (&["os/main"][..], format!("not from nothing to {second}")),
        (
            &["os/main", "os/main^"],
            format!("not from {second} to {first}"),
        ),
        (&["--fleet=fleet", "os/main^"], format!("not to {first}")),
    ] {
        let output = env.output(&[&["size", "--delta=update.delta"][..], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains(&format!("goes from {first} to {second}, {says}")),
            "{errors}"
        );
    }
    let output = env.output(&["size", "--delta=fleet", "os/main^", "os/main"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("fleet"),
        "{errors}"
    );
}

#[test]
fn sizes_are_found_out_once() {
    let env = Env::with_commits();
    let cache = env.path("repo/cache/filez-6");
    assert!(!cache.exists());
    let first = env.ok(&["size", "os/main^", "os/main"]);
    assert!(cache.exists());
    assert_eq!(env.ok(&["size", "os/main^", "os/main"]), first);
    fs::write(&cache, "damaged").expect("the cache");
    assert_eq!(env.ok(&["size", "os/main^", "os/main"]), first);
}

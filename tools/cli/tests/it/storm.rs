//! `kill -9` at random moments of commits, prunes and repairs, beside a mount that keeps reading.
//!
//! Not part of the usual run: `GROVE_STORM=600 cargo test --release -p grove-cli storm -- --ignored
//! --nocapture` storms for that many seconds (20 if it is not set).

use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::env::Env;

/// Pseudo-random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next(256) as u8).collect()
    }
}

/// Changes some files of the tree that is committed.
fn change(env: &Env, random: &mut Random, round: u64) {
    for _ in 0..4 {
        let (name, len) = (random.next(12), 1000 + random.next(400_000) as usize);
        let bytes = random.bytes(len);
        fs::write(env.path(&format!("one/noise{name}")), bytes).expect("a file");
    }
    fs::write(env.path("one/round"), round.to_string()).expect("a file");
}

fn start(env: &Env, args: &[&str]) -> Child {
    let mut command = env.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("grove")
}

/// Reads a mounted commit and compares it with the tree that it was made of, again and again: by
/// the mount that was there before the storm, and by new ones, for which nothing is cached.
fn read_all(env: &Env, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        env.ok(&["mount", "os/kept", "fresh"]);
        for mount in ["mnt", "fresh"] {
            for name in ["hello", "sub/z", "noise0", "noise1", "noise2", "noise3"] {
                let expected = fs::read(env.path("kept").join(name)).expect("a file");
                let found = fs::read(env.path(mount).join(name)).expect("the mount goes on");
                assert!(found == expected, "{name} differs");
            }
        }
        umount(env, "fresh");
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "as long as GROVE_STORM says"]
fn a_storm_of_kills_loses_nothing_and_disturbs_no_mount() {
    let seconds = std::env::var("GROVE_STORM").map_or(20, |text| text.parse().expect("seconds"));
    let env = Env::new();
    let mut random = Random(seconds);
    for name in 0..12 {
        let bytes = random.bytes(100_000);
        fs::write(env.path(&format!("one/noise{name}")), bytes).expect("a file");
    }
    fs::write(env.path("one/round"), "0").expect("a file");
    env.ok(&["repair", "--parity"]);
    let commit = ["commit", "-b", "os/main", "--tree=dir=one"];
    let began = Instant::now();
    env.ok(&["commit", "-b", "os/kept", "--tree=dir=one"]);
    env.ok(&commit);
    let whole = began.elapsed();
    let copied = std::process::Command::new("cp")
        .args(["-a", "one", "kept"])
        .current_dir(env.path("."))
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    for name in ["mnt", "fresh"] {
        fs::create_dir(env.path(name)).expect("a directory");
    }
    let mounted = env.output(&["mount", "os/kept", "mnt"]).status.success();
    if !mounted {
        println!("no mounts here: only the repository is stormed");
    }
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let (mut killed, mut finished) = (0u64, 0u64);
    std::thread::scope(|scope| {
        if mounted {
            scope.spawn(|| read_all(&env, &stop, &rounds));
        }
        let storm = std::panic::AssertUnwindSafe(|| {
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut round = 1;
            while Instant::now() < end {
                (killed, finished) =
                    storm_once(&env, &mut random, round, whole, (killed, finished));
                // A prune and a repair want the repository for themselves.
                if mounted && round.is_multiple_of(8) {
                    storm_alone(&env, &mut random, whole);
                }
                round += 1;
            }
        });
        let outcome = std::panic::catch_unwind(storm);
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    if mounted {
        umount(&env, "mnt");
    }
    env.ok(&["prune", "--refs-only", "--depth=0"]);
    env.ok(&commit);
    env.ok(&["fsck", "--deep"]);
    let rounds = rounds.into_inner();
    println!("{killed} processes killed, {finished} came to their end, {rounds} rounds of reading");
    assert!(killed > 0 && (rounds > 0 || !mounted));
}

/// Unmounts. A process that another thread is just starting holds copies of all open files for a
/// moment, so the first try may find the directory in use.
fn umount(env: &Env, dir: &str) {
    for _ in 0..50 {
        if env.output(&["umount", dir]).status.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    env.ok(&["umount", dir]);
}

/// Two writers at once, one of them killed; then everything is looked at.
fn storm_once(
    env: &Env,
    random: &mut Random,
    round: u64,
    whole: Duration,
    (mut killed, mut finished): (u64, u64),
) -> (u64, u64) {
    change(env, random, round);
    let before = env.ok(&["rev-parse", "os/main"]);
    let verbs: [&[&str]; 5] = [
        &["commit", "-b", "os/main", "--tree=dir=one"],
        &["commit", "-b", "os/other", "--tree=dir=two"],
        &["fsck"],
        &["repack", "--all"],
        &["prune", "--refs-only", "--depth=4"],
    ];
    let mut first = start(env, verbs[0]);
    let mut second = start(env, verbs[random.next(5) as usize]);
    std::thread::sleep(whole * random.next(120) as u32 / 100);
    for child in [&mut first, &mut second] {
        if random.next(3) > 0 && child.try_wait().expect("a child").is_none() {
            drop(child.kill());
            killed += 1;
        } else {
            finished += 1;
        }
        child.wait().expect("a child");
    }
    let now = env.ok(&["rev-parse", "os/main"]);
    if now != before {
        // Both may have been commits to this ref, one after the other.
        let parent = env.ok(&["rev-parse", "os/main^"]);
        let kept = parent == before || env.ok(&["rev-parse", "os/main^^"]) == before;
        assert!(kept, "round {round}: a commit is lost");
    }
    let level = if round.is_multiple_of(16) {
        "--deep"
    } else {
        "--quick"
    };
    env.ok(&["fsck", level]);
    assert!(!env.ok(&["cat", "os/main", "/round"]).is_empty());
    (killed, finished)
}

/// Kills a prune and a repair of a copy, which no mount keeps from their work.
fn storm_alone(env: &Env, random: &mut Random, whole: Duration) {
    let copy = env.path("alone");
    drop(fs::remove_dir_all(&copy));
    let copied = std::process::Command::new("cp")
        .args(["-a", "repo", "alone"])
        .current_dir(env.path("."))
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    let head = env.ok(&["--repo", "alone", "rev-parse", "os/main"]);
    let verbs = [
        &["prune", "--refs-only", "--depth=1"][..],
        &["repack", "--all"],
        &["repair"],
    ];
    for verb in verbs {
        if verb[0] == "repair" {
            damage(&copy, random);
        }
        let args = [&["--repo", "alone"], verb].concat();
        let mut child = start(env, &args);
        std::thread::sleep(whole * random.next(100) as u32 / 100);
        drop(child.kill());
        child.wait().expect("a child");
        assert_eq!(env.ok(&["--repo", "alone", "rev-parse", "os/main"]), head);
        env.ok(&["--repo", "alone", "repair", "--from=repo"]);
        env.ok(&["--repo", "alone", "fsck", "--deep"]);
    }
}

/// Flips a bit of some pack.
fn damage(repo: &std::path::Path, random: &mut Random) {
    let entries = fs::read_dir(repo.join("packs")).expect("packs");
    let mut packs: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    packs.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "pack")
    });
    packs.sort();
    let pack = &packs[random.next(packs.len() as u64) as usize];
    let mut bytes = fs::read(pack).expect("a pack");
    let at = 16 + random.next(bytes.len() as u64 - 16) as usize;
    bytes[at] ^= 1 << random.next(8);
    fs::write(pack, bytes).expect("a pack");
}

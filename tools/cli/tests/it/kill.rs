//! `kill -9` at any moment of a commit or a prune: nothing acknowledged is lost, the next command
//! goes on as if nothing had happened.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::Env;

/// Incompressible bytes.
fn noise(mut state: u64, len: usize) -> Vec<u8> {
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Runs `grove` and kills it after `delay`; says whether it came to its end before.
fn run_and_kill(env: &Env, args: &[&str], delay: Duration) -> bool {
    let mut command = env.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("grove");
    std::thread::sleep(delay);
    let done = child.try_wait().expect("a child").is_some();
    drop(child.kill());
    child.wait().expect("a child");
    done
}

#[test]
fn a_killed_commit_or_prune_loses_nothing_that_was_acknowledged() {
    let env = Env::new();
    let change = |round: u64| {
        for n in 0..8 {
            let bytes = noise(round * 100 + n, 400_000);
            fs::write(env.path("one").join(format!("noise{n}")), bytes).expect("a file");
        }
        fs::write(env.path("one/round"), round.to_string()).expect("a file");
    };
    let commit = ["commit", "-b", "os/main", "--tree=dir=one"];
    let prune = ["prune", "--refs-only", "--depth=1"];
    change(0);
    let began = Instant::now();
    env.ok(&commit);
    let whole = began.elapsed();
    let mut killed = 0;
    for round in 1..=40u64 {
        change(round);
        let before = env.ok(&["rev-parse", "os/main"]);
        let share = u32::try_from(round * 37 % 100).expect("small");
        let args = if round % 4 == 0 {
            &prune[..]
        } else {
            &commit[..]
        };
        let done = run_and_kill(&env, args, whole * share / 80);
        killed += u32::from(!done);
        let now = env.ok(&["rev-parse", "os/main"]);
        if now != before {
            assert_eq!(env.ok(&["rev-parse", "os/main^"]), before, "round {round}");
        }
        let level = if round % 8 == 0 { "--deep" } else { "--quick" };
        env.ok(&["fsck", level]);
        assert!(!env.ok(&["cat", "os/main", "/round"]).is_empty());
    }
    assert!(killed > 5, "only {killed} rounds were cut short");
    env.ok(&commit);
    env.ok(&["fsck", "--deep"]);
    // A directory whose maker died before it could lock it is spared while it is young.
    let owned = fs::read_dir(env.path("repo/staging"))
        .expect("staging")
        .filter(|entry| {
            let entry = entry.as_ref().expect("an entry");
            entry.path().join("lock").exists()
        });
    assert_eq!(owned.count(), 0, "what dead writers left is cleared away");
}

//! Mounts made by the command line.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::env::Env;

/// Whether mounts are possible here; says so if not.
pub fn can_mount() -> bool {
    let can = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok()
        && (rustix::process::geteuid().is_root() || Path::new("/usr/bin/fusermount3").exists());
    if !can {
        println!("skipped: FUSE mounts are not possible here");
    }
    can
}

#[test]
fn a_mount_shows_the_commit_until_it_is_taken_away() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("mnt")).expect("a directory");
    env.ok(&["mount", "os/main", "mnt"]);
    assert_eq!(
        fs::read_to_string(env.path("mnt/hello")).expect("a file"),
        "hello, world\n"
    );
    let again = env.run(&["mount", "os/main", "mnt"]);
    env.ok(&["umount", "mnt"]);
    let gone = env.runs(&[&["umount", "mnt"], &["mount", "nothing", "mnt"]]);
    let nowhere = env.run(&["mount", "os/main", "nowhere"]);
    snapshot!([again, gone, nowhere].join("\n"));
    assert!(!env.path("mnt/hello").exists());
}

#[test]
fn all_commits_can_be_mounted_at_once() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("mnt")).expect("a directory");
    env.ok(&["mount", "--all", "mnt"]);
    let parent = env.ok(&["rev-parse", "os/main^"]);
    let path = env.path("mnt/commits").join(parent.trim()).join("hello");
    assert_eq!(fs::read_to_string(path).expect("a file"), "hello\n");
    env.ok(&["umount", "mnt"]);
}

#[test]
fn a_mount_in_front_ends_with_a_signal() {
    if !can_mount() {
        return;
    }
    let env = Env::with_commits();
    fs::create_dir(env.path("mnt")).expect("a directory");
    let mut command = env.command(&["mount", "-f", "os/main", "mnt"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("grove");
    let begin = Instant::now();
    while !env.path("mnt/hello").exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the mount does not appear"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("grove runs");
    assert!(child.wait().expect("grove ends").success());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut errors)
        .expect("text");
    assert_eq!(errors, "");
    assert!(!env.path("mnt/hello").exists());
}

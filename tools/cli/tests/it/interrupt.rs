//! Ctrl-C and locks, with an archive that arrives slowly through a pipe.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::env::Env;

/// A commit that waits for the rest of its archive.
struct Slow {
    child: Child,
    archive: File,
}

impl Slow {
    fn start(env: &Env) -> Self {
        let pipe = env.path("pipe.tar");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .expect("mkfifo")
                .success()
        );
        let mut command = env.command(&[
            "commit",
            "-b",
            "os/slow",
            "--tree=tar=pipe.tar",
            "--tar-autocreate-parents",
        ]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("grove");
        // Opens when the commit does: by then it holds its lock and listens to signals.
        let mut archive = OpenOptions::new().write(true).open(&pipe).expect("a pipe");
        // More than any buffer on the way, so that the first bytes have been taken.
        (0..300).for_each(|i| archive.write_all(&entry(i)).expect("grove reads"));
        Self { child, archive }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("grove runs");
    }

    /// Writes until the reader goes away.
    fn feed(&mut self) {
        let mut numbers = 300..100_000;
        while numbers
            .next()
            .is_some_and(|i| self.archive.write_all(&entry(i)).is_ok())
        {}
    }
}

/// An empty file in an archive.
fn entry(number: u32) -> [u8; 512] {
    let mut header = [0; 512];
    let name = format!("file-{number}");
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000000");
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn an_interrupted_commit_changes_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let env = Env::with_commits();
        let before = env.ok(&["refs", "-r"]);
        let mut slow = Slow::start(&env);
        slow.signal(signal);
        slow.feed();
        let output = slow.child.wait_with_output().expect("grove ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), errors.as_ref()),
            (Some(130), "error: interrupted\n")
        );
        assert_eq!(env.ok(&["refs", "-r"]), before);
        assert!(env.output(&["fsck", "--deep"]).status.success());
    }
}

#[test]
fn a_second_interrupt_kills() {
    use std::os::unix::process::ExitStatusExt;
    let env = Env::with_commits();
    let mut slow = Slow::start(&env);
    slow.signal(Signal::INT);
    slow.signal(Signal::TERM);
    let status = slow.child.wait().expect("grove ends");
    assert!(status.signal().is_some(), "{status}");
    assert!(env.output(&["fsck", "--deep"]).status.success());
}

#[test]
fn deleting_waits_for_writers_no_longer_than_told() {
    let env = Env::with_commits();
    let mut slow = Slow::start(&env);
    env.ok(&["reset", "os/main", "os/main^"]);
    let prune = ["prune", "--refs-only", "--wait=0"];
    let output = env.output(&prune);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{errors}");
    assert!(
        errors.contains("hint: try again when no commit"),
        "{errors}"
    );
    // Others may write meanwhile.
    env.ok(&["commit", "-b", "os/other", "one"]);
    slow.archive
        .write_all(&[0; 1024])
        .expect("the archive's end");
    drop(slow.archive);
    assert!(slow.child.wait().expect("grove ends").success());
    assert!(env.ok(&prune).contains("1 commit;"));
}

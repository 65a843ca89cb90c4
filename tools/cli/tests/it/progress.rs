//! Progress, as it is seen on a terminal. script(1) makes the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use grove_fixtures::many;

use crate::env::{Env, have};

const FILES: u64 = 10_000;
/// Bytes of so many of them in an archive are read, hashed and counted before more are wanted.
const COUNTED: usize = 9000 << 10;
/// What takes so long shows progress, even where others have most of the processors.
const LONG: Duration = Duration::from_secs(1);

/// What a command that must succeed shows, and how long it took.
fn shown(env: &Env, args: &[&str]) -> (String, Duration) {
    let start = Instant::now();
    let output = env.on_terminal(args).output().expect("script runs");
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    (text, took)
}

/// A pipe to a command that gets the rest of an archive when the terminal shows what was waited for.
struct Paced {
    pipe: File,
    written: usize,
    seen: Receiver<()>,
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.written;
        self.written += bytes.len();
        if before < COUNTED && self.written >= COUNTED {
            let seen = self.seen.recv_timeout(Duration::from_secs(120));
            seen.map_err(io::Error::other)?;
        }
        self.pipe.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads to the end; tells when all the signs are there.
fn watch(mut terminal: impl Read, signs: [&str; 2], tell: &Sender<()>) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = terminal.read(&mut buffer).expect("a terminal");
        text.extend_from_slice(&buffer[..n]);
        let so_far = String::from_utf8_lossy(&text);
        if n == 0 {
            return so_far.into_owned();
        }
        if signs.iter().all(|sign| so_far.contains(sign)) {
            // After the first time nobody listens.
            let _ = tell.send(());
        }
    }
}

/// Commits an archive that comes as the terminal shows what has come so far.
fn commit_slowly(env: &Env) -> String {
    let pipe = env.path("pipe.tar");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let commit = ["commit", "-b", "os/many", "--tree=tar=pipe.tar"];
    let mut child = env
        .on_terminal(&commit)
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let terminal = child.stdout.take().expect("a pipe");
    let (tell, seen) = channel();
    let reader = thread::spawn(move || watch(terminal, ["Storing", "iB/s"], &tell));
    let pipe = OpenOptions::new().write(true).open(&pipe).expect("a pipe");
    let paced = Paced {
        pipe,
        written: 0,
        seen,
    };
    let fed = many::tar(BufWriter::new(paced), FILES);
    let status = child.wait().expect("script ends");
    let text = reader.join().expect("no panic");
    fed.unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(status.success(), "{text}");
    text
}

#[test]
fn a_terminal_shows_what_is_done_how_far_and_how_fast() {
    if !have("script") {
        return;
    }
    let env = Env::new();
    let text = commit_slowly(&env);
    let checksum = env.ok(&["rev-parse", "os/many"]);
    assert!(text.contains(checksum.trim()), "{text:?}");
    env.ok(&["--repo=other", "init"]);
    for (args, label) in [
        (&["fsck", "--deep"][..], "Verifying"),
        (&["checkout", "-U", "os/many", "tree"], "Writing files"),
        (&["export", "--fsync=no", "out"], "Writing files"),
        (&["--repo=other", "import", "out"], "Storing"),
        (
            &["static-delta", "generate", "--empty", "os/many"],
            "Verifying",
        ),
    ] {
        let (text, took) = shown(&env, args);
        if took < LONG {
            println!("skipped: {args:?} took {took:?}: too short to show anything for sure");
            continue;
        }
        assert!(text.contains(label), "{args:?}: {text:?}");
        assert!(
            text.contains("/s ") && text.contains(" left"),
            "{args:?}: {text:?}"
        );
    }
}

#[test]
fn nothing_is_shown_where_there_is_no_terminal_or_nobody_wants_it() {
    if !have("script") {
        return;
    }
    let env = Env::new();
    let mut archive = Vec::new();
    many::tar(&mut archive, FILES).expect("memory");
    std::fs::write(env.path("many.tar"), archive).expect("a file");
    let commit = [
        "commit",
        "-b",
        "os/many",
        "--no-stat-cache",
        "--tree=tar=many.tar",
    ];
    let output = env.output(&commit);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    for switch in ["--quiet", "--no-progress"] {
        let (text, _) = shown(&env, &[&commit[..], &[switch]].concat());
        let checksum = env.ok(&["rev-parse", "os/many"]);
        assert_eq!(text.trim_end(), checksum.trim_end(), "{switch}");
    }
}

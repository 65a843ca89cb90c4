//! A repository and input trees in a temporary directory, and the text of a run of `grove`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub const GROVE: &str = env!("CARGO_BIN_EXE_grove");

/// Options that make a commit the same whoever runs the tests.
pub const FIXED: [&str; 3] = ["--owner-uid=0", "--owner-gid=0", "--no-xattrs"];

pub struct Env {
    dir: TempDir,
}

impl Env {
    /// An empty repository `repo`, and the trees `one` and `two`.
    pub fn new() -> Self {
        let env = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        env.make_one();
        env.make_two();
        env.ok(&["init"]);
        env
    }

    /// With the commits `os/main^` (of `one`) and `os/main` (of `two`).
    pub fn with_commits() -> Self {
        let env = Self::new();
        let body = "Line one.\n\nLine three.";
        env.commit(&[
            "-s",
            "First",
            "-m",
            body,
            "--timestamp=@1700000000",
            "--tree=dir=one",
        ]);
        env.commit(&[
            "-s",
            "Second",
            "--timestamp=2024-05-01T10:00:00+02:00",
            "--tree=dir=two",
        ]);
        env
    }

    fn commit(&self, args: &[&str]) {
        let fixed = ["commit", "-b", "os/main", "--add-metadata-string=version=7"];
        self.ok(&[&fixed[..], &FIXED, args].concat());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(GROVE);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("GROVE_REPO", "repo")
            .env("TZ", "UTC")
            .env("PATH", "/usr/bin:/bin:/usr/sbin");
        command
    }

    /// A command on a terminal of 100 columns, made by script(1); on its standard output is what
    /// the terminal shows.
    pub fn on_terminal(&self, args: &[&str]) -> Command {
        let words: String = args.iter().map(|word| format!(" '{word}'")).collect();
        let line = format!("stty cols 100 rows 30; exec {GROVE}{words}");
        let mut command = Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .current_dir(self.dir.path())
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("GROVE_REPO", "repo")
            .env("PATH", "/usr/bin:/bin:/usr/sbin")
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm");
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("grove runs")
    }

    /// Standard output of a run that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "grove {args:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Command, output, errors and exit code as one text, for snapshots.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let mut text = format!("$ grove {}\n", args.join(" "));
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        let errors = String::from_utf8_lossy(&output.stderr);
        errors
            .lines()
            .for_each(|line| text.push_str(&format!("! {line}\n")));
        match output.status.code() {
            Some(0) => {}
            code => text.push_str(&format!("[exit code {}]\n", code.unwrap_or(-1))),
        }
        self.redact(&text)
    }

    /// Several runs, one below the other.
    pub fn runs(&self, runs: &[&[&str]]) -> String {
        runs.iter()
            .map(|args| self.run(args))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Takes out what differs from run to run. Checksums do not.
    pub fn redact(&self, text: &str) -> String {
        let dir = self.dir.path().to_str().expect("UTF-8");
        text.replace(dir, "[DIR]")
    }

    fn make_one(&self) {
        self.file("one/empty", "", 0o644);
        self.file("one/hello", "hello\n", 0o644);
        self.file("one/sp ace", "hi\n", 0o644);
        self.file("one/sub/deep/y", "y", 0o600);
        self.file("one/sub/z", "x", 0o4755);
        self.link("one/link", "hello");
        self.link("one/sub/up", "../hello");
        self.directory("one/void", 0o1777);
    }

    fn make_two(&self) {
        self.file("two/empty", "", 0o600);
        self.file("two/hello", "hello, world\n", 0o644);
        self.file("two/moved", "hi\n", 0o644);
        self.file("two/new/n", "new\n", 0o644);
        self.file("two/sub/z/q", "q", 0o644);
        self.link("two/link", "moved");
        self.link("two/sub/up", "../hello");
        self.directory("two/void", 0o755);
    }

    pub fn file(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        let parent = Path::new(name).parent().expect("a parent");
        self.directory(parent.to_str().expect("UTF-8"), 0o755);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.path(name)).expect("a link");
    }

    /// Makes a directory and its parents; all of them get the mode, so make parents first.
    fn directory(&self, name: &str, mode: u32) {
        let mut path = self.dir.path().to_owned();
        for part in Path::new(name) {
            path.push(part);
            if fs::create_dir(&path).is_ok() {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            }
        }
    }
}

/// Whether a program can be run; prints that the test is skipped if not.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

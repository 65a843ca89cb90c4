//! Mounts made by the command line.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::env::{Env, GROVE, have};

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

/// Whether mounts share a session here; says so if not.
pub fn can_share() -> bool {
    let can = can_mount() && rustix::process::geteuid().is_root() && Path::new("/run").is_dir();
    if !can {
        println!("skipped: mounts do not share a session here");
    }
    can
}

/// A repository with commits, and directories to mount at; nothing stays mounted.
pub struct Mounts {
    pub env: Env,
}

impl Mounts {
    pub fn new(dirs: &[&str]) -> Self {
        Self::of(Env::with_commits(), dirs)
    }

    pub fn of(env: Env, dirs: &[&str]) -> Self {
        for dir in dirs {
            fs::create_dir(env.path(dir)).expect("a directory");
        }
        Self { env }
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.env.path(path)).expect("a file")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.env.ok(&[args, &["--json"]].concat())).expect("JSON")
    }

    /// The mounts of this repository: directory and the rest.
    fn list(&self) -> Vec<Value> {
        let all = self.json(&["mount"]);
        let all = all["mounts"].as_array().expect("a list").clone();
        let dir = self.env.path("");
        let is_here =
            |mount: &Value| Path::new(mount["dir"].as_str().expect("text")).starts_with(&dir);
        all.into_iter().filter(is_here).collect()
    }

    /// The process that serves a mount.
    pub fn server(&self, dir: &str) -> Pid {
        let report = self.json(&["mount", "--stats", dir]);
        let pid = report["sessions"][0]["process"].as_i64().expect("a number");
        Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id")
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for mount in self.list() {
            let dir = mount["dir"].as_str().expect("text");
            drop(self.env.output(&["umount", "--lazy", dir]));
        }
    }
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "waited for: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_running(pid: Pid) -> bool {
    // A process that nobody waits for stays as a zombie where nothing adopts it.
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|text| !text.contains(") Z "))
}

#[test]
fn a_mount_shows_the_commit_until_it_is_taken_away() {
    if !can_mount() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "mnt"]);
    assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
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
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    env.ok(&["mount", "--all", "mnt"]);
    let parent = env.ok(&["rev-parse", "os/main^"]);
    let path = format!("mnt/commits/{}/hello", parent.trim());
    assert_eq!(mounts.read(&path), "hello\n");
    env.ok(&["umount", "mnt"]);
}

#[test]
fn a_mount_in_front_ends_with_a_signal() {
    if !can_mount() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    for signal in [Signal::INT, Signal::HUP, Signal::QUIT] {
        // Whatever the one who runs the tests ignores.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", GROVE, "mount", "-f", "os/main", "mnt"])
            .current_dir(env.path(""))
            .env("GROVE_REPO", "repo");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("grove");
        until("the mount", || env.path("mnt/hello").exists());
        kill_process(Pid::from_child(&child), signal).expect("grove runs");
        assert!(child.wait().expect("grove ends").success());
        let mut errors = String::new();
        let mut stderr = child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "");
        assert!(!env.path("mnt/hello").exists());
    }
}

#[test]
fn a_mount_in_front_outlives_its_terminal_if_it_was_started_so() {
    if !can_mount() || !have("nohup") {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let mut command = Command::new("nohup");
    command
        .args([GROVE, "mount", "-f", "os/main", "mnt"])
        .current_dir(env.path(""))
        .env("GROVE_REPO", "repo");
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().expect("grove");
    until("the mount", || env.path("mnt/hello").exists());
    let pid = Pid::from_child(&child);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a process");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a mask").trim(), 16).expect("a mask");
    assert_eq!(ignored & 1, 1, "SIGHUP");
    kill_process(pid, Signal::HUP).expect("grove runs");
    assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
    kill_process(pid, Signal::TERM).expect("grove runs");
    assert!(child.wait().expect("grove ends").success());
}

#[test]
fn mounts_of_root_share_a_process_that_ends_after_the_last() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["m1", "m2", "own"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "m1"]);
    env.ok(&["mount", "os/main^", "m2"]);
    env.ok(&["mount", "--private", "os/main", "own"]);
    assert_eq!(
        (mounts.read("m1/hello"), mounts.read("m2/hello")),
        ("hello, world\n".into(), "hello\n".into())
    );
    let (shared, own) = (mounts.server("m1"), mounts.server("own"));
    assert_eq!(mounts.server("m2"), shared);
    assert_ne!(own, shared);

    let rev = |rev: &str| env.ok(&["rev-parse", rev]).trim().to_owned();
    let list = mounts.list();
    let rows = list.iter().map(|row| {
        let dir = Path::new(row["dir"].as_str().expect("text"));
        let name = dir
            .file_name()
            .expect("a name")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        (name, row["commit"].as_str().expect("text").to_owned())
    });
    let expected = [("m1", "os/main"), ("m2", "os/main^"), ("own", "os/main")];
    assert_eq!(
        rows.collect::<Vec<_>>(),
        expected.map(|(dir, name)| (dir.to_owned(), rev(name)))
    );
    let text = env.redact(&env.ok(&["mount"]));
    let line = format!(
        "[DIR]/repo#{} on [DIR]/m2 (ro,nosuid,nodev,noatime)\n",
        rev("os/main^")
    );
    assert!(text.contains(&line), "{text}");

    let report = mounts.json(&["mount", "--stats"]);
    let sessions = report["sessions"].as_array().expect("a list");
    let mut dirs = [0, 0];
    for session in sessions {
        let is_shared = session["shared"] == Value::Bool(true);
        dirs[usize::from(is_shared)] += session["dirs"].as_array().expect("a list").len();
        let reads = session["figures"]["requests.read"].as_u64();
        assert_eq!(reads >= Some(1), is_shared, "{report}");
    }
    assert_eq!(dirs, [1, 2], "{report}");
    assert!(
        env.ok(&["mount", "--stats", "own"])
            .contains("own (private, process ")
    );

    env.ok(&["umount", "m1", "m2", "own"]);
    until("the processes to end", || {
        !is_running(shared) && !is_running(own)
    });
    assert_eq!(
        mounts.json(&["mount", "--stats"])["sessions"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_killed_process_leaves_mounts_that_the_next_one_clears() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["m1", "m2", "bound", "other"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "m1"]);
    env.ok(&["mount", "os/main^", "m2"]);
    rustix::mount::mount_bind(env.path("m2"), env.path("bound")).expect("a bind mount");
    let mut open = File::open(env.path("m1/hello")).expect("a file");
    let server = mounts.server("m1");
    kill_process(server, Signal::KILL).expect("it runs");
    until("its end", || !is_running(server));
    until("its mounts to fail", || {
        open.read(&mut [0]).is_err() || open.metadata().is_err()
    });
    let code = |dir: &str| {
        fs::read_dir(env.path(dir))
            .map(drop)
            .map_err(|e| e.raw_os_error())
    };
    assert_eq!(code("bound"), Err(Some(107)));
    // A mount elsewhere clears what its repository's last process left ...
    env.ok(&["mount", "os/main", "other"]);
    for dir in ["m1", "m2", "bound"] {
        assert_eq!(code(dir), Ok(()), "{dir}");
    }
    // ... and an unmount, or a mount at the same place, clears what belongs together.
    for again in [&["umount", "other"][..], &["mount", "os/main", "other"]] {
        rustix::mount::mount_bind(env.path("other"), env.path("bound")).expect("a bind mount");
        kill_process(mounts.server("other"), Signal::KILL).expect("it runs");
        until("the mount to fail", || code("other") == Err(Some(107)));
        env.ok(again);
        assert_eq!(code("bound"), Ok(()));
        if again[0] == "umount" {
            env.ok(&["mount", "os/main", "other"]);
        }
    }
    assert_eq!(mounts.read("other/hello"), "hello, world\n");
}

#[test]
fn a_mount_in_use_names_who_uses_it() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "mnt"]);
    let mut user = Command::new("sleep")
        .arg("600")
        .current_dir(env.path("mnt/sub"))
        .spawn()
        .expect("sleep runs");
    let text = env.run(&["umount", "mnt"]);
    let named = format!("is in use by sleep ({})", user.id());
    env.ok(&["umount", "--lazy", "mnt"]);
    user.kill().and_then(|()| user.wait()).expect("it ends");
    assert!(text.contains(&named) && text.contains("--lazy"), "{text}");
    assert!(!env.path("mnt/hello").exists());
}

#[test]
fn a_process_in_front_serves_until_it_is_told_to_end() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let mut command = env.command(&["mount", "--daemon"]);
    let mut daemon = command.stdout(Stdio::piped()).spawn().expect("grove");
    let mut ready = [0; 6];
    let mut stdout = daemon.stdout.take().expect("a pipe");
    stdout.read_exact(&mut ready).expect("it becomes ready");
    assert_eq!(&ready, b"ready\n");
    env.ok(&["mount", "os/main", "mnt"]);
    env.ok(&["umount", "mnt"]);
    env.ok(&["mount", "os/main", "mnt"]);
    assert_eq!(mounts.server("mnt"), Pid::from_child(&daemon), "it stays");
    let second = env.output(&["mount", "--daemon"]);
    assert!(!second.status.success());
    kill_process(Pid::from_child(&daemon), Signal::TERM).expect("it runs");
    assert!(daemon.wait().expect("it ends").success());
    assert!(!env.path("mnt/hello").exists());
}

#[test]
fn in_another_mount_namespace_a_mount_is_private() {
    if !can_share() || !have("unshare") {
        return;
    }
    let mounts = Mounts::new(&["m1", "m2"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "m1"]);
    let script = format!(
        "set -e\n{GROVE} mount -v os/main m2\ncat m2/hello\n{GROVE} mount --stats m2 --json\n\
         {GROVE} umount m2\n"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .current_dir(env.path(""))
        .env("GROVE_REPO", "repo")
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for sign in [
        "hello, world",
        "\"shared\": false",
        "another mount namespace",
    ] {
        assert!(text.contains(sign), "{sign} is not in:\n{text}");
    }
}

#[test]
fn errors_met_while_serving_are_written_down() {
    if !can_mount() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    env.ok(&["mount", "os/main", "mnt"]);
    let log = env.path("repo/cache/mount.log");
    fs::rename(env.path("repo/packs"), env.path("away")).expect("packs");
    fs::create_dir(env.path("repo/packs")).expect("a directory");
    let error = fs::read(env.path("mnt/sub/z/q")).expect_err("there are no packs");
    assert_eq!(error.raw_os_error(), Some(5));
    let text = fs::read_to_string(log).expect("a log");
    assert!(text.contains("/sub/z"), "{text}");
    fs::remove_dir(env.path("repo/packs")).expect("an empty directory");
    fs::rename(env.path("away"), env.path("repo/packs")).expect("packs");
    assert_eq!(mounts.read("mnt/sub/z/q"), "q");
}

/// A link to the program by the name that mount(8) looks for.
pub fn helper(env: &Env) -> PathBuf {
    let link = env.path("mount.fuse.grove");
    symlink(GROVE, &link).expect("a link");
    link
}

#[test]
fn the_helper_of_mount_understands_its_arguments() {
    if !can_mount() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let helper = helper(env);
    let run = |args: &[&str]| {
        let mut command = Command::new(&helper);
        command
            .args(args)
            .current_dir(env.path(""))
            .env("INVOCATION_ID", "test");
        command.output().expect("the helper runs").status.code()
    };
    let good = ["repo#os/main", "mnt", "-n", "-o", "rw,nofail,noexec,x-y=z"];
    assert_eq!(run(&[&good[..], &["-f"]].concat()), Some(0));
    assert!(!env.path("mnt/hello").exists(), "-f mounts nothing");
    assert_eq!(run(&good), Some(0));
    assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
    assert_eq!(run(&good), Some(0), "the same once more");
    assert_eq!(run(&["repo#os/main^", "mnt"]), Some(32), "something else");
    let report = mounts.json(&["mount", "--stats", "mnt"]);
    assert_eq!(
        report["sessions"][0]["shared"],
        Value::Bool(false),
        "systemd ends it with the unit"
    );
    env.ok(&["umount", "mnt"]);
    for (args, code) in [
        (&["repo#none", "mnt"][..], 32),
        (&["none#os/main", "mnt"], 32),
        (&["repo#os/main", "mnt", "-o", "nonsense"], 1),
        (&["repo#os/main"], 1),
    ] {
        assert_eq!(run(args), Some(code), "{args:?}");
    }
    assert_eq!(
        run(&["repo#os/main", "mnt", "-s", "-o", "nonsense"]),
        Some(0)
    );
    env.ok(&["umount", "mnt"]);
    assert_eq!(run(&["repo", "mnt"]), Some(0));
    assert!(env.path("mnt/refs/os/main").exists());
    env.ok(&["umount", "mnt"]);
}

#[test]
fn the_helper_that_packages_bring_starts_the_program_beside_it() {
    let env = Env::with_commits();
    for dir in ["usr/bin", "usr/sbin"] {
        fs::create_dir_all(env.path(dir)).expect("a directory");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/mount.fuse.grove");
    let helper = env.path("usr/sbin/mount.fuse.grove");
    fs::copy(script, &helper).expect("a script");
    symlink(GROVE, env.path("usr/bin/grove")).expect("a link");
    for (args, code) in [
        (&["repo#os/main", "mnt", "-f", "-o", "ro,nofail"][..], 0),
        (&["repo#os/main", "mnt", "-f", "-o", "nonsense"], 1),
        (&["repo#os/main"], 1),
    ] {
        let mut command = Command::new(&helper);
        let output = command.args(args).current_dir(env.path("")).output();
        let output = output.expect("the helper runs");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn mount_8_and_fstab_mount_commits() {
    if !can_share() || !have("unshare") || !have("mount") {
        return;
    }
    let mounts = Mounts::new(&["mnt", "layers"]);
    let env = &mounts.env;
    let fstab = format!(
        "{repo}#os/main {mnt} fuse.grove ro,nofail,noexec 0 0\n",
        repo = env.path("repo").display(),
        mnt = env.path("mnt").display(),
    );
    env.file("fstab", &fstab, 0o644);
    // The helper is put where mount(8) looks for it in a namespace of its own.
    let script = format!(
        "set -e
        mount -t tmpfs tmpfs layers
        mkdir layers/upper layers/work
        sbin=$(readlink -f /sbin)
        mount -t overlay o -o lowerdir=$sbin,upperdir=layers/upper,workdir=layers/work $sbin
        ln -s {GROVE} $sbin/mount.fuse.grove
        mount -t fuse.grove $PWD/repo#os/main mnt -o allow_suid
        grep ' '$PWD/mnt' ' /proc/self/mountinfo
        cat mnt/hello
        umount mnt
        mount -T fstab -a
        mount -T fstab -a
        cat mnt/hello
        grep -c ' '$PWD/mnt' ' /proc/self/mountinfo
        umount mnt
        "
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .current_dir(env.path(""))
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("hello, world").count(), 2, "{text}");
    assert!(
        text.contains(" ro,nodev,noatime ") && text.ends_with("\n1\n"),
        "{text}"
    );
}

#[test]
fn options_are_those_of_the_last_word() {
    if !can_mount() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    for (args, expected) in [
        (&["--suid", "--dev"][..], "ro,noatime"),
        (
            &["-o", "suid,dev,noexec", "--no-dev"],
            "ro,nodev,noexec,noatime",
        ),
        (&["--no-exec", "--exec"], "ro,nosuid,nodev,noatime"),
    ] {
        env.ok(&[&["mount"], args, &["os/main", "mnt"]].concat());
        let list = mounts.list();
        let options = list[0]["options"].as_array().expect("a list");
        let options: Vec<_> = options
            .iter()
            .map(|option| option.as_str().expect("text"))
            .collect();
        let wanted: Vec<_> = expected.split(',').collect();
        let rights = |name: &&&str| !["relatime", "noatime"].contains(name);
        assert!(
            options
                .iter()
                .filter(rights)
                .eq(wanted.iter().filter(rights)),
            "{options:?}"
        );
        env.ok(&["umount", "mnt"]);
    }
    let wrong = env.runs(&[
        &["mount", "-o", "nonsense", "os/main", "mnt"],
        &["mount", "os/main"],
        &["mount", "--all"],
        &["mount", "--all", "--overlay", "up", "mnt"],
        &["mount", "--stats", "mnt"],
    ]);
    snapshot!(wrong);
}

#[test]
fn an_overlay_is_writable_and_leaves_the_commit_alone() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let overlay = ["mount", "--overlay", "changes", "os/main", "mnt"];
    if !env.output(&overlay).status.success() {
        println!("skipped: no overlayfs here");
        return;
    }
    let before = fs::metadata(env.path("two")).expect("a directory").mode();
    assert_eq!(
        fs::metadata(env.path("mnt")).expect("a directory").mode(),
        before
    );
    fs::write(env.path("mnt/hello"), "changed").expect("it is writable");
    fs::write(env.path("mnt/sub/new"), "new").expect("it is writable");
    fs::remove_file(env.path("mnt/moved")).expect("it is writable");
    let list = mounts.list();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["overlay"], Value::Bool(true));
    let busy = {
        fs::create_dir(env.path("second")).expect("a directory");
        env.run(&["mount", "--overlay", "changes", "os/main", "second"])
    };
    let server = mounts.server("mnt");
    env.ok(&["umount", "mnt"]);
    until("the process to end", || !is_running(server));
    env.ok(&["mount", "os/main", "mnt"]);
    assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
    env.ok(&["umount", "mnt"]);
    env.ok(&overlay);
    assert_eq!(mounts.read("mnt/hello"), "changed");
    assert!(!env.path("mnt/moved").exists() && env.path("mnt/sub/new").exists());
    env.ok(&["umount", "mnt"]);
    let other = env.run(&["mount", "--overlay", "changes", "os/main^", "mnt"]);
    snapshot!([busy, other].join("\n"));
    assert!(mounts.list().is_empty());
}

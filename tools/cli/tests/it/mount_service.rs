//! Mounts that systemd makes, and what becomes of mounts when their server dies.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::mount::{Mounts, can_share, helper, is_running, until};

/// A directory that the kernel has mounted when someone looks at it, as systemd makes it.
struct Automount<'a> {
    at: &'a Path,
    /// Tells of everyone who is not of this process group and waits for the mount.
    waiting: OwnedFd,
}

impl<'a> Automount<'a> {
    /// `None` where there are none.
    fn new(at: &'a Path) -> Option<Self> {
        let (waiting, tell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let data = format!(
            "fd={},pgrp={},minproto=5,maxproto=5,direct",
            tell.as_raw_fd(),
            rustix::process::getpgrp().as_raw_nonzero()
        );
        let data = CString::new(data).expect("no zero");
        let flags = MountFlags::empty();
        rustix::mount::mount("test", at, "autofs", flags, data.as_c_str()).ok()?;
        Some(Self { at, waiting })
    }

    fn has_visitors(&self) -> bool {
        rustix::io::read(&self.waiting, &mut [0; 1024]).is_ok_and(|len| len > 0)
    }
}

impl Drop for Automount<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.at, UnmountFlags::DETACH);
    }
}

#[test]
fn a_mount_on_demand_does_not_wait_for_itself() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let at = env.path("mnt").canonicalize().expect("a directory");
    let Some(automount) = Automount::new(&at) else {
        println!("skipped: no autofs here");
        return;
    };
    for args in [
        &["mount", "--private", "os/main", "mnt"][..],
        &["mount", "os/main", "mnt"],
    ] {
        let mut child = env.command(args).spawn().expect("grove");
        let mut ended = None;
        until("the mount, or someone who waits for it", || {
            ended = child.try_wait().expect("a child");
            ended.is_some() || automount.has_visitors()
        });
        assert!(ended.is_some_and(|status| status.success()), "{args:?}");
        assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
        env.ok(&["umount", "mnt"]);
    }
}

#[test]
fn what_systemd_mounts_shares_the_process_of_a_service_but_starts_none() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["m1", "m2", "own"]);
    let env = &mounts.env;
    let in_unit = |mut command: Command| {
        command.env("INVOCATION_ID", "test");
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    };
    let is_shared = |dir: &str| {
        let report = mounts.json(&["mount", "--stats", dir]);
        report["sessions"][0]["shared"] == Value::Bool(true)
    };
    in_unit(env.command(&["mount", "os/main", "own"]));
    assert!(!is_shared("own"), "the service may end any time");

    let manager = UnixDatagram::bind(env.path("notify")).expect("a socket");
    let timeout = Some(Duration::from_secs(60));
    manager.set_read_timeout(timeout).expect("a socket");
    let mut command = env.command(&["mount", "--daemon"]);
    command.env("NOTIFY_SOCKET", env.path("notify"));
    let mut daemon = command.stdout(Stdio::null()).spawn().expect("grove");
    let mut told = [0; 100];
    let len = manager.recv(&mut told).expect("it becomes ready");
    assert_eq!(&told[..len], b"READY=1");
    in_unit(env.command(&["mount", "os/main", "m1"]));
    let mut helper = Command::new(helper(env));
    helper
        .args(["repo#os/main", "m2"])
        .current_dir(env.path(""));
    in_unit(helper);
    for dir in ["m1", "m2"] {
        assert_eq!(mounts.server(dir), Pid::from_child(&daemon), "{dir}");
    }
    kill_process(Pid::from_child(&daemon), Signal::TERM).expect("it runs");
    assert!(daemon.wait().expect("it ends").success());
}

#[test]
fn the_helper_mounts_again_where_the_server_has_died() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt"]);
    let env = &mounts.env;
    let helper = helper(env);
    for _ in 0..2 {
        let mut command = Command::new(&helper);
        command.args(["repo#os/main", "mnt"]);
        let output = command.current_dir(env.path("")).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mounts.read("mnt/hello"), "hello, world\n");
        kill(&mounts, "mnt");
    }
    env.ok(&["umount", "mnt"]);
}

#[test]
fn a_writable_view_of_a_server_that_has_died_is_cleared_and_made_again() {
    if !can_share() {
        return;
    }
    let mounts = Mounts::new(&["mnt", "other"]);
    let env = &mounts.env;
    let overlay = ["mount", "--overlay", "changes", "os/main", "mnt"];
    if !env.output(&overlay).status.success() {
        println!("skipped: no overlayfs here");
        return;
    }
    fs::write(env.path("mnt/hello"), "changed").expect("it is writable");
    // At the same place, by a mount elsewhere, and by an unmount.
    for (again, left) in [
        (&overlay[..], true),
        (&["mount", "os/main", "other"], false),
        (&["umount", "mnt"], false),
    ] {
        if !env.path("mnt/hello").exists() {
            env.ok(&overlay);
        }
        kill(&mounts, "mnt");
        env.ok(again);
        assert_eq!(env.path("mnt/hello").exists(), left, "{again:?}");
        if left {
            assert_eq!(mounts.read("mnt/hello"), "changed");
            assert_eq!(mounts.read("mnt/sub/z/q"), "q");
        }
        drop(env.output(&["umount", "other"]));
    }
}

/// Kills the server of a mount.
fn kill(mounts: &Mounts, dir: &str) {
    let server = mounts.server(dir);
    kill_process(server, Signal::KILL).expect("it runs");
    until("its end", || !is_running(server));
}

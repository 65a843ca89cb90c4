//! Mounts that systemd makes, and what becomes of mounts when their server dies.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::mount::{Mounts, can_share, until};

/// A directory that the kernel has mounted when someone looks at it, as systemd makes it.
struct Automount<'a> {
    at: &'a Path,
    /// Tells of everyone who is not of this process group and waits for the mount.
    waiting: OwnedFd,
}

impl<'a> Automount<'a> {
    /// `None` where there are none.
    fn new(at: &'a Path) -> Option<Self> {
        let (waiting, tell) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
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
        drop(rustix::mount::unmount(self.at, UnmountFlags::DETACH));
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

//! What other programs and the kernel's own file systems say of a mount made by the command line.
//!
//! The Linux Test Project is not packaged; the cases that it runs on a read-only file system are in
//! `readonly`. The suite pjdfstest, which writes, runs on an overlay above a mount: scripts/pjdfstest.sh.

mod golden;
mod large;
mod reading;
mod readonly;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::env::Env;
use crate::mount::can_mount;

/// Whether file systems can be mounted that are not FUSE's; says so if not.
fn can_mount_all() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root && can_mount()
}

/// Something mounted, until it goes out of scope.
struct View(PathBuf);

impl View {
    /// A mounted commit, with its special modes honoured as on a copy of the tree.
    fn commit(env: &Env, rev: &str, name: &str) -> Self {
        let dir = env.path(name);
        fs::create_dir_all(&dir).expect("a directory");
        env.ok(&["mount", "--suid", "--allow-other", rev, name]);
        Self(dir)
    }

    /// The same at another place.
    fn bind(env: &Env, what: &Path, name: &str) -> Self {
        let dir = env.path(name);
        fs::create_dir_all(&dir).expect("a directory");
        rustix::mount::mount_bind(what, &dir).expect("a bind mount");
        Self(dir)
    }

    /// A writable view of a directory; `None` where the kernel does not want one here.
    fn overlay(env: &Env, lower: &Path, name: &str) -> Option<Self> {
        let part = |part: &str| {
            let path = env.path(&format!("{name}-{part}"));
            fs::create_dir_all(&path).expect("a directory");
            path
        };
        let (upper, work, dir) = (part("upper"), part("work"), env.path(name));
        fs::create_dir_all(&dir).expect("a directory");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}\0",
            lower.display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::from_vec_with_nul(options.into()).expect("no nul inside");
        let flags = MountFlags::empty();
        match rustix::mount::mount("overlay", &dir, "overlay", flags, &*options) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                println!("skipped: no overlay above {}: {error}", lower.display());
                None
            }
        }
    }

    /// A copy of a directory in memory that nobody can write to: what the kernel itself does.
    fn read_only_copy(env: &Env, tree: &Path, name: &str) -> Self {
        let dir = env.path(name);
        fs::create_dir_all(&dir).expect("a directory");
        let flags = MountFlags::empty();
        rustix::mount::mount("tmpfs", &dir, "tmpfs", flags, None).expect("a tmpfs");
        let view = Self(dir);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(tree.join("."))
            .arg(&view.0)
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "cp");
        rustix::mount::mount_remount(&view.0, MountFlags::RDONLY, "").expect("a remount");
        view
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Failing to unmount must not hide why a test failed.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Names of everything below a directory, relative to it.
fn names(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                queue.push(entry.path());
            }
            let name = entry.path();
            found.push(name.strip_prefix(root).expect("below the root").to_owned());
        }
    }
    found.sort();
    found
}

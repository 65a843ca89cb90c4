//! The mount namespace in which a daemon keeps its sessions' file systems.
//!
//! One thread lives in it, and nothing else: no other process sees these mounts, and they go with
//! the process, however it ends. The namespace has no other mounts either, so the daemon keeps no
//! one's disk from being unmounted. What is cut out of these mounts is detached, and others attach
//! it where they want it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change,
    mount_remount, open_tree,
};

use crate::mount::{MountAttrs, MountError, Result, device};

type Job = Box<dyn FnOnce(&mut Room) + Send>;

/// Runs jobs in the namespace. Dropped, the namespace ends when the last job is done.
#[derive(Debug)]
pub(super) struct Base {
    jobs: mpsc::Sender<Job>,
}

/// The namespace as its thread knows it.
#[derive(Debug, Default)]
struct Room {
    made: HashSet<PathBuf>,
}

impl Base {
    /// Makes the namespace; `dir` is any directory.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (result, entered) = mpsc::channel();
        let dir = dir.to_owned();
        let life = move || {
            let mut room = Room::default();
            let done = enter(&dir);
            let is_in = done.is_ok();
            if result.send(done).is_ok() && is_in {
                todo.iter().for_each(|job| job(&mut room));
            }
        };
        let thread = thread::Builder::new().name("base".to_owned());
        thread
            .spawn(life)
            .map_err(MountError::io("start a thread for", "the base"))?;
        entered.recv().unwrap_or_else(|_| Err(ended()))?;
        Ok(Self { jobs })
    }

    /// Mounts a file system as the base of a session.
    pub(super) fn attach(&self, name: &Arc<str>, source: String) -> Result<OwnedFd> {
        let at = path(name);
        // There is no such device in the namespace.
        let device = device::open()?;
        self.run(move |_| {
            fs::create_dir(&at).map_err(MountError::io("make", &at))?;
            let access = device::access(true, true);
            let flags = MountFlags::RDONLY | MountFlags::NOATIME;
            device::mount(&device, &source, &at, flags, &access)
                .map_err(MountError::io("mount at", &at))?;
            Ok(device)
        })?
    }

    /// Device number of a session's file system; asks the session.
    pub(super) fn device(&self, name: &Arc<str>) -> Result<(u32, u32)> {
        let at = path(name);
        self.run(move |_| {
            let stat = rustix::fs::stat(&at).map_err(MountError::io("look at", &at))?;
            Ok((
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            ))
        })?
    }

    /// Cuts a directory out of a session's file system: a detached mount of it.
    pub(super) fn cut(&self, name: &Arc<str>, below: String, attrs: MountAttrs) -> Result<OwnedFd> {
        let name = Arc::clone(name);
        self.run(move |room| {
            let tree = room.variant(&name, attrs)?.join(below);
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, &tree, flags).map_err(MountError::io("open", tree))
        })?
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Room) -> T + Send + 'static,
    ) -> Result<T> {
        let (result, done) = mpsc::channel();
        let job: Job = Box::new(move |room| drop(result.send(job(room))));
        self.jobs.send(job).map_err(|_| ended())?;
        done.recv().map_err(|_| ended())
    }
}

impl Room {
    /// The session's file system, mounted with these attributes: what is cut out inherits them.
    fn variant(&mut self, name: &str, attrs: MountAttrs) -> Result<PathBuf> {
        let mut dir = name.to_owned();
        attrs.names().for_each(|attr| dir.extend(["-", attr]));
        let (base, at) = (path(name), path(&format!("{dir}.mount")));
        if !self.made.contains(&at) {
            fs::create_dir_all(&at).map_err(MountError::io("make", &at))?;
            mount_bind(&base, &at).map_err(MountError::io("bind at", &at))?;
            mount_remount(&at, MountFlags::BIND | attrs.flags(), "")
                .map_err(MountError::io("remount", &at))?;
            self.made.insert(at.clone());
        }
        Ok(at)
    }
}

/// Moves the calling thread, alone, into a namespace with nothing but an empty directory.
fn enter(dir: &Path) -> Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let steps = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        // Nothing that is done from here on reaches the namespace we came from.
        mount_change("/", private)?;
        rustix::mount::mount("grove", dir, "tmpfs", flags, c"size=64k,mode=700")?;
        // The old root comes to lie above the new one, and is taken away.
        rustix::process::chdir(dir)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        Ok::<(), io::Error>(())
    };
    steps().map_err(MountError::io("make a mount namespace at", dir))
}

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn ended() -> MountError {
    let error = io::Error::from(io::ErrorKind::BrokenPipe);
    MountError::io("reach", "the base")(error)
}

//! Opens paths below a directory, never through a symbolic link and never outside of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Longer paths are gone along name by name, as the kernel takes less than 4096 bytes at once.
const MAX_PATH: usize = 4000;
/// The kernel asks to try again when a directory above is renamed meanwhile.
const ATTEMPTS: usize = 16;

/// A directory that nothing leads out of.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Linux before 5.6, or a filter of system calls, has no openat2(2).
    is_stepwise: AtomicBool,
}

impl Root {
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            is_stepwise: AtomicBool::new(false),
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a path without leading `/`; the directory itself if it is empty.
    pub fn open(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if path.len() > MAX_PATH || self.is_stepwise.load(Relaxed) {
            return self.open_stepwise(path, flags, mode);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(&self.fd, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM | Errno::TOOBIG) => {
                    let opened = self.open_stepwise(path, flags, mode)?;
                    self.is_stepwise.store(true, Relaxed);
                    return Ok(opened);
                }
                other => return Ok(other?),
            }
        }
        self.open_stepwise(path, flags, mode)
    }

    /// Opens a directory to make, rename or remove entries in it.
    pub fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens the directory that this one is in, to make its name durable.
    pub fn open_above(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, "..", flags, Mode::empty())?)
    }

    fn open_stepwise(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut dir: Option<OwnedFd> = None;
        for name in above.split('/').filter(|name| !name.is_empty()) {
            let from = dir.as_ref().unwrap_or(&self.fd);
            dir = Some(rustix::fs::openat(from, name, step, Mode::empty())?);
        }
        let from = dir.as_ref().unwrap_or(&self.fd);
        Ok(rustix::fs::openat(from, name, flags, mode)?)
    }
}

/// Whether something is in the way of a path that is no directory.
pub(super) fn is_no_dir(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// The path of the directory that a path is in, and its name there.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_opened_through_links_either_way() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("root/a/b")).unwrap();
        std::fs::create_dir(at("out")).unwrap();
        std::fs::write(at("out/file"), b"").unwrap();
        symlink("../out", at("root/link")).unwrap();
        symlink("../../../out/file", at("root/a/b/last")).unwrap();
        let root = Root::new(std::fs::File::open(at("root")).unwrap().into());
        let long = format!("{}b", "a/../".repeat(1000));
        for stepwise in [false, true] {
            root.is_stepwise.store(stepwise, Relaxed);
            assert!(root.open_dir("a/b").is_ok() && root.open_dir("").is_ok());
            for path in ["link", "link/file", "a/b/last", "none", long.as_str()] {
                assert!(
                    root.open(path, OFlags::RDONLY, Mode::empty()).is_err(),
                    "{path}"
                );
            }
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            assert!(root.open("link/new", new, Mode::RWXU).is_err());
            let name = format!("a/b/new{stepwise}");
            assert!(root.open(&name, new, Mode::RWXU).is_ok());
            assert!(at("root").join(name).exists());
        }
        assert_eq!(std::fs::read_dir(at("out")).unwrap().count(), 1);
    }
}

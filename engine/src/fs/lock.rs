//! Advisory locks on files of the repository.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::error::{Error, IoResultExt, Result};

/// How often a waiting process tries again.
const RETRY: Duration = Duration::from_millis(20);

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Whether others may hold the lock too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Any number of shared holders.
    Shared,
    /// A single holder.
    Exclusive,
}

impl Lock {
    /// Takes the lock, waiting up to `patience`.
    ///
    /// # Errors
    /// [`Error::Locked`] naming the last known exclusive holder when the time is over.
    pub fn acquire(path: &Path, mode: LockMode, patience: Duration) -> Result<Self> {
        let mut file = open(path)?;
        let deadline = Instant::now() + patience;
        while !try_lock(&file, mode).at(path)? {
            if Instant::now() >= deadline {
                return Err(Error::Locked {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            std::thread::sleep(RETRY);
        }
        if mode == LockMode::Exclusive {
            note_holder(&mut file).at(path)?;
        }
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.open(path) {
        // A repository on a read-only medium, or of another user, can still be read.
        Err(e)
            if matches!(e.raw_os_error(), Some(libc_erofs) if libc_erofs == rustix::io::Errno::ROFS.raw_os_error())
                || e.kind() == io::ErrorKind::PermissionDenied =>
        {
            File::open(path).at(path)
        }
        other => other.at(path),
    }
}

fn try_lock(file: &File, mode: LockMode) -> io::Result<bool> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn note_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "process {}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let known = file
        .rewind()
        .and_then(|()| file.take(64).read_to_string(&mut text));
    match known {
        Ok(n) if n > 0 => format!("last exclusive holder: {text}"),
        _ => "holder unknown".to_owned(),
    }
}

/// A directory that belongs to a living process for as long as the value lives.
#[derive(Debug)]
pub(crate) struct OwnedDir {
    path: PathBuf,
    _lock: Lock,
}

impl OwnedDir {
    const LOCK_NAME: &'static str = "lock";

    /// Makes a new directory below `parent`, after removing those of dead processes.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        Self::sweep(parent)?;
        for n in 0u32.. {
            let path = parent.join(format!("{}.{n}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = Lock::acquire(
                        &path.join(Self::LOCK_NAME),
                        LockMode::Exclusive,
                        Duration::ZERO,
                    )?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).at(&path),
            }
        }
        unreachable!("a free number is found before u32 overflows")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes directories whose owner is gone.
    fn sweep(parent: &Path) -> Result<()> {
        for entry in std::fs::read_dir(parent).at(parent)? {
            let path = entry.at(parent)?.path();
            let lock = path.join(Self::LOCK_NAME);
            // A directory without a lock file may be one being made this moment: spare it once it
            // is young.
            let young = std::fs::metadata(&path)
                .and_then(|m| m.modified())
                .is_ok_and(|t| t.elapsed().unwrap_or_default() < Duration::from_secs(60));
            if !lock.exists() && young {
                continue;
            }
            if Lock::acquire(&lock, LockMode::Exclusive, Duration::ZERO).is_ok() || !lock.exists() {
                drop(std::fs::remove_dir_all(&path));
            }
        }
        Ok(())
    }
}

impl Drop for OwnedDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

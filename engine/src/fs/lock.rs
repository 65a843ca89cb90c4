//! Advisory locks on files of the repository.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::dir_of;
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
    /// [`Error::Locked`] naming the holders when the time is over.
    pub fn acquire(path: &Path, mode: LockMode, patience: Duration) -> Result<Self> {
        let file = open(path)?;
        let deadline = Instant::now() + patience;
        while !try_lock(&file, mode).at(path)? {
            if Instant::now() >= deadline {
                return Err(Error::Locked {
                    path: path.to_owned(),
                    holder: holder(&file),
                });
            }
            std::thread::sleep(RETRY);
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

pub(super) fn try_lock(file: &File, mode: LockMode) -> io::Result<bool> {
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

/// Who holds a lock on the file, as far as the kernel tells.
pub(super) fn holder(file: &File) -> String {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = file.metadata().map(|meta| meta.ino()).unwrap_or_default();
    match holders(&locks, inode).as_slice() {
        [] => "holder unknown".to_owned(),
        [one] => format!("process {one}"),
        many => format!("processes {}", many.join(", ")),
    }
}

/// The processes that hold a `flock` on an inode, from the text of `/proc/locks`. Lines of waiting
/// processes have `->` in second place; the file is named as `major:minor:inode`.
fn holders(locks: &str, inode: u64) -> Vec<&str> {
    let suffix = format!(":{inode}");
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, place, ..] if place.ends_with(&suffix) => Some(*pid),
            _ => None,
        }
    });
    held.collect()
}

/// A directory that belongs to a living process for as long as the value lives.
///
/// It is known to be alive by its `lock` file. Whoever wants to remove a dead one must hold that
/// lock and see that the file is still the one at the path: names are never used twice by one
/// process, but a process id may come again.
#[derive(Debug)]
pub(crate) struct OwnedDir {
    path: PathBuf,
    _lock: File,
}

/// How names of directories end that are among somebody's own files.
const BESIDE: &str = ".tmp";

/// Numbers the directories of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

impl OwnedDir {
    const LOCK_NAME: &'static str = "lock";
    /// A directory without a lock may be one that is being made this moment.
    const YOUNG: Duration = Duration::from_secs(60);

    /// Makes a new directory below `parent`, after removing those of dead processes.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        Self::sweep(parent)?;
        Self::make(|own| parent.join(own))
    }

    /// Makes a new directory for a file that is moved to `target` once it is complete, beside it, after
    /// removing what dead processes left there for the same file.
    pub(crate) fn beside(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))
            .at(target)?;
        let parent = dir_of(target);
        for entry in std::fs::read_dir(parent).at(parent)? {
            let found = entry.at(parent)?.file_name();
            if is_beside(&found, name) {
                Self::remove_dead(&parent.join(found))?;
            }
        }
        Self::make(|own| {
            let mut beside = name.to_owned();
            beside.push(format!(".{own}{BESIDE}"));
            parent.join(beside)
        })
    }

    /// Makes a new directory, at the path for a name that nobody else has.
    fn make(at: impl Fn(&str) -> PathBuf) -> Result<Self> {
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = at(&format!("{}.{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).at(&path),
            }
            let lock_path = path.join(Self::LOCK_NAME);
            let made = File::options()
                .write(true)
                .create_new(true)
                .open(&lock_path);
            match made {
                Ok(lock) if try_lock(&lock, LockMode::Exclusive).at(&lock_path)? => {
                    if is_at(&lock, &lock_path) {
                        return Ok(Self { path, _lock: lock });
                    }
                }
                // Another process took it for a dead one; it removes it, and we take the next.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at(&lock_path),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes directories whose owner is gone.
    fn sweep(parent: &Path) -> Result<()> {
        for entry in std::fs::read_dir(parent).at(parent)? {
            Self::remove_dead(&entry.at(parent)?.path())?;
        }
        Ok(())
    }

    /// Removes a directory if its owner is gone.
    fn remove_dead(path: &Path) -> Result<()> {
        let lock_path = path.join(Self::LOCK_NAME);
        let dead = match File::open(&lock_path) {
            Ok(lock) => {
                let free = try_lock(&lock, LockMode::Exclusive).at(&lock_path)?;
                (free && is_at(&lock, &lock_path)).then_some(Some(lock))
            }
            Err(_) => std::fs::metadata(path)
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().unwrap_or_default() > Self::YOUNG)
                .then_some(None),
        };
        if let Some(_held) = dead {
            drop(std::fs::remove_dir_all(path));
        }
        Ok(())
    }
}

/// Whether a name is one that [`OwnedDir::beside`] gives for a file of name `target`.
fn is_beside(name: &OsStr, target: &OsStr) -> bool {
    let own = name.as_bytes().strip_prefix(target.as_bytes());
    let own = own.and_then(|own| own.strip_prefix(b".")?.strip_suffix(BESIDE.as_bytes()));
    let Some((process, number)) = own
        .and_then(|own| std::str::from_utf8(own).ok())
        .and_then(|own| own.split_once('.'))
    else {
        return false;
    };
    process.parse::<u32>().is_ok() && number.parse::<u64>().is_ok()
}

/// Whether an open file is still the one at a path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |a: &std::fs::Metadata, b: &std::fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
    matches!((file.metadata(), std::fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

impl Drop for OwnedDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_those_of_the_inode_and_not_those_waiting() {
        let locks = "1: FLOCK  ADVISORY  READ 12 fe:00:777 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 13 fe:00:777 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 14 fe:00:777 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 15 fe:00:1777 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 16 fe:00:777 0 EOF\n";
        assert_eq!(holders(locks, 777), ["12", "16"]);
        assert_eq!(holders("garbage", 777), Vec::<&str>::new());
    }

    #[test]
    fn living_directories_survive_many_makers_and_sweepers() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let own = OwnedDir::create(dir.path()).unwrap();
                        let file = own.path().join("file");
                        std::fs::write(&file, "mine").unwrap();
                        OwnedDir::sweep(dir.path()).unwrap();
                        assert!(file.exists());
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_dead_processes_left_beside_a_file_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let own = OwnedDir::beside(&target).unwrap();
        std::fs::write(own.path().join("file"), "mine").unwrap();
        let names = ["x.4000000.0.tmp", "x.y.4000000.0.tmp", "x.4.old.tmp", "x.4"];
        for name in names {
            let left = dir.path().join(name);
            std::fs::create_dir(&left).unwrap();
            std::fs::write(left.join("lock"), "").unwrap();
        }
        let other = OwnedDir::beside(&target).unwrap();
        let there = names.map(|name| dir.path().join(name).exists());
        assert_eq!(there, [false, true, true, true]);
        assert!(own.path().join("file").exists());
        let paths = [own.path().to_owned(), other.path().to_owned()];
        drop((own, other));
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn who_holds_a_lock_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _held = Lock::acquire(&path, LockMode::Shared, Duration::ZERO).unwrap();
        let error = Lock::acquire(&path, LockMode::Exclusive, Duration::ZERO).unwrap_err();
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }
}

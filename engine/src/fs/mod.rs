//! The I/O seam: durable writing through [`Storage`], locks, leases, memory maps and extended
//! attributes.

pub mod lease;
pub mod lock;
pub mod mmap;
pub mod storage;
pub(crate) mod xattr;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
pub use storage::{DiskStorage, Storage, StorageFile};

use crate::error::{IoResultExt, Result};

/// The directory that a file is in.
pub(crate) fn dir_of(path: &Path) -> &Path {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Replaces a small file atomically and durably: temporary name, fsync, rename, directory fsync.
pub(crate) fn replace_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path
        .parent()
        .expect("because repository files lie in a directory");
    let mut name = path
        .file_name()
        .expect("because it names a file")
        .to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(name);
    let write = || -> Result<()> {
        let mut file = storage.create(&temporary).at(&temporary)?;
        file.write_all(bytes).at(&temporary)?;
        file.sync().at(&temporary)?;
        storage.rename(&temporary, path).at(path)?;
        storage.sync_dir(dir).at(dir)
    };
    write().inspect_err(|_| drop(storage.remove_file(&temporary)))
}

/// Numbers the temporary files of this process: two threads may write the same cache file.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Replaces a cache file that may be lost at any time: atomic, but without any fsync.
pub fn replace_cache_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let dir = path
        .parent()
        .expect("because cache files lie in a directory");
    std::fs::create_dir_all(dir)?;
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    write(&mut file)
        .and_then(|()| file.flush())
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Opens a regular file, and nothing else that may be in its place; gives its size, too.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    // Not even a FIFO may make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let stat = file.metadata()?;
    match stat.is_file() {
        true => Ok((file, stat.len())),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

/// Fails before a file system is filled up with what does not fit.
pub(crate) fn check_room(dir: &Path, bytes: u64) -> Result<()> {
    let found = rustix::fs::statvfs(dir).at(dir)?;
    if found.f_bavail.saturating_mul(found.f_frsize) < bytes {
        return Err(io::Error::from(io::ErrorKind::StorageFull)).at(dir);
    }
    Ok(())
}

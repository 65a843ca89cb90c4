//! One file, link or directory of a checkout.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

use super::{CheckoutOptions, Job, Union};
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::object::{DirMeta, FileHeader, FileObject, Xattrs};

/// Bytes read from the store at once.
const BUFFER: usize = 256 * 1024;
/// Runs of zeros from this length on are not written.
const MIN_HOLE: usize = 64 * 1024;

const SETUID_SETGID: u32 = 0o6000;

/// Writes one entry of a directory. `path` is for messages.
pub(super) fn file(
    job: &Job<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
    path: &str,
    id: &ObjectId,
) -> Result<()> {
    if job.monitor.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let damaged = |e: Error| e.hitting(path, ObjectKind::File, id);
    let file = job.repo.file(id).map_err(damaged)?;
    let new = match job.options.union {
        Union::None => create(job, dir, name, path, &file),
        Union::Overwrite => return replace(job, dir, name, path, &file).map_err(damaged),
        Union::Add | Union::Identical => create(job, dir, name, path, &file),
    };
    match (new, job.options.union) {
        (Err(e), Union::Add) if already_exists(&e) => {}
        (Err(e), Union::Identical) if already_exists(&e) => {
            if !identical(job, dir, name, path, &file).map_err(damaged)? {
                return Err(Error::Conflict {
                    path: path.to_owned(),
                    first: "the existing file".into(),
                    second: "the commit's".into(),
                });
            }
        }
        (done, _) => return done.map_err(damaged),
    }
    job.counters.kept.fetch_add(1, Relaxed);
    Ok(())
}

fn already_exists(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
}

/// Makes a new entry; fails when the name is taken.
fn create(
    job: &Job<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
    path: &str,
    file: &FileObject,
) -> Result<()> {
    let at = || job.os_path(path);
    let header = &file.header;
    if header.is_symlink() {
        rustix::fs::symlinkat(header.symlink_target.as_slice(), dir, name).at(at())?;
        finish_symlink(dir, name, header, job.options).at(at())?;
        job.counters.symlinks.fetch_add(1, Relaxed);
        return Ok(());
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).at(at())?;
    let mut out = File::from(fd);
    copy(job, file, path, &mut out)?;
    finish_file(out.as_fd(), header, job.options).at(at())?;
    job.counters.files.fetch_add(1, Relaxed);
    job.counters.written_bytes.fetch_add(file.size, Relaxed);
    Ok(())
}

/// Makes the entry under a temporary name and moves it over what is there.
fn replace(
    job: &Job<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
    path: &str,
    file: &FileObject,
) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Relaxed);
        let temporary = format!(".grove-{}-{number}", std::process::id());
        match create(job, dir, &temporary, path, file) {
            // Left over from a process with the same id: take the next name.
            Err(e) if already_exists(&e) => continue,
            Err(e) => {
                // The name is ours; that it cannot be removed does not matter beside `e`.
                let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
                return Err(e);
            }
            Ok(()) => {}
        }
        let moved = rustix::fs::renameat(dir, &temporary, dir, name);
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
        }
        return moved.at(job.os_path(path));
    }
}

fn copy(job: &Job<'_>, file: &FileObject, path: &str, out: &mut File) -> Result<()> {
    let length = usize::try_from(file.size).unwrap_or(BUFFER).min(BUFFER);
    let mut buffer = vec![0; length];
    let mut offset = 0;
    while offset < file.size {
        if job.monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let bytes = read_some(job, file, offset, &mut buffer)?;
        offset += bytes.len() as u64;
        // A long run of zeros becomes a hole; where it ends the file, its length is set below.
        if bytes.len() >= MIN_HOLE && bytes.iter().all(|byte| *byte == 0) {
            out.seek(SeekFrom::Current(bytes.len() as i64))
                .at(job.os_path(path))?;
        } else {
            out.write_all(bytes).at(job.os_path(path))?;
        }
    }
    if file.size >= MIN_HOLE as u64 {
        out.set_len(file.size).at(job.os_path(path))?;
    }
    Ok(())
}

/// At least one byte at `offset`, which lies within the file.
fn read_some<'b>(
    job: &Job<'_>,
    file: &FileObject,
    offset: u64,
    buffer: &'b mut [u8],
) -> Result<&'b [u8]> {
    let n = job.repo.read_at(file, offset, buffer)?;
    match buffer.get(..n) {
        Some(bytes) if n > 0 => Ok(bytes),
        _ => Err(Error::Corrupt {
            path: job.repo.path().to_owned(),
            detail: format!("file {} ends at {offset} of {} bytes", file.id, file.size),
        }),
    }
}

fn finish_file(
    fd: BorrowedFd<'_>,
    header: &FileHeader,
    options: &CheckoutOptions,
) -> io::Result<()> {
    if options.user_mode {
        rustix::fs::fchmod(
            fd,
            Mode::from_raw_mode(header.mode & 0o7777 & !SETUID_SETGID),
        )?;
    } else {
        // Changing the owner clears set-user-ID and capabilities, so it comes first.
        rustix::fs::fchown(fd, owner(header.uid), group(header.gid))?;
        set_xattrs(fd, &header.xattrs)?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(header.mode & 0o7777))?;
    }
    rustix::fs::futimens(fd, &EPOCH)?;
    Ok(())
}

/// Sets the metadata of a directory that has got all its contents.
pub(super) fn finish_dir(
    fd: BorrowedFd<'_>,
    meta: &DirMeta,
    options: &CheckoutOptions,
) -> io::Result<()> {
    if !options.user_mode {
        rustix::fs::fchown(fd, owner(meta.uid), group(meta.gid))?;
        set_xattrs(fd, &meta.xattrs)?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777))?;
    rustix::fs::futimens(fd, &EPOCH)?;
    Ok(())
}

fn finish_symlink(
    dir: BorrowedFd<'_>,
    name: &str,
    header: &FileHeader,
    options: &CheckoutOptions,
) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if !options.user_mode {
        rustix::fs::chownat(dir, name, owner(header.uid), group(header.gid), nofollow)?;
        // There is no call that sets attributes of a link relative to a directory.
        let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        for (key, value) in header.xattrs.iter() {
            rustix::fs::lsetxattr(&path, key, value, XattrFlags::empty())?;
        }
    }
    rustix::fs::utimensat(dir, name, &EPOCH, nofollow)?;
    Ok(())
}

fn set_xattrs(fd: BorrowedFd<'_>, xattrs: &Xattrs) -> io::Result<()> {
    for (key, value) in xattrs.iter() {
        rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())?;
    }
    Ok(())
}

/// OSTree's modification time of everything.
const EPOCH: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    },
};

fn owner(uid: u32) -> Option<Uid> {
    Some(Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    Some(Gid::from_raw(gid))
}

/// Whether an existing entry equals the one of the commit, as far as this checkout would set it.
fn identical(
    job: &Job<'_>,
    dir: BorrowedFd<'_>,
    name: &str,
    path: &str,
    file: &FileObject,
) -> Result<bool> {
    let at = || job.os_path(path);
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).at(at())?;
    let header = &file.header;
    if !same_stat(&stat, header, job.options) {
        return Ok(false);
    }
    if header.is_symlink() {
        let target = rustix::fs::readlinkat(dir, name, Vec::new()).at(at())?;
        return Ok(target.as_bytes() == header.symlink_target);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut existing = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).at(at())?);
    if !job.options.user_mode && crate::fs::xattr::of_file(&existing).at(at())? != header.xattrs {
        return Ok(false);
    }
    if u64::try_from(stat.st_size) != Ok(file.size) {
        return Ok(false);
    }
    let mut ours = vec![0; BUFFER];
    let mut theirs = vec![0; BUFFER];
    let mut offset = 0;
    while offset < file.size {
        let bytes = read_some(job, file, offset, &mut ours)?;
        let there = theirs
            .get_mut(..bytes.len())
            .expect("because both buffers are equally long");
        match existing.read_exact(there) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.at(at())?,
        }
        if there != bytes {
            return Ok(false);
        }
        offset += bytes.len() as u64;
    }
    Ok(true)
}

fn same_stat(stat: &Stat, header: &FileHeader, options: &CheckoutOptions) -> bool {
    let (is, should) = (
        FileType::from_raw_mode(stat.st_mode),
        FileType::from_raw_mode(header.mode),
    );
    let mask = if options.user_mode {
        0o7777 & !SETUID_SETGID
    } else {
        0o7777
    };
    let owners = options.user_mode || (stat.st_uid, stat.st_gid) == (header.uid, header.gid);
    let modes = header.is_symlink() || stat.st_mode & 0o7777 == header.mode & mask;
    is == should && owners && modes
}

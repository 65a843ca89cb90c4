//! One file, link or directory of a checkout.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::beneath::split;
use super::job::Job;
use super::plan::Row;
use super::replace::replace;
use super::{CheckoutOptions, Durability, Existing};
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectKind;
use crate::object::{DirMeta, FileHeader, FileObject, Xattrs};

/// Bytes compared at once.
const BUFFER: usize = 256 * 1024;
/// Runs of zeros from this length on are not written.
const MIN_HOLE: usize = 64 * 1024;

const SETUID_SETGID: u32 = 0o6000;

/// A regular file being written.
#[derive(Debug)]
pub(super) struct Output {
    pub file: File,
    place: Place,
    /// Bytes up to here are written, or left out as a hole.
    end: u64,
    ends_in_hole: bool,
}

/// What a file is called while it is written.
#[derive(Debug)]
enum Place {
    Final,
    /// Another name in the directory, from where it is moved over what is there.
    Temporary {
        dir: OwnedFd,
        temporary: String,
        name: String,
        dirs_give_way: bool,
    },
}

impl Output {
    fn new(fd: OwnedFd, place: Place) -> Self {
        Self {
            file: fd.into(),
            place,
            end: 0,
            ends_in_hole: false,
        }
    }

    /// A file that will replace whatever has this name in a directory, an empty directory if those
    /// give way.
    pub fn replacing(dir: OwnedFd, name: &str, dirs_give_way: bool) -> io::Result<Self> {
        let mut output = Self::replacing_as(dir, name, temporary(name))?;
        if let Place::Temporary {
            dirs_give_way: gives,
            ..
        } = &mut output.place
        {
            *gives = dirs_give_way;
        }
        Ok(output)
    }

    /// The same, under another name until it is whole.
    pub fn replacing_as(dir: OwnedFd, name: &str, temporary: String) -> io::Result<Self> {
        let open = || rustix::fs::openat(&dir, &temporary, NEW, Mode::RUSR | Mode::WUSR);
        let fd = match open() {
            // What a killed process left behind.
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        let name = name.to_owned();
        Ok(Self::new(
            fd,
            Place::Temporary {
                dir,
                temporary,
                name,
                dirs_give_way: false,
            },
        ))
    }

    /// Writes the next bytes. A long run of zeros becomes a hole.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.ends_in_hole = bytes.len() >= MIN_HOLE && bytes.iter().all(|byte| *byte == 0);
        if !self.ends_in_hole {
            self.file.write_all_at(bytes, self.end)?;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Shares what is in another file, where the file system can do that.
    pub fn clone_from(&self, source: &File) -> bool {
        rustix::fs::ioctl_ficlone(&self.file, source).is_ok()
    }

    /// Copies what is in another file.
    pub fn copy_from(&mut self, source: &File) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match source.read_at(&mut buffer, self.end)? {
                0 => return Ok(()),
                n => self.write(&buffer[..n])?,
            }
        }
    }

    /// Sets metadata and gives it its name. The modification time comes last: it tells that the file
    /// is whole.
    pub fn finish(&mut self, header: &FileHeader, options: &CheckoutOptions) -> io::Result<()> {
        if self.ends_in_hole {
            self.file.set_len(self.end)?;
        }
        finish_file(self.file.as_fd(), header, options)?;
        if options.durability == Durability::Each {
            self.file.sync_all()?;
        }
        if let Place::Temporary {
            dir,
            temporary,
            name,
            dirs_give_way,
        } = &self.place
        {
            replace(dir.as_fd(), temporary, name, *dirs_give_way)?;
            self.place = Place::Final;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Place::Temporary { dir, temporary, .. } = &self.place {
            // The name is ours; that it cannot be removed does not matter beside why it is given up.
            let _ = rustix::fs::unlinkat(dir, temporary, AtFlags::empty());
        }
    }
}

const NEW: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::RDWR)
    .union(OFlags::CLOEXEC);

/// The same for every run, so that what a killed one left is found and replaced.
pub(super) fn temporary(name: &str) -> String {
    format!(".grove-{:016x}", xxh3_64(name.as_bytes()))
}

/// Opens a regular file for writing; `None` if what is there stays.
pub(super) fn begin(job: &Job<'_>, row: Row) -> Result<Option<Output>> {
    let path = job.plan.path(row);
    let at = || job.os_path(&path);
    if matches!(job.existing, Existing::Overwrite | Existing::Update) {
        let (above, name) = split(&path);
        let dir = job.root.open_dir(above).at(at())?;
        let dirs_give_way = job.existing == Existing::Update;
        return Output::replacing(dir, name, dirs_give_way)
            .at(at())
            .map(Some);
    }
    let open = || job.root.open(&path, NEW, Mode::RUSR | Mode::WUSR);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if stays(job, row, &path)? {
                return Ok(None);
            }
            let (above, name) = split(&path);
            let dir = job.root.open_dir(above).at(at())?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).at(at())?;
            open()
                .at(at())
                .map(|fd| Some(Output::new(fd, Place::Final)))
        }
        other => other.at(at()).map(|fd| Some(Output::new(fd, Place::Final))),
    }
}

/// Whether an entry that is in the way is left as it is; else it is to be replaced.
pub(super) fn stays(job: &Job<'_>, row: Row, path: &str) -> Result<bool> {
    let at = || job.os_path(path);
    let object = job.plan.object(row);
    let (above, name) = split(path);
    let stays = match job.existing {
        Existing::Fail => return Err(Errno::EXIST).at(at()),
        Existing::Overwrite | Existing::Update => false,
        Existing::Add => true,
        Existing::Identical => {
            let damaged = |e: Error| e.hitting(&format!("/{path}"), ObjectKind::File, &object.id);
            let dir = job.root.open_dir(above).at(at())?;
            if !identical(job, dir.as_fd(), name, path, object).map_err(damaged)? {
                return Err(Error::Conflict {
                    path: format!("/{path}"),
                    first: "the existing file".into(),
                    second: "the commit's".into(),
                });
            }
            true
        }
        Existing::Resume => {
            let dir = job.root.open_dir(above).at(at())?;
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).at(at())?;
            // A copy shares nothing with other checkouts.
            let is_own = job.options.hard_links || stat.st_nlink == 1;
            is_own && is_whole(&stat, object, job.options)
        }
    };
    if stays {
        job.counters.kept.fetch_add(1, Relaxed);
        if !object.header.is_symlink() {
            let dir = job.root.open_dir(above).at(at())?;
            sync(job, dir.as_fd(), name).at(at())?;
        }
    }
    Ok(stays)
}

/// Makes a file durable that was there already, if each one is to be: whoever wrote it need not have
/// done so.
pub(super) fn sync(job: &Job<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if job.options.durability != Durability::Each
        || !is_file(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    {
        return Ok(());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |access| rustix::fs::openat(dir, name, flags | access, Mode::empty());
    let file = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(OFlags::WRONLY)?,
        other => other?,
    };
    rustix::fs::fsync(file)?;
    job.counters.synced.fetch_add(1, Relaxed);
    Ok(())
}

/// Whether a regular file looks as it did when it was finished, and was not written to since.
pub(super) fn is_whole(stat: &Stat, object: &FileObject, options: &CheckoutOptions) -> bool {
    !object.header.is_symlink()
        && same_stat(stat, &object.header, options)
        && u64::try_from(stat.st_size) == Ok(object.size)
        && (stat.st_mtime, stat.st_mtime_nsec) == (0, 0)
}

/// Makes a symbolic link.
pub(super) fn symlink(job: &Job<'_>, dir: BorrowedFd<'_>, row: Row) -> Result<()> {
    let at = || job.os_path(&job.plan.path(row));
    let name = job.plan.name(row);
    let header = &job.plan.object(row).header;
    let make = |name: &str| rustix::fs::symlinkat(header.symlink_target.as_slice(), dir, name);
    if matches!(job.existing, Existing::Overwrite | Existing::Update) {
        let temporary = temporary(name);
        if make(&temporary) == Err(Errno::EXIST) {
            rustix::fs::unlinkat(dir, &temporary, AtFlags::empty()).at(at())?;
            make(&temporary).at(at())?;
        }
        let done = finish_symlink(dir, &temporary, header, job.options)
            .and_then(|()| replace(dir, &temporary, name, job.existing == Existing::Update));
        done.inspect_err(|_| {
            let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
        })
        .at(at())?;
    } else {
        match make(name) {
            Err(Errno::EXIST) => {
                if stays(job, row, &job.plan.path(row))? {
                    return Ok(());
                }
                rustix::fs::unlinkat(dir, name, AtFlags::empty()).at(at())?;
                make(name).at(at())?;
            }
            other => other.at(at())?,
        }
        finish_symlink(dir, name, header, job.options).at(at())?;
    }
    job.counters.symlinks.fetch_add(1, Relaxed);
    Ok(())
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
    stale_xattrs: &[Vec<u8>],
    options: &CheckoutOptions,
) -> io::Result<()> {
    if !options.user_mode {
        for name in stale_xattrs {
            match rustix::fs::fremovexattr(fd, &**name) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
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
    // A FIFO that has taken its place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
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
        let n = job.repo.read_at(file, offset, &mut ours)?;
        let (Some(ours), Some(theirs)) = (ours.get(..n), theirs.get_mut(..n)) else {
            return Ok(false);
        };
        if n == 0 {
            return Err(Error::Corrupt {
                path: job.repo.path().to_owned(),
                detail: format!("file {} ends at {offset} of {} bytes", file.id, file.size),
            });
        }
        match existing.read_exact(theirs) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.at(at())?,
        }
        if theirs != ours {
            return Ok(false);
        }
        offset += n as u64;
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

//! File objects in the form that each mode has for them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::error::{Error, IoResultExt, Result};
use crate::object::{FileHeader, FileObject, Xattrs};
use crate::ops::ostree::RepoMode;
use crate::ops::ostree::filez::deflate;
use crate::repo::Repository;

const BUFFER: usize = 256 << 10;
/// What bare-user-only repositories can keep of a mode.
const PLAIN_MODE: u32 = 0o775;

/// Reading failed, or writing did.
pub(in crate::ops::ostree) enum Failure {
    Read(Error),
    Write(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl Failure {
    /// The error, where writing was to `path`.
    pub(in crate::ops::ostree) fn at(self, path: &Path) -> Error {
        match self {
            Self::Read(error) => error,
            Self::Write(source) => Error::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// Gives a payload piece by piece.
pub(in crate::ops::ostree) struct Pieces<'a> {
    repo: &'a Repository,
    file: &'a FileObject,
    at: u64,
}

impl<'a> Pieces<'a> {
    pub(in crate::ops::ostree) fn new(repo: &'a Repository, file: &'a FileObject) -> Self {
        Self { repo, file, at: 0 }
    }

    /// The next bytes; none at the end.
    pub(in crate::ops::ostree) fn next(&mut self, buf: &mut [u8]) -> Result<usize, Failure> {
        if self.at == self.file.size {
            return Ok(0);
        }
        let n = self.repo.read_at(self.file, self.at, buf);
        let n = n.map_err(Failure::Read)?;
        if n == 0 {
            let detail = format!("file {} ends at {} bytes", self.file.id, self.at);
            let path = self.repo.path().to_owned();
            return Err(Failure::Read(Error::Corrupt { path, detail }));
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// Writes an object to a path where nothing is; gives its size there.
pub(super) fn write(
    repo: &Repository,
    file: &FileObject,
    mode: RepoMode,
    path: &Path,
) -> Result<u64> {
    let header = &file.header;
    match mode {
        RepoMode::Archive => archive(repo, file, path),
        RepoMode::BareUser if header.is_symlink() => {
            let content = [&header.symlink_target, [0].as_slice()].concat();
            super::target::write_file(path, &content)?;
            let out = File::open(path).at(path)?;
            set_bare_user(&out, header).at(path)?;
            finish(&out).at(path)?;
            Ok(content.len() as u64)
        }
        _ if header.is_symlink() => {
            rustix::fs::symlink(header.symlink_target.as_slice(), path).at(path)?;
            if mode == RepoMode::Bare {
                let (uid, gid) = owner(header);
                rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).at(path)?;
                for (name, value) in header.xattrs.iter() {
                    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).at(path)?;
                }
            }
            rustix::fs::utimensat(CWD, path, &EPOCH, AtFlags::SYMLINK_NOFOLLOW).at(path)?;
            Ok(header.symlink_target.len() as u64)
        }
        _ => bare(repo, file, mode, path),
    }
}

fn archive(repo: &Repository, file: &FileObject, path: &Path) -> Result<u64> {
    let mut out = File::create_new(path).at(path)?;
    let prefix = file.header.archive_prefix(file.size);
    out.write_all(&prefix).at(path)?;
    let mut counted = Counted {
        out: &out,
        size: prefix.len() as u64,
    };
    if !file.header.is_symlink() {
        let mut pieces = Pieces::new(repo, file);
        let done = deflate(|buf| pieces.next(buf), &mut counted);
        done.map_err(|failure| failure.at(path))?;
    }
    let size = counted.size;
    rustix::fs::fchmod(&out, Mode::from_raw_mode(0o644)).at(path)?;
    finish(&out).at(path)?;
    Ok(size)
}

/// Counts what goes to a file.
struct Counted<'f> {
    out: &'f File,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bare(repo: &Repository, file: &FileObject, mode: RepoMode, path: &Path) -> Result<u64> {
    // Nobody else reads it before it has its owner and mode.
    let mut private = File::options();
    private.write(true).create_new(true).mode(0o600);
    let mut out = private.open(path).at(path)?;
    let mut pieces = Pieces::new(repo, file);
    let len = usize::try_from(file.size).unwrap_or(BUFFER).min(BUFFER);
    let mut buffer = vec![0; len];
    // An empty file has no room for a piece.
    let mut more = file.size > 0;
    while more {
        let n = pieces
            .next(&mut buffer)
            .map_err(|failure| failure.at(path))?;
        let bytes = buffer.get(..n).unwrap_or_default();
        out.write_all(bytes).at(path)?;
        more = !bytes.is_empty();
    }
    let header = &file.header;
    let physical = match mode {
        RepoMode::Bare => {
            // Changing the owner clears set-user-ID and capabilities, so it comes first.
            let (uid, gid) = owner(header);
            rustix::fs::fchown(&out, uid, gid).at(path)?;
            set_xattrs(&out, &header.xattrs).at(path)?;
            header.mode & 0o7777
        }
        RepoMode::BareUser => {
            set_bare_user(&out, header).at(path)?;
            header.mode & PLAIN_MODE | 0o400
        }
        _ => header.mode & 0o7777,
    };
    rustix::fs::fchmod(&out, Mode::from_raw_mode(physical)).at(path)?;
    finish(&out).at(path)?;
    Ok(file.size)
}

/// Whether a bare-user-only repository, which forgets owner and attributes, can hold a file.
pub(super) fn check_plain(header: &FileHeader, path: impl FnOnce() -> String) -> Result<()> {
    let mode = header.is_symlink() || header.mode & 0o7777 & !PLAIN_MODE == 0;
    if mode && (header.uid, header.gid) == (0, 0) && header.xattrs.is_empty() {
        return Ok(());
    }
    Err(Error::UnsupportedInput {
        path: path(),
        reason: "a bare-user-only repository holds only files of owner 0 without extended \
                 attributes and with plain modes"
            .to_owned(),
    })
}

fn owner(header: &FileHeader) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
    (Some(uid), Some(gid))
}

fn set_xattrs(file: &File, xattrs: &Xattrs) -> io::Result<()> {
    for (name, value) in xattrs.iter() {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?;
    }
    Ok(())
}

fn set_bare_user(file: &File, header: &FileHeader) -> io::Result<()> {
    let meta = header.to_bare_user();
    rustix::fs::fsetxattr(file, "user.ostreemeta", &meta, XattrFlags::empty())?;
    Ok(())
}

fn finish(file: &File) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &EPOCH)?)
}

/// OSTree's modification time of every object.
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

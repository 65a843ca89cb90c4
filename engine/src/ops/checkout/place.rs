//! Where a checkout writes: the destination, made or opened, and kept from others.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::Root;
use super::record::{Identity, Record, Records};
use super::{CheckoutOptions, Existing, Union};
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;
use crate::repo::Repository;

/// Keeps others from writing to a destination for as long as it is open. Where there are no such
/// locks, nobody is kept away.
pub(super) fn hold(dir: impl AsFd, path: &Path) -> Result<()> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::Locked {
            path: path.to_owned(),
            holder: "another process".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Where to write.
pub(super) struct Place<'r> {
    pub(super) destination: &'r Path,
    pub(super) root: Root,
    pub(super) existing: Existing,
    /// Whether the destination itself is new.
    pub(super) is_new: bool,
}

impl<'r> Place<'r> {
    /// Makes or opens the destination. Gives a record of it if nothing else is in it.
    pub(super) fn find(
        repo: &Repository,
        commit: &ObjectId,
        destination: &'r Path,
        options: &CheckoutOptions,
    ) -> Result<(Self, Option<Record>)> {
        let union = match options.union {
            Union::None => Existing::Fail,
            Union::Overwrite => Existing::Overwrite,
            Union::Add => Existing::Add,
            Union::Identical => Existing::Identical,
        };
        let made = rustix::fs::mkdirat(CWD, destination, Mode::RWXU);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        // What was just made is no link, unless somebody has put one there.
        let flags = match made {
            Ok(()) => flags | OFlags::NOFOLLOW,
            Err(_) => flags,
        };
        let open = || -> Result<OwnedFd> {
            let fd = rustix::fs::openat(CWD, destination, flags, Mode::empty()).at(destination)?;
            hold(&fd, destination)?;
            Ok(fd)
        };
        let record = |fd: &OwnedFd| {
            let identity = Identity::of(fd).ok()?;
            Some(Record::new(identity, commit, options))
        };
        let place = |fd: OwnedFd, existing, is_new| Self {
            destination,
            root: Root::new(fd),
            existing,
            is_new,
        };
        match made {
            Ok(()) => {
                let fd = open()?;
                let record = record(&fd);
                Ok((place(fd, union, true), record))
            }
            Err(Errno::EXIST) if union != Existing::Fail => {
                let fd = open()?;
                if let Ok(directory) = Identity::of(&fd) {
                    // From now on it may hold what is of another commit.
                    Records::new(repo).forget_unfinished(&directory)?;
                }
                Ok((place(fd, union, false), None))
            }
            Err(Errno::EXIST) => {
                let exists = || Err(Errno::EXIST).at(destination);
                let fd = match open() {
                    Ok(fd) => fd,
                    Err(error @ Error::Locked { .. }) => return Err(error),
                    Err(_) => return exists(),
                };
                let Some(new) = record(&fd) else {
                    return exists();
                };
                let known = Identity::of(&fd)
                    .ok()
                    .and_then(|id| Records::new(repo).find(&id));
                if !known.is_some_and(|known| known.continues(&new)) {
                    return exists();
                }
                Ok((place(fd, Existing::Resume, true), Some(new)))
            }
            Err(errno) => Err(errno).at(destination),
        }
    }
}

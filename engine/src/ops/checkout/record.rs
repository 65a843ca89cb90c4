//! Which directories hold which commits: what an update starts from, and what a checkout that was
//! interrupted goes on with.
//!
//! A directory is known by its file system, inode and time of birth, so nothing is written into it, and
//! moving it does no harm. The records are a cache: without them, a checkout is made anew.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::CheckoutOptions;
use crate::error::{IoResultExt, Result};
use crate::fs::lock::{Lock, LockMode};
use crate::fs::{replace_cache_file, replace_file};
use crate::id::ObjectId;
use crate::repo::Repository;

/// Records that are kept, the newest ones.
const MAX_RECORDS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What names a directory for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The file system's own number, which stays when it is mounted again, unlike that of its device.
    file_system: u64,
    inode: u64,
    born: (i64, u32),
}

impl Identity {
    pub fn of(fd: impl AsFd) -> std::io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, wanted)?;
        // Without it, a directory made later may have the same name.
        if found.stx_mask & StatxFlags::BTIME.bits() == 0 {
            return Err(Errno::NOTSUP.into());
        }
        let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
        let file_system = match rustix::fs::fstatvfs(&fd)?.f_fsid {
            0 => device,
            number => number,
        };
        Ok(Self {
            file_system,
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    }
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    directory: Identity,
    /// Each path is as in one of these commits; more than one while an update is under way.
    commits: Vec<String>,
    pub is_finished: bool,
    pub user_mode: bool,
    pub hard_links: bool,
    pub subpath: String,
}

impl Record {
    pub fn new(directory: Identity, commit: &ObjectId, options: &CheckoutOptions) -> Self {
        Self {
            directory,
            commits: vec![commit.to_string()],
            is_finished: false,
            user_mode: options.user_mode,
            hard_links: options.hard_links,
            subpath: crate::ops::ls::normalise(&options.subpath),
        }
    }

    /// Whether going on with `other` makes this one whole.
    pub fn continues(&self, other: &Self) -> bool {
        let same = |record: &Self| Self {
            hard_links: false,
            ..record.clone()
        };
        !self.is_finished && same(self) == same(other)
    }

    pub fn commits(&self) -> Vec<ObjectId> {
        self.commits
            .iter()
            .filter_map(|commit| commit.parse().ok())
            .collect()
    }

    pub fn add_commit(&mut self, commit: &ObjectId) {
        let text = commit.to_string();
        if !self.commits.contains(&text) {
            self.commits.push(text);
        }
        self.is_finished = false;
    }

    pub fn finish(&mut self, commit: &ObjectId) {
        self.commits = vec![commit.to_string()];
        self.is_finished = true;
    }
}

/// The records of a repository.
#[derive(Debug)]
pub(super) struct Records<'r> {
    repo: &'r Repository,
    path: PathBuf,
}

impl<'r> Records<'r> {
    pub fn new(repo: &'r Repository) -> Self {
        Self {
            repo,
            path: repo.cache_dir().join("checkouts.json"),
        }
    }

    pub fn find(&self, directory: &Identity) -> Option<Record> {
        self.load()
            .into_iter()
            .find(|record| record.directory == *directory)
    }

    /// What cannot be read is as good as nothing.
    fn load(&self) -> Vec<Record> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Notes what a directory holds.
    pub fn put(&self, record: &Record) -> Result<()> {
        self.change(|records| replace(records, record), lazily)
    }

    /// The same, so that it is known after a power cut.
    pub fn put_durably(&self, record: &Record) -> Result<()> {
        let durably = |path: &Path, bytes: &[u8]| replace_file(self.repo.storage(), path, bytes);
        self.change(|records| replace(records, record), durably)
    }

    /// Forgets a checkout that was interrupted: nobody goes on with it.
    pub fn forget_unfinished(&self, directory: &Identity) -> Result<()> {
        match self.find(directory) {
            Some(record) if !record.is_finished => {
                let forget = |records: &mut Vec<Record>| {
                    records.retain(|other| other.directory != *directory);
                };
                self.change(forget, lazily)
            }
            _ => Ok(()),
        }
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Record>),
        write: impl FnOnce(&Path, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let _lock = Lock::acquire(
            &self.path.with_extension("lock"),
            LockMode::Exclusive,
            PATIENCE,
        )?;
        let mut records = self.load();
        change(&mut records);
        let excess = records.len().saturating_sub(MAX_RECORDS);
        let bytes = serde_json::to_vec(&records[excess..]).expect("because nothing in it can fail");
        write(&self.path, &bytes)
    }
}

fn replace(records: &mut Vec<Record>, record: &Record) {
    records.retain(|other| other.directory != record.directory);
    records.push(record.clone());
}

fn lazily(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_cache_file(path, |file| file.write_all(bytes)).at(path)
}

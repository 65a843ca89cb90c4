//! One checkout from beginning to end: directories level by level with links and empty files in them,
//! the contents, and in the end what directories have of metadata.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::beneath::{Root, is_no_dir, split};
use super::copy::Target;
use super::links::Links;
use super::place::Place;
use super::plan::{Plan, Row};
use super::{CheckoutOptions, Counters, Durability, Existing, write};
use crate::error::{Error, IoResultExt, Result};
use crate::monitor::{Monitor, Phase};
use crate::repo::Repository;

/// One checkout, shared by its tasks.
pub(super) struct Job<'r> {
    pub(super) repo: &'r Repository,
    pub(super) options: &'r CheckoutOptions,
    pub(super) monitor: &'r dyn Monitor,
    pub(super) destination: &'r Path,
    pub(super) root: Root,
    pub(super) existing: Existing,
    pub(super) plan: Plan,
    /// Which directories get their metadata in the end.
    is_new: Vec<AtomicBool>,
    /// Which directories are none any more, or below such ones: an update leaves them alone.
    is_left: Vec<AtomicBool>,
    pub(super) links: Option<Links>,
    /// Whether the destination itself was made, by this run or an interrupted one.
    is_made: bool,
    /// Whether the destination's file system may share extents of files.
    pub(super) can_clone: AtomicBool,
    pub(super) counters: Counters,
}

impl<'r> Job<'r> {
    pub(super) fn new(
        repo: &'r Repository,
        options: &'r CheckoutOptions,
        monitor: &'r dyn Monitor,
        place: Place<'r>,
        plan: Plan,
    ) -> Result<Self> {
        let sets = |at: usize| match place.existing {
            Existing::Update | Existing::Resume => true,
            _ => at == 0 && place.is_new,
        };
        let is_new = (0..plan.dirs.len())
            .map(|at| AtomicBool::new(sets(at)))
            .collect();
        let links = options
            .hard_links
            .then(|| Links::open(repo, options))
            .transpose()?;
        Ok(Self {
            repo,
            options,
            monitor,
            destination: place.destination,
            root: place.root,
            existing: place.existing,
            is_left: (0..plan.dirs.len())
                .map(|_| AtomicBool::new(false))
                .collect(),
            plan,
            is_new,
            links,
            is_made: place.is_new,
            can_clone: AtomicBool::new(true),
            counters: Counters::default(),
        })
    }

    pub(super) fn os_path(&self, path: &str) -> PathBuf {
        match path.trim_start_matches('/') {
            "" => self.destination.to_owned(),
            below => self.destination.join(below),
        }
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.monitor.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    pub(super) fn run(&self) -> Result<()> {
        let goes_on = matches!(self.existing, Existing::Resume | Existing::Update);
        let is_new = self.is_new.first().is_some_and(|new| new.load(Relaxed));
        self.counters
            .dirs
            .fetch_add(u64::from(is_new && !goes_on), Relaxed);
        let total = self.plan.rows().count() as u64;
        self.monitor.begin(Phase::Checkout, Some(total));
        match &self.links {
            Some(links) => self.fill_with_links(links)?,
            None => {
                let waiting = self.clone_all(self.directories()?)?;
                self.copy(&waiting, Target::Tree)?;
                self.finish_directories()?;
            }
        }
        if self.is_made && self.options.durability == Durability::Each {
            // Its name is in the directory above.
            let above = self.root.open_above().at(self.destination)?;
            self.sync_dir(above).at(self.destination)?;
        }
        if self.options.durability == Durability::FileSystem {
            rustix::fs::syncfs(self.root.fd()).at(self.destination)?;
        }
        self.monitor.end(Phase::Checkout);
        Ok(())
    }

    /// Reads and writes what is noted of the cache beside the rest, as it takes as long.
    fn fill_with_links(&self, links: &Links) -> Result<()> {
        let (waiting, _) = rayon::join(|| self.directories(), || links.seen().len());
        let linked = self.link_all(links, waiting?);
        let finish = || {
            self.copy(&linked?, Target::Tree)?;
            self.finish_directories()
        };
        // Without notes, the next one reads what it links.
        let (finished, _) = rayon::join(finish, || links.keep_notes());
        finished
    }

    /// Makes directories, level by level, and in them what needs no contents. Gives the files that do.
    fn directories(&self) -> Result<Vec<Row>> {
        let waiting = Mutex::new(Vec::new());
        for level in self.levels() {
            level.into_par_iter().try_for_each(|at| {
                let rows = self.enter(at)?;
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(rows);
                Ok(())
            })?;
        }
        Ok(waiting.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directories of each depth, by their numbers, which ascend with it.
    fn levels(&self) -> Vec<Range<usize>> {
        let dirs = &self.plan.dirs;
        let mut at = 0;
        let levels = dirs.chunk_by(|a, b| a.depth == b.depth).map(|level| {
            let first = at;
            at += level.len();
            first..at
        });
        levels.collect()
    }

    fn enter(&self, at: usize) -> Result<Vec<Row>> {
        self.check_cancelled()?;
        let row = &self.plan.dirs[at];
        let os_path = || self.os_path(&row.path);
        // Somebody may have removed what an update only passes through.
        let passes = self.existing == Existing::Update && !row.path.is_empty();
        if row.make || passes {
            let (above, name) = split(&row.path);
            let above = match self.root.open_dir(above) {
                Err(error) if passes && is_no_dir(&error) => return Ok(self.leave(at)),
                other => other.at(os_path())?,
            };
            match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
                Ok(()) => {
                    self.is_new[at].store(true, Relaxed);
                    self.counters.dirs.fetch_add(1, Relaxed);
                }
                Err(Errno::EXIST) if self.existing != Existing::Fail => {}
                other => other.at(os_path())?,
            }
        }
        let dir = match self.root.open_dir(&row.path) {
            Err(error) if passes && !row.make && is_no_dir(&error) => {
                self.monitor.warn(&format!(
                    "/{} is no directory any more: it stays, and what has changed below it is left out",
                    row.path
                ));
                return Ok(self.leave(at));
            }
            other => other.at(os_path())?,
        };
        if self.existing == Existing::Resume {
            // It may have got its final permissions already; if they stay, the next step tells.
            let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
        }
        let mut waiting = Vec::new();
        for file in 0..row.files.len() {
            let row = Row {
                dir: at as u32,
                file: file as u32,
            };
            let object = self.plan.object(row);
            if object.header.is_symlink() {
                write::symlink(self, dir.as_fd(), row)?;
                self.monitor.advance(Phase::Checkout, 1);
            } else if object.payload.is_none() {
                if let Some(output) = write::begin(self, row)? {
                    self.finish(output, row, Target::Tree)?;
                }
                self.monitor.advance(Phase::Checkout, 1);
            } else {
                waiting.push(row);
            }
        }
        Ok(waiting)
    }

    /// Leaves a directory and what is to be in it as it is.
    fn leave(&self, at: usize) -> Vec<Row> {
        self.is_left[at].store(true, Relaxed);
        let files = self.plan.dirs[at].files.len() as u64;
        self.counters.left_out.fetch_add(1 + files, Relaxed);
        self.monitor.advance(Phase::Checkout, files);
        Vec::new()
    }

    fn sync_dir(&self, dir: impl AsFd) -> io::Result<()> {
        if self.options.durability == Durability::Each {
            rustix::fs::fsync(dir)?;
        }
        self.count_synced();
        Ok(())
    }

    /// Counts something that is durable if each one is to be.
    pub(super) fn count_synced(&self) {
        let each = self.options.durability == Durability::Each;
        self.counters.synced.fetch_add(u64::from(each), Relaxed);
    }

    /// Sets the metadata of directories, from the deepest up: one above may then not be entered any
    /// more. What was written into others is made durable, too.
    fn finish_directories(&self) -> Result<()> {
        for level in self.levels().into_iter().rev() {
            level
                .into_par_iter()
                .try_for_each(|at| self.finish_directory(at))?;
        }
        Ok(())
    }

    fn finish_directory(&self, at: usize) -> Result<()> {
        let row = &self.plan.dirs[at];
        let sets = row.meta.as_ref().filter(|_| self.is_new[at].load(Relaxed));
        let syncs = self.options.durability == Durability::Each;
        if self.is_left[at].load(Relaxed) || sets.is_none() && !syncs {
            return Ok(());
        }
        let path = || self.os_path(&row.path);
        let dir = self.root.open_dir(&row.path).at(path())?;
        if let Some(meta) = sets {
            write::finish_dir(dir.as_fd(), meta, &row.stale_xattrs, self.options).at(path())?;
        }
        self.sync_dir(&dir).at(path())
    }
}

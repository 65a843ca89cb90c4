//! Writes a commit, or a directory of one, to the file system.
//!
//! Directories and links come first, then the contents of all files in the order in which they are
//! stored, so that each block is decoded once, then the directories' own metadata. Everything is
//! created relative to open directories and never through a symbolic link, so what already lies in
//! the destination cannot redirect a write to somewhere else.

mod beneath;
mod links;
mod plan;
mod record;
mod update;
mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::beneath::{Root, split};
use self::links::{Linked, Links};
use self::plan::{Plan, Row};
use self::record::{Identity, Record, Records};
pub use self::update::update;
use self::write::Output;
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::ops::ls::{Node, normalise, resolve_path};
use crate::pack::recipe::Piece;
use crate::repo::Repository;

/// Copies of a large file that are open at once.
const MAX_OPEN: usize = 64;

/// What to do about entries that exist in the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Union {
    /// The destination must not exist, unless it is a checkout of the same commit that was
    /// interrupted: then it is finished.
    #[default]
    None,
    /// Keep directories, replace files.
    Overwrite,
    /// Keep directories and files, add what is missing.
    Add,
    /// Keep directories and equal files; a different file is an error.
    Identical,
}

/// What is durable when a checkout returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing.
    #[default]
    None,
    /// The file system of the destination.
    FileSystem,
    /// Each file and directory: slow, but waits for no writes of others.
    Each,
}

/// How to check out.
#[derive(Debug, Clone, Default)]
pub struct CheckoutOptions {
    /// Leave owners and extended attributes alone, drop set-user-ID and set-group-ID.
    pub user_mode: bool,
    /// Only what is at this path of the commit; empty for everything.
    pub subpath: String,
    /// What may exist already.
    pub union: Union,
    /// Make files hard links to whole files in the repository's cache, which are made where they are
    /// missing or were changed.
    pub hard_links: bool,
    /// What is durable in the end.
    pub durability: Durability,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckoutReport {
    /// Directories made.
    pub dirs: u64,
    /// Regular files written.
    pub files: u64,
    /// Regular files that are hard links.
    pub linked_files: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Entries left as they were.
    pub kept: u64,
    /// Bytes of the regular files written.
    pub written_bytes: u64,
}

/// Checks a commit out to `destination`. A failure leaves what was written so far; the same call
/// then goes on with it.
pub fn checkout(
    repo: &Repository,
    commit: &ObjectId,
    destination: &Path,
    options: &CheckoutOptions,
    monitor: &dyn Monitor,
) -> Result<CheckoutReport> {
    // Long enough that a prune may come in between.
    let _lease = repo.lease(&[*commit])?;
    let root = Node::root(&repo.commit(commit)?);
    let start = resolve_path(repo, root, &options.subpath)?;
    let path = normalise(&options.subpath);
    monitor.begin(Phase::Scan, None);
    let plan = match start {
        Node::Dir { tree, meta } => Plan::of_tree(repo, tree, meta, monitor)?,
        // A subpath that is no directory goes into a new directory, as `ostree` does it.
        Node::File(id) => Plan::of_file(repo, id, split(&path).1)?,
    };
    monitor.end(Phase::Scan);
    let (place, record) = Place::find(repo, commit, destination, options)?;
    let records = Records::new(repo);
    if let Some(record) = &record {
        // Only convenience is lost where nothing can be noted.
        let _ = records.put(record);
    }
    let job = Job::new(repo, options, monitor, place, plan)?;
    job.run()?;
    if let Some(mut record) = record {
        record.finish(commit);
        let _ = records.put(&record);
    }
    Ok(job.counters.report())
}

#[derive(Debug, Default)]
struct Counters {
    dirs: AtomicU64,
    files: AtomicU64,
    linked_files: AtomicU64,
    symlinks: AtomicU64,
    kept: AtomicU64,
    written_bytes: AtomicU64,
}

impl Counters {
    fn report(&self) -> CheckoutReport {
        CheckoutReport {
            dirs: self.dirs.load(Relaxed),
            files: self.files.load(Relaxed),
            linked_files: self.linked_files.load(Relaxed),
            symlinks: self.symlinks.load(Relaxed),
            kept: self.kept.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
        }
    }
}

/// What to do about an entry that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Fail,
    Overwrite,
    Add,
    Identical,
    /// It is left from an interrupted checkout: keep what is whole.
    Resume,
    /// It is of an older commit: replace it, and set directories' metadata.
    Update,
}

/// Keeps others from writing to a destination for as long as it is open. Where there are no such
/// locks, nobody is kept away.
fn hold(dir: impl AsFd, path: &Path) -> Result<()> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::Locked {
            path: path.to_owned(),
            holder: "another process".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Where to write.
struct Place<'r> {
    destination: &'r Path,
    root: Root,
    existing: Existing,
    /// Whether the destination itself is new.
    is_new: bool,
}

impl<'r> Place<'r> {
    /// Makes or opens the destination. Gives a record of it if nothing else is in it.
    fn find(
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

/// One checkout, shared by its tasks.
struct Job<'r> {
    repo: &'r Repository,
    options: &'r CheckoutOptions,
    monitor: &'r dyn Monitor,
    destination: &'r Path,
    root: Root,
    existing: Existing,
    plan: Plan,
    /// Which directories get their metadata in the end.
    is_new: Vec<AtomicBool>,
    links: Option<Links>,
    /// Whether the destination's file system may share extents of files.
    can_clone: AtomicBool,
    counters: Counters,
}

/// The copies of a file that comes in pieces.
#[derive(Debug, Default)]
struct Large {
    outputs: Vec<(Row, Output)>,
    /// How many of them are written: the first one if the file system may be able to share what is
    /// in it with the others, else all.
    written: usize,
}

/// Where the bytes of an object go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// The place of the row.
    Tree,
    /// The file that links are made to.
    Cache,
}

impl<'r> Job<'r> {
    fn new(
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
            plan,
            is_new,
            links,
            can_clone: AtomicBool::new(true),
            counters: Counters::default(),
        })
    }

    fn os_path(&self, path: &str) -> PathBuf {
        match path.trim_start_matches('/') {
            "" => self.destination.to_owned(),
            below => self.destination.join(below),
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.monitor.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn run(&self) -> Result<()> {
        let goes_on = matches!(self.existing, Existing::Resume | Existing::Update);
        let is_new = self.is_new.first().is_some_and(|new| new.load(Relaxed));
        self.counters
            .dirs
            .fetch_add(u64::from(is_new && !goes_on), Relaxed);
        let total = self.plan.rows().count() as u64;
        self.monitor.begin(Phase::Checkout, Some(total));
        let mut waiting = self.directories()?;
        if let Some(links) = &self.links {
            waiting = self.link_all(links, waiting)?;
        }
        self.copy(&waiting, Target::Tree)?;
        self.finish_directories()?;
        if self.options.durability == Durability::FileSystem {
            rustix::fs::syncfs(self.root.fd()).at(self.destination)?;
        }
        self.monitor.end(Phase::Checkout);
        Ok(())
    }

    /// Makes directories, level by level, and in them what needs no contents. Gives the files that do.
    fn directories(&self) -> Result<Vec<Row>> {
        let numbered: Vec<usize> = (0..self.plan.dirs.len()).collect();
        let waiting = Mutex::new(Vec::new());
        let depth = |at: &usize| self.plan.dirs[*at].depth;
        for level in numbered.chunk_by(|a, b| depth(a) == depth(b)) {
            level.par_iter().try_for_each(|at| {
                let rows = self.enter(*at)?;
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(rows);
                Ok(())
            })?;
        }
        Ok(waiting.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn enter(&self, at: usize) -> Result<Vec<Row>> {
        self.check_cancelled()?;
        let row = &self.plan.dirs[at];
        let os_path = || self.os_path(&row.path);
        // Somebody may have removed what an update only passes through.
        let passes = self.existing == Existing::Update && !row.path.is_empty();
        if row.make || passes {
            let (above, name) = split(&row.path);
            let above = self.root.open_dir(above).at(os_path())?;
            match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
                Ok(()) => {
                    self.is_new[at].store(true, Relaxed);
                    self.counters.dirs.fetch_add(1, Relaxed);
                }
                Err(Errno::EXIST) if self.existing != Existing::Fail => {}
                other => other.at(os_path())?,
            }
        }
        let dir = self.root.open_dir(&row.path).at(os_path())?;
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

    /// Links files, making those that are missing first. Gives those that cannot be linked.
    fn link_all(&self, links: &Links, waiting: Vec<Row>) -> Result<Vec<Row>> {
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        self.link_some(links, waiting, &mut missing, &mut refused)?;
        if !missing.is_empty() {
            let mut objects = missing.clone();
            objects.sort_unstable_by_key(|row| self.plan.object(*row).id);
            objects.dedup_by_key(|row| self.plan.object(*row).id);
            self.copy(&objects, Target::Cache)?;
            let again = std::mem::take(&mut missing);
            self.link_some(links, again, &mut missing, &mut refused)?;
            refused.append(&mut missing);
        }
        Ok(refused)
    }

    fn link_some(
        &self,
        links: &Links,
        mut rows: Vec<Row>,
        missing: &mut Vec<Row>,
        refused: &mut Vec<Row>,
    ) -> Result<()> {
        rows.sort_unstable();
        let by_dir: Vec<&[Row]> = rows.chunk_by(|a, b| a.dir == b.dir).collect();
        let outcomes = by_dir.par_iter().map(|rows| -> Result<Vec<(Row, Linked)>> {
            self.check_cancelled()?;
            let path = &self.plan.dirs[rows[0].dir as usize].path;
            let dir = self.root.open_dir(path).at(self.os_path(path))?;
            let outcome = |row: &Row| Ok((*row, self.link(links, dir.as_fd(), *row)?));
            rows.iter().map(outcome).collect()
        });
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        for (row, linked) in outcomes.into_iter().flatten() {
            match linked {
                Linked::NotMade => missing.push(row),
                Linked::TooMany => refused.push(row),
                Linked::Yes | Linked::Exists => {}
            }
        }
        Ok(())
    }

    fn link(&self, links: &Links, dir: std::os::fd::BorrowedFd<'_>, row: Row) -> Result<Linked> {
        let path = self.plan.path(row);
        let at = || self.os_path(&path);
        let (_, name) = split(&path);
        let object = self.plan.object(row);
        let link = |name: &str| links.link(object, dir, name, self.options).at(at());
        let remove = |name: &str| rustix::fs::unlinkat(dir, name, AtFlags::empty()).at(at());
        let replaces = matches!(self.existing, Existing::Overwrite | Existing::Update);
        let linked = if replaces {
            let temporary = write::temporary(name);
            let mut linked = link(&temporary)?;
            if linked == Linked::Exists {
                remove(&temporary)?;
                linked = link(&temporary)?;
            }
            if linked == Linked::Yes {
                rustix::fs::renameat(dir, &temporary, dir, name).at(at())?;
                // Where both are names of one file, renaming does nothing.
                let _ = remove(&temporary);
            }
            linked
        } else {
            match link(name)? {
                Linked::Exists if !write::stays(self, row, &path)? => {
                    remove(name)?;
                    link(name)?
                }
                other => other,
            }
        };
        if linked == Linked::Yes {
            self.counters.linked_files.fetch_add(1, Relaxed);
        }
        if matches!(linked, Linked::Yes | Linked::Exists) {
            self.monitor.advance(Phase::Checkout, 1);
        }
        Ok(linked)
    }

    /// Writes files in the order in which their contents are stored.
    fn copy(&self, rows: &[Row], target: Target) -> Result<()> {
        let piece = |row: &Row| {
            let object = self.plan.object(*row);
            object.payload.map(|id| {
                (
                    Piece {
                        id,
                        size: object.size,
                    },
                    *row,
                )
            })
        };
        let mut rows: Vec<(Piece, Row)> = rows.iter().filter_map(piece).collect();
        rows.par_sort_unstable_by_key(|(piece, row)| (piece.id, *row));
        let same = rows.chunk_by(|(a, _), (b, _)| a.id == b.id);
        let wanted: Vec<&[(Piece, Row)]> = same.flat_map(|rows| rows.chunks(MAX_OPEN)).collect();
        let pieces: Vec<Piece> = wanted.iter().map(|rows| rows[0].0).collect();
        let store = self.repo.store();
        let groups = store.in_pack_order(&pieces);
        groups.par_iter().try_for_each(|group| {
            let mut large = Large::default();
            let done = store.read_group(&pieces, group, &mut |number, offset, bytes| {
                self.check_cancelled()?;
                let rows = wanted[number];
                let is_last = offset + bytes.len() as u64 == pieces[number].size;
                if offset == 0 && is_last {
                    return rows
                        .iter()
                        .try_for_each(|(_, row)| self.put(*row, target, bytes));
                }
                if offset == 0 {
                    large = self.begin_all(rows, target)?;
                }
                for (row, output) in large.outputs.iter_mut().take(large.written) {
                    output
                        .write(bytes)
                        .at(self.os_path(&self.plan.path(*row)))?;
                }
                if is_last {
                    self.finish_all(std::mem::take(&mut large), target)
                } else {
                    Ok(())
                }
            });
            done.map_err(|(number, error)| {
                let row = wanted[number][0].1;
                let path = format!("/{}", self.plan.path(row));
                error.hitting(&path, ObjectKind::File, &self.plan.object(row).id)
            })
        })
    }

    fn begin(&self, row: Row, target: Target) -> Result<Option<Output>> {
        match (target, &self.links) {
            (Target::Cache, Some(links)) => links.begin(&self.plan.object(row).id).map(Some),
            _ => {
                let output = write::begin(self, row)?;
                if output.is_none() {
                    self.monitor.advance(Phase::Checkout, 1);
                }
                Ok(output)
            }
        }
    }

    /// Writes a small file.
    fn put(&self, row: Row, target: Target, bytes: &[u8]) -> Result<()> {
        let Some(mut output) = self.begin(row, target)? else {
            return Ok(());
        };
        output.write(bytes).at(self.os_path(&self.plan.path(row)))?;
        self.finish(output, row, target)?;
        self.advance(target);
        Ok(())
    }

    fn advance(&self, target: Target) {
        if target == Target::Tree {
            self.monitor.advance(Phase::Checkout, 1);
        }
    }

    fn begin_all(&self, rows: &[(Piece, Row)], target: Target) -> Result<Large> {
        let begun = rows
            .iter()
            .map(|(_, row)| Ok(self.begin(*row, target)?.map(|out| (*row, out))));
        let outputs = begun
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>>>()?;
        let written = if self.can_clone.load(Relaxed) {
            1
        } else {
            outputs.len()
        };
        Ok(Large { outputs, written })
    }

    fn finish_all(&self, large: Large, target: Target) -> Result<()> {
        let mut outputs = large.outputs.into_iter();
        let Some((row, first)) = outputs.next() else {
            return Ok(());
        };
        let source = first
            .file
            .try_clone()
            .at(self.os_path(&self.plan.path(row)))?;
        self.finish(first, row, target)?;
        self.advance(target);
        for (row, mut output) in outputs {
            let at = || self.os_path(&self.plan.path(row));
            if output.is_empty() && !output.clone_from(&source) {
                self.can_clone.store(false, Relaxed);
                output.copy_from(&source).at(at())?;
            }
            self.finish(output, row, target)?;
            self.advance(target);
        }
        Ok(())
    }

    fn finish(&self, output: Output, row: Row, target: Target) -> Result<()> {
        let object = self.plan.object(row);
        let done = output.finish(&object.header, self.options);
        done.at(self.os_path(&self.plan.path(row)))?;
        if target == Target::Tree {
            self.counters.files.fetch_add(1, Relaxed);
        }
        self.counters.written_bytes.fetch_add(object.size, Relaxed);
        Ok(())
    }

    /// Sets the metadata of directories, from the deepest up: one above may then not be entered any
    /// more.
    fn finish_directories(&self) -> Result<()> {
        for (row, is_new) in self.plan.dirs.iter().zip(&self.is_new).rev() {
            let Some(meta) = row.meta.as_ref().filter(|_| is_new.load(Relaxed)) else {
                continue;
            };
            let dir = self.root.open_dir(&row.path).at(self.os_path(&row.path))?;
            let done = write::finish_dir(dir.as_fd(), meta, self.options);
            done.at(self.os_path(&row.path))?;
        }
        Ok(())
    }
}

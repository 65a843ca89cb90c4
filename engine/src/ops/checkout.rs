//! Writes a commit, or a directory of one, to the file system.
//!
//! Directories and links come first, then the contents of all files in the order in which they are
//! stored, so that each block is decoded once, then the directories' own metadata. Everything is
//! created relative to open directories and never through a symbolic link, so what already lies in
//! the destination cannot redirect a write to somewhere else.

mod beneath;
mod cloner;
mod copy;
mod job;
mod linker;
mod links;
mod place;
mod plan;
mod record;
mod replace;
mod seen;
mod update;
mod write;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::beneath::split;
use self::job::Job;
pub(in crate::ops) use self::links::{cached_files, forget_files};
use self::place::Place;
use self::plan::Plan;
use self::record::Records;
pub use self::update::update;
use crate::error::Result;
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};
use crate::ops::ls::{Node, normalise, resolve_path};
use crate::repo::Repository;

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
    /// Each file and directory: slow, but waits for no writes of others. Files that were there
    /// already, from an interrupted run or in the cache of hard links, are no exception.
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
    /// Those of them that share their extents with the repository's cache.
    pub cloned_files: u64,
    /// Regular files that are hard links.
    pub linked_files: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Entries left as they were.
    pub kept: u64,
    /// Directories and files of an update that were left out, as a directory above them, or that is
    /// to hold them, is none any more.
    pub left_out: u64,
    /// Files and directories that were made durable one by one, the directory above the destination
    /// among them.
    pub synced: u64,
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
    cloned_files: AtomicU64,
    linked_files: AtomicU64,
    symlinks: AtomicU64,
    kept: AtomicU64,
    left_out: AtomicU64,
    synced: AtomicU64,
    written_bytes: AtomicU64,
}

impl Counters {
    fn report(&self) -> CheckoutReport {
        CheckoutReport {
            dirs: self.dirs.load(Relaxed),
            files: self.files.load(Relaxed),
            cloned_files: self.cloned_files.load(Relaxed),
            linked_files: self.linked_files.load(Relaxed),
            symlinks: self.symlinks.load(Relaxed),
            kept: self.kept.load(Relaxed),
            left_out: self.left_out.load(Relaxed),
            synced: self.synced.load(Relaxed),
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

//! What several ways of storing would need for given trees, one after the other: OSTree's archive,
//! compressed chunks, and a repository of ours.
//!
//! Ours is measured: the trees are committed into a scratch repository. OSTree's is worked out from
//! the same objects: one file for each, metadata as it is, contents through zlib. Chunks are cut out
//! of the files one after the other, each a file of its own. Nothing but the scratch repository is
//! written. Memory: the list of one tree's files, the names of all distinct objects and chunks, and
//! a few files' worth of chunks.

mod archive;
mod chunks;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::archive::Archive;
use self::chunks::Chunks;
use super::source::{SourceOptions, add_dir};
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};
use crate::object::{Commit, FileObject, Metadata};
use crate::refs::RefUpdate;
use crate::repo::Repository;
use crate::tree::{MutableTree, check_depth};

/// Unit in which file systems give space to files.
const DISK_BLOCK: u64 = 4096;
const REF: &str = "compared";

/// What is stored after a tree and all before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Sizes of all files.
    pub stored_bytes: u64,
    /// The same in whole blocks of 4 KiB.
    pub allocated_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// How long it took to find out for this tree; for ours, the time of the commit.
    pub time: Duration,
}

impl Needs {
    fn add_file(&mut self, size: u64) {
        self.stored_bytes += size;
        self.allocated_bytes += size.next_multiple_of(DISK_BLOCK);
        self.files += 1;
    }
}

/// One of the trees, and what everything up to it needs.
#[derive(Debug, Clone)]
pub struct Release {
    /// The directory.
    pub tree: PathBuf,
    /// Files and symbolic links in it.
    pub files: u64,
    /// Bytes of the regular files, each name counted.
    pub logical_bytes: u64,
    /// Entries that a commit cannot hold, and that are left out.
    pub skipped: u64,
    /// The objects of an OSTree repository in archive mode, zlib at level 6.
    pub archive: Needs,
    /// Chunks of 16 to 256 KiB, 64 on average, zstd at level 3, and their lists.
    pub chunks: Needs,
    /// A repository of ours.
    pub repository: Needs,
}

/// What is needed to look at one file of a tree.
#[derive(Debug)]
struct Listed {
    /// From the root, without a leading slash.
    path: String,
    file: FileObject,
}

/// Works out what `trees` need, in order. `scratch` is an empty directory for a repository.
pub fn compare(trees: &[PathBuf], scratch: &Path, monitor: &dyn Monitor) -> Result<Vec<Release>> {
    let repo = Repository::init(scratch)?;
    let mut archive = Archive::default();
    let mut chunks = Chunks::default();
    let mut releases = Vec::with_capacity(trees.len());
    for tree in trees {
        let start = Instant::now();
        let (commit, skipped) = commit(&repo, tree, monitor)?;
        let mut repository = occupied(scratch)?;
        repository.time = start.elapsed();
        let listed = list(&repo, &commit, &mut archive)?;
        let logical_bytes = listed.iter().map(|one| one.file.size).sum();
        // Both read everything.
        monitor.begin(Phase::Compare, Some(2 * logical_bytes));
        releases.push(Release {
            tree: tree.clone(),
            files: listed.len() as u64,
            logical_bytes,
            skipped,
            archive: archive.add(tree, &listed, monitor)?,
            chunks: chunks.add(tree, &listed, monitor)?,
            repository,
        });
        monitor.end(Phase::Compare);
    }
    Ok(releases)
}

/// Commits a tree on top of the one before. Gives the number of entries left out, too.
fn commit(repo: &Repository, dir: &Path, monitor: &dyn Monitor) -> Result<(Commit, u64)> {
    let options = SourceOptions {
        skip_special: true,
        no_stat_cache: true,
        ..SourceOptions::default()
    };
    let parent = repo.refs()?.map.get(REF).copied();
    let mut txn = repo.begin(monitor)?;
    if let Some(parent) = &parent {
        txn.set_parent(parent)?;
    }
    let mut tree = MutableTree::default();
    let found = add_dir(&mut txn, &mut tree, dir, &options, monitor)?;
    let (tree, meta) = txn.put_tree(&tree)?;
    let commit = Commit {
        metadata: Metadata::default(),
        parent,
        subject: String::new(),
        body: String::new(),
        timestamp: 0,
        tree,
        meta,
    };
    let id = txn.put_commit(&commit)?;
    txn.publish(&[RefUpdate {
        name: REF.to_owned(),
        expected: Some(parent),
        new: Some(id),
    }])?;
    Ok((commit, found.skipped))
}

/// What all files below a directory occupy.
fn occupied(dir: &Path) -> Result<Needs> {
    let mut needs = Needs::default();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            let meta = std::fs::symlink_metadata(&path).at(&path)?;
            if meta.is_dir() {
                todo.push(path);
            } else {
                needs.stored_bytes += meta.size();
                needs.allocated_bytes += meta.blocks() * 512;
                needs.files += 1;
            }
        }
    }
    Ok(needs)
}

/// The files of a commit in the order of their paths; metadata objects go into the archive.
fn list(repo: &Repository, commit: &Commit, archive: &mut Archive) -> Result<Vec<Listed>> {
    archive.add_metadata(ObjectId::of(&commit.to_bytes()), commit.to_bytes().len());
    let mut lister = Lister {
        repo,
        archive,
        listed: Vec::new(),
    };
    lister.dir("", &commit.tree, &commit.meta, 0)?;
    Ok(lister.listed)
}

struct Lister<'a> {
    repo: &'a Repository,
    archive: &'a mut Archive,
    listed: Vec<Listed>,
}

impl Lister<'_> {
    fn dir(&mut self, path: &str, tree: &ObjectId, meta: &ObjectId, depth: usize) -> Result<()> {
        check_depth(path, depth)?;
        let dirmeta = self.repo.dirmeta(meta)?;
        self.archive.add_metadata(*meta, dirmeta.to_bytes().len());
        let listing = self.repo.dirtree(tree)?;
        self.archive.add_metadata(*tree, listing.to_bytes().len());
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            }
        };
        for (name, id) in &listing.files {
            let path = below(name);
            let file = self.repo.file(id)?;
            self.listed.push(Listed { path, file });
        }
        for dir in &listing.dirs {
            self.dir(&below(&dir.name), &dir.tree, &dir.meta, depth + 1)?;
        }
        Ok(())
    }
}

fn check_cancelled(monitor: &dyn Monitor) -> Result<()> {
    if monitor.is_cancelled() {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

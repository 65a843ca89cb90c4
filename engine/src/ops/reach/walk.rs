//! The walk that finds what a commit needs. Every object is loaded once, for however many commits.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::needs::is_plain;
use super::places::{Places, Spot};
use super::{EntrySet, key};
use crate::error::{Error, Result};
use crate::id::{ObjectId, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::object::DirEntry;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::tree::check_depth;

/// Counts of one tree, every path counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Bytes of the regular files.
    pub logical_bytes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.symlinks = self.symlinks.saturating_add(other.symlinks);
        self.dirs = self.dirs.saturating_add(other.dirs);
        self.logical_bytes = self.logical_bytes.saturating_add(other.logical_bytes);
    }
}

/// What a commit needs, and what its tree holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reached {
    pub(crate) entries: EntrySet,
    pub(crate) totals: Totals,
    /// Bytes of the distinct payloads.
    pub(crate) unique_bytes: u64,
}

/// An entry that is needed; for the first part of a payload, with the payload's size.
type Item = (Spot, u64);

#[derive(Debug, Clone)]
struct FileNode {
    symlink: bool,
    size: u64,
    /// Where its items are in the walker's list of all.
    items: Range<usize>,
}

#[derive(Debug)]
struct TreeNode {
    totals: Totals,
    /// Of the tree itself, its files, and the metadata of its subdirectories.
    items: Vec<Item>,
    dirs: Vec<ObjectId>,
}

/// Walks commits of one repository.
#[derive(Debug)]
pub(crate) struct Walker<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    /// Passes over what is missing: for commits that are known to be incomplete.
    lenient: bool,
    places: Places,
    items: Vec<Item>,
    files: HashMap<ObjectId, FileNode>,
    payloads: HashMap<PayloadId, Range<usize>>,
    trees: HashMap<ObjectId, Arc<TreeNode>>,
}

impl<'r> Walker<'r> {
    pub(crate) fn new(repo: &'r Repository, monitor: &'r dyn Monitor) -> Self {
        Self {
            repo,
            monitor,
            lenient: false,
            places: Places::default(),
            items: Vec::new(),
            files: HashMap::new(),
            payloads: HashMap::new(),
            trees: HashMap::new(),
        }
    }

    pub(crate) fn places(&mut self) -> &mut Places {
        &mut self.places
    }

    /// One that passes over what is missing. It remembers incomplete trees, so it is of no use for
    /// other commits.
    fn lenient(&self) -> Self {
        Self {
            lenient: true,
            ..Self::new(self.repo, self.monitor)
        }
    }

    /// The result, or `None` for something missing that may be missing.
    fn tolerate<T>(&self, found: Result<T>) -> Result<Option<T>> {
        match found {
            Err(Error::MissingObject { .. } | Error::MissingPayload { .. }) if self.lenient => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// A commit and its tree, without its parents. Of one that is known to be incomplete, what is
    /// there.
    pub(crate) fn commit(&mut self, id: &ObjectId) -> Result<Reached> {
        if self.repo.is_partial(id) {
            self.lenient().whole(id)
        } else {
            self.whole(id)
        }
    }

    fn whole(&mut self, id: &ObjectId) -> Result<Reached> {
        let commit = self.repo.commit(id)?;
        let mut items = Vec::new();
        self.object(EntryKind::Commit, id, &mut items)?;
        let meta = self.object(EntryKind::Dirmeta, &commit.meta, &mut items);
        self.tolerate(meta)?;
        let totals = self.tree(&commit.tree, 0)?;
        self.gather(&commit.tree, &mut HashSet::new(), &mut items);
        let (entries, unique_bytes) = self.sort(items);
        Ok(Reached {
            entries,
            totals,
            unique_bytes,
        })
    }

    /// Entries, and what they refer to.
    pub(crate) fn entries(&mut self, keys: impl Iterator<Item = Key>) -> Result<EntrySet> {
        // Trees do not tell whether they belong to an incomplete commit.
        match self.repo.partial_commits()?.is_empty() {
            true => self.every(keys),
            false => self.lenient().every(keys),
        }
    }

    fn every(&mut self, keys: impl Iterator<Item = Key>) -> Result<EntrySet> {
        let mut items = Vec::new();
        let mut seen = HashSet::new();
        for key in keys {
            let id = ObjectId::from_bytes(key.id);
            match key.kind {
                EntryKind::Commit => {
                    let commit = self.repo.commit(&id)?;
                    self.object(EntryKind::Commit, &id, &mut items)?;
                    let meta = self.object(EntryKind::Dirmeta, &commit.meta, &mut items);
                    self.tolerate(meta)?;
                    self.tree(&commit.tree, 0)?;
                    self.gather(&commit.tree, &mut seen, &mut items);
                }
                EntryKind::Dirtree => {
                    self.tree(&id, 0)?;
                    self.gather(&id, &mut seen, &mut items);
                }
                EntryKind::File => {
                    let file = self.file(&id)?;
                    items.extend_from_slice(&self.items[file.items]);
                }
                EntryKind::Import => {
                    self.object(EntryKind::Import, &id, &mut items)?;
                    for id in self.repo.import(&id)?.into_iter().flat_map(|i| i.files) {
                        let file = self.file(&id)?;
                        items.extend_from_slice(&self.items[file.items]);
                    }
                }
                EntryKind::Dirmeta => self.object(EntryKind::Dirmeta, &id, &mut items)?,
                EntryKind::Payload | EntryKind::Recipe => {
                    self.part(&key, 0, &mut items)?;
                }
            }
        }
        Ok(self.sort(items).0)
    }

    /// Whether all of these entries are in a set.
    pub(crate) fn holds(&mut self, set: &EntrySet, keys: &[Key]) -> Result<bool> {
        for key in keys {
            let Some(spot) = self.spot(key)? else {
                return Ok(false);
            };
            if !set.contains(&self.places.map_of(spot).id, spot.1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn spot(&mut self, key: &Key) -> Result<Option<Spot>> {
        let Some(at) = self.repo.store().locate(key)? else {
            return Ok(None);
        };
        Ok(Some(self.places.spot(self.repo, &at)?.0))
    }

    /// Adds an object that has been loaded, so is there.
    fn object(&mut self, kind: EntryKind, id: &ObjectId, items: &mut Vec<Item>) -> Result<()> {
        let key = key(kind, id);
        let spot = self.spot(&key)?.ok_or_else(|| missing(kind, id))?;
        items.push((spot, 0));
        Ok(())
    }

    /// Adds a part of a payload, or its recipe, and what its decoding needs; whether all is there.
    fn part(&mut self, key: &Key, size: u64, items: &mut Vec<Item>) -> Result<bool> {
        let mut todo = vec![(*key, size)];
        // Entries that need each other in a circle, in a damaged repository, are met once.
        let mut seen = HashSet::new();
        while let Some((key, size)) = todo.pop() {
            let Some(at) = self.repo.store().locate(&key)? else {
                return Ok(false);
            };
            let (spot, class) = self.places.spot(self.repo, &at)?;
            items.push((spot, size));
            if !is_plain(class) {
                for key in self.repo.store().needs(&key)? {
                    if seen.insert(key) {
                        todo.push((key, 0));
                    }
                }
            }
        }
        Ok(true)
    }

    fn file(&mut self, id: &ObjectId) -> Result<FileNode> {
        if let Some(node) = self.files.get(id) {
            return Ok(node.clone());
        }
        let file = self.repo.file(id)?;
        let mut items = Vec::new();
        self.object(EntryKind::File, id, &mut items)?;
        if let Some(payload) = file.payload {
            items.extend_from_slice(&self.payload(&payload, file.size)?);
        }
        let start = self.items.len();
        self.items.append(&mut items);
        let node = FileNode {
            symlink: file.header.is_symlink(),
            size: file.size,
            items: start..self.items.len(),
        };
        self.files.insert(*id, node.clone());
        self.monitor.advance(Phase::Scan, 1);
        Ok(node)
    }

    fn payload(&mut self, id: &PayloadId, size: u64) -> Result<Vec<Item>> {
        if let Some(range) = self.payloads.get(id) {
            return Ok(self.items[range.clone()].to_vec());
        }
        let mut items = Vec::new();
        for key in self.repo.store().keys_of(id, size)? {
            // The first part, or the recipe, tells the size.
            let size = if key.part == 0 { size } else { 0 };
            if !self.part(&key, size, &mut items)? {
                return Err(Error::MissingPayload { id: *id });
            }
        }
        let start = self.items.len();
        self.items.extend_from_slice(&items);
        self.payloads.insert(*id, start..self.items.len());
        Ok(items)
    }

    /// Loads a tree and everything below it, as far as that was not done before.
    fn tree(&mut self, id: &ObjectId, depth: usize) -> Result<Totals> {
        if let Some(node) = self.trees.get(id) {
            return Ok(node.totals);
        }
        if self.monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        check_depth("/", depth)?;
        let Some(listing) = self.tolerate(self.repo.dirtree(id))? else {
            return Ok(Totals::default());
        };
        let mut totals = Totals {
            dirs: 1,
            ..Totals::default()
        };
        let mut items = Vec::new();
        self.object(EntryKind::Dirtree, id, &mut items)?;
        for (_, file) in &listing.files {
            let file = self.file(file);
            let Some(file) = self.tolerate(file)? else {
                continue;
            };
            totals.add(Totals {
                files: u64::from(!file.symlink),
                symlinks: u64::from(file.symlink),
                dirs: 0,
                logical_bytes: file.size,
            });
            items.extend_from_slice(&self.items[file.items]);
        }
        for DirEntry { tree, meta, .. } in &listing.dirs {
            let meta = self.object(EntryKind::Dirmeta, meta, &mut items);
            self.tolerate(meta)?;
            totals.add(self.tree(tree, depth + 1)?);
        }
        items.shrink_to_fit();
        let dirs = listing.dirs.iter().map(|dir| dir.tree).collect();
        let node = TreeNode {
            totals,
            items,
            dirs,
        };
        self.trees.insert(*id, Arc::new(node));
        Ok(totals)
    }

    /// Items of a tree that has been loaded and of those below it, each tree once.
    fn gather(&self, root: &ObjectId, seen: &mut HashSet<ObjectId>, items: &mut Vec<Item>) {
        let mut todo = vec![*root];
        while let Some(id) = todo.pop() {
            if let Some(node) = self.trees.get(&id).filter(|_| seen.insert(id)) {
                items.extend_from_slice(&node.items);
                todo.extend_from_slice(&node.dirs);
            }
        }
    }

    /// The items as a set, and the sum of the sizes of its payloads.
    fn sort(&self, mut items: Vec<Item>) -> (EntrySet, u64) {
        // Of equal entries the one with the size comes first: a payload can be needed as a base,
        // too.
        items.sort_unstable_by_key(|(spot, size)| (*spot, std::cmp::Reverse(*size)));
        items.dedup_by_key(|(spot, _)| *spot);
        let mut set = EntrySet::default();
        for pack in items.chunk_by(|a, b| a.0.0 == b.0.0) {
            let ordinals = pack.iter().map(|((_, ordinal), _)| *ordinal);
            let bitmap = RoaringBitmap::from_sorted_iter(ordinals);
            let bitmap = bitmap.expect("because it was sorted");
            set.add(self.places.map_of(pack[0].0).id, &bitmap);
        }
        let sizes = items.iter().map(|(_, size)| *size);
        (set, sizes.fold(0, u64::saturating_add))
    }
}

fn missing(kind: EntryKind, id: &ObjectId) -> Error {
    use crate::id::ObjectKind;
    let kind = match kind {
        EntryKind::Commit => ObjectKind::Commit,
        EntryKind::Dirtree => ObjectKind::Dirtree,
        EntryKind::Dirmeta => ObjectKind::Dirmeta,
        EntryKind::File | EntryKind::Payload | EntryKind::Recipe | EntryKind::Import => {
            ObjectKind::File
        }
    };
    Error::MissingObject { kind, id: *id }
}

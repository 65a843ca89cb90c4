//! What commits need, from the cache where it has it, else by a walk.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::cache::{decode, encode};
use super::walk::Walker;
use super::{EntrySet, Places, Reached};
use crate::error::Result;
use crate::fs::replace_cache_file;
use crate::id::ObjectId;
use crate::monitor::Monitor;
use crate::pack::Key;
use crate::repo::Repository;

/// Finds what commits need, once each.
#[derive(Debug)]
pub(crate) struct Marker<'r> {
    repo: &'r Repository,
    walker: Walker<'r>,
    known: HashMap<ObjectId, Arc<Reached>>,
    /// Commits that had to be walked.
    pub(crate) walked: u64,
}

impl<'r> Marker<'r> {
    pub(crate) fn new(repo: &'r Repository, monitor: &'r dyn Monitor) -> Self {
        Self {
            repo,
            walker: Walker::new(repo, monitor),
            known: HashMap::new(),
            walked: 0,
        }
    }

    pub(crate) fn places(&mut self) -> &mut Places {
        self.walker.places()
    }

    /// What a commit needs. Damage in its tree is an error.
    pub(crate) fn commit(&mut self, id: &ObjectId) -> Result<Arc<Reached>> {
        if let Some(reached) = self.known.get(id) {
            return Ok(Arc::clone(reached));
        }
        let reached = match self.load(id)? {
            Some(reached) => reached,
            None => {
                self.walked += 1;
                let reached = self.walker.commit(id)?;
                // What is incomplete may be completed. A cache that cannot be written is a slower
                // one.
                if !self.repo.is_partial(id) {
                    drop(write(self.repo, id, &reached));
                }
                reached
            }
        };
        let reached = Arc::new(reached);
        self.known.insert(*id, Arc::clone(&reached));
        Ok(reached)
    }

    /// Everything that these commits need.
    pub(crate) fn commits<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a ObjectId>,
    ) -> Result<EntrySet> {
        let mut all = EntrySet::default();
        for id in ids {
            all.union(&self.commit(id)?.entries);
        }
        Ok(all)
    }

    /// Entries, and everything that they refer to.
    pub(crate) fn entries(&mut self, keys: impl Iterator<Item = Key>) -> Result<EntrySet> {
        self.walker.entries(keys)
    }

    /// Whether all of these entries are in a set.
    pub(crate) fn holds(&mut self, set: &EntrySet, keys: &[Key]) -> Result<bool> {
        self.walker.holds(set, keys)
    }

    /// From the cache, if every pack that it names is there.
    fn load(&mut self, id: &ObjectId) -> Result<Option<Reached>> {
        let bytes = std::fs::read(path(self.repo, id)).ok();
        let Some(reached) = bytes.as_deref().and_then(decode) else {
            return Ok(None);
        };
        let index = self.repo.store().index();
        for (pack, entries) in reached.entries.packs() {
            if !index.present().contains(pack) {
                return Ok(None);
            }
            let map = self.walker.places().map(self.repo, pack)?;
            if entries.max().is_none_or(|last| last >= map.entries) {
                return Ok(None);
            }
        }
        Ok(Some(reached))
    }
}

fn directory(repo: &Repository) -> PathBuf {
    repo.path().join("index/reach")
}

fn path(repo: &Repository, id: &ObjectId) -> PathBuf {
    directory(repo).join(id.to_string())
}

/// Remembers what a commit needs.
pub(crate) fn write(repo: &Repository, id: &ObjectId, reached: &Reached) -> std::io::Result<()> {
    let bytes = encode(reached);
    replace_cache_file(&path(repo, id), |file| {
        std::io::Write::write_all(file, &bytes)
    })
}

/// Forgets commits that are gone.
pub(crate) fn forget(repo: &Repository, kept: &BTreeSet<ObjectId>) {
    for entry in std::fs::read_dir(directory(repo))
        .into_iter()
        .flatten()
        .flatten()
    {
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if id.is_some_and(|id: ObjectId| !kept.contains(&id)) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

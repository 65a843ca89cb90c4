//! Whether commits are complete: every object and every part of every payload is there.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::monitor::Monitor;
use crate::object::FileObject;
use crate::pack::{EntryKind, Key};
use crate::repo::{Repository, payload_keys};

/// Something that commits refer to and that cannot be had.
#[derive(Debug)]
pub(crate) struct Bad {
    /// What is missing or damaged; several parts of one payload at most.
    pub(crate) keys: Vec<Key>,
    pub(crate) error: Error,
    /// Size of the payload, if it is one.
    pub(crate) size: u64,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Distinct entries that the commits refer to.
    pub(crate) entries: u64,
    /// What is wrong.
    pub(crate) bad: Vec<Bad>,
}

/// Walks commits; every object is looked at once, in however many commits it is. `lost` are
/// entries to be regarded as missing although the index has them.
pub(crate) fn walk(
    repo: &Repository,
    commits: &[ObjectId],
    lost: &HashSet<Key>,
    monitor: &dyn Monitor,
) -> Result<Walk> {
    let mut walker = Walker {
        repo,
        lost,
        seen: HashSet::new(),
        files: Vec::new(),
        bad: Vec::new(),
    };
    for id in commits {
        walker.commit(id, monitor)?;
    }
    let Walker {
        seen,
        files,
        mut bad,
        ..
    } = walker;
    let load = |id: &ObjectId| {
        let key = key(EntryKind::File, id);
        let file = if lost.contains(&key) {
            let kind = ObjectKind::File;
            Err(Error::MissingObject { kind, id: *id })
        } else {
            repo.file(id)
        };
        file.map_err(|error| Bad::object(key, error))
    };
    let mut payloads: HashSet<(PayloadId, u64)> = HashSet::new();
    for chunk in files.chunks(1 << 16) {
        stop_if_cancelled(monitor)?;
        let loaded: Vec<Result<FileObject, Bad>> = chunk.par_iter().map(load).collect();
        for file in loaded {
            match file {
                Ok(file) => payloads.extend(file.payload.map(|id| (id, file.size))),
                Err(error) => bad.push(error),
            }
        }
    }
    let mut payloads: Vec<(PayloadId, u64)> = payloads.into_iter().collect();
    payloads.sort_unstable();
    let parts = |(id, size): &(PayloadId, u64)| check_payload(repo, lost, id, *size);
    let checked: Vec<(u64, Option<Bad>)> = payloads.par_iter().map(parts).collect();
    let entries = seen.len() as u64 + checked.iter().map(|(parts, _)| parts).sum::<u64>();
    bad.extend(checked.into_iter().filter_map(|(_, bad)| bad));
    Ok(Walk { entries, bad })
}

fn stop_if_cancelled(monitor: &dyn Monitor) -> Result<()> {
    if monitor.is_cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(())
}

pub(crate) fn key(kind: EntryKind, id: &ObjectId) -> Key {
    Key::new(kind, *id.as_bytes())
}

/// The number of a payload's parts, and what is wrong with it.
fn check_payload(
    repo: &Repository,
    lost: &HashSet<Key>,
    id: &PayloadId,
    size: u64,
) -> (u64, Option<Bad>) {
    let mut parts = 0;
    let mut missing = Vec::new();
    let mut failed = None;
    for key in payload_keys(id, size) {
        parts += 1;
        let there = !lost.contains(&key)
            && match repo.store().locate(&key) {
                Ok(found) => found.is_some(),
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            };
        if !there {
            missing.push(key);
        }
    }
    let bad = (!missing.is_empty()).then(|| Bad {
        keys: missing,
        error: failed.unwrap_or(Error::MissingPayload { id: *id }),
        size,
    });
    (parts, bad)
}

impl Bad {
    fn object(key: Key, error: Error) -> Self {
        let keys = vec![key];
        Self {
            keys,
            error,
            size: 0,
        }
    }
}

struct Walker<'a> {
    repo: &'a Repository,
    lost: &'a HashSet<Key>,
    seen: HashSet<Key>,
    files: Vec<ObjectId>,
    bad: Vec<Bad>,
}

impl Walker<'_> {
    /// Loads an object unless it was seen before; notes what is wrong with it.
    fn load<T>(
        &mut self,
        kind: ObjectKind,
        entry: EntryKind,
        id: &ObjectId,
        load: impl FnOnce(&Repository, &ObjectId) -> Result<T>,
    ) -> Option<T> {
        let key = key(entry, id);
        if !self.seen.insert(key) {
            return None;
        }
        let loaded = if self.lost.contains(&key) {
            Err(Error::MissingObject { kind, id: *id })
        } else {
            load(self.repo, id)
        };
        loaded
            .map_err(|error| self.bad.push(Bad::object(key, error)))
            .ok()
    }

    fn commit(&mut self, id: &ObjectId, monitor: &dyn Monitor) -> Result<()> {
        let commit = self.load(ObjectKind::Commit, EntryKind::Commit, id, |repo, id| {
            repo.commit(id)
        });
        let Some(commit) = commit else { return Ok(()) };
        self.dirmeta(&commit.meta);
        let mut queue = vec![commit.tree];
        while let Some(id) = queue.pop() {
            stop_if_cancelled(monitor)?;
            let listing = self.load(ObjectKind::Dirtree, EntryKind::Dirtree, &id, |repo, id| {
                repo.dirtree(id)
            });
            let Some(listing) = listing else { continue };
            for (_, file) in &listing.files {
                if self.seen.insert(key(EntryKind::File, file)) {
                    self.files.push(*file);
                }
            }
            for dir in &listing.dirs {
                self.dirmeta(&dir.meta);
                queue.push(dir.tree);
            }
        }
        Ok(())
    }

    fn dirmeta(&mut self, id: &ObjectId) {
        self.load(ObjectKind::Dirmeta, EntryKind::Dirmeta, id, |repo, id| {
            repo.dirmeta(id)
        });
    }
}

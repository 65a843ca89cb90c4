//! Whether commits are complete: every object and every part of every payload is there.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::monitor::Monitor;
use crate::object::FileObject;
use crate::pack::recipe::Piece;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::store::payload::part_keys;

/// Something that commits refer to and that cannot be had.
#[derive(Debug)]
pub(crate) struct Bad {
    /// What is missing or damaged: one object, or entries that payloads are made of.
    pub(crate) keys: Vec<Key>,
    pub(crate) error: Error,
    /// The payloads that these entries are part of.
    pub(crate) payloads: Vec<Piece>,
    /// The payloads of files that cannot be read for lack of them.
    pub(crate) hit: Vec<Piece>,
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
        file.map_err(|error| Box::new(Bad::object(key, error)))
    };
    let mut payloads: HashSet<(PayloadId, u64)> = HashSet::new();
    for chunk in files.chunks(1 << 16) {
        stop_if_cancelled(monitor)?;
        let loaded: Vec<Result<FileObject, Box<Bad>>> = chunk.par_iter().map(load).collect();
        for file in loaded {
            match file {
                Ok(file) => payloads.extend(file.payload.map(|id| (id, file.size))),
                Err(found) => bad.push(*found),
            }
        }
    }
    let mut payloads: Vec<(PayloadId, u64)> = payloads.into_iter().collect();
    payloads.sort_unstable();
    let check = |(id, size): &(PayloadId, u64)| {
        let piece = Piece {
            id: *id,
            size: *size,
        };
        check_payload(repo, lost, piece)
    };
    let mut entries = seen;
    for chunk in payloads.chunks(1 << 16) {
        stop_if_cancelled(monitor)?;
        let checked: Vec<(Vec<Key>, Option<Bad>)> = chunk.par_iter().map(check).collect();
        for (keys, found) in checked {
            entries.extend(keys);
            bad.extend(found);
        }
    }
    Ok(Walk {
        entries: entries.len() as u64,
        bad: join(bad),
    })
}

/// Payloads that lack the same entries become one problem.
fn join(mut bad: Vec<Bad>) -> Vec<Bad> {
    bad.sort_by(|a, b| a.keys.cmp(&b.keys));
    bad.dedup_by(|next, kept| {
        let same = next.keys == kept.keys;
        if same {
            kept.hit.append(&mut next.hit);
        }
        same
    });
    bad
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

/// The entries that a payload is made of, and what is wrong with them.
fn check_payload(repo: &Repository, lost: &HashSet<Key>, of: Piece) -> (Vec<Key>, Option<Bad>) {
    let store = repo.store();
    let mut sizes: HashMap<PayloadId, u64> = [(of.id, of.size)].into();
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    let mut failed = None;
    let mut todo = match store.keys_of(&of.id, of.size) {
        Ok(keys) => keys,
        Err(error) => {
            failed = Some(error);
            part_keys(&of.id, of.size).collect()
        }
    };
    while let Some(key) = todo.pop() {
        if !seen.insert(key) {
            continue;
        }
        let needed = || -> Result<Option<Vec<Key>>> {
            if lost.contains(&key) || store.locate(&key)?.is_none() {
                return Ok(None);
            }
            let needs = store.needs(&key)?;
            if !needs.is_empty() {
                let pieces = store.needed_payloads(&key)?;
                sizes.extend(pieces.iter().map(|piece| (piece.id, piece.size)));
            }
            Ok(Some(needs))
        };
        match { needed }() {
            Ok(Some(needs)) => todo.extend(needs),
            Ok(None) => missing.push(key),
            Err(error) => {
                failed.get_or_insert(error);
                missing.push(key);
            }
        }
    }
    if missing.is_empty() {
        return (seen.into_iter().collect(), None);
    }
    missing.sort_unstable();
    let mut ids: Vec<PayloadId> = missing.iter().map(Key::payload).collect();
    ids.dedup();
    let first = ids.first().copied().unwrap_or(of.id);
    let piece = |id: PayloadId| Piece {
        id,
        size: sizes.get(&id).copied().unwrap_or_default(),
    };
    let bad = Bad {
        keys: missing,
        error: failed.unwrap_or(Error::MissingPayload { id: first }),
        payloads: ids.into_iter().map(piece).collect(),
        hit: vec![of],
    };
    (seen.into_iter().collect(), Some(bad))
}

impl Bad {
    fn object(key: Key, error: Error) -> Self {
        Self {
            keys: vec![key],
            error,
            payloads: Vec::new(),
            hit: Vec::new(),
        }
    }

    /// Whether it is about payloads, not about an object.
    pub(crate) fn is_payload(&self) -> bool {
        !self.hit.is_empty()
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

//! Recomputing the names of objects and payloads, pack by pack in the order of their bytes.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::problem::{Problem, ProblemKind};
use super::walk::key;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PackId, PayloadId};
use crate::index::{Location, ObjectIndex};
use crate::monitor::{Monitor, Phase};
use crate::object::FileObject;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;

/// How the text of a problem with a name ends.
pub(crate) const MISMATCH: &str = " does not match its checksum";

/// One object to check, and where its bytes begin: those of its payload if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    at: (PackId, u32, u32),
    key: Key,
    /// Bytes of the file; 0 for metadata.
    size: u64,
}

impl Unit {
    /// The pack that its bytes begin in.
    pub(crate) fn pack(&self) -> PackId {
        self.at.0
    }
}

/// All objects in the order of their bytes.
pub(crate) fn units(repo: &Repository) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    let place = |at: &Location| (at.pack, at.offset, at.entry);
    repo.store().index().for_each(&mut |key, at| {
        if !matches!(
            key.kind,
            EntryKind::Payload | EntryKind::Recipe | EntryKind::Import
        ) {
            let (at, key) = (place(at), *key);
            units.push(Unit { at, key, size: 0 });
        }
        Ok(())
    })?;
    units.par_iter_mut().for_each(|unit| {
        if unit.key.kind != EntryKind::File {
            return;
        }
        let file = repo.file(&ObjectId::from_bytes(unit.key.id)).ok();
        unit.size = file.as_ref().map_or(0, |file| file.size);
        let payload = file.and_then(|file| file.payload);
        let first = payload.map(|id| Key::new(EntryKind::Payload, *id.as_bytes()));
        if let Some(at) = first.and_then(|key| repo.store().locate(&key).ok().flatten()) {
            unit.at = place(&at);
        }
    });
    units.par_sort_unstable_by_key(|unit| (unit.at, unit.key));
    Ok(units)
}

/// How many bytes their check advances.
pub(crate) fn sum(units: &[Unit]) -> u64 {
    units.iter().map(|unit| unit.size).sum()
}

/// Checks objects in parallel.
pub(crate) fn check_units(
    repo: &Repository,
    units: &[Unit],
    monitor: &dyn Monitor,
) -> Result<Vec<Problem>> {
    let check = |unit: &Unit| {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(check_unit(repo, &unit.key, monitor)
            .err()
            .map(|found| *found))
    };
    let units = units.par_iter().with_max_len(64);
    let found: Result<Vec<Option<Problem>>> = units.map(check).collect();
    Ok(found?.into_iter().flatten().collect())
}

fn check_unit(repo: &Repository, unit: &Key, monitor: &dyn Monitor) -> Result<(), Box<Problem>> {
    let id = ObjectId::from_bytes(unit.id);
    let problem = |kind, error: &Error, key| Box::new(Problem::of(kind, error).about(vec![key]));
    let kind = match unit.kind {
        EntryKind::Commit => ObjectKind::Commit,
        EntryKind::Dirtree => ObjectKind::Dirtree,
        EntryKind::Dirmeta => ObjectKind::Dirmeta,
        _ => {
            let file = repo.file(&id);
            let file = file.map_err(|error| problem(ProblemKind::Object, &error, *unit))?;
            return check_file(repo, &file, monitor).map_err(|(kind, error)| match file.payload {
                Some(payload) if kind == ProblemKind::Payload => {
                    let key = Key::new(EntryKind::Payload, *payload.as_bytes());
                    problem(kind, &error, key)
                }
                _ => problem(kind, &error, *unit),
            });
        }
    };
    let bytes = repo.object_bytes(kind, &id);
    let bytes = bytes.map_err(|error| problem(ProblemKind::Object, &error, *unit))?;
    if ObjectId::of(&bytes) == id {
        return Ok(());
    }
    let error = mismatch(repo, format!("{kind} object {id}"));
    Err(problem(ProblemKind::Object, &error, key(unit.kind, &id)))
}

fn mismatch(repo: &Repository, what: String) -> Error {
    Error::Corrupt {
        path: repo.path().to_owned(),
        detail: format!("{what}{MISMATCH}"),
    }
}

fn check_file(
    repo: &Repository,
    file: &FileObject,
    monitor: &dyn Monitor,
) -> Result<(), (ProblemKind, Error)> {
    // Old writers hashed unsorted attributes as they came, newer ones sort them first.
    let prefixes = [
        file.header.content_prefix(),
        file.header.with_sorted_xattrs().content_prefix(),
    ];
    let both = prefixes[0] != prefixes[1];
    let mut hashers: Vec<Sha256> = prefixes
        .iter()
        .take(1 + usize::from(both))
        .map(Sha256::new_with_prefix)
        .collect();
    let mut payload = Sha256::new();
    let mut buf = vec![0; (1 << 20).min(file.size as usize)];
    let mut at = 0;
    while at < file.size {
        if monitor.is_cancelled() {
            return Ok(());
        }
        let n = repo.read_at(file, at, &mut buf);
        let n = n.map_err(|error| (ProblemKind::Payload, error))?;
        hashers.iter_mut().for_each(|h| h.update(&buf[..n]));
        payload.update(&buf[..n]);
        at += n as u64;
        monitor.advance(Phase::Verify, n as u64);
    }
    let payload = PayloadId::from_bytes(payload.finalize().into());
    if let Some(expected) = file.payload.filter(|expected| *expected != payload) {
        let what = format!("payload {expected} of file object {}", file.id);
        return Err((ProblemKind::Payload, mismatch(repo, what)));
    }
    let matches = |h: Sha256| ObjectId::from_bytes(h.finalize().into()) == file.id;
    if hashers.into_iter().any(matches) {
        return Ok(());
    }
    let what = format!("file object {}", file.id);
    Err((ProblemKind::Object, mismatch(repo, what)))
}

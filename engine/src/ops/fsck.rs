//! Checking a repository: structure, stored bytes, or everything down to the checksums of objects.

use std::collections::HashSet;
use std::sync::Mutex;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::reach::Reach;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PackId, PayloadId};
use crate::index::ObjectIndex;
use crate::monitor::{Monitor, Phase};
use crate::object::FileObject;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::store::lock;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Refs, commits, directories and file records; footers of packs; the index. No payload.
    Quick,
    /// And the checksum of every stored block.
    #[default]
    Data,
    /// And every object and payload against its SHA-256 name.
    Deep,
}

/// What was checked and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Commits walked.
    pub commits: u64,
    /// Distinct entries that they refer to.
    pub entries: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes of packs read in full.
    pub bytes: u64,
    /// One line for each thing that is wrong, naming what and where.
    pub problems: Vec<String>,
}

/// Checks a repository. Damage is reported, not returned as an error.
pub fn fsck(repo: &Repository, level: Level, monitor: &dyn Monitor) -> Result<FsckReport> {
    let _lock = repo.lock_shared()?;
    repo.store().refresh()?;
    let mut report = FsckReport::default();
    check_commits(repo, &mut report)?;
    check_index(repo, &mut report);
    let packs: Vec<PackId> = repo.store().index().present().iter().copied().collect();
    report.packs = packs.len() as u64;
    let problems = Mutex::new(Vec::new());
    if level == Level::Quick {
        packs
            .iter()
            .for_each(|id| note(&problems, check_footer(repo, id)));
    } else {
        let sizes = packs
            .iter()
            .map(|id| repo.store().pack(id).map_or(0, |p| p.size()));
        report.bytes = sizes.sum();
        monitor.begin(Phase::Verify, Some(report.bytes));
        packs
            .par_iter()
            .try_for_each(|id| check_blocks(repo, id, &problems, monitor))?;
        monitor.end(Phase::Verify);
    }
    if level == Level::Deep {
        check_objects(repo, &problems, monitor)?;
    }
    report.problems.append(&mut lock(&problems));
    Ok(report)
}

fn note(problems: &Mutex<Vec<String>>, result: Result<()>) {
    if let Err(error) = result {
        lock(problems).push(super::describe(&error));
    }
}

fn check_commits(repo: &Repository, report: &mut FsckReport) -> Result<()> {
    let mut commits: HashSet<ObjectId> = repo.commits()?.into_iter().collect();
    for (name, id) in repo.refs()?.map {
        if commits.insert(id) {
            report
                .problems
                .push(format!("ref {name}: commit object {id} is missing"));
            commits.remove(&id);
        }
    }
    report.commits = commits.len() as u64;
    let mut reach = Reach::default();
    let mut ordered: Vec<ObjectId> = commits.into_iter().collect();
    ordered.sort_unstable();
    for id in ordered {
        let problems = &mut report.problems;
        reach.add_commit(repo, &id, &mut |path, error| {
            problems.push(format!("commit {id}: {path}: {}", super::describe(&error)));
        });
    }
    report.entries = reach.keys.len() as u64;
    Ok(())
}

fn check_index(repo: &Repository, report: &mut FsckReport) {
    let index = repo.store().index();
    if let Err(error) = index.verify() {
        report.problems.push(super::describe(&error));
    }
    report
        .problems
        .extend(index.damaged.iter().map(super::describe));
}

fn check_footer(repo: &Repository, id: &PackId) -> Result<()> {
    repo.store().pack(id)?.footer().map(drop)
}

/// Reads every block of a pack and compares it with its checksums.
fn check_blocks(
    repo: &Repository,
    id: &PackId,
    problems: &Mutex<Vec<String>>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let rows = repo
        .store()
        .pack(id)
        .and_then(|pack| Ok((pack.footer()?, pack)));
    let (rows, pack) = match rows {
        Ok(found) => found,
        Err(error) => {
            note(problems, Err(error));
            return Ok(());
        }
    };
    for row in rows {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        note(problems, pack.check_stored(&row));
        monitor.advance(Phase::Verify, u64::from(row.block_len));
    }
    Ok(())
}

/// Recomputes the names of all objects and payloads, in the order in which they are stored.
fn check_objects(
    repo: &Repository,
    problems: &Mutex<Vec<String>>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut objects: Vec<(ObjectKind, ObjectId)> = Vec::new();
    repo.store().index().for_each(&mut |key: &Key, _| {
        let kind = match key.kind {
            EntryKind::Commit => ObjectKind::Commit,
            EntryKind::Dirtree => ObjectKind::Dirtree,
            EntryKind::Dirmeta => ObjectKind::Dirmeta,
            EntryKind::File => ObjectKind::File,
            EntryKind::Payload | EntryKind::Recipe | EntryKind::Import => return Ok(()),
        };
        objects.push((kind, ObjectId::from_bytes(key.id)));
        Ok(())
    })?;
    let mut files = Vec::new();
    for (kind, id) in objects {
        if kind == ObjectKind::File {
            match repo.file(&id) {
                Ok(file) => files.push(file),
                Err(error) => note(problems, Err(error)),
            }
        } else {
            note(problems, check_metadata(repo, kind, &id));
        }
    }
    let place = |file: &FileObject| {
        let key = Key::new(EntryKind::Payload, *file.payload?.as_bytes());
        repo.store()
            .locate(&key)
            .ok()
            .flatten()
            .map(|at| (at.pack, at.offset, at.entry))
    };
    files.sort_by_cached_key(place);
    monitor.begin(Phase::Verify, Some(files.iter().map(|f| f.size).sum()));
    files.par_iter().with_max_len(64).try_for_each(|file| {
        note(problems, check_file(repo, file, monitor));
        monitor.advance(Phase::Verify, file.size);
        if monitor.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    })?;
    monitor.end(Phase::Verify);
    Ok(())
}

fn mismatch(repo: &Repository, what: String) -> Error {
    Error::Corrupt {
        path: repo.path().to_owned(),
        detail: format!("{what} does not match its checksum"),
    }
}

fn check_metadata(repo: &Repository, kind: ObjectKind, id: &ObjectId) -> Result<()> {
    if ObjectId::of(&repo.object_bytes(kind, id)?) == *id {
        return Ok(());
    }
    Err(mismatch(repo, format!("{kind} object {id}")))
}

fn check_file(repo: &Repository, file: &FileObject, monitor: &dyn Monitor) -> Result<()> {
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
    while at < file.size && !monitor.is_cancelled() {
        let n = repo.read_at(file, at, &mut buf)?;
        hashers.iter_mut().for_each(|h| h.update(&buf[..n]));
        payload.update(&buf[..n]);
        at += n as u64;
    }
    if at < file.size {
        return Ok(());
    }
    let payload = PayloadId::from_bytes(payload.finalize().into());
    if file.payload.is_some_and(|expected| expected != payload) {
        return Err(mismatch(
            repo,
            format!("payload {payload} of file object {}", file.id),
        ));
    }
    let matches = |h: Sha256| ObjectId::from_bytes(h.finalize().into()) == file.id;
    if hashers.into_iter().any(matches) {
        return Ok(());
    }
    Err(mismatch(repo, format!("file object {}", file.id)))
}

//! Mending a damaged repository.
//!
//! In this order: what opening takes (`meta.json`, `doomed`), packs from their parity, the sound
//! rest of packs that parity cannot mend, the index, the refs, and from other places what is still
//! missing. Whatever is sound stays visible at every moment: new packs are published before the
//! damaged ones are moved to `quarantine/`, and a repair that was interrupted is simply repeated.

mod files;
mod found;
mod packs;
mod salvage;
mod source;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

pub use self::found::Found;
use self::packs::PackRepair;
pub use self::source::{DirectorySource, RepositorySource, Source, Wanted};
use crate::error::{Error, Result};
use crate::fs::Storage;
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::ops::fsck::{self, Bad, Problem};
use crate::pack::{EntryKind, Key};
use crate::repo::{Repository, Transaction};

/// Rounds of asking the sources: each can bring a directory whose contents are then missing.
const MAX_ROUNDS: usize = 1024;

/// How to repair.
#[derive(Debug, Clone, Copy)]
pub struct RepairOptions {
    /// Change nothing, only report what would be done.
    pub dry_run: bool,
    /// Also compare every object and payload with its checksum, and drop what does not match.
    pub deep: bool,
    /// Switch parity files on, which makes them for all packs, or off; `None` = as it is.
    pub parity: Option<bool>,
    /// At most this many paths are named for each thing that is lost.
    pub paths: usize,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            deep: false,
            parity: None,
            paths: 20,
        }
    }
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// One line for each thing that was found damaged and mended, or put aside.
    pub notes: Vec<String>,
    /// Packs restored byte for byte from their parity files.
    pub packs_mended: u64,
    /// Packs of which the sound part was written anew.
    pub packs_rewritten: u64,
    /// Damaged packs that were kept in `quarantine/`, as not everything in them was restored.
    pub packs_quarantined: u64,
    /// Entries taken out of damaged blocks.
    pub entries_salvaged: u64,
    /// Objects that the sources gave.
    pub objects_restored: u64,
    /// Payloads that the sources gave.
    pub payloads_restored: u64,
    /// Parity files made.
    pub parity_made: u64,
    /// Parity files deleted.
    pub parity_deleted: u64,
    /// What could not be restored.
    pub lost: Vec<Problem>,
}

/// Mends the repository at `path`, asking `sources` one after the other for what is missing.
///
/// # Errors
/// [`Error::Locked`] while anyone uses the repository; failures of the disk. What cannot be
/// restored is reported, not returned as an error.
pub fn repair(
    path: &Path,
    storage: &Arc<dyn Storage>,
    options: &RepairOptions,
    sources: &mut [Box<dyn Source>],
    monitor: &dyn Monitor,
) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    files::prepare(path, &**storage, options.dry_run, &mut report)?;
    let repo = Repository::open_on(path, Arc::clone(storage))?;
    repo.check_writable()?;
    let _lock = repo.lock_exclusive()?;
    if !options.dry_run {
        crate::pack::doomed::finish(&**storage, path)?;
    }
    let mut packs = PackRepair::new(path, &**storage, options.dry_run, monitor)?;
    monitor.begin(Phase::Verify, None);
    packs.run(&repo, &HashSet::new(), &mut report)?;
    let mut repo = reopen(repo, storage)?;
    if options.deep {
        let bad = misnamed(&repo, monitor)?;
        packs.run(&repo, &bad, &mut report)?;
        repo = reopen(repo, storage)?;
    }
    monitor.end(Phase::Verify);
    if !options.dry_run {
        let index = Index::rebuild(repo.store().paths(), |_| ())?;
        repo.store().set_index(index);
    }
    files::mend_refs(&repo, options.dry_run, &mut report)?;
    let bad = refetch(&repo, options, &packs, sources, monitor, &mut report)?;
    files::rebuild_refs(&repo, options.dry_run, &mut report)?;
    report.lost = lost(&repo, bad, options.paths)?;
    packs.clear_quarantine(&repo, &mut report)?;
    packs.parity(&mut repo, options.parity, &mut report)?;
    Ok(report)
}

/// Opens anew, as packs were replaced by others of the same name.
fn reopen(repo: Repository, storage: &Arc<dyn Storage>) -> Result<Repository> {
    let path = repo.path().to_owned();
    drop(repo);
    Repository::open_on(&path, Arc::clone(storage))
}

/// Entries whose bytes are not those that their names say, although all checksums match.
fn misnamed(repo: &Repository, monitor: &dyn Monitor) -> Result<HashSet<Key>> {
    let units = fsck::units(repo)?;
    let mut bad = HashSet::new();
    for problem in fsck::check_units(repo, &units, monitor)? {
        if !problem.detail.ends_with(fsck::MISMATCH) {
            continue;
        }
        bad.extend(problem.keys.iter().copied());
    }
    // Of a payload that is cut, any part may be the wrong one.
    let whole: HashSet<[u8; 32]> = bad
        .iter()
        .filter(|key| key.kind == EntryKind::Payload)
        .map(|key| key.id)
        .collect();
    repo.store().index().for_each(&mut |key, _| {
        if key.kind == EntryKind::Payload && whole.contains(&key.id) {
            bad.insert(*key);
        }
        Ok(())
    })?;
    Ok(bad)
}

/// Every commit that is there or that a ref leads to.
fn roots(repo: &Repository) -> Result<Vec<ObjectId>> {
    let mut roots = repo.commits()?;
    roots.extend(repo.refs().unwrap_or_default().map.into_values());
    roots.sort_unstable();
    roots.dedup();
    Ok(roots)
}

/// Asks the sources until they have no more to give; gives what is still missing.
fn refetch(
    repo: &Repository,
    options: &RepairOptions,
    packs: &PackRepair<'_>,
    sources: &mut [Box<dyn Source>],
    monitor: &dyn Monitor,
    report: &mut RepairReport,
) -> Result<Vec<Bad>> {
    let mut walked = fsck::walk(repo, &roots(repo)?, packs.lost_on_dry_run(), monitor)?;
    for _ in 0..MAX_ROUNDS {
        let wanted = wanted(&walked.bad);
        if wanted.is_empty() || sources.is_empty() {
            break;
        }
        let mut left = wanted.clone();
        let mut given = 0;
        for source in sources.iter_mut().filter(|_| !wanted.is_empty()) {
            let txn = match options.dry_run {
                true => None,
                false => Some(Transaction::begin_locked(repo, monitor)?),
            };
            let asked = left.clone();
            let mut found = Found::new(txn, &asked, monitor);
            let supplied = source.supply(&asked, &mut found);
            found.tolerate(supplied)?;
            let (objects, payloads) = found.counts();
            if objects + payloads > 0 {
                report.objects_restored += objects;
                report.payloads_restored += payloads;
                report.notes.push(format!(
                    "{}: {objects} objects and {payloads} payloads",
                    source.name()
                ));
            }
            given += objects + payloads;
            left = found.left();
            found.publish()?;
        }
        if options.dry_run {
            walked.bad.retain(|bad| is_in(&left, bad));
            break;
        }
        walked = fsck::walk(repo, &roots(repo)?, &HashSet::new(), monitor)?;
        if given == 0 {
            break;
        }
    }
    Ok(walked.bad)
}

/// What to ask for.
fn wanted(bad: &[Bad]) -> Wanted {
    let mut payloads = HashMap::new();
    let mut objects = HashSet::new();
    for bad in bad {
        for key in &bad.keys {
            match object_kind(key.kind) {
                Some(kind) => drop(objects.insert((kind, ObjectId::from_bytes(key.id)))),
                None if key.kind == EntryKind::Payload => {
                    payloads.insert(PayloadId::from_bytes(key.id), bad.size);
                }
                None => {}
            }
        }
    }
    Wanted { payloads, objects }
}

fn object_kind(kind: EntryKind) -> Option<ObjectKind> {
    match kind {
        EntryKind::File => Some(ObjectKind::File),
        EntryKind::Dirtree => Some(ObjectKind::Dirtree),
        EntryKind::Dirmeta => Some(ObjectKind::Dirmeta),
        EntryKind::Commit => Some(ObjectKind::Commit),
        EntryKind::Payload | EntryKind::Import => None,
    }
}

fn is_in(wanted: &Wanted, bad: &Bad) -> bool {
    bad.keys.iter().any(|key| match object_kind(key.kind) {
        Some(kind) => wanted
            .objects
            .contains(&(kind, ObjectId::from_bytes(key.id))),
        None => wanted.payloads.contains_key(&PayloadId::from_bytes(key.id)),
    })
}

/// What is lost, with the paths that it hits.
fn lost(repo: &Repository, bad: Vec<Bad>, paths: usize) -> Result<Vec<Problem>> {
    let mut lost: Vec<Problem> = bad.iter().map(fsck::problem_of).collect();
    if let Err(error) = repo.refs() {
        lost.push(Problem::of(fsck::ProblemKind::Refs, &error));
    }
    fsck::fill_in(repo, &roots(repo)?, &mut lost, paths);
    lost.sort_by(|a, b| (a.kind, &a.detail).cmp(&(b.kind, &b.detail)));
    Ok(lost)
}

/// Fails when the repair is to stop.
fn check_cancelled(monitor: &dyn Monitor) -> Result<()> {
    match monitor.is_cancelled() {
        true => Err(Error::Cancelled),
        false => Ok(()),
    }
}

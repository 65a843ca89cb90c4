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
    let _upkeep = repo.lock_upkeep()?;
    let _lock = repo.lock_exclusive(std::time::Duration::ZERO, monitor)?;
    if !options.dry_run {
        crate::pack::doomed::finish(&**storage, path)?;
    }
    let mut packs = PackRepair::new(path, &**storage, options.dry_run, monitor)?;
    packs.run(&repo, &HashSet::new(), &mut report)?;
    let mut repo = reopen(repo, storage)?;
    if options.deep {
        let bad = misnamed(&repo, monitor)?;
        packs.run(&repo, &bad, &mut report)?;
        repo = reopen(repo, storage)?;
    }
    if !options.dry_run {
        let paths = repo.store().paths();
        monitor.begin(Phase::Reindex, Some(paths.present()?.len() as u64));
        let index = Index::rebuild(paths, |_| monitor.advance(Phase::Reindex, 1))?;
        monitor.end(Phase::Reindex);
        repo.store().set_index(index);
    }
    files::mend_refs(&repo, options.dry_run, &mut report)?;
    let mut refetch = Refetch {
        storage,
        dry_run: options.dry_run,
        sources,
        monitor,
    };
    let (mut repo, bad) = refetch.run(repo, &mut packs, &mut report)?;
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
    monitor.begin(Phase::Verify, Some(fsck::sum(&units)));
    let found = fsck::check_units(repo, &units, monitor)?;
    monitor.end(Phase::Verify);
    for problem in found {
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
    // What they lack was never here.
    roots.retain(|id| !repo.is_partial(id));
    roots.extend(repo.refs().unwrap_or_default().map.into_values());
    roots.sort_unstable();
    roots.dedup();
    Ok(roots)
}

/// Everything that asking the sources takes.
struct Refetch<'a> {
    storage: &'a Arc<dyn Storage>,
    dry_run: bool,
    sources: &'a mut [Box<dyn Source>],
    monitor: &'a dyn Monitor,
}

impl Refetch<'_> {
    /// Asks the sources until they have no more to give; gives what is still missing.
    fn run(
        &mut self,
        mut repo: Repository,
        packs: &mut PackRepair<'_>,
        report: &mut RepairReport,
    ) -> Result<(Repository, Vec<Bad>)> {
        let mut bad = self.missing(&repo, packs)?;
        let mut evicted = false;
        for _ in 0..MAX_ROUNDS {
            let wanted = wanted(&bad);
            if wanted.is_empty() || self.sources.is_empty() {
                break;
            }
            let left = self.ask(&repo, &wanted, self.dry_run, report)?;
            if self.dry_run {
                bad.retain(|bad| is_in(&left, bad));
                break;
            }
            bad = self.missing(&repo, packs)?;
            if left == wanted {
                if evicted || !self.evict(&repo, &bad, packs, report)? {
                    break;
                }
                evicted = true;
                repo = reopen(repo, self.storage)?;
                bad = self.missing(&repo, packs)?;
            }
        }
        Ok((repo, bad))
    }

    fn missing(&self, repo: &Repository, packs: &PackRepair<'_>) -> Result<Vec<Bad>> {
        let mut roots = roots(repo)?;
        // Commits that no ref leads to are gone without a trace but for their damaged pack.
        roots.extend(packs.lost_commits());
        roots.sort_unstable();
        roots.dedup();
        let walked = fsck::walk(repo, &roots, packs.lost_on_dry_run(), self.monitor)?;
        Ok(walked.bad)
    }

    /// Asks each source for what those before it did not have; gives what none has.
    fn ask(
        &mut self,
        repo: &Repository,
        wanted: &Wanted,
        dry_run: bool,
        report: &mut RepairReport,
    ) -> Result<Wanted> {
        let mut left = wanted.clone();
        for source in self.sources.iter_mut() {
            if left.is_empty() {
                break;
            }
            let txn = match dry_run {
                true => None,
                false => Some(Transaction::begin_locked(repo, self.monitor)?),
            };
            let asked = left.clone();
            let mut found = Found::new(txn, &asked, self.monitor);
            let supplied = source.supply(&asked, &mut found);
            found.tolerate(supplied)?;
            let (objects, payloads) = found.counts();
            if objects + payloads > 0 {
                report.objects_restored += objects;
                report.payloads_restored += payloads;
                let name = source.name();
                let note = format!("{name}: gave {objects} objects, {payloads} payloads");
                report.notes.push(note);
            }
            left = found.left();
            found.publish()?;
        }
        Ok(left)
    }

    /// Where a delta or recipe needs what nobody has, but somebody has the payload that it makes:
    /// drops it, so that the payload is missing itself and can be stored plain.
    fn evict(
        &mut self,
        repo: &Repository,
        bad: &[Bad],
        packs: &mut PackRepair<'_>,
        report: &mut RepairReport,
    ) -> Result<bool> {
        let hit = bad.iter().flat_map(|bad| &bad.hit);
        let hit: HashMap<PayloadId, u64> = hit.map(|piece| (piece.id, piece.size)).collect();
        let wanted = Wanted {
            payloads: hit,
            objects: HashSet::new(),
        };
        if wanted.is_empty() {
            return Ok(false);
        }
        let left = self.ask(repo, &wanted, true, &mut RepairReport::default())?;
        let mut keys = HashSet::new();
        for (id, size) in wanted.payloads() {
            if left.payloads.contains_key(id) {
                continue;
            }
            for key in repo.store().keys_of(id, size)? {
                let derived =
                    key.kind == EntryKind::Recipe || !repo.store().needs(&key)?.is_empty();
                if derived && repo.store().locate(&key)?.is_some() {
                    keys.insert(key);
                }
            }
        }
        if !keys.is_empty() {
            packs.run(repo, &keys, report)?;
        }
        Ok(!keys.is_empty())
    }
}

/// What to ask for.
fn wanted(bad: &[Bad]) -> Wanted {
    let mut wanted = Wanted::default();
    for bad in bad {
        let objects = bad.keys.iter().filter_map(object);
        wanted.objects.extend(objects);
        let payloads = bad.payloads.iter().map(|piece| (piece.id, piece.size));
        wanted.payloads.extend(payloads);
    }
    wanted
}

/// The object that a key names.
fn object(key: &Key) -> Option<(ObjectKind, ObjectId)> {
    let kind = match key.kind {
        EntryKind::File => ObjectKind::File,
        EntryKind::Dirtree => ObjectKind::Dirtree,
        EntryKind::Dirmeta => ObjectKind::Dirmeta,
        EntryKind::Commit => ObjectKind::Commit,
        EntryKind::Payload | EntryKind::Recipe | EntryKind::Import => return None,
    };
    Some((kind, ObjectId::from_bytes(key.id)))
}

fn is_in(wanted: &Wanted, bad: &Bad) -> bool {
    let objects = &mut bad.keys.iter().filter_map(object);
    let payloads = &mut bad.payloads.iter();
    objects.any(|object| wanted.objects.contains(&object))
        || payloads.any(|piece| wanted.payloads.contains_key(&piece.id))
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

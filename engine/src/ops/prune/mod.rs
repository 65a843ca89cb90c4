//! Deleting what no kept commit needs, and giving the space back.
//!
//! A prune works beside writers and mounts. It marks and copies without stopping anyone, and keeps
//! writers away only for the switch to the copies: then it looks again at what came meanwhile, and
//! keeps what that needs. The steps are in docs/architecture.md, "A prune, step by step".

mod gain;
mod judge;
mod keep;
mod stale;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::gain::Gone;
use self::judge::{Fate, Judged, judge};
use self::keep::{History, Kept, check, decide};
use self::stale::Stale;
use self::sweep::Copies;
use super::reach::{EntrySet, Marker, forget, key as entry_key};
use crate::error::Result;
use crate::fs::lease::Leased;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::pack::doomed;
use crate::pack::{EntryKind, Key};
use crate::refs::Refs;
use crate::repo::Repository;
use crate::repo::transaction::publish_packs;

/// A pack of payloads is rewritten when at least this share (1/5) of it is dead.
const REWRITE_SHARE: u64 = 5;
/// How long to wait for running writers.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often what came meanwhile is looked at with writers going on, before they are stopped.
const LOOKS: u32 = 2;

/// What to keep; the options are OSTree's.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Keep only commits that refs lead to; otherwise every commit is kept, and only what no
    /// commit needs is deleted.
    pub refs_only: bool,
    /// Keep this many parents of each kept commit; `None` = all.
    pub depth: Option<u64>,
    /// Keep of each ref its commit, and those before it as long as their timestamps (seconds since
    /// 1970) are not less than this. Implies `refs_only`, takes the place of `depth`.
    pub keep_younger_than: Option<u64>,
    /// Keep this many parents of a ref (`None` = all), whatever `depth` and `keep_younger_than`
    /// say. Implies `refs_only`.
    pub retain_branch_depth: Vec<(String, Option<u64>)>,
    /// Keep the whole history of all refs but these. Implies `refs_only`.
    pub only_branches: Vec<String>,
    /// Delete these commits, which no ref may point to.
    pub delete_commits: Vec<ObjectId>,
    /// Delete only commit objects, and leave what they need to a later prune.
    pub commit_only: bool,
    /// Change nothing, only report.
    pub dry_run: bool,
    /// How long to wait for running writers before the packs are switched; `None` = a minute.
    pub patience: Option<Duration>,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Commits before.
    pub commits: u64,
    /// Commits deleted.
    pub commits_deleted: u64,
    /// Entries (objects, payload parts, import records) before.
    pub entries: u64,
    /// Entries deleted.
    pub entries_deleted: u64,
    /// Entries that nothing needs and that stay nevertheless, in packs with little dead in them.
    pub entries_left: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Packs rewritten without their dead entries.
    pub packs_rewritten: u64,
    /// Bytes of the deleted and rewritten packs, less those of the new ones (an estimate on a dry
    /// run).
    pub freed_bytes: u64,
    /// What the entries take that are left.
    pub left_bytes: u64,
    /// Files in caches deleted: of objects and payloads that are gone.
    pub cached_files_deleted: u64,
    /// What that gave back: nothing for files that checkouts have hard links to.
    pub cached_bytes: u64,
    /// Static deltas deleted: to commits that are gone.
    pub deltas_deleted: u64,
    /// Their bytes.
    pub delta_bytes: u64,
    /// On a dry run: what each of the deleted commits gives back.
    pub gone: Vec<Gone>,
    /// On a dry run: what they give back together.
    pub gone_bytes: u64,
    /// Commits that would have been deleted if they were not in use, by a mount for example.
    pub leased: Vec<ObjectId>,
    /// Commits whose trees had to be read to find what they need.
    pub commits_walked: u64,
}

/// Deletes what no kept commit needs.
///
/// # Errors
/// [`Error::Locked`](crate::Error::Locked) when writers go on for longer than the patience, or
/// while another prune runs; damage in what is kept. All of these leave everything as it was.
pub fn prune(
    repo: &Repository,
    options: &PruneOptions,
    monitor: &dyn Monitor,
) -> Result<PruneReport> {
    repo.check_writable()?;
    let _upkeep = repo.lock_upkeep()?;
    repo.store().refresh()?;
    let mut work = Work::new(repo, options, monitor);
    work.look()?;
    check(options, &work.history, &work.seen.refs, &work.seen.leases)?;
    let mut report = PruneReport {
        commits: work.history.commits.len() as u64,
        ..PruneReport::default()
    };
    work.mark()?;
    let packs = work.judge(&mut report)?;
    let stale = Stale::find(&mut work, &mut report)?;
    if options.dry_run {
        work.tell(&mut report);
        gain::estimate(&mut work, &packs, &mut report)?;
        return Ok(report);
    }
    let going: BTreeMap<PackId, Judged> = packs
        .into_iter()
        .filter(|(_, pack)| pack.fate != Fate::Stays)
        .collect();
    if !going.is_empty() {
        monitor.begin(Phase::Prune, Some(going.len() as u64));
        work.replace(going, &mut report)?;
        monitor.end(Phase::Prune);
    }
    work.tell(&mut report);
    stale.remove(repo, monitor);
    let there = repo.commits()?.into_iter().collect();
    forget(repo, &there);
    repo.retain_images(&there);
    Ok(report)
}

/// What can change while a prune is at work.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    present: BTreeSet<PackId>,
    refs: Refs,
    leases: Vec<Leased>,
}

struct Work<'r> {
    repo: &'r Repository,
    options: &'r PruneOptions,
    monitor: &'r dyn Monitor,
    marker: Marker<'r>,
    history: History,
    seen: Seen,
    /// The packs that were there at the first look; later ones are left alone.
    packs: BTreeSet<PackId>,
    kept: Kept,
    live: EntrySet,
}

impl<'r> Work<'r> {
    fn new(repo: &'r Repository, options: &'r PruneOptions, monitor: &'r dyn Monitor) -> Self {
        Self {
            repo,
            options,
            monitor,
            marker: Marker::new(repo, monitor),
            history: History::default(),
            seen: Seen::default(),
            packs: BTreeSet::new(),
            kept: Kept::default(),
            live: EntrySet::default(),
        }
    }

    /// Looks at packs, refs and leases; whether anything has changed since the last look.
    fn look(&mut self) -> Result<bool> {
        // Leases and refs first: what they name was published before.
        let leases = self.repo.leases()?;
        let refs = self.repo.refs()?;
        self.repo.store().refresh()?;
        let present = self.repo.store().index().present().clone();
        let seen = Seen {
            present,
            refs,
            leases,
        };
        if seen == self.seen {
            return Ok(false);
        }
        if self.packs.is_empty() {
            self.packs.clone_from(&seen.present);
        }
        if seen.present != self.seen.present {
            self.history.refresh(self.repo)?;
        }
        self.seen = seen;
        Ok(true)
    }

    /// Adds to what is alive everything that is so by the last look.
    fn mark(&mut self) -> Result<()> {
        self.monitor.begin(Phase::Scan, None);
        let new: Vec<PackId> = self.seen.present.difference(&self.packs).copied().collect();
        let mut keys = Vec::new();
        for id in &new {
            let pack = self.marker.places().map(self.repo, id)?;
            keys.extend(pack.reader().index_rows()?.into_iter().map(|row| row.key));
        }
        let commit = |key: &Key| key.kind == EntryKind::Commit;
        let ids = keys.iter().filter(|key| commit(key));
        let ids = ids.map(|key| ObjectId::from_bytes(key.id)).collect();
        let kept = decide(
            self.options,
            &self.history,
            &self.seen.refs,
            &self.seen.leases,
            &ids,
        );
        if self.options.commit_only {
            self.live = self.all_but_commits(&kept)?;
        } else {
            let live = self.marker.commits(&kept.commits)?;
            self.live.union(&live);
            // Nothing in a new pack may lack what it refers to, whether a commit needs it or not.
            let rest = keys.into_iter().filter(|key| !commit(key));
            let live = self.marker.entries(rest)?;
            self.live.union(&live);
            self.keep_whole_imports()?;
        }
        // What was kept before has been copied, perhaps.
        self.kept.commits.extend(kept.commits);
        self.kept.leased = kept.leased;
        self.monitor.end(Phase::Scan);
        Ok(())
    }

    /// Every entry that is not a commit to be deleted.
    fn all_but_commits(&mut self, kept: &Kept) -> Result<EntrySet> {
        let stays = |id: ObjectId| kept.commits.contains(&id) || self.kept.commits.contains(&id);
        let mut live = EntrySet::default();
        for id in &self.seen.present {
            let map = self.marker.places().map(self.repo, id)?;
            let mut entries = roaring::RoaringBitmap::new();
            entries.insert_range(0..map.entries);
            for (ordinal, row) in (0..).zip(map.reader().index_rows()?) {
                if row.key.kind == EntryKind::Commit && !stays(ObjectId::from_bytes(row.key.id)) {
                    entries.remove(ordinal);
                }
            }
            live.add(*id, &entries);
        }
        Ok(live)
    }

    /// An import is remembered for as long as commits keep every file that it names.
    fn keep_whole_imports(&mut self) -> Result<()> {
        let mut imports = Vec::new();
        self.repo.store().index().for_each(&mut |key, _| {
            if key.kind == EntryKind::Import {
                imports.push(*key);
            }
            Ok(())
        })?;
        let mut whole = Vec::new();
        for key in imports {
            let import = self.repo.import(&ObjectId::from_bytes(key.id))?;
            let Some(import) = import else { continue };
            let files = import.files.iter();
            let files: Vec<Key> = files.map(|id| entry_key(EntryKind::File, id)).collect();
            if self.marker.holds(&self.live, &files)? {
                whole.push(key);
            }
        }
        let live = self.marker.entries(whole.into_iter())?;
        self.live.union(&live);
        Ok(())
    }

    fn judge(&mut self, report: &mut PruneReport) -> Result<BTreeMap<PackId, Judged>> {
        let packs = judge(self.repo, &mut self.marker, &self.live, &self.packs)?;
        for pack in packs.values() {
            report.entries += u64::from(pack.map.entries);
            if pack.fate == Fate::Stays {
                report.entries_left += pack.dead;
                report.left_bytes += pack.dead_bytes;
            } else {
                report.entries_deleted += pack.dead;
            }
            report.packs_deleted += u64::from(pack.fate == Fate::Deleted);
            report.packs_rewritten += u64::from(pack.fate == Fate::Rewritten);
        }
        Ok(packs)
    }

    /// Copies what is alive out of packs that go, then switches to the copies.
    fn replace(
        &mut self,
        mut going: BTreeMap<PackId, Judged>,
        report: &mut PruneReport,
    ) -> Result<()> {
        let (repo, monitor) = (self.repo, self.monitor);
        let mut copies = Copies::new(repo)?;
        copies.copy(repo, &going, &self.live, monitor)?;
        for _ in 0..LOOKS {
            if !self.look()? {
                break;
            }
            self.mark()?;
            copies.copy(repo, &going, &self.live, monitor)?;
        }
        let writers = repo.lock_exclusive(self.options.patience.unwrap_or(PATIENCE), monitor)?;
        doomed::finish(repo.storage(), repo.path())?;
        if self.look()? {
            self.mark()?;
            copies.copy(repo, &going, &self.live, monitor)?;
        }
        // After an interrupted prune a pack may be made again under the name of one that is to go.
        for made in &copies.packs {
            going.remove(&made.id);
        }
        publish_packs(repo, &copies.packs)?;
        let gone: BTreeSet<PackId> = going.keys().copied().collect();
        let index = Index::without(repo.store().paths(), &gone, || {
            doomed::doom(repo.storage(), repo.path(), &gone)
        })?;
        for id in self.gone() {
            repo.forget_state(id)?;
        }
        drop(writers);
        repo.store().set_index(index);
        doomed::finish(repo.storage(), repo.path())?;
        let old: u64 = going.values().map(|pack| pack.map.size).sum();
        let new: u64 = copies.packs.iter().map(|pack| pack.size).sum();
        report.freed_bytes = old.saturating_sub(new);
        Ok(())
    }

    /// The commits that do not stay.
    fn gone(&self) -> impl Iterator<Item = &ObjectId> {
        let gone = |id: &&ObjectId| !self.kept.commits.contains(*id);
        self.history.commits.keys().filter(gone)
    }

    /// What was found about commits.
    fn tell(&self, report: &mut PruneReport) {
        report.commits_deleted = self.gone().count() as u64;
        report.leased = self.kept.leased.iter().copied().collect();
        report.commits_walked = self.marker.walked;
    }
}

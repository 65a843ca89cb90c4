//! Deleting what no kept commit needs, and giving the space back.

use std::collections::HashSet;

use super::reach::{Reach, with_parents};
use crate::compress::LEVEL;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::pack::doomed;
use crate::pack::reader::PackReader;
use crate::pack::writer::{BlockBuilder, IndexRow};
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::repo::transaction::{PackSeries, publish_packs};

/// A pack of payloads is rewritten when at least this share (1/5) of it is dead.
const REWRITE_SHARE: u64 = 5;

/// What to keep; the options are OSTree's.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Keep only commits that refs lead to; otherwise every commit is kept, and only what no
    /// commit needs is deleted.
    pub refs_only: bool,
    /// Keep this many parents of each kept commit; `None` = all.
    pub depth: Option<u64>,
    /// Keep commits with this timestamp (seconds since 1970) or a later one whatever else holds.
    pub keep_younger_than: Option<u64>,
    /// Change nothing, only report.
    pub dry_run: bool,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Commits before.
    pub commits: u64,
    /// Commits deleted.
    pub commits_deleted: u64,
    /// Entries (objects, payload parts, import records) before.
    pub entries: u64,
    /// Entries that nothing needs.
    pub entries_deleted: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Packs rewritten without their dead entries.
    pub packs_rewritten: u64,
    /// Bytes of the deleted and rewritten packs, less those of the new ones (an estimate on a dry
    /// run).
    pub freed_bytes: u64,
}

/// What is done with one pack.
#[derive(Debug)]
struct Judged {
    id: PackId,
    size: u64,
    rows: Vec<IndexRow>,
    live: HashSet<Key>,
    dead_share: Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    Nothing,
    Little,
    Much,
    All,
}

/// Deletes what no kept commit needs.
///
/// # Errors
/// [`Error::Locked`] while a writer or a mount uses the repository; damage in what is kept stops
/// the prune before anything is deleted.
pub fn prune(
    repo: &Repository,
    options: &PruneOptions,
    monitor: &dyn Monitor,
) -> Result<PruneReport> {
    repo.check_writable()?;
    let _lock = repo.lock_exclusive()?;
    repo.store().refresh()?;
    let mut report = PruneReport::default();
    let live = mark(repo, options, &mut report)?;
    let packs = judge(repo, &live, &mut report)?;
    if options.dry_run {
        let dead = |p: &&Judged| matches!(p.dead_share, Dead::Much | Dead::All);
        for pack in packs.iter().filter(dead) {
            let share = (pack.rows.len() - pack.live.len()) as u64 * pack.size
                / pack.rows.len().max(1) as u64;
            report.freed_bytes += share;
            report.packs_deleted += u64::from(pack.dead_share == Dead::All);
            report.packs_rewritten += u64::from(pack.dead_share == Dead::Much);
        }
        return Ok(report);
    }
    sweep(repo, &packs, &mut report, monitor)?;
    Ok(report)
}

/// Everything that kept commits need.
fn mark(
    repo: &Repository,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<HashSet<Key>> {
    let all = repo.commits()?;
    let mut roots: Vec<ObjectId> = repo.refs()?.map.into_values().collect();
    if !options.refs_only {
        roots.extend(&all);
    }
    if let Some(oldest) = options.keep_younger_than {
        for id in &all {
            if repo.commit(id)?.timestamp >= oldest {
                roots.push(*id);
            }
        }
    }
    let kept = with_parents(repo, roots, options.depth)?;
    report.commits = all.len() as u64;
    report.commits_deleted = all.iter().filter(|id| !kept.contains(id)).count() as u64;
    let mut reach = Reach::default();
    let mut first_problem = None;
    for id in &kept {
        reach.add_commit(repo, id, &mut |_, error| {
            first_problem.get_or_insert(error);
        });
    }
    match first_problem {
        // Deleting on the word of a damaged tree could delete what it lists.
        Some(error) => Err(error),
        None => {
            keep_whole_imports(repo, &mut reach.keys)?;
            Ok(reach.keys)
        }
    }
}

/// An import is remembered for as long as commits keep every file that it names.
fn keep_whole_imports(repo: &Repository, live: &mut HashSet<Key>) -> Result<()> {
    let mut imports = Vec::new();
    repo.store().index().for_each(&mut |key, _| {
        if key.kind == EntryKind::Import {
            imports.push(*key);
        }
        Ok(())
    })?;
    for key in imports {
        let Some(import) = repo.import(&ObjectId::from_bytes(key.id))? else {
            continue;
        };
        if import
            .files
            .iter()
            .all(|id| live.contains(&Key::new(EntryKind::File, *id.as_bytes())))
        {
            live.insert(key);
        }
    }
    Ok(())
}

/// Sorts the packs by how much of them is needed.
fn judge(repo: &Repository, live: &HashSet<Key>, report: &mut PruneReport) -> Result<Vec<Judged>> {
    let index = repo.store().index();
    let mut packs = Vec::new();
    for id in index.present() {
        let pack = repo.store().pack(id)?;
        let rows = pack.index_rows()?;
        let mut needed = HashSet::new();
        let mut dead_rows = HashSet::new();
        for row in &rows {
            // Of an entry that lies in two packs only the copy that the index knows is needed.
            let here = index
                .get(&row.key)?
                .is_some_and(|at| at.pack == *id && at.offset == row.offset);
            if here && live.contains(&row.key) {
                needed.insert(row.key);
            } else {
                dead_rows.insert(row.key);
            }
        }
        report.entries += rows.len() as u64;
        report.entries_deleted += (rows.len() - needed.len()) as u64;
        let dead_bytes: u64 = rows
            .chunk_by(|a, b| a.offset == b.offset)
            .map(|block| {
                let dead = block
                    .iter()
                    .filter(|row| dead_rows.contains(&row.key))
                    .count() as u64;
                u64::from(block[0].block_len) * dead / block.len() as u64
            })
            .sum();
        // Records and metadata of deleted commits must not be found any more, as what they refer to
        // is gone; payloads may linger.
        let dead_records = dead_rows.iter().any(|key| key.kind != EntryKind::Payload);
        let dead_share = match (needed.len(), rows.len() - needed.len()) {
            (_, 0) => Dead::Nothing,
            (0, _) => Dead::All,
            _ if dead_records || dead_bytes * REWRITE_SHARE >= pack.size() => Dead::Much,
            _ => Dead::Little,
        };
        packs.push(Judged {
            id: *id,
            size: pack.size(),
            rows,
            live: needed,
            dead_share,
        });
    }
    Ok(packs)
}

/// Copies what is needed out of packs with much dead in them, then deletes.
fn sweep(
    repo: &Repository,
    packs: &[Judged],
    report: &mut PruneReport,
    monitor: &dyn Monitor,
) -> Result<()> {
    let doomed: Vec<&Judged> = packs
        .iter()
        .filter(|p| matches!(p.dead_share, Dead::Much | Dead::All))
        .collect();
    if doomed.is_empty() {
        return Ok(());
    }
    monitor.begin(Phase::Prune, Some(doomed.len() as u64));
    let staging = OwnedDir::create(&repo.path().join("staging"))?;
    let mut series = PackSeries::new("live");
    for pack in &doomed {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if pack.dead_share == Dead::Much {
            copy_live(repo, pack, &mut series, &staging)?;
        }
        monitor.advance(Phase::Prune, 1);
    }
    let new = series.finish()?;
    // From here on both old and new copies exist, until the old ones are gone.
    publish_packs(repo, &new)?;
    // After an interrupted prune a pack may be made again under the name of one that is to go.
    let made: HashSet<PackId> = new.iter().map(|pack| pack.id).collect();
    let gone: Vec<&&Judged> = doomed
        .iter()
        .filter(|pack| !made.contains(&pack.id))
        .collect();
    for pack in &gone {
        report.freed_bytes += pack.size;
        report.packs_deleted += u64::from(pack.dead_share == Dead::All);
        report.packs_rewritten += u64::from(pack.dead_share == Dead::Much);
    }
    doomed::delete_packs(repo.storage(), repo.path(), gone.iter().map(|pack| pack.id))?;
    report.freed_bytes = report
        .freed_bytes
        .saturating_sub(new.iter().map(|p| p.size).sum());
    repo.store()
        .set_index(Index::rebuild(repo.store().paths(), |_| ())?);
    monitor.end(Phase::Prune);
    Ok(())
}

fn copy_live(
    repo: &Repository,
    pack: &Judged,
    series: &mut PackSeries,
    staging: &OwnedDir,
) -> Result<()> {
    let reader: std::sync::Arc<PackReader> = repo.store().pack(&pack.id)?;
    for rows in pack.rows.chunk_by(|a, b| a.offset == b.offset) {
        let Some(first) = rows.first() else { continue };
        let live = rows
            .iter()
            .filter(|row| pack.live.contains(&row.key))
            .count();
        let offset = u64::from(first.offset);
        if live == rows.len() {
            series.append(
                repo,
                staging.path(),
                &reader.verbatim(offset, first.block_len)?,
            )?;
        } else if live > 0 {
            let block = reader.block(offset, first.block_len)?;
            let mut builder = BlockBuilder::new(block.class);
            for entry in block.entries.iter().filter(|e| pack.live.contains(&e.key)) {
                builder.push(entry.key, block.bytes(entry));
            }
            series.append(
                repo,
                staging.path(),
                &builder.finish(LEVEL).at(repo.path())?,
            )?;
        }
    }
    Ok(())
}

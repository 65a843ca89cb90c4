//! Rewriting packs: small ones merged, order restored, stronger compression, and the newest version
//! of a file stored plain with the older ones as deltas to it.
//!
//! A repack works beside readers and writers. New packs with the same entries are published, then
//! the old ones are doomed, all at once: whenever it is interrupted, everything is there, and it
//! can simply be repeated. Turning deltas round takes two such steps, so that at no moment two
//! versions could be found that need each other: first the newest become plain, then the others
//! become deltas to them.

mod plan;
mod rewrite;

use std::collections::BTreeSet;
use std::time::Duration;

use self::plan::Plan;
use self::rewrite::Rewriter;
use crate::compress::LEVEL;
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::pack::doomed;
use crate::repo::Repository;
use crate::repo::transaction::publish_packs;

/// Packs below this size are merged with others.
const SMALL_PACK: u64 = 16 << 20;
/// How long to wait for running writers at the switch.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepackOptions {
    /// Rewrite all packs, not only small ones; like payloads come to lie next to each other again.
    pub all: bool,
    /// zstd level of what is rewritten, 1 to 22; `None` = that of commits.
    pub level: Option<i32>,
    /// Leave deltas as they are: do not make the newest version the plain one.
    pub keep_bases: bool,
    /// How long to wait for running writers; `None` = a minute.
    pub patience: Option<Duration>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepackReport {
    /// Packs before.
    pub packs_before: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Packs after.
    pub packs_after: u64,
    /// Their bytes.
    pub bytes_after: u64,
    /// Packs that were rewritten.
    pub packs_rewritten: u64,
    /// Payloads that were deltas and are plain now.
    pub made_plain: u64,
    /// Payloads that are deltas to another base than before, or were none.
    pub made_deltas: u64,
}

/// Rewrites packs.
///
/// # Errors
/// [`Error::Locked`] when writers go on for longer than the patience, or while another repack or a
/// prune runs; damage in what is to be rewritten. All of these leave everything readable.
pub fn repack(
    repo: &Repository,
    options: &RepackOptions,
    monitor: &dyn Monitor,
) -> Result<RepackReport> {
    repo.check_writable()?;
    let _upkeep = repo.lock_upkeep()?;
    repo.store().refresh()?;
    let (bytes_before, packs_before) = size(repo)?;
    let mut report = RepackReport {
        packs_before,
        bytes_before,
        ..RepackReport::default()
    };
    let plan = if options.all && !options.keep_bases && repo.allows_derived() {
        Plan::newest_plain(repo, monitor)?
    } else {
        Plan::default()
    };
    let level = options.level.unwrap_or(LEVEL);
    if !plan.plain.is_empty() {
        // Only what changes is written: the rest is rewritten in the second step.
        let first = Plan {
            plain: plan.plain.clone(),
            ..Plan::default()
        };
        let packs = first.packs_of_deltas(repo)?;
        report.made_plain = plan.plain.len() as u64;
        step(repo, &packs, &first, (level, false), options, monitor)?;
    }
    let packs = if options.all {
        repo.store().index().present().clone()
    } else {
        small_packs(repo)?
    };
    report.packs_rewritten = packs.len() as u64;
    report.made_deltas = plan.deltas.len() as u64;
    let recompress = options.all;
    step(repo, &packs, &plan, (level, recompress), options, monitor)?;
    (report.bytes_after, report.packs_after) = size(repo)?;
    Ok(report)
}

fn size(repo: &Repository) -> Result<(u64, u64)> {
    let packs = repo.store().index().present().len() as u64;
    Ok((repo.stored()?.0, packs))
}

/// The packs worth merging: small ones, if there are several.
fn small_packs(repo: &Repository) -> Result<BTreeSet<PackId>> {
    let mut small = BTreeSet::new();
    for id in repo.store().index().present() {
        if repo.store().pack(id)?.size() < SMALL_PACK {
            small.insert(*id);
        }
    }
    if small.len() < 2 {
        small.clear();
    }
    Ok(small)
}

/// Rewrites some packs and switches to the new ones.
fn step(
    repo: &Repository,
    packs: &BTreeSet<PackId>,
    plan: &Plan,
    (level, recompress): (i32, bool),
    options: &RepackOptions,
    monitor: &dyn Monitor,
) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let known = repo.store().index().present().clone();
    let mut bytes = 0;
    for id in packs {
        bytes += repo.store().pack(id)?.size();
    }
    monitor.begin(Phase::Repack, Some(bytes));
    let mut rewriter = Rewriter::new(repo, plan, level, recompress, monitor)?;
    rewriter.rewrite(packs)?;
    let (staging, new) = rewriter.finish()?;
    let writers = repo.lock_exclusive(options.patience.unwrap_or(PATIENCE), monitor)?;
    doomed::finish(repo.storage(), repo.path())?;
    repo.store().refresh()?;
    let present = repo.store().index().present().clone();
    // What a commit made meanwhile may be a delta to what was about to become one.
    let came: Vec<PackId> = present.difference(&known).copied().collect();
    if plan.is_overtaken(repo, &came)? {
        return Err(Error::Locked {
            path: repo.path().join("lock"),
            holder: "commits that came meanwhile".to_owned(),
        });
    }
    publish_packs(repo, &new)?;
    let made: BTreeSet<PackId> = new.iter().map(|pack| pack.id).collect();
    let gone: BTreeSet<PackId> = packs.difference(&made).copied().collect();
    let index = Index::without(repo.store().paths(), &gone, || {
        doomed::doom(repo.storage(), repo.path(), &gone)
    })?;
    drop(writers);
    drop(staging);
    repo.store().set_index(index);
    doomed::finish(repo.storage(), repo.path())?;
    monitor.end(Phase::Repack);
    Ok(())
}

//! Checking a repository: structure, stored bytes, or everything down to the checksums of objects.

mod deep;
mod packs;
mod paths;
mod problem;
mod scrub;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

pub(crate) use self::deep::{MISMATCH, check_units, sum, units};
pub(crate) use self::paths::fill_in;
pub use self::problem::{HitPath, Problem, ProblemKind};
use self::scrub::{Keeper, Run, Scrub};
pub(crate) use self::walk::{Bad, walk};
use crate::error::{Error, Result};
use crate::id::{ObjectId, PackId};
use crate::monitor::{Monitor, Phase};
use crate::pack::parity;
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

impl Level {
    /// The name of the level.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Data => "data",
            Self::Deep => "deep",
        }
    }
}

/// What to check.
#[derive(Debug, Clone, Copy)]
pub struct FsckOptions {
    /// How much is read.
    pub level: Level,
    /// Go on with a check of this level, or a deeper one, that was interrupted: packs that it
    /// found sound are not read again.
    pub resume: bool,
    /// Do not read packs that were found sound within this many seconds.
    pub max_age: Option<u64>,
    /// At most this many paths are named for each problem.
    pub paths: usize,
    /// The time in seconds since 1970; `None` = as the system says.
    pub now: Option<u64>,
}

impl Default for FsckOptions {
    fn default() -> Self {
        Self {
            level: Level::default(),
            resume: false,
            max_age: None,
            paths: 20,
            now: None,
        }
    }
}

impl From<Level> for FsckOptions {
    fn from(level: Level) -> Self {
        Self {
            level,
            ..Self::default()
        }
    }
}

/// What was checked and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Commits walked.
    pub commits: u64,
    /// Commits that are known to be incomplete, and that were not walked.
    pub partial_commits: u64,
    /// Distinct entries that they refer to.
    pub entries: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Packs whose blocks were not read because they had been checked before.
    pub packs_skipped: u64,
    /// Bytes of packs read in full.
    pub bytes: u64,
    /// Packs that no check of their blocks ever found sound.
    pub never_checked: u64,
    /// When the pack that waits longest for the next check was found sound, in seconds since 1970;
    /// `None` if there is no pack, or one that was never checked.
    pub oldest_check: Option<u64>,
    /// Packs without parity file.
    pub without_parity: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Checks a repository. Damage is reported, not returned as an error.
pub fn fsck(
    repo: &Repository,
    options: impl Into<FsckOptions>,
    monitor: &dyn Monitor,
) -> Result<FsckReport> {
    let options = options.into();
    let _lock = repo.lock_shared()?;
    repo.store().refresh()?;
    let mut report = FsckReport::default();
    let mut problems = Vec::new();
    let mut commits = commits(repo, &mut problems)?;
    let partial = repo.partial_commits()?;
    commits.retain(|id| !partial.contains(id));
    report.commits = commits.len() as u64;
    report.partial_commits = partial.len() as u64;
    let found = walk(repo, &commits, &HashSet::new(), monitor)?;
    report.entries = found.entries;
    check_index(repo, &mut problems);
    let ids: Vec<PackId> = repo.store().index().present().iter().copied().collect();
    report.packs = ids.len() as u64;
    if options.level == Level::Quick {
        problems.extend(check_footers(repo, &ids));
        check_dates(&Scrub::load(repo.path()), &ids, Level::Data, &mut report);
    } else {
        read_packs(repo, &ids, &options, monitor, &mut problems, &mut report)?;
    }
    packs::keys_from_index(repo, &mut problems)?;
    add_unexplained(found.bad, &mut problems);
    let without = |id: &&PackId| !parity::path_of(&repo.store().paths().pack(id)).exists();
    report.without_parity = ids.iter().filter(without).count() as u64;
    fill_in(repo, &commits, &mut problems, options.paths);
    // Reading an object fails for the same reason as reading its block.
    let is_place = |p: &Problem| matches!(p.kind, ProblemKind::Block | ProblemKind::Pack);
    let places = problems.iter().filter(|p| is_place(p));
    let places: HashSet<String> = places.map(|p| p.detail.clone()).collect();
    problems.retain(|p| is_place(p) || !places.contains(&p.detail));
    let order = |p: &Problem| (p.kind, p.detail.clone(), p.pack.is_none());
    problems.sort_by_cached_key(order);
    problems.dedup_by(|b, a| a.detail == b.detail);
    report.problems = problems;
    Ok(report)
}

/// Every commit there is; refs that lead to none, and a damaged refs file, are problems.
pub(crate) fn commits(repo: &Repository, problems: &mut Vec<Problem>) -> Result<Vec<ObjectId>> {
    // Refs first: a commit that comes meanwhile is there before its ref is.
    let refs = repo.refs();
    let commits = repo.commits()?;
    match refs {
        Ok(refs) => {
            for (name, id) in refs.map {
                if commits.binary_search(&id).is_err() {
                    let key = Key::new(EntryKind::Commit, *id.as_bytes());
                    let detail = format!("ref {name}: commit object {id} is missing");
                    problems.push(Problem::new(ProblemKind::Refs, detail).about(vec![key]));
                }
            }
        }
        Err(error) => problems.push(Problem::of(ProblemKind::Refs, &error)),
    }
    Ok(commits)
}

fn check_index(repo: &Repository, problems: &mut Vec<Problem>) {
    let index = repo.store().index();
    if let Err(error) = index.verify() {
        problems.push(Problem::of(ProblemKind::Index, &error));
    }
    let damaged = index.damaged.iter();
    problems.extend(damaged.map(|error| Problem::of(ProblemKind::Pack, error)));
}

/// Missing or malformed objects, unless a damaged block or pack that is reported explains them.
fn add_unexplained(bad: Vec<Bad>, problems: &mut Vec<Problem>) {
    let explained: HashSet<Key> = problems
        .iter()
        .flat_map(|p| p.keys.iter().copied())
        .collect();
    for bad in bad {
        if bad.keys.iter().all(|key| explained.contains(key)) {
            continue;
        }
        problems.push(problem_of(&bad));
    }
}

/// A problem with something that commits refer to.
pub(crate) fn problem_of(bad: &Bad) -> Problem {
    let kind = if bad.is_payload() {
        ProblemKind::Payload
    } else {
        ProblemKind::Object
    };
    let mut problem = Problem::of(kind, &bad.error).about(bad.keys.clone());
    if let Some(name) = &problem.object
        && !problem
            .detail
            .contains(name.rsplit(' ').next().unwrap_or_default())
    {
        problem.detail = format!("{name}: {}", problem.detail);
    }
    problem
}

fn check_footers(repo: &Repository, ids: &[PackId]) -> Vec<Problem> {
    let check = |id: &PackId| packs::check_footer(repo, id);
    ids.par_iter().filter_map(check).collect()
}

fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

/// Reads the blocks of packs, all or those that it is time for, and keeps the dates.
fn read_packs(
    repo: &Repository,
    ids: &[PackId],
    options: &FsckOptions,
    monitor: &dyn Monitor,
    problems: &mut Vec<Problem>,
    report: &mut FsckReport,
) -> Result<()> {
    let now = options.now.unwrap_or_else(seconds_now);
    let level = options.level;
    let mut state = Scrub::load(repo.path());
    state.packs.retain(|id, _| ids.binary_search(id).is_ok());
    let interrupted = state.run.filter(|run| options.resume && run.level >= level);
    let since = |id: &PackId| {
        let last = state.last(id, level);
        let young = options
            .max_age
            .is_some_and(|age| last.saturating_add(age) > now);
        let done = interrupted.is_some_and(|run| last >= run.begun);
        last > 0 && (young || done)
    };
    let (skipped, todo): (Vec<PackId>, Vec<PackId>) = ids.iter().partition(|id| since(id));
    report.packs_skipped = skipped.len() as u64;
    problems.extend(check_footers(repo, &skipped));
    let fresh = Run { begun: now, level };
    state.run = Some(interrupted.unwrap_or(fresh));
    let sizes: BTreeMap<PackId, u64> = todo
        .iter()
        .map(|id| (*id, repo.store().pack(id).map_or(0, |pack| pack.size())))
        .collect();
    report.bytes = sizes.values().sum();
    let keeper = Mutex::new(Keeper::new(repo.path(), state));
    let units = match level {
        Level::Deep => units(repo)?,
        _ => Vec::new(),
    };
    let found = Mutex::new(Vec::new());
    let units_of = |id: &PackId| {
        let start = units.partition_point(|unit| unit.pack() < *id);
        let end = units.partition_point(|unit| unit.pack() <= *id);
        &units[start..end]
    };
    let named: u64 = todo.iter().map(|id| sum(units_of(id))).sum();
    monitor.begin(Phase::Verify, Some(report.bytes + named));
    let done = todo.par_iter().with_max_len(1).try_for_each(|id| {
        let mut problems = packs::check_blocks(repo, id, monitor)?;
        problems.extend(check_units(repo, units_of(id), monitor)?);
        lock(&keeper).note(*id, level, now, problems.is_empty());
        lock(&found).append(&mut problems);
        Ok(())
    });
    let mut keeper = lock(&keeper);
    if !matches!(done, Err(Error::Cancelled)) {
        keeper.scrub.run = None;
    }
    keeper.save();
    check_dates(&keeper.scrub, ids, level, report);
    done?;
    monitor.end(Phase::Verify);
    problems.append(&mut lock(&found));
    Ok(())
}

fn check_dates(state: &Scrub, ids: &[PackId], level: Level, report: &mut FsckReport) {
    let last: Vec<u64> = ids.iter().map(|id| state.last(id, level)).collect();
    report.never_checked = last.iter().filter(|time| **time == 0).count() as u64;
    report.oldest_check = last.into_iter().min().filter(|time| *time > 0);
}

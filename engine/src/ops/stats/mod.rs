//! What commits hold, what that takes, and what each way of storing saves.
//!
//! Sizes are of four sorts. Logical bytes count every path. Unique bytes count equal contents once.
//! Stored bytes are what entries take: of their block's stored bytes the share that their raw
//! length has, and a row of the entry table each. Exclusive bytes are the stored bytes of the
//! entries that nothing else needs: what its deletion gives back.
//!
//! Memory: one small record for each distinct file and payload.

mod largest;
mod savings;
mod survey;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use self::largest::LargePayload;
pub use self::savings::{GroupSample, Savings};
pub use self::survey::Bulk;
use self::survey::Survey;
pub use self::tree::TreeRow;
pub use super::reach::Totals;
use super::reach::{EntrySet, Marker, Reached, Scales, Shared};
use crate::error::{Error, Result};
use crate::id::{ObjectId, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::repo::Repository;

/// What to tell beside the figures of every commit and ref.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatsOptions {
    /// A commit whose tree is measured directory by directory.
    pub tree_of: Option<ObjectId>,
    /// Between how many of the latest commits the sizes of updates are told.
    pub updates: usize,
}

/// Figures of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitStats {
    /// The commit.
    pub commit: ObjectId,
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
    /// Its subject.
    pub subject: String,
    /// The refs that point to it.
    pub refs: Vec<String>,
    /// What its tree holds.
    pub totals: Totals,
    /// Bytes of distinct payloads in the tree.
    pub unique_bytes: u64,
    /// What all that the commit needs takes.
    pub stored_bytes: u64,
    /// What this commit needs and no earlier one does.
    pub added_bytes: u64,
    /// What only this commit needs.
    pub exclusive_bytes: u64,
}

/// Figures of one ref, that is of the commit it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefStats {
    /// The ref.
    pub name: String,
    /// Its commit.
    pub commit: ObjectId,
    /// What the commit's tree holds.
    pub totals: Totals,
    /// Bytes of distinct payloads in the tree.
    pub unique_bytes: u64,
    /// What all that the commit needs takes.
    pub stored_bytes: u64,
    /// What only the history of this ref needs, and that of no other ref.
    pub exclusive_bytes: u64,
}

/// Figures of a repository.
#[derive(Debug, Clone, Default)]
pub struct StatsReport {
    /// Commits that were counted.
    pub commits: u64,
    /// What the trees of all these commits hold, every path of every commit counted.
    pub totals: Totals,
    /// Distinct file objects.
    pub file_objects: u64,
    /// Distinct dirtree objects.
    pub dirtree_objects: u64,
    /// Distinct payloads.
    pub payloads: u64,
    /// Bytes of the distinct payloads.
    pub unique_bytes: u64,
    /// Bytes that the repository's packs take on disk.
    pub stored_bytes: u64,
    /// Objects in the repository, reachable or not.
    pub stored_objects: u64,
    /// What objects and records take of that.
    pub metadata_bytes: u64,
    /// What entries take that no commit needs.
    pub unreachable_bytes: u64,
    /// What each way of storing saves.
    pub savings: Savings,
    /// By ref, in order of names.
    pub refs: Vec<RefStats>,
    /// By commit, the latest first.
    pub history: Vec<CommitStats>,
    /// Contents that take the most space, in that order.
    pub largest: Vec<LargePayload>,
    /// For each of the latest commits, in the order of `history`: what each of them needs, as
    /// stored here, that it does not.
    pub updates: Vec<Vec<u64>>,
    /// The tree that was asked for; the first row is its root.
    pub tree: Vec<TreeRow>,
}

/// Counts all commits of the repository, and its refs one by one.
pub fn stats(
    repo: &Repository,
    options: &StatsOptions,
    monitor: &dyn Monitor,
) -> Result<StatsReport> {
    // All packs are looked at one by one; a prune would have to take them away under us.
    let _lock = repo.lock_shared()?;
    monitor.begin(Phase::Scan, None);
    let mut marker = Marker::new(repo, monitor);
    let commits = load(repo, &mut marker)?;
    let mut shared = Shared::default();
    commits
        .iter()
        .for_each(|(_, reached)| shared.add(&reached.entries));
    let present = repo.store().index().present().clone();
    let maps: Vec<_> = present
        .iter()
        .map(|id| marker.places().map(repo, id))
        .collect::<Result<_>>()?;
    let scales = Scales::load(&maps)?;
    let survey = Survey::of(&maps, shared.all())?;
    let payloads: HashMap<PayloadId, u64> = survey
        .files
        .iter()
        .filter_map(|file| Some((file.payload?, file.size)))
        .collect();

    let mut report = StatsReport {
        commits: commits.len() as u64,
        file_objects: survey.files.len() as u64,
        dirtree_objects: survey.dirtrees,
        payloads: payloads.len() as u64,
        unique_bytes: payloads
            .values()
            .fold(0, |sum, n| u64::saturating_add(sum, *n)),
        metadata_bytes: survey.meta.stored_bytes,
        unreachable_bytes: scales.all().saturating_sub(scales.weigh(shared.all())),
        ..StatsReport::default()
    };
    (report.stored_bytes, report.stored_objects) = repo.stored()?;
    commits
        .iter()
        .for_each(|(_, reached)| report.totals.add(reached.totals));
    report.history = history(repo, &commits, &shared, &scales)?;
    report.refs = refs(repo, &mut marker, &report.history, &scales)?;
    report.largest = largest::largest(repo, &survey, &payloads, &commits)?;
    report.savings = savings::savings(&survey, &payloads, report.totals.logical_bytes)?;
    report.updates = updates(&commits, options.updates, &scales);
    if let Some(commit) = &options.tree_of {
        report.tree = tree::tree(repo, &survey, commit)?;
    }
    monitor.end(Phase::Scan);
    Ok(report)
}

/// All commits, the latest first.
fn load(repo: &Repository, marker: &mut Marker<'_>) -> Result<Vec<(ObjectId, Arc<Reached>)>> {
    let mut commits = Vec::new();
    for id in repo.commits()? {
        commits.push((repo.commit(&id)?.timestamp, id));
    }
    commits.sort_unstable_by(|a, b| b.cmp(a));
    let load = |(_, id): &(u64, ObjectId)| Ok((*id, marker.commit(id)?));
    commits.iter().map(load).collect()
}

fn history(
    repo: &Repository,
    commits: &[(ObjectId, Arc<Reached>)],
    shared: &Shared,
    scales: &Scales,
) -> Result<Vec<CommitStats>> {
    let mut names: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
    for (name, id) in repo.refs()?.map {
        names.entry(id).or_default().push(name);
    }
    let mut earlier = EntrySet::default();
    let mut added = Vec::with_capacity(commits.len());
    for (_, reached) in commits.iter().rev() {
        added.push(scales.weigh(&reached.entries.without(&earlier)));
        earlier.union(&reached.entries);
    }
    let row = |((id, reached), added): (&(ObjectId, Arc<Reached>), u64)| {
        let commit = repo.commit(id)?;
        Ok(CommitStats {
            commit: *id,
            timestamp: commit.timestamp,
            subject: commit.subject,
            refs: names.get(id).cloned().unwrap_or_default(),
            totals: reached.totals,
            unique_bytes: reached.unique_bytes,
            stored_bytes: scales.weigh(&reached.entries),
            added_bytes: added,
            exclusive_bytes: scales.weigh(&shared.exclusive(&reached.entries)),
        })
    };
    commits
        .iter()
        .zip(added.into_iter().rev())
        .map(row)
        .collect()
}

fn updates(commits: &[(ObjectId, Arc<Reached>)], count: usize, scales: &Scales) -> Vec<Vec<u64>> {
    let latest = || commits.iter().take(count);
    let from = |(_, has): &(ObjectId, Arc<Reached>)| {
        latest()
            .map(|(_, needs)| scales.weigh(&needs.entries.without(&has.entries)))
            .collect()
    };
    latest().map(from).collect()
}

fn refs(
    repo: &Repository,
    marker: &mut Marker<'_>,
    history: &[CommitStats],
    scales: &Scales,
) -> Result<Vec<RefStats>> {
    let rows: HashMap<ObjectId, &CommitStats> = history.iter().map(|c| (c.commit, c)).collect();
    let mut sets = Vec::new();
    let mut shared = Shared::default();
    for (name, id) in repo.refs()?.map {
        let mut set = EntrySet::default();
        let mut next = Some(id);
        while let Some(id) = next.filter(|id| rows.contains_key(id)) {
            set.union(&marker.commit(&id)?.entries);
            next = repo.commit(&id)?.parent;
        }
        shared.add(&set);
        sets.push((name, id, set));
    }
    let row = |(name, commit, set): (String, ObjectId, EntrySet)| {
        let of_commit = rows.get(&commit);
        let of_commit = of_commit.ok_or(Error::RevNotFound { rev: name.clone() })?;
        Ok(RefStats {
            name,
            commit,
            totals: of_commit.totals,
            unique_bytes: of_commit.unique_bytes,
            stored_bytes: of_commit.stored_bytes,
            exclusive_bytes: scales.weigh(&shared.exclusive(&set)),
        })
    };
    sets.into_iter().map(row).collect()
}

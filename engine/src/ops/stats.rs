//! What commits hold: logical and unique bytes, and what each ref shares with the others.
//!
//! Memory: one small record for each distinct dirtree, file and payload.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::id::{ObjectId, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::repo::Repository;
use crate::tree::check_depth;

/// Counts of one tree, every path counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Bytes of the regular files.
    pub logical_bytes: u64,
}

/// Figures of one ref, that is of the commit it points to.
#[derive(Debug, Clone)]
pub struct RefStats {
    /// The ref.
    pub name: String,
    /// Its commit.
    pub commit: ObjectId,
    /// What the commit's tree holds.
    pub totals: Totals,
    /// Bytes of distinct payloads in the tree.
    pub unique_bytes: u64,
    /// Bytes of distinct payloads that no other ref's commit holds.
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
    /// Bytes that the repository takes on disk.
    pub stored_bytes: u64,
    /// Objects in the repository, reachable or not.
    pub stored_objects: u64,
    /// By ref, in order of names.
    pub refs: Vec<RefStats>,
}

/// Counts all commits of the repository, and its refs one by one.
pub fn stats(repo: &Repository, monitor: &dyn Monitor) -> Result<StatsReport> {
    let commits = repo.commits()?;
    monitor.begin(Phase::Scan, None);
    let mut counter = Counter {
        repo,
        monitor,
        files: HashMap::new(),
        trees: HashMap::new(),
    };
    let mut report = StatsReport {
        commits: commits.len() as u64,
        ..StatsReport::default()
    };
    for id in &commits {
        let commit = repo.commit(id)?;
        report.totals.add(counter.tree(&commit.tree, 0)?);
    }
    report.refs = counter.refs()?;
    monitor.end(Phase::Scan);

    let payloads: HashMap<PayloadId, u64> = counter
        .files
        .values()
        .filter_map(|file| Some((file.payload?, file.size)))
        .collect();
    report.file_objects = counter.files.len() as u64;
    report.dirtree_objects = counter.trees.len() as u64;
    report.payloads = payloads.len() as u64;
    report.unique_bytes = payloads
        .values()
        .fold(0, |sum, size| sum.saturating_add(*size));
    (report.stored_bytes, report.stored_objects) = repo.stored()?;
    Ok(report)
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.symlinks = self.symlinks.saturating_add(other.symlinks);
        self.dirs = self.dirs.saturating_add(other.dirs);
        self.logical_bytes = self.logical_bytes.saturating_add(other.logical_bytes);
    }
}

#[derive(Debug, Clone, Copy)]
struct FileFacts {
    symlink: bool,
    size: u64,
    payload: Option<PayloadId>,
}

/// Remembers what every distinct object amounts to, so that each is loaded once.
struct Counter<'r> {
    repo: &'r Repository,
    monitor: &'r dyn Monitor,
    files: HashMap<ObjectId, FileFacts>,
    trees: HashMap<ObjectId, Totals>,
}

impl Counter<'_> {
    fn file(&mut self, id: &ObjectId) -> Result<FileFacts> {
        if let Some(facts) = self.files.get(id) {
            return Ok(*facts);
        }
        let file = self.repo.file(id)?;
        let facts = FileFacts {
            symlink: file.header.is_symlink(),
            size: file.size,
            payload: file.payload,
        };
        self.files.insert(*id, facts);
        self.monitor.advance(Phase::Scan, 1);
        Ok(facts)
    }

    fn tree(&mut self, id: &ObjectId, depth: usize) -> Result<Totals> {
        if let Some(totals) = self.trees.get(id) {
            return Ok(*totals);
        }
        if self.monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        check_depth("/", depth)?;
        let listing = self.repo.dirtree(id)?;
        let mut totals = Totals {
            dirs: 1,
            ..Totals::default()
        };
        for (_, file) in &listing.files {
            let facts = self.file(file)?;
            totals.add(Totals {
                files: u64::from(!facts.symlink),
                symlinks: u64::from(facts.symlink),
                dirs: 0,
                logical_bytes: facts.size,
            });
        }
        for dir in &listing.dirs {
            totals.add(self.tree(&dir.tree, depth + 1)?);
        }
        self.trees.insert(*id, totals);
        Ok(totals)
    }

    fn refs(&mut self) -> Result<Vec<RefStats>> {
        let map: BTreeMap<String, ObjectId> = self.repo.refs()?.map;
        let mut rows = Vec::with_capacity(map.len());
        let mut owners: HashMap<PayloadId, Owner> = HashMap::new();
        for (row, (name, commit_id)) in map.into_iter().enumerate() {
            let commit = self.repo.commit(&commit_id)?;
            let totals = self.tree(&commit.tree, 0)?;
            let mut unique_bytes = 0u64;
            for (payload, size) in self.payloads_below(&commit.tree)? {
                unique_bytes = unique_bytes.saturating_add(size);
                owners
                    .entry(payload)
                    .and_modify(|owner| owner.commit = owner.commit.filter(|c| *c == commit_id))
                    .or_insert(Owner {
                        commit: Some(commit_id),
                        size,
                        row,
                    });
            }
            rows.push(RefStats {
                name,
                commit: commit_id,
                totals,
                unique_bytes,
                exclusive_bytes: 0,
            });
        }
        share_out(&mut rows, &owners);
        Ok(rows)
    }

    fn payloads_below(&mut self, root: &ObjectId) -> Result<HashMap<PayloadId, u64>> {
        let mut seen: HashSet<ObjectId> = HashSet::from([*root]);
        let mut todo = vec![*root];
        let mut payloads = HashMap::new();
        while let Some(id) = todo.pop() {
            let listing = self.repo.dirtree(&id)?;
            for (_, file) in &listing.files {
                let facts = self.file(file)?;
                payloads.extend(facts.payload.map(|payload| (payload, facts.size)));
            }
            todo.extend(
                listing
                    .dirs
                    .iter()
                    .map(|dir| dir.tree)
                    .filter(|tree| seen.insert(*tree)),
            );
        }
        Ok(payloads)
    }
}

/// Whose a payload is: of one commit, or of several when `commit` is `None`.
struct Owner {
    commit: Option<ObjectId>,
    size: u64,
    row: usize,
}

/// Gives each ref the bytes that only its commit holds; several refs at one commit share its
/// bytes, so for each of them they are exclusive only if it is alone there.
fn share_out(rows: &mut [RefStats], owners: &HashMap<PayloadId, Owner>) {
    let mut refs_at: HashMap<ObjectId, u64> = HashMap::new();
    for row in rows.iter() {
        *refs_at.entry(row.commit).or_default() += 1;
    }
    for owner in owners.values() {
        let alone = owner
            .commit
            .is_some_and(|commit| refs_at.get(&commit) == Some(&1));
        if let (true, Some(row)) = (alone, rows.get_mut(owner.row)) {
            row.exclusive_bytes = row.exclusive_bytes.saturating_add(owner.size);
        }
    }
}

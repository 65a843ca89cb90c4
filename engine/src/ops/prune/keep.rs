//! Which commits stay. The rules are those of `ostree prune`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::PruneOptions;
use crate::error::{Error, Result};
use crate::fs::lease::Leased;
use crate::id::ObjectId;
use crate::refs::Refs;
use crate::repo::Repository;

/// What the rules look at of a commit.
#[derive(Debug, Clone)]
pub(super) struct Brief {
    pub(super) parent: Option<ObjectId>,
    pub(super) timestamp: u64,
    pub(super) subject: String,
}

/// The commits of a repository at one moment.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) commits: BTreeMap<ObjectId, Brief>,
}

impl History {
    /// Loads the commits that were not there before, and drops those that are gone.
    pub(super) fn refresh(&mut self, repo: &Repository) -> Result<()> {
        let all: BTreeSet<ObjectId> = repo.commits()?.into_iter().collect();
        self.commits.retain(|id, _| all.contains(id));
        for id in all {
            if let Entry::Vacant(place) = self.commits.entry(id) {
                let commit = repo.commit(&id)?;
                place.insert(Brief {
                    parent: commit.parent,
                    timestamp: commit.timestamp,
                    subject: commit.subject,
                });
            }
        }
        Ok(())
    }
}

/// The commits that stay, and those of them that only a lease keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) commits: BTreeSet<ObjectId>,
    pub(super) leased: BTreeSet<ObjectId>,
}

/// How far the history of a commit stays.
#[derive(Debug, Clone, Copy)]
enum Depth {
    All,
    Parents(u64),
    YoungerThan(u64),
}

impl From<Option<u64>> for Depth {
    fn from(depth: Option<u64>) -> Self {
        depth.map_or(Self::All, Self::Parents)
    }
}

/// Checks what the options name: commits to delete that nobody uses, branches that exist.
pub(super) fn check(
    options: &PruneOptions,
    history: &History,
    refs: &Refs,
    leases: &[Leased],
) -> Result<()> {
    for id in &options.delete_commits {
        if !history.commits.contains_key(id) {
            let rev = id.to_string();
            return Err(Error::RevNotFound { rev });
        }
        let by_ref = refs.map.iter().find(|(_, at)| *at == id);
        let by_lease = leases.iter().find(|lease| lease.commits.contains(id));
        let by = match (by_ref, by_lease) {
            (Some((name, _)), _) => format!("ref {name}"),
            (_, Some(lease)) => lease.holder.clone(),
            _ => continue,
        };
        return Err(Error::CommitInUse { id: *id, by });
    }
    let unknown = |name: &&String| !refs.map.contains_key(*name);
    match options.only_branches.iter().find(unknown) {
        Some(name) => Err(Error::RevNotFound { rev: name.clone() }),
        None => Ok(()),
    }
}

/// Applies the rules. `new` are commits that stay in any case, without their history.
pub(super) fn decide(
    options: &PruneOptions,
    history: &History,
    refs: &Refs,
    leases: &[Leased],
    new: &BTreeSet<ObjectId>,
) -> Kept {
    let mut keeper = Keeper {
        history,
        deleted: options.delete_commits.iter().collect(),
        left: HashMap::new(),
    };
    // A ref may have been set to it meanwhile.
    for used in refs
        .map
        .values()
        .chain(leases.iter().flat_map(|l| &l.commits))
    {
        keeper.deleted.remove(used);
    }
    for (name, id) in &refs.map {
        keeper.keep(id, options.depth_of(name));
    }
    for id in new {
        keeper.keep(id, Depth::Parents(0));
    }
    if !options.is_about_refs() {
        for id in history.commits.keys() {
            keeper.keep(id, options.depth.into());
        }
    }
    let commits: BTreeSet<ObjectId> = keeper.left.keys().copied().collect();
    let mut kept = Kept {
        commits,
        leased: BTreeSet::new(),
    };
    for id in leases.iter().flat_map(|lease| &lease.commits) {
        if history.commits.contains_key(id) && kept.commits.insert(*id) {
            kept.leased.insert(*id);
        }
    }
    kept
}

impl PruneOptions {
    /// Whether commits that no ref leads to go.
    fn is_about_refs(&self) -> bool {
        self.refs_only
            || self.keep_younger_than.is_some()
            || !self.retain_branch_depth.is_empty()
            || !self.only_branches.is_empty()
    }

    /// How much of the history of a ref stays.
    fn depth_of(&self, name: &String) -> Depth {
        let own = self
            .retain_branch_depth
            .iter()
            .rfind(|(branch, _)| branch == name);
        if let Some((_, depth)) = own {
            return (*depth).into();
        }
        if !self.only_branches.is_empty() && !self.only_branches.contains(name) {
            return Depth::All;
        }
        match self.keep_younger_than {
            Some(oldest) => Depth::YoungerThan(oldest),
            None => self.depth.into(),
        }
    }
}

struct Keeper<'a> {
    history: &'a History,
    deleted: BTreeSet<&'a ObjectId>,
    /// Commits that stay, with the number of generations (themselves included) that do so from
    /// there: a commit that is reached again with more to go is gone through again.
    left: HashMap<ObjectId, u64>,
}

impl Keeper<'_> {
    /// Keeps a commit and its history. Where that is cut off, because a parent was never fetched
    /// or has been deleted, it simply ends.
    fn keep(&mut self, id: &ObjectId, depth: Depth) {
        let mut left = match depth {
            Depth::Parents(parents) => parents.saturating_add(1),
            Depth::All | Depth::YoungerThan(_) => u64::MAX,
        };
        let head = *id;
        let mut next = Some(head);
        while let Some(id) = next.filter(|_| left > 0) {
            let Some(brief) = self.history.commits.get(&id) else {
                break;
            };
            if self.deleted.contains(&id) || self.left.get(&id).is_some_and(|l| *l >= left) {
                break;
            }
            if let Depth::YoungerThan(oldest) = depth {
                if id != head && brief.timestamp < oldest {
                    break;
                }
                // Says nothing of what stays below for others.
                self.left.entry(id).or_insert(1);
                if brief.timestamp < oldest {
                    break;
                }
            } else {
                self.left.insert(id, left);
                left -= 1;
            }
            next = brief.parent;
        }
    }
}

//! From damaged entries to the paths of commits that they hit.
//!
//! Trees share most of their directories, so each directory is judged once, whether anything below
//! it is hit, and only those that are hit are walked for every commit.

use std::collections::{HashMap, HashSet};

use super::problem::{HitPath, Problem};
use super::walk::key;
use crate::id::ObjectId;
use crate::object::Commit;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::tree::MAX_DEPTH;

/// Directories listed at most, over all commits: a forged tree must not keep this busy for ever.
const MAX_VISITS: u64 = 10_000_000;

/// Fills in the paths that problems hit, at most `limit` for each.
pub(crate) fn fill_in(
    repo: &Repository,
    commits: &[ObjectId],
    problems: &mut [Problem],
    limit: usize,
) {
    let mut by_key: HashMap<Key, Vec<usize>> = HashMap::new();
    for (n, problem) in problems.iter().enumerate() {
        for key in &problem.keys {
            by_key.entry(*key).or_default().push(n);
        }
    }
    if by_key.is_empty() {
        return;
    }
    let mut finder = Finder {
        repo,
        by_key,
        trees: HashMap::new(),
        files: HashMap::new(),
        problems,
        limit,
        visits: 0,
    };
    // Newest first: those are the ones that people want to know about.
    let mut order: Vec<(ObjectId, Option<Commit>)> = commits
        .iter()
        .map(|id| (*id, repo.commit(id).ok()))
        .collect();
    order.sort_by_key(|(id, commit)| {
        let time = commit.as_ref().map_or(u64::MAX, |commit| commit.timestamp);
        (std::cmp::Reverse(time), *id)
    });
    for (id, commit) in &order {
        finder.commit(id, commit.as_ref());
    }
}

struct Finder<'a> {
    repo: &'a Repository,
    by_key: HashMap<Key, Vec<usize>>,
    /// Whether a directory is hit, or anything below it.
    trees: HashMap<ObjectId, bool>,
    /// The problems that hit a file; files that none hits are there with an empty list.
    files: HashMap<ObjectId, Vec<usize>>,
    problems: &'a mut [Problem],
    limit: usize,
    visits: u64,
}

impl Finder<'_> {
    fn commit(&mut self, id: &ObjectId, commit: Option<&Commit>) {
        self.note(&key(EntryKind::Commit, id), id, "");
        let Some(commit) = commit else { return };
        self.note(&key(EntryKind::Dirmeta, &commit.meta), id, "/");
        if self.is_hit(&commit.tree, 0) {
            self.list(id, &commit.tree, "", 0);
        }
    }

    fn note(&mut self, key: &Key, commit: &ObjectId, path: &str) {
        if let Some(hits) = self.by_key.get(key) {
            for n in hits {
                add(&mut self.problems[*n], self.limit, commit, path);
            }
        }
    }

    fn is_hit(&mut self, tree: &ObjectId, depth: usize) -> bool {
        if let Some(known) = self.trees.get(tree) {
            return *known;
        }
        // Also ends a forged cycle.
        self.trees.insert(*tree, false);
        let mut hit = self.by_key.contains_key(&key(EntryKind::Dirtree, tree));
        if let Ok(listing) = self.repo.dirtree(tree)
            && depth < MAX_DEPTH
        {
            for (_, file) in &listing.files {
                hit |= self.is_file_hit(file);
            }
            for dir in &listing.dirs {
                hit |= self
                    .by_key
                    .contains_key(&key(EntryKind::Dirmeta, &dir.meta));
                hit |= self.is_hit(&dir.tree, depth + 1);
            }
        }
        self.trees.insert(*tree, hit);
        hit
    }

    fn is_file_hit(&mut self, id: &ObjectId) -> bool {
        if let Some(known) = self.files.get(id) {
            return !known.is_empty();
        }
        let store = self.repo.store();
        let mut hits = HashSet::new();
        let mut look = |key: &Key| hits.extend(self.by_key.get(key).into_iter().flatten().copied());
        look(&key(EntryKind::File, id));
        if let Ok(file) = self.repo.file(id)
            && let Some(payload) = file.payload
        {
            let mut seen = HashSet::new();
            let mut todo = store.keys_of(&payload, file.size).unwrap_or_default();
            while let Some(key) = todo.pop() {
                if seen.insert(key) {
                    look(&key);
                    // What an entry is decoded with is as needed as the entry.
                    todo.extend(store.needs(&key).unwrap_or_default());
                }
            }
        }
        let mut hits: Vec<usize> = hits.into_iter().collect();
        hits.sort_unstable();
        let hit = !hits.is_empty();
        self.files.insert(*id, hits);
        hit
    }

    fn list(&mut self, commit: &ObjectId, tree: &ObjectId, path: &str, depth: usize) {
        self.visits += 1;
        if self.visits > MAX_VISITS || depth > MAX_DEPTH {
            return;
        }
        let directory = format!("{path}/");
        self.note(&key(EntryKind::Dirtree, tree), commit, &directory);
        let Ok(listing) = self.repo.dirtree(tree) else {
            return;
        };
        for (name, file) in &listing.files {
            for n in self.files.get(file).into_iter().flatten() {
                let path = format!("{path}/{name}");
                add(&mut self.problems[*n], self.limit, commit, &path);
            }
        }
        for dir in &listing.dirs {
            let path = format!("{path}/{}", dir.name);
            self.note(
                &key(EntryKind::Dirmeta, &dir.meta),
                commit,
                &format!("{path}/"),
            );
            if self.trees.get(&dir.tree) == Some(&true) {
                self.list(commit, &dir.tree, &path, depth + 1);
            }
        }
    }
}

fn add(problem: &mut Problem, limit: usize, commit: &ObjectId, path: &str) {
    if problem.paths.len() >= limit {
        problem.more_paths += 1;
        return;
    }
    let hit = HitPath {
        commit: *commit,
        path: path.to_owned(),
    };
    // A directory whose listing and metadata are both hit is one path.
    if problem.paths.last() != Some(&hit) {
        problem.paths.push(hit);
    }
}

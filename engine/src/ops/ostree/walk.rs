//! What commits need, found by walking their trees: from an OSTree repository, whose objects are
//! verified on the way, or from ours. Each listing is read once, however often it occurs.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;

use super::loose::LooseRepo;
use crate::error::{Error, ObjectFault, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{Commit, DirMeta, Dirtree};
use crate::repo::Repository;
use crate::tree::{check_depth, path_hint};

/// Where metadata objects are read from.
pub(super) trait Objects: Sync {
    /// The bytes of an object that has its name; `None` if it is not there.
    fn bytes(&self, kind: ObjectKind, id: &ObjectId) -> Result<Option<Vec<u8>>>;
    /// The error for an object that is not there, or malformed.
    fn fault(&self, kind: ObjectKind, id: &ObjectId, fault: ObjectFault) -> Error;
}

impl Objects for LooseRepo {
    fn bytes(&self, kind: ObjectKind, id: &ObjectId) -> Result<Option<Vec<u8>>> {
        self.metadata(kind, id)
    }

    fn fault(&self, kind: ObjectKind, id: &ObjectId, source: ObjectFault) -> Error {
        let path = self.object(kind, id);
        Error::BadObject {
            kind,
            id: *id,
            path,
            source: Box::new(source),
        }
    }
}

impl Objects for Repository {
    fn bytes(&self, kind: ObjectKind, id: &ObjectId) -> Result<Option<Vec<u8>>> {
        match self.object_bytes(kind, id) {
            Err(Error::MissingObject { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn fault(&self, kind: ObjectKind, id: &ObjectId, fault: ObjectFault) -> Error {
        match fault {
            ObjectFault::Malformed(source) => Error::MalformedObject {
                kind,
                id: *id,
                source,
            },
            _ => Error::MissingObject { kind, id: *id },
        }
    }
}

/// A commit read from a source.
pub(super) fn commit(from: &dyn Objects, id: &ObjectId) -> Result<Option<(Commit, Vec<u8>)>> {
    let kind = ObjectKind::Commit;
    let Some(bytes) = from.bytes(kind, id)? else {
        return Ok(None);
    };
    let commit = Commit::parse(&bytes);
    let commit = commit.map_err(|error| from.fault(kind, id, error.into()))?;
    Ok(Some((commit, bytes)))
}

/// The path in a tree that the gatherer's paths stand for: these have no `/` in front, and those of
/// listings one behind.
pub(super) fn in_tree(path: &str) -> String {
    format!("/{}", path.trim_end_matches('/'))
}

/// Objects of trees.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// Listings; what is below one comes before it.
    pub(super) dirtrees: Vec<(ObjectId, Vec<u8>)>,
    /// Metadata of directories, with the first path that each was met at.
    pub(super) dirmetas: BTreeMap<ObjectId, (String, Vec<u8>)>,
    /// Files, with the first path that each was met at.
    pub(super) files: HashMap<ObjectId, String>,
}

/// Gathers the objects of one commit after the other, each object once.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    seen: HashSet<(ObjectKind, ObjectId)>,
    found: Needed,
}

impl Gatherer {
    /// What a commit needs that none before it did. What is missing is an error unless the commit
    /// is known to be `partial`.
    pub(super) fn commit(
        &mut self,
        from: &dyn Objects,
        commit: &Commit,
        partial: bool,
        monitor: &dyn Monitor,
    ) -> Result<Needed> {
        self.tree(from, commit, partial, monitor)?;
        Ok(std::mem::take(&mut self.found))
    }

    fn tree(
        &mut self,
        from: &dyn Objects,
        commit: &Commit,
        partial: bool,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        self.dirmeta(from, &commit.meta, "", partial)?;
        let mut below: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
        let mut bytes_of: HashMap<ObjectId, Vec<u8>> = HashMap::new();
        let mut level = vec![(commit.tree, String::new())];
        for depth in 0.. {
            level.retain(|(id, _)| self.seen.insert((ObjectKind::Dirtree, *id)));
            let Some((_, path)) = level.first() else {
                break;
            };
            check_depth(path, depth)?;
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let read = |(id, path): &(ObjectId, String)| {
                listing(from, id)
                    .map_err(|error| error.hitting(&in_tree(path), ObjectKind::Dirtree, id))
            };
            let read: Vec<_> = level.par_iter().map(read).collect::<Result<_>>()?;
            monitor.advance(Phase::Scan, read.len() as u64);
            let mut next = Vec::new();
            for ((id, path), found) in level.into_iter().zip(read) {
                let Some((listing, bytes)) = found else {
                    self.lacks(from, ObjectKind::Dirtree, &id, &path, partial)?;
                    continue;
                };
                bytes_of.insert(id, bytes);
                below.insert(id, listing.dirs.iter().map(|dir| dir.tree).collect());
                for (name, file) in &listing.files {
                    if self.seen.insert((ObjectKind::File, *file)) {
                        self.found.files.insert(*file, path_hint(&path, name));
                    }
                }
                for dir in listing.dirs {
                    let path = path_hint(&path, &dir.name);
                    self.dirmeta(from, &dir.meta, &path, partial)?;
                    next.push((dir.tree, path + "/"));
                }
            }
            level = next;
        }
        let (order, height) = children_first(commit.tree, &below);
        // A listing may have been met higher up than where it makes the tree deepest.
        check_depth("/", height)?;
        let dirtrees = order
            .into_iter()
            .filter_map(|id| bytes_of.remove_entry(&id));
        self.found.dirtrees.extend(dirtrees);
        Ok(())
    }

    fn dirmeta(
        &mut self,
        from: &dyn Objects,
        id: &ObjectId,
        path: &str,
        partial: bool,
    ) -> Result<()> {
        let kind = ObjectKind::Dirmeta;
        if !self.seen.insert((kind, *id)) {
            return Ok(());
        }
        let hitting = |error: Error| error.hitting(&in_tree(path), kind, id);
        let Some(bytes) = from.bytes(kind, id).map_err(hitting)? else {
            return self.lacks(from, kind, id, path, partial);
        };
        let parsed = DirMeta::parse(&bytes);
        parsed.map_err(|error| hitting(from.fault(kind, id, error.into())))?;
        self.found.dirmetas.insert(*id, (path.to_owned(), bytes));
        Ok(())
    }

    fn lacks(
        &mut self,
        from: &dyn Objects,
        kind: ObjectKind,
        id: &ObjectId,
        path: &str,
        partial: bool,
    ) -> Result<()> {
        self.forget(kind, id);
        match partial {
            true => Ok(()),
            false => {
                let missing = from.fault(kind, id, ObjectFault::Missing);
                Err(missing.hitting(&in_tree(path), kind, id))
            }
        }
    }

    /// Forgets an object that turned out not to be there: the next commit may not lack it.
    pub(super) fn forget(&mut self, kind: ObjectKind, id: &ObjectId) {
        self.seen.remove(&(kind, *id));
    }
}

/// Listings with what is below each before it, and how deep they are nested below the first.
fn children_first(
    root: ObjectId,
    below: &HashMap<ObjectId, Vec<ObjectId>>,
) -> (Vec<ObjectId>, usize) {
    let mut heights: HashMap<ObjectId, usize> = HashMap::new();
    let mut begun = HashSet::new();
    let mut order = Vec::with_capacity(below.len());
    let mut todo = vec![(root, false)];
    while let Some((id, is_left)) = todo.pop() {
        let Some(children) = below.get(&id) else {
            continue;
        };
        if is_left {
            let heights_below = children.iter().filter_map(|id| heights.get(id));
            let height = heights_below.max().map_or(0, |height| height + 1);
            heights.insert(id, height);
            order.push(id);
        } else if begun.insert(id) {
            todo.push((id, true));
            todo.extend(children.iter().map(|id| (*id, false)));
        }
    }
    (order, heights.get(&root).copied().unwrap_or(0))
}

fn listing(from: &dyn Objects, id: &ObjectId) -> Result<Option<(Dirtree, Vec<u8>)>> {
    let kind = ObjectKind::Dirtree;
    let Some(bytes) = from.bytes(kind, id)? else {
        return Ok(None);
    };
    let parsed = Dirtree::parse(&bytes);
    let parsed = parsed.map_err(|error| from.fault(kind, id, error.into()))?;
    Ok(Some((parsed, bytes)))
}

/// The commits that `heads` and their history consist of, as far as it is there, parents before
/// children. At most `depth` parents of each head; `None` = all.
pub(super) fn history(
    from: &dyn Objects,
    heads: impl IntoIterator<Item = ObjectId>,
    depth: Option<u64>,
) -> Result<Vec<ObjectId>> {
    let mut parents: HashMap<ObjectId, Option<ObjectId>> = HashMap::new();
    // A commit that is met again with more generations to go is gone through again.
    let mut left: HashMap<ObjectId, u64> = HashMap::new();
    let mut found = Vec::new();
    for head in heads {
        let mut next = Some(head);
        let mut go = depth.map_or(u64::MAX, |depth| depth.saturating_add(1));
        while let Some(id) = next.filter(|id| go > 0 && left.get(id).is_none_or(|l| *l < go)) {
            next = match parents.get(&id) {
                Some(parent) => *parent,
                None => match commit(from, &id)? {
                    Some((commit, _)) => commit.parent,
                    None => break,
                },
            };
            if parents.insert(id, next).is_none() {
                found.push(id);
            }
            left.insert(id, go);
            go -= 1;
        }
    }
    let mut order = Vec::with_capacity(found.len());
    let mut placed = HashSet::new();
    for id in found {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next.filter(|id| parents.contains_key(id) && placed.insert(*id)) {
            chain.push(id);
            next = parents.get(&id).copied().flatten();
        }
        order.extend(chain.into_iter().rev());
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Metadata;

    /// Commits alone.
    #[derive(Default)]
    struct Commits(HashMap<ObjectId, Vec<u8>>);

    impl Commits {
        fn add(&mut self, parent: Option<ObjectId>, subject: &str) -> ObjectId {
            let nothing = ObjectId::of(b"");
            let commit = Commit {
                metadata: Metadata::default(),
                parent,
                subject: subject.to_owned(),
                body: String::new(),
                timestamp: 0,
                tree: nothing,
                meta: nothing,
            };
            let bytes = commit.to_bytes();
            let id = ObjectId::of(&bytes);
            self.0.insert(id, bytes);
            id
        }
    }

    impl Objects for Commits {
        fn bytes(&self, _: ObjectKind, id: &ObjectId) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(id).cloned())
        }

        fn fault(&self, kind: ObjectKind, id: &ObjectId, _: ObjectFault) -> Error {
            Error::MissingObject { kind, id: *id }
        }
    }

    #[test]
    fn listings_come_after_all_that_is_below_them() {
        let [a, b, c, gone] = ["a", "b", "c", "gone"].map(|name| ObjectId::of(name.as_bytes()));
        // `c` is met in `a` before it is met in `b`.
        let below = [(a, vec![c, b]), (b, vec![c, gone]), (c, vec![])].into();
        assert_eq!(children_first(a, &below), (vec![c, b, a], 2));
        let circle = [(a, vec![b]), (b, vec![a])].into();
        assert_eq!(children_first(a, &circle).0.len(), 2);
        assert_eq!(children_first(gone, &below), (vec![], 0));
    }

    #[test]
    fn parents_come_first_whatever_the_order_of_heads() {
        let mut commits = Commits::default();
        let gone = ObjectId::of(b"gone");
        let a = commits.add(Some(gone), "a");
        let b = commits.add(Some(a), "b");
        let c = commits.add(Some(b), "c");
        let other = commits.add(Some(b), "other");
        for (heads, depth, expected) in [
            (vec![c], None, vec![a, b, c]),
            (vec![a, c], None, vec![a, b, c]),
            (vec![c, a], None, vec![a, b, c]),
            (vec![c, other], Some(1), vec![b, c, other]),
            (vec![c, b], Some(1), vec![a, b, c]),
            (vec![c], Some(0), vec![c]),
            (vec![gone], None, vec![]),
        ] {
            assert_eq!(
                history(&commits, heads, depth).unwrap(),
                expected,
                "{depth:?}"
            );
        }
    }
}

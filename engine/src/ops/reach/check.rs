//! A walk that tells of everything that is wrong, for fsck.

use std::collections::HashSet;

use super::key;
use crate::error::{Error, Result};
use crate::id::{ObjectId, PayloadId};
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;

/// Everything found by walking commits. Shared subtrees are walked once.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Entries that must exist.
    pub(crate) keys: HashSet<Key>,
}

/// Told of what is wrong on the way; the walk goes on with what can be read.
pub(crate) type OnProblem<'a> = dyn FnMut(&str, Error) + 'a;

impl Reach {
    /// Adds a commit and its whole tree (not its parents).
    pub(crate) fn add_commit(
        &mut self,
        repo: &Repository,
        id: &ObjectId,
        problem: &mut OnProblem<'_>,
    ) -> Option<crate::object::Commit> {
        if !self.keys.insert(key(EntryKind::Commit, id)) {
            return repo.commit(id).ok();
        }
        match repo.commit(id) {
            Ok(commit) => {
                self.add_meta(repo, &commit.meta, "/", problem);
                self.add_tree(repo, &commit.tree, "", problem);
                Some(commit)
            }
            Err(error) => {
                problem("", error);
                None
            }
        }
    }

    fn add_meta(
        &mut self,
        repo: &Repository,
        id: &ObjectId,
        path: &str,
        problem: &mut OnProblem<'_>,
    ) {
        if self.keys.insert(key(EntryKind::Dirmeta, id))
            && let Err(error) = repo.dirmeta(id)
        {
            problem(path, error);
        }
    }

    fn add_tree(
        &mut self,
        repo: &Repository,
        root: &ObjectId,
        path: &str,
        problem: &mut OnProblem<'_>,
    ) {
        let mut queue = vec![(*root, path.to_owned())];
        while let Some((id, path)) = queue.pop() {
            if !self.keys.insert(key(EntryKind::Dirtree, &id)) {
                continue;
            }
            let listing = match repo.dirtree(&id) {
                Ok(listing) => listing,
                Err(error) => {
                    problem(&path, error);
                    continue;
                }
            };
            for (name, file) in &listing.files {
                if let Err(error) = self.add_file(repo, file) {
                    problem(&format!("{path}/{name}"), error);
                }
            }
            for dir in &listing.dirs {
                let path = format!("{path}/{}", dir.name);
                self.add_meta(repo, &dir.meta, &path, problem);
                queue.push((dir.tree, path));
            }
        }
    }

    fn add_file(&mut self, repo: &Repository, id: &ObjectId) -> Result<()> {
        if !self.keys.insert(key(EntryKind::File, id)) {
            return Ok(());
        }
        let file = repo.file(id)?;
        let Some(payload) = file.payload else {
            return Ok(());
        };
        self.add_payload(repo, &payload, file.size)
    }

    /// Adds what a payload is stored as, and whatever that needs.
    fn add_payload(&mut self, repo: &Repository, id: &PayloadId, size: u64) -> Result<()> {
        let mut missing = false;
        let mut todo = repo.store().keys_of(id, size)?;
        while let Some(key) = todo.pop() {
            if !self.keys.insert(key) {
                continue;
            }
            missing |= repo.store().locate(&key)?.is_none();
            todo.extend(repo.store().needs(&key)?);
        }
        if missing {
            Err(Error::MissingPayload { id: *id })
        } else {
            Ok(())
        }
    }
}

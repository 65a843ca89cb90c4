//! The history of a commit.

use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::object::Commit;
use crate::repo::Repository;

/// Commits from one back to the first, newest first. Made by [`log`].
#[derive(Debug)]
pub struct Log<'r> {
    repo: &'r Repository,
    next: Option<ObjectId>,
    first: bool,
}

/// The commit `from` and its ancestors. History that was pruned away ends the list without an
/// error; a missing `from` is an error.
pub fn log<'r>(repo: &'r Repository, from: &ObjectId) -> Log<'r> {
    Log {
        repo,
        next: Some(*from),
        first: true,
    }
}

impl Iterator for Log<'_> {
    type Item = Result<(ObjectId, Commit)>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.next.take()?;
        let first = std::mem::take(&mut self.first);
        match self.repo.commit(&id) {
            Ok(commit) => {
                self.next = commit.parent;
                Some(Ok((id, commit)))
            }
            Err(Error::MissingObject {
                kind: ObjectKind::Commit,
                ..
            }) if !first => None,
            Err(error) => Some(Err(error)),
        }
    }
}

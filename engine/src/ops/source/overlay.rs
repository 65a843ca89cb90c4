//! A commit as input of another one.

use crate::error::Result;
use crate::id::ObjectId;
use crate::repo::Repository;
use crate::tree::MutableTree;

/// Lays the tree of a commit over `tree`; unchanged directories are taken over by name.
pub fn add_ref(repo: &Repository, tree: &mut MutableTree, commit: &ObjectId) -> Result<()> {
    let commit = repo.commit(commit)?;
    if tree.meta.is_none() && tree.files.is_empty() && tree.dirs.is_empty() {
        *tree = MutableTree::load(repo, &commit.tree, &commit.meta)?;
        return Ok(());
    }
    tree.overlay(repo, &commit.tree, &commit.meta)
}

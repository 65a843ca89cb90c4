//! What the micro-benchmarks work on.

use std::path::{Path, PathBuf};

use grove_engine::object::{Commit, Metadata};
use grove_engine::ops::source::{SourceOptions, add_dir};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, RefUpdate, Repository, Silent};
use grove_fixtures::tree::{Options, Tree};
use tempfile::TempDir;

/// The ref of commits made here.
pub const REF: &str = "bench";

/// A tree and a directory for repositories.
#[derive(Debug)]
pub struct Workload {
    dir: TempDir,
    /// The tree.
    pub tree: PathBuf,
}

impl Workload {
    /// Builds a tree with this many ordinary files and a hundred or so special ones. Returns when
    /// its files are old enough to be remembered by the stat cache.
    pub fn new(files: u32) -> Self {
        let dir = tempfile::tempdir().expect("because a benchmark needs a place to work");
        let tree = dir.path().join("tree");
        let options = Options {
            files,
            ..Options::default()
        };
        Tree::build(&tree, 1, options).expect("because the directory is new and empty");
        std::thread::sleep(std::time::Duration::from_millis(2100));
        Self { dir, tree }
    }

    /// A place for a repository or checkout that does not exist yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new repository in place of an older one of the same name.
    pub fn fresh_repository(&self, name: &str) -> Repository {
        let path = self.path(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("because nobody else uses it");
        }
        Repository::init(&path).expect("because the directory does not exist")
    }

    /// A repository with one commit of the tree.
    pub fn committed(&self, name: &str) -> (Repository, ObjectId) {
        let repo = self.fresh_repository(name);
        let id = commit(&repo, &self.tree, &SourceOptions::default());
        (repo, id)
    }
}

/// Commits a directory to [`REF`].
pub fn commit(repo: &Repository, dir: &Path, options: &SourceOptions) -> ObjectId {
    try_commit(repo, dir, options).expect("because the tree holds only what a commit can hold")
}

fn try_commit(
    repo: &Repository,
    dir: &Path,
    options: &SourceOptions,
) -> grove_engine::Result<ObjectId> {
    let mut txn = repo.begin(&Silent)?;
    let parent = repo.refs()?.map.get(REF).copied();
    if let Some(parent) = &parent {
        txn.set_parent(parent)?;
    }
    let mut tree = MutableTree::default();
    add_dir(&mut txn, &mut tree, dir, options, &Silent)?;
    let (tree, meta) = txn.put_tree(&tree)?;
    let id = txn.put_commit(&Commit {
        metadata: Metadata::default(),
        parent,
        subject: "bench".to_owned(),
        body: String::new(),
        timestamp: 1_700_000_000,
        tree,
        meta,
    })?;
    let update = RefUpdate {
        name: REF.to_owned(),
        expected: None,
        new: Some(id),
    };
    txn.publish(&[update])?;
    Ok(id)
}

/// Names of all files of a commit.
pub fn files(repo: &Repository, commit: &ObjectId) -> grove_engine::Result<Vec<ObjectId>> {
    let mut files = Vec::new();
    let mut queue = vec![repo.commit(commit)?.tree];
    while let Some(id) = queue.pop() {
        let tree = repo.dirtree(&id)?;
        files.extend(tree.files.iter().map(|(_, id)| *id));
        queue.extend(tree.dirs.iter().map(|dir| dir.tree));
    }
    Ok(files)
}

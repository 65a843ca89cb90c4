//! Several users of one repository at once.

use std::fs;

use grove_engine::ops::{PruneOptions, prune};
use grove_engine::{Error, RefUpdate, Repository, Silent};
use tempfile::tempdir;

use super::support::{commit_dir, list_commit, list_dir, make_tree};

#[test]
fn two_writers_commit_at_the_same_time() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("repo");
    Repository::init(&path).unwrap();
    let trees: Vec<_> = (0..4u64)
        .map(|n| {
            let tree = dir.path().join(format!("tree{n}"));
            make_tree(&tree, n);
            tree
        })
        .collect();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = trees
            .iter()
            .enumerate()
            .map(|(n, tree)| {
                let path = &path;
                scope.spawn(move || {
                    let repo = Repository::open(path).unwrap();
                    commit_dir(&repo, &format!("os/{n}"), tree).unwrap().0
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let repo = Repository::open(&path).unwrap();
    for (id, tree) in ids.iter().zip(&trees) {
        assert_eq!(list_commit(&repo, id).unwrap(), list_dir(tree));
    }
    assert_eq!(repo.refs().unwrap().map.len(), 4);
}

#[test]
fn an_open_repository_sees_what_others_commit_and_prune() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let writer = Repository::init(&dir.path().join("repo")).unwrap();
    let reader = Repository::open(writer.path()).unwrap();
    let (first, _, _) = commit_dir(&writer, "os", &tree).unwrap();
    assert_eq!(list_commit(&reader, &first).unwrap(), list_dir(&tree));
    fs::remove_dir_all(tree.join("usr/sizes")).unwrap();
    writer
        .update_refs(&[RefUpdate {
            name: "os".into(),
            expected: None,
            new: None,
        }])
        .unwrap();
    let (second, _, _) = commit_dir(&writer, "os", &tree).unwrap();
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    prune(&writer, &options, &Silent).unwrap();
    assert_eq!(list_commit(&reader, &second).unwrap(), list_dir(&tree));
    assert!(matches!(
        reader.resolve_rev(&first.to_string()),
        Err(Error::RevNotFound { .. })
    ));
}

#[test]
fn a_ref_that_changed_meanwhile_is_not_overwritten() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (first, _, _) = commit_dir(&repo, "a", &tree).unwrap();
    let swap = |expected| {
        let other = RefUpdate {
            name: "b".into(),
            expected: None,
            new: Some(first),
        };
        let guarded = RefUpdate {
            name: "a".into(),
            expected: Some(expected),
            new: None,
        };
        repo.update_refs(&[other, guarded])
    };
    assert!(matches!(swap(None), Err(Error::RefChanged { .. })));
    assert!(
        !repo.refs().unwrap().map.contains_key("b"),
        "all refs change or none"
    );
    swap(Some(first)).unwrap();
    assert_eq!(
        repo.refs().unwrap().map.into_keys().collect::<Vec<_>>(),
        ["b"]
    );
}

#[test]
fn refs_cannot_be_files_and_directories_at_once() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    commit_dir(&repo, "a/b", &tree).unwrap();
    for clash in ["a", "a/b/c"] {
        assert!(
            matches!(
                commit_dir(&repo, clash, &tree),
                Err(Error::RefConflict { .. })
            ),
            "{clash}"
        );
    }
    commit_dir(&repo, "a/bc", &tree).unwrap();
}

//! Pruning: what is kept, what goes, and that the rest stays readable.

use std::fs;

use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::{Repository, Silent};
use tempfile::tempdir;

use super::support::{commit_dir, list_commit, make_tree, noise};

fn history(dir: &std::path::Path) -> (Repository, Vec<grove_engine::ObjectId>) {
    let tree = dir.join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.join("repo")).unwrap();
    let ids = (0..4u64).map(|n| {
        fs::write(tree.join("usr/changing"), noise(n, 2_000_000)).unwrap();
        fs::write(tree.join("usr/small"), format!("release {n}")).unwrap();
        commit_dir(&repo, "os", &tree).unwrap().0
    });
    let ids = ids.collect();
    (repo, ids)
}

#[test]
fn depth_and_refs_decide_what_is_kept() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let before = repo.stored().unwrap().0;
    let kept = PruneOptions::default();
    assert_eq!(prune(&repo, &kept, &Silent).unwrap().commits_deleted, 0);
    let options = PruneOptions {
        refs_only: true,
        depth: Some(1),
        ..Default::default()
    };
    let planned = prune(
        &repo,
        &PruneOptions {
            dry_run: true,
            ..options.clone()
        },
        &Silent,
    )
    .unwrap();
    assert_eq!(repo.commits().unwrap().len(), 4);
    let done = prune(&repo, &options, &Silent).unwrap();
    assert_eq!((planned.commits_deleted, done.commits_deleted), (2, 2));
    assert_eq!(planned.entries_deleted, done.entries_deleted);
    let after = repo.stored().unwrap().0;
    assert!(before - after > 3_900_000, "{before} -> {after}");
    assert!(done.freed_bytes.abs_diff(before - after) < 1000);
    let mut left = vec![ids[2], ids[3]];
    left.sort();
    assert_eq!(repo.commits().unwrap(), left);
    for id in left {
        list_commit(&repo, &id).unwrap();
    }
    assert_eq!(fsck(&repo, Level::Deep, &Silent).unwrap().problems, []);
}

#[test]
fn young_commits_survive_when_asked_for() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        keep_younger_than: Some(1_700_000_000),
        ..Default::default()
    };
    assert_eq!(prune(&repo, &options, &Silent).unwrap().commits_deleted, 0);
    assert_eq!(repo.commits().unwrap().len(), ids.len());
}

#[test]
fn a_damaged_tree_stops_the_prune_before_anything_is_deleted() {
    let dir = tempdir().unwrap();
    let (repo, _) = history(dir.path());
    let packs = super::support::packs(repo.path());
    // The smallest pack holds metadata only.
    let meta = packs
        .iter()
        .min_by_key(|p| fs::metadata(p).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(meta).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0xff;
    fs::write(meta, bytes).unwrap();
    let repo = Repository::open(repo.path()).unwrap();
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    if prune(&repo, &options, &Silent).is_err() {
        assert_eq!(super::support::packs(repo.path()), packs);
    }
}

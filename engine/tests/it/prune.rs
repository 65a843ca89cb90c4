//! Pruning: what is kept, what goes, and that the rest stays readable.

use std::fs;

use grove_engine::ops::checkout::{CheckoutOptions, checkout};
use grove_engine::ops::static_delta::{self, DeltaName, GenerateOptions};
use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::{ObjectId, RefUpdate, Repository, Silent};
use tempfile::tempdir;

use super::support::{Listing, commit_dir, list_commit, list_dir, make_tree, noise};

fn assert_sound(repo: &Repository) {
    let report = fsck(repo, Level::Deep, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

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

/// A history in which most of each commit is stored as differences to the one before, or to the
/// first.
fn history_of_versions(dir: &std::path::Path) -> (Repository, Vec<ObjectId>, Vec<Listing>) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("lib")).unwrap();
    let repo = Repository::init(&dir.join("repo")).unwrap();
    let mut files: Vec<Vec<u8>> = (0..6).map(|n| noise(n, 60_000 << n)).collect();
    let (mut ids, mut listings) = (Vec::new(), Vec::new());
    for version in 0..4u8 {
        for (n, bytes) in files.iter_mut().enumerate() {
            for at in (0..bytes.len()).step_by(5000) {
                bytes[at] = version.wrapping_mul(37);
            }
            fs::write(tree.join(format!("lib/lib{n}.so")), bytes).unwrap();
        }
        let (id, _, written) = commit_dir(&repo, "os", &tree).unwrap();
        assert!(version == 0 || written.stored_bytes * 10 < written.new_payload_bytes);
        ids.push(id);
        listings.push(list_dir(&tree));
    }
    (repo, ids, listings)
}

#[test]
fn what_later_versions_are_differences_to_stays_until_they_go() {
    for gone in [vec![0], vec![0, 1, 2], vec![1], vec![3], vec![1, 3]] {
        let dir = tempdir().unwrap();
        let (repo, ids, listings) = history_of_versions(dir.path());
        if gone.contains(&3) {
            let update = RefUpdate {
                name: "os".into(),
                expected: None,
                new: None,
            };
            repo.update_refs(&[update]).unwrap();
        }
        let delete = PruneOptions {
            delete_commits: gone.iter().map(|n| ids[*n]).collect(),
            ..Default::default()
        };
        let plan = PruneOptions {
            dry_run: true,
            ..delete.clone()
        };
        let plan = prune(&repo, &plan, &Silent).unwrap();
        let alone: u64 = plan
            .gone
            .iter()
            .filter_map(|gone| gone.exclusive_bytes)
            .sum();
        assert!(alone <= plan.gone_bytes && plan.gone_bytes == plan.freed_bytes + plan.left_bytes);
        // The first holds the bases of all others.
        assert!(plan.gone_bytes < repo.stored().unwrap().0 / 4, "{gone:?}");
        let done = prune(&repo, &delete, &Silent).unwrap();
        assert_eq!(done.entries_deleted, plan.entries_deleted);
        for (n, (id, listing)) in ids.iter().zip(&listings).enumerate() {
            if gone.contains(&n) {
                assert!(repo.commit(id).is_err());
            } else {
                assert_eq!(&list_commit(&repo, id).unwrap(), listing, "{gone:?}");
            }
        }
        assert_sound(&repo);
        // What was deleted is stored again when it comes back.
        let tree = dir.path().join("out");
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| !gone.contains(n)) {
            let options = CheckoutOptions::default();
            let out = tree.join(n.to_string());
            fs::create_dir_all(&tree).unwrap();
            checkout(&repo, id, &out, &options, &Silent).unwrap();
            let (again, ..) = commit_dir(&repo, &format!("again/{n}"), &out).unwrap();
            assert_eq!(list_commit(&repo, &again).unwrap(), listings[n]);
        }
        assert_sound(&repo);
    }
}

#[test]
fn deleting_everything_but_the_last_version_frees_the_rest_in_the_end() {
    let dir = tempdir().unwrap();
    let (repo, ids, _) = history_of_versions(dir.path());
    let update = RefUpdate {
        name: "os".into(),
        expected: None,
        new: None,
    };
    repo.update_refs(&[update]).unwrap();
    for id in ids {
        let delete = PruneOptions {
            delete_commits: vec![id],
            ..Default::default()
        };
        prune(&repo, &delete, &Silent).unwrap();
        assert_sound(&repo);
    }
    assert_eq!(repo.stored().unwrap(), (0, 0));
}

#[test]
fn what_commits_need_is_remembered_and_made_anew_when_packs_go() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let walked = |options: &PruneOptions| prune(&repo, options, &Silent).unwrap().commits_walked;
    let all = PruneOptions::default();
    assert_eq!((walked(&all), walked(&all)), (4, 0));
    let reach = repo.path().join("index/reach");
    for (n, id) in ids.iter().enumerate() {
        let path = reach.join(id.to_string());
        let mut bytes = fs::read(&path).unwrap();
        match n {
            0 => fs::remove_file(&path).unwrap(),
            1 => bytes.truncate(70),
            2 => bytes[100] ^= 1,
            _ => continue,
        }
        if n > 0 {
            fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!((walked(&all), walked(&all)), (3, 0));
    let less = PruneOptions {
        refs_only: true,
        depth: Some(1),
        ..Default::default()
    };
    assert_eq!(walked(&less), 0);
    assert_eq!(
        fs::read_dir(&reach).unwrap().count(),
        2,
        "those that are gone are forgotten"
    );
    assert_eq!((walked(&less), walked(&all)), (2, 0));
    fs::remove_dir_all(&reach).unwrap();
    assert_eq!(walked(&all), 2);
    assert_sound(&repo);
}

#[test]
fn commit_objects_alone_can_be_deleted_and_the_rest_later() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let quick = PruneOptions {
        refs_only: true,
        depth: Some(0),
        commit_only: true,
        ..Default::default()
    };
    let before = repo.stored().unwrap();
    let report = prune(&repo, &quick, &Silent).unwrap();
    assert_eq!((report.commits_deleted, report.entries_deleted), (3, 3));
    assert_eq!(report.commits_walked, 0);
    assert_eq!(repo.commits().unwrap(), [ids[3]]);
    assert_eq!(repo.stored().unwrap().1, before.1 - 3);
    assert_sound(&repo);
    let report = prune(&repo, &PruneOptions::default(), &Silent).unwrap();
    assert!(report.entries_deleted > 3 && report.freed_bytes > 5_000_000);
    assert_sound(&repo);
}

#[test]
fn images_stay_only_of_commits_that_are_there_or_that_someone_uses() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let abandoned = repo.image_path(&ids[0]).with_file_name("x.1-1.tmp");
    let fresh = abandoned.with_file_name("x.2-2.tmp");
    fs::create_dir_all(abandoned.parent().unwrap()).unwrap();
    fs::write(&fresh, b"").unwrap();
    let file = fs::File::create(&abandoned).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let make_all = || {
        for id in &ids {
            fs::write(repo.image_path(id), b"image").unwrap();
        }
    };
    let left = || -> Vec<bool> { ids.iter().map(|id| repo.image_path(id).exists()).collect() };
    make_all();
    let lease = repo.lease(&[ids[1]]).unwrap();
    repo.drop_unused_images().unwrap();
    assert_eq!(left(), [false, true, false, true]);
    assert!(fresh.exists() && !abandoned.exists());
    drop(lease);
    make_all();
    let options = PruneOptions {
        refs_only: true,
        depth: Some(1),
        ..Default::default()
    };
    prune(&repo, &options, &Silent).unwrap();
    assert_eq!(left(), [false, false, true, true]);
}

#[test]
fn many_files_are_loaded_as_one_by_one_and_found_by_the_beginnings_of_their_names() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let mut trees = vec![repo.commit(&ids[3]).unwrap().tree];
    let mut files = Vec::new();
    while let Some(tree) = trees.pop() {
        let listing = repo.dirtree(&tree).unwrap();
        trees.extend(listing.dirs.iter().map(|dir| dir.tree));
        files.extend(listing.files.iter().map(|(_, id)| *id));
    }
    assert!(files.len() > 10);
    let missing = ObjectId::of(b"missing");
    files.insert(3, missing);
    // A second time the same, far from the first.
    files.push(files[0]);
    let loaded = repo.files(&files);
    assert_eq!(loaded.len(), files.len());
    for (id, file) in files.iter().zip(loaded) {
        match (file, repo.file(id)) {
            (Ok(file), Ok(alone)) => assert_eq!((file.id, file), (*id, alone)),
            (Err(error), Err(_)) => {
                assert_eq!(*id, missing);
                assert!(error.is_damage());
            }
            (file, alone) => panic!("{id}: {file:?}, {alone:?}"),
        }
        let between = |first, last| {
            let kind = grove_engine::ObjectKind::File;
            repo.objects_between(kind, first, last).unwrap()
        };
        let found = between(id, id);
        assert_eq!(found.contains(id), *id != missing);
        let all = [[0; 32], [0xff; 32]].map(ObjectId::from_bytes);
        assert_eq!(between(&all[0], &all[1]).contains(id), *id != missing);
    }
}

/// Names of files below a directory.
fn files_below(dir: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(files_below(&path));
        } else {
            names.push(path.strip_prefix(dir).unwrap().display().to_string());
        }
    }
    names.sort();
    names
}

#[test]
fn cached_files_and_deltas_go_with_what_they_are_of() {
    let dir = tempdir().unwrap();
    let (repo, ids) = history(dir.path());
    let linked = CheckoutOptions {
        user_mode: true,
        hard_links: true,
        ..Default::default()
    };
    let check_out = |n: usize, name: &str| {
        checkout(&repo, &ids[n], &dir.path().join(name), &linked, &Silent).unwrap()
    };
    check_out(0, "old");
    check_out(3, "new");
    // One of the old files is used by a checkout still: its name in the cache goes, its bytes do not.
    fs::remove_file(dir.path().join("old/usr/changing")).unwrap();
    for id in [&ids[0], &ids[3]] {
        let usr = repo.dirtree(&repo.commit(id).unwrap().tree).unwrap();
        let usr = repo.dirtree(&usr.dir("usr").unwrap().tree).unwrap();
        let file = repo.file(usr.file("changing").unwrap()).unwrap();
        repo.plain_copy(&file.payload.unwrap(), file.size).unwrap();
    }
    for (from, to) in [(0, 1), (1, 3)] {
        let name = DeltaName {
            from: Some(ids[from]),
            to: ids[to],
        };
        let options = GenerateOptions::default();
        static_delta::generate(&repo, name, &options, &Silent).unwrap();
    }
    let caches = ["cache/links", "cache/plain", "deltas"].map(|name| repo.path().join(name));
    let before = caches.each_ref().map(|dir| files_below(dir).len());
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    let planned = PruneOptions {
        dry_run: true,
        ..options.clone()
    };
    let planned = prune(&repo, &planned, &Silent).unwrap();
    assert_eq!(caches.each_ref().map(|dir| files_below(dir).len()), before);
    let done = prune(&repo, &options, &Silent).unwrap();
    let figures = |report: &grove_engine::ops::PruneReport| {
        let (files, bytes) = (report.cached_files_deleted, report.cached_bytes);
        (files, bytes, report.deltas_deleted, report.delta_bytes)
    };
    assert_eq!(figures(&planned), figures(&done));
    // Of the oldest commit two files have changed since, and one of them has a plain copy.
    assert_eq!((done.cached_files_deleted, done.deltas_deleted), (3, 1));
    assert_eq!(done.cached_bytes, 2 * 2_000_000);
    assert_eq!(files_below(&caches[0]).len(), before[0] - 2);
    assert_eq!(files_below(&caches[1]).len(), 1);
    let kept = static_delta::list(&repo).unwrap();
    assert_eq!(
        kept.iter().map(|name| name.to).collect::<Vec<_>>(),
        [ids[3]]
    );
    let again = check_out(3, "again");
    // Only the empty file is no link.
    assert_eq!((again.files, again.written_bytes), (1, 0));
    assert_sound(&repo);
}

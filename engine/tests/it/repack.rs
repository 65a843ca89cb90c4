//! A repack changes how things are stored and nothing else.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use grove_engine::ops::{Level, PruneOptions, RepackOptions, fsck, prune, repack};
use grove_engine::{ObjectId, Repository, Silent};
use tempfile::tempdir;

use super::support::{Listing, commit_dir, list_commit, list_dir, noise, packs};

/// Several releases of a few files: programs that change everywhere, and others that do not.
fn releases(repo: &Repository, tree: &Path, count: u64) -> Vec<(ObjectId, Listing)> {
    let mut programs: Vec<Vec<u8>> = [2_000usize, 90_000, 800_000]
        .iter()
        .map(|len| {
            let mut bytes = noise(*len as u64, *len);
            bytes.iter_mut().for_each(|byte| *byte &= 0x3f);
            bytes
        })
        .collect();
    let mut commits = Vec::new();
    fs::create_dir_all(tree.join("usr/lib")).unwrap();
    for release in 0..count {
        for (n, bytes) in programs.iter_mut().enumerate() {
            fs::write(tree.join(format!("usr/lib/p{n}.so.1.{release}")), &*bytes).unwrap();
            if release > 0 {
                fs::remove_file(tree.join(format!("usr/lib/p{n}.so.1.{}", release - 1))).unwrap();
            }
            for at in (0..bytes.len()).step_by(500) {
                bytes[at] = bytes[at].wrapping_add(release as u8 + 1);
            }
        }
        fs::write(
            tree.join("usr/note"),
            format!("release {release}\n").repeat(50),
        )
        .unwrap();
        commits.push((commit_dir(repo, "os", tree).unwrap().0, list_dir(tree)));
    }
    commits
}

fn assert_whole(repo: &Repository, commits: &[(ObjectId, Listing)]) {
    let report = fsck(repo, Level::Deep, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    for (id, listing) in commits {
        assert_eq!(&list_commit(repo, id).unwrap(), listing);
    }
}

#[test]
fn small_packs_are_merged() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let commits = releases(&repo, &dir.path().join("tree"), 6);
    let report = repack(&repo, &RepackOptions::default(), &Silent).unwrap();
    assert_eq!(report.packs_before, 12);
    assert_eq!((report.packs_after, report.made_plain), (2, 0));
    assert!(report.bytes_after < report.bytes_before);
    assert_eq!(packs(repo.path()).len(), 2);
    assert_whole(&repo, &commits);
    assert_whole(&Repository::open(repo.path()).unwrap(), &commits);
    let again = repack(&repo, &RepackOptions::default(), &Silent).unwrap();
    assert_eq!(again.bytes_after, report.bytes_after);
}

#[test]
fn the_newest_version_becomes_plain_and_outlives_the_others() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let commits = releases(&repo, &dir.path().join("tree"), 5);
    let before = repo.stored().unwrap().0;
    let all = RepackOptions {
        all: true,
        ..RepackOptions::default()
    };
    let report = repack(&repo, &all, &Silent).unwrap();
    // Three programs; the base and three more of each follow. The note is no delta: it compresses.
    assert_eq!(report.made_plain, 3);
    assert_eq!(report.made_deltas, 12);
    assert!(report.bytes_after < before + before / 20, "{report:?}");
    assert_whole(&repo, &commits);
    let again = repack(&repo, &all, &Silent).unwrap();
    assert_eq!((again.made_plain, again.made_deltas), (0, 0));
    // Without the old ones nothing is left that the newest does not need.
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    prune(&repo, &options, &Silent).unwrap();
    assert_whole(&repo, &commits[4..]);
    let fresh = Repository::init(&dir.path().join("fresh")).unwrap();
    commit_dir(&fresh, "os", &dir.path().join("tree")).unwrap();
    let (kept, alone) = (repo.stored().unwrap().0, fresh.stored().unwrap().0);
    assert!(kept < alone + alone / 20, "{kept} and {alone}");
}

#[test]
fn stronger_compression_takes_less_space() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let commits = releases(&repo, &dir.path().join("tree"), 3);
    let options = RepackOptions {
        all: true,
        level: Some(19),
        keep_bases: true,
        ..RepackOptions::default()
    };
    let report = repack(&repo, &options, &Silent).unwrap();
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    assert_eq!((report.made_plain, report.made_deltas), (0, 0));
    assert_whole(&repo, &commits);
}

#[test]
fn readers_and_writers_go_on_while_packs_are_rewritten() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let commits = releases(&repo, &tree, 4);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            let own = Repository::open(repo.path()).unwrap();
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                for (id, listing) in &commits {
                    assert_eq!(&list_commit(&own, id).unwrap(), listing);
                }
                rounds += 1;
            }
            rounds
        });
        let writer = scope.spawn(|| {
            let own = Repository::open(repo.path()).unwrap();
            let mut made = Vec::new();
            for n in 0..10u64 {
                fs::write(tree.join("usr/more"), noise(n, 200_000)).unwrap();
                made.push((commit_dir(&own, "os", &tree).unwrap().0, list_dir(&tree)));
            }
            made
        });
        let tries = |n: u32| {
            let options = RepackOptions {
                all: n.is_multiple_of(2),
                ..RepackOptions::default()
            };
            repack(&repo, &options, &Silent)
        };
        let results: Vec<_> = (0..6).map(tries).collect();
        let made = writer.join();
        done.store(true, Ordering::Relaxed);
        let made = made.unwrap();
        for result in results {
            // A commit may have come in between.
            if let Err(error) = result {
                assert!(
                    matches!(error, grove_engine::Error::Locked { .. }),
                    "{error:?}"
                );
            }
        }
        assert!(reader.join().unwrap() > 0);
        assert_whole(&Repository::open(repo.path()).unwrap(), &made);
    });
    assert_whole(&repo, &commits);
}

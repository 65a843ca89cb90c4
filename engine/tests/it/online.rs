//! Pruning beside writers, readers and mounts.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::{Error, Monitor, ObjectId, RefUpdate, Repository, Result, Silent};
use tempfile::tempdir;

use super::support::{Listing, commit_dir, list_commit, list_dir, make_tree, noise};

fn heads_only() -> PruneOptions {
    PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    }
}

fn delete_ref(repo: &Repository, name: &str) {
    let update = RefUpdate {
        name: name.into(),
        expected: None,
        new: None,
    };
    repo.update_refs(&[update]).unwrap();
}

fn assert_sound(repo: &Repository) {
    let report = fsck(repo, Level::Deep, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_prune_waits_for_writers_as_long_as_it_is_told_to() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    commit_dir(&repo, "a", &tree).unwrap();
    delete_ref(&repo, "a");
    let other = Repository::open(repo.path()).unwrap();
    let txn = other.begin(&Silent).unwrap();
    let hasty = PruneOptions {
        patience: Some(Duration::ZERO),
        ..heads_only()
    };
    let refused = prune(&repo, &hasty, &Silent);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    assert_eq!(repo.commits().unwrap().len(), 1);

    let stopped = prune(&repo, &heads_only(), &Cancelled::default());
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");

    thread::scope(|scope| {
        let pruner = scope.spawn(|| prune(&repo, &heads_only(), &Silent));
        thread::sleep(Duration::from_millis(100));
        assert!(!pruner.is_finished());
        drop(txn);
        assert_eq!(pruner.join().unwrap().unwrap().commits_deleted, 1);
    });
}

/// Cancels as soon as there is nothing to do but wait.
#[derive(Debug, Default)]
struct Cancelled(AtomicBool);

impl Monitor for Cancelled {
    fn advance(&self, phase: grove_engine::monitor::Phase, _: u64) {
        if phase == grove_engine::monitor::Phase::Prune {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    fn begin(&self, phase: grove_engine::monitor::Phase, _: Option<u64>) {
        self.advance(phase, 0);
    }
    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn two_prunes_do_not_run_at_once() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let lock = dir.path().join("repo/upkeep.lock");
    let mode = grove_engine::fs::lock::LockMode::Exclusive;
    let held = grove_engine::fs::lock::Lock::acquire(&lock, mode, Duration::ZERO).unwrap();
    let refused = prune(&repo, &heads_only(), &Silent);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    drop(held);
    prune(&repo, &heads_only(), &Silent).unwrap();
}

#[test]
fn leased_commits_stay_until_the_lease_ends() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (id, ..) = commit_dir(&repo, "a", &tree).unwrap();
    delete_ref(&repo, "a");
    let mounted = Repository::open(repo.path()).unwrap();
    let lease = mounted.lease(&[id]).unwrap();
    let report = prune(&repo, &heads_only(), &Silent).unwrap();
    assert_eq!((report.commits_deleted, report.leased), (0, vec![id]));
    let delete = PruneOptions {
        delete_commits: vec![id],
        ..Default::default()
    };
    let refused = prune(&repo, &delete, &Silent);
    assert!(
        matches!(refused, Err(Error::CommitInUse { .. })),
        "{refused:?}"
    );
    assert_eq!(list_commit(&mounted, &id).unwrap(), list_dir(&tree));
    drop(lease);
    let report = prune(&repo, &heads_only(), &Silent).unwrap();
    assert_eq!((report.commits_deleted, report.leased), (1, vec![]));
    assert!(matches!(
        mounted.lease(&[id]),
        Err(Error::MissingObject { .. })
    ));
}

struct Act<'a>(Box<dyn Fn() + Send + 'a>);

impl std::fmt::Debug for Act<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("act")
    }
}

/// Runs a prune that deletes the commit of `old`, with something happening after its mark.
fn prune_with(repo: &Repository, act: impl Fn() + Send) -> Result<grove_engine::ops::PruneReport> {
    #[derive(Debug)]
    struct Hook<'a>(Mutex<Option<Act<'a>>>);
    impl Monitor for Hook<'_> {
        fn advance(&self, phase: grove_engine::monitor::Phase, _: u64) {
            if phase == grove_engine::monitor::Phase::Prune {
                let act = self.0.lock().unwrap().take();
                act.iter().for_each(|act| (act.0)());
            }
        }
    }
    let hook = Hook(Mutex::new(Some(Act(Box::new(act)))));
    let report = prune(repo, &heads_only(), &hook);
    assert!(
        hook.0.lock().unwrap().is_none(),
        "nothing happened meanwhile"
    );
    report
}

/// A repository whose `kept` shares packs with a commit that no ref leads to.
fn with_a_dead_commit(dir: &std::path::Path) -> (Repository, ObjectId, Listing) {
    let tree = dir.join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.join("repo")).unwrap();
    let (dead, ..) = commit_dir(&repo, "old", &tree).unwrap();
    let listing = list_dir(&tree);
    fs::remove_dir_all(tree.join("usr/sizes")).unwrap();
    commit_dir(&repo, "kept", &tree).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    make_tree(&tree, 1);
    delete_ref(&repo, "old");
    (repo, dead, listing)
}

#[test]
fn a_commit_that_a_ref_takes_up_during_a_prune_stays() {
    let dir = tempdir().unwrap();
    let (repo, dead, listing) = with_a_dead_commit(dir.path());
    let other = Repository::open(repo.path()).unwrap();
    let report = prune_with(&repo, || {
        let update = RefUpdate {
            name: "revived".into(),
            expected: None,
            new: Some(dead),
        };
        other.update_refs(&[update]).unwrap();
    });
    assert_eq!(report.unwrap().commits_deleted, 0);
    assert_eq!(list_commit(&repo, &dead).unwrap(), listing);
    assert_sound(&repo);
}

#[test]
fn what_a_commit_of_the_meantime_shares_with_a_dead_one_stays() {
    let dir = tempdir().unwrap();
    let (repo, dead, listing) = with_a_dead_commit(dir.path());
    let other = Repository::open(repo.path()).unwrap();
    let tree = dir.path().join("tree");
    let report = prune_with(&repo, || {
        // Finds everything there, so stores no more than a commit object.
        let (_, _, written) = commit_dir(&other, "new", &tree).unwrap();
        assert_eq!(written.new_payload_bytes, 0);
    });
    assert_eq!(
        report.unwrap().commits_deleted,
        0,
        "the tree makes the same commit"
    );
    let new = repo.resolve_rev("new").unwrap();
    assert_eq!(list_commit(&repo, &new).unwrap(), listing);
    assert_eq!(list_commit(&other, &new).unwrap(), listing);
    assert!(new == dead || repo.commit(&dead).is_err());
    assert_sound(&repo);
}

#[test]
fn a_commit_of_the_meantime_without_a_ref_is_complete_or_gone() {
    let dir = tempdir().unwrap();
    let (repo, dead, listing) = with_a_dead_commit(dir.path());
    let other = Repository::open(repo.path()).unwrap();
    let tree = dir.path().join("tree");
    fs::write(tree.join("usr/more"), "more").unwrap();
    let wanted = list_dir(&tree);
    assert_ne!(wanted, listing);
    let new = Mutex::new(None);
    prune_with(&repo, || {
        *new.lock().unwrap() = Some(commit_dir(&other, "new", &tree).unwrap().0);
        delete_ref(&other, "new");
    })
    .unwrap();
    let new = new.lock().unwrap().unwrap();
    assert_eq!(list_commit(&repo, &new).unwrap(), wanted);
    assert!(repo.commit(&dead).is_err());
    assert_sound(&repo);
    assert_eq!(
        prune(&repo, &heads_only(), &Silent)
            .unwrap()
            .commits_deleted,
        1
    );
    assert_sound(&repo);
    // And what was dead is not taken for present by the next writer.
    let (again, ..) = commit_dir(&repo, "again", &tree).unwrap();
    assert_eq!(list_commit(&repo, &again).unwrap(), wanted);
    assert_sound(&repo);
}

#[test]
fn a_commit_that_is_leased_during_a_prune_stays() {
    let dir = tempdir().unwrap();
    let (repo, dead, listing) = with_a_dead_commit(dir.path());
    let other = Repository::open(repo.path()).unwrap();
    let lease = Mutex::new(None);
    let report = prune_with(&repo, || {
        *lease.lock().unwrap() = Some(other.lease(&[dead]).unwrap());
    });
    assert_eq!(report.unwrap().leased, [dead]);
    assert_eq!(list_commit(&other, &dead).unwrap(), listing);
    assert_sound(&repo);
}

#[test]
fn writers_readers_and_a_pruner_get_on() {
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = 12;
    let dir = tempdir().unwrap();
    let path = dir.path().join("repo");
    Repository::init(&path).unwrap();
    let heads: Mutex<BTreeMap<String, (ObjectId, Listing)>> = Mutex::default();
    let writing = AtomicU64::new(WRITERS);
    let (prunes, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for n in 0..WRITERS {
            let (path, heads, writing) = (&path, &heads, &writing);
            let tree = dir.path().join(format!("tree{n}"));
            scope.spawn(move || {
                let repo = Repository::open(path).unwrap();
                for round in 0..ROUNDS {
                    // Contents come, go, come again, and are other writers' contents, too.
                    drop(fs::remove_dir_all(&tree));
                    make_tree(&tree, (n + round) % 3);
                    // Stored as the difference to what the parent has there, sometimes.
                    let mut own = noise(round % 2, 300_000);
                    own[1000 * (round % 4) as usize] ^= 1;
                    fs::write(tree.join("usr/own"), own).unwrap();
                    let name = format!("os/{n}");
                    let (id, ..) = commit_dir(&repo, &name, &tree).unwrap();
                    let listing = list_dir(&tree);
                    assert_eq!(list_commit(&repo, &id).unwrap(), listing);
                    heads.lock().unwrap().insert(name, (id, listing));
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            // One repository, many threads: as a mount.
            let (path, heads, writing, reads) = (&path, &heads, &writing, &reads);
            scope.spawn(move || {
                let repo = Repository::open(path).unwrap();
                while writing.load(Ordering::Relaxed) > 0 {
                    let some: Vec<_> = heads.lock().unwrap().values().cloned().collect();
                    for (id, listing) in some {
                        let Ok(_lease) = repo.lease(&[id]) else {
                            continue;
                        };
                        thread::scope(|scope| {
                            for _ in 0..3 {
                                let (repo, listing) = (&repo, &listing);
                                scope.spawn(move || {
                                    assert_eq!(&list_commit(repo, &id).unwrap(), listing);
                                });
                            }
                        });
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        scope.spawn(|| {
            let repo = Repository::open(&path).unwrap();
            while writing.load(Ordering::Relaxed) > 0 {
                let report = prune(&repo, &heads_only(), &Silent).unwrap();
                prunes.fetch_add(u64::from(report.commits_deleted > 0), Ordering::Relaxed);
            }
        });
    });
    let repo = Repository::open(&path).unwrap();
    assert!(
        prunes.load(Ordering::Relaxed) > 1,
        "the pruner deleted commits"
    );
    assert!(reads.load(Ordering::Relaxed) > 1, "the readers read");
    assert_sound(&repo);
    for (name, (id, listing)) in heads.into_inner().unwrap() {
        assert_eq!(repo.resolve_rev(&name).unwrap(), id);
        assert_eq!(list_commit(&repo, &id).unwrap(), listing);
    }
    prune(&repo, &heads_only(), &Silent).unwrap();
    assert_sound(&repo);
    let heads = repo.refs().unwrap().map.into_values();
    let heads: std::collections::BTreeSet<_> = heads.collect();
    assert_eq!(
        repo.commits().unwrap(),
        heads.into_iter().collect::<Vec<_>>()
    );
}

#[test]
fn a_prune_finds_its_moment_between_writers_without_a_gap() {
    let dir = tempdir().unwrap();
    let (repo, ..) = with_a_dead_commit(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..3u64 {
            let (path, done) = (repo.path(), &done);
            scope.spawn(move || {
                let repo = Repository::open(path).unwrap();
                thread::sleep(Duration::from_millis(40 * n));
                while !done.load(Ordering::Relaxed) {
                    let txn = repo.begin(&Silent).unwrap();
                    thread::sleep(Duration::from_millis(120));
                    drop(txn);
                }
            });
        }
        let begin = Instant::now();
        let report = prune(&repo, &heads_only(), &Silent);
        done.store(true, Ordering::Relaxed);
        assert_eq!(report.unwrap().commits_deleted, 1);
        assert!(begin.elapsed() < Duration::from_secs(20));
    });
}

//! Power is cut at every single operation of a commit, a prune, a repair and a change of refs;
//! afterwards everything that was acknowledged must be there, whole.
//!
//! The usual run tries a few fates of unsynced changes at each operation. The long one tries many:
//! `cargo test --release -p grove-engine --test it crash -- --ignored --nocapture`, with the
//! number of cuts in `GROVE_CUTS` (10,000 if it is not set).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use grove_engine::fs::Storage;
use grove_engine::ops::delta::{ApplyOptions, CreateOptions, create};
use grove_engine::ops::repair::{RepairOptions, RepositorySource, Source, repair};
use grove_engine::ops::static_delta::DeltaName;
use grove_engine::ops::{Level, PruneOptions, RepackOptions, fsck, prune, repack};
use grove_engine::{ObjectId, Repository, Result, Silent};
use rayon::prelude::*;
use tempfile::TempDir;

use super::damage::{Action, apply};
use super::faulty::{Fate, PowerCut};
use super::support::{Listing, commit_dir, list_commit, list_dir, noise, packs};

/// Pseudo-random fates at each operation in the usual run, beside all lost and all kept.
const USUAL: u64 = 2;

/// A repository with a history, and a tree to commit next.
struct Scene {
    dir: TempDir,
    base: PathBuf,
    tree: PathBuf,
    commits: Vec<(ObjectId, Listing)>,
    next: AtomicU64,
}

/// In memory where there is a file system for that: what is durable is simulated anyway.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Small, but with every way to store a payload: in a group, as extents, and as deltas.
fn grow(tree: &Path, round: u64) {
    fs::create_dir_all(tree.join("usr/lib")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(tree.join(name), bytes).unwrap();
    for n in 0..12 {
        write(&format!("usr/lib/{n}"), &noise(n, 500));
    }
    let mut library = noise(5, 300_000);
    library[1000 + round as usize * 100..][..50].fill(round as u8);
    write("usr/lib/library.so", &library);
    write("usr/changing", &noise(100 + round, 140_000));
    write("usr/round", round.to_string().as_bytes());
}

impl Scene {
    fn new(parity: bool) -> Self {
        let dir = scratch();
        let (base, tree) = (dir.path().join("base"), dir.path().join("tree"));
        let mut repo = Repository::init(&base).unwrap();
        repo.set_parity(parity).unwrap();
        let mut commits = Vec::new();
        for round in 0..2 {
            grow(&tree, round);
            let id = commit_dir(&repo, "os", &tree).unwrap().0;
            commits.push((id, list_dir(&tree)));
        }
        // With everything in the sorted file there is less to copy.
        repo.reindex(&Silent).unwrap();
        grow(&tree, 9);
        fs::write(tree.join("usr/new"), b"new").unwrap();
        Self {
            dir,
            base,
            tree,
            commits,
            next: AtomicU64::new(0),
        }
    }

    /// Runs `act` on a fresh copy with the power cut after `cut` operations, lets the medium settle
    /// and hands the result to `check`. Gives the number of operations.
    fn try_cut<T>(
        &self,
        cut: Option<u64>,
        fate: Fate,
        act: impl Fn(&Path, Arc<dyn Storage>) -> Result<T>,
        check: impl Fn(&Path, Option<T>),
    ) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = self.dir.path().join(format!("run-{number}"));
        let (copy, attic) = (place.join("copy"), place.join("attic"));
        copy_repository(&self.base, &copy);
        let disk = PowerCut::new(&attic, cut);
        let result = act(&copy, Arc::new(disk.clone())).ok();
        disk.settle(fate);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&copy, result)));
        if let Err(panic) = told {
            println!("cut after {cut:?} operations, {fate:?}");
            std::panic::resume_unwind(panic);
        }
        fs::remove_dir_all(place).unwrap();
        disk.operations()
    }

    /// Cuts at every operation, with every fate; gives the number of cuts.
    fn try_all<T>(
        &self,
        seeds: u64,
        act: impl Fn(&Path, Arc<dyn Storage>) -> Result<T> + Sync,
        check: impl Fn(&Path, Option<T>) + Sync,
    ) -> u64 {
        let total = self.try_cut(None, Fate::Kept, &act, &check);
        assert!(total > 3, "the storage seam is used");
        let fates = |cut: u64| {
            let mixed = (0..seeds).map(move |n| Fate::Mixed(cut + n * 1000));
            [Fate::Lost, Fate::Kept].into_iter().chain(mixed)
        };
        let cuts: Vec<(u64, Fate)> = (0..total)
            .flat_map(|cut| fates(cut).map(move |fate| (cut, fate)))
            .collect();
        cuts.par_iter().with_max_len(1).for_each(|(cut, fate)| {
            self.try_cut(Some(*cut), *fate, &act, &check);
        });
        cuts.len() as u64
    }
}

/// Copies a repository; packs are never changed, so links to them will do.
fn copy_repository(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_repository(&path, &target);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            fs::hard_link(&path, &target).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Opens and acts: for what takes an open repository.
fn with<T>(
    act: impl Fn(&Repository) -> Result<T>,
) -> impl Fn(&Path, Arc<dyn Storage>) -> Result<T> {
    move |path, storage| act(&Repository::open_on(path, storage)?)
}

fn open(path: &Path) -> Repository {
    Repository::open(path).unwrap()
}

fn assert_sound(repo: &Repository) {
    let report = fsck(repo, Level::Deep, &Silent).unwrap();
    assert_eq!(report.problems, []);
}

fn assert_holds(repo: &Repository, id: &ObjectId, listing: &Listing) {
    assert_eq!(&list_commit(repo, id).unwrap(), listing);
}

fn cut_commits(seeds: u64, parity: bool) -> u64 {
    let scene = Scene::new(parity);
    let (head, _) = &scene.commits[1];
    let wanted = list_dir(&scene.tree);
    scene.try_all(
        seeds,
        with(|repo| commit_dir(repo, "os", &scene.tree).map(|(id, ..)| id)),
        |path, acknowledged| {
            let repo = open(path);
            assert_sound(&repo);
            for (id, listing) in &scene.commits {
                assert_holds(&repo, id, listing);
            }
            let now = repo.resolve_rev("os").unwrap();
            match acknowledged {
                Some(id) => assert_eq!(now, id, "an acknowledged commit is never lost"),
                None => assert!(now == *head || list_commit(&repo, &now).unwrap() == wanted),
            }
            let (again, ..) = commit_dir(&repo, "again", &scene.tree).unwrap();
            assert_holds(&repo, &again, &wanted);
            assert_sound(&repo);
        },
    )
}

fn cut_prunes(seeds: u64, parity: bool) -> u64 {
    let scene = Scene::new(parity);
    let (head, listing) = &scene.commits[1];
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    scene.try_all(
        seeds,
        with(|repo| prune(repo, &options, &Silent)),
        |path, _| {
            let repo = open(path);
            assert_eq!(repo.resolve_rev("os").unwrap(), *head);
            assert_holds(&repo, head, listing);
            prune(&repo, &options, &Silent).unwrap();
            assert_holds(&repo, head, listing);
            assert_sound(&repo);
        },
    )
}

/// Deltas that bring the base to a commit that it lacks are applied, cut, and applied again.
fn cut_deltas(seeds: u64) -> u64 {
    let scene = Scene::new(false);
    let full = scene.dir.path().join("full");
    copy_repository(&scene.base, &full);
    let full = open(&full);
    let (from, wanted) = (scene.commits[1].0, list_dir(&scene.tree));
    let (to, ..) = commit_dir(&full, "os", &scene.tree).unwrap();
    full.set_detached_metadata(&to, Some(b"")).unwrap();
    let assert_signed = |repo: &Repository| {
        assert_eq!(
            repo.detached_metadata(&to).unwrap().as_deref(),
            Some(&b""[..])
        );
    };
    let name = DeltaName {
        from: Some(from),
        to,
    };
    let file = scene.dir.path().join("update.delta");
    create(&full, name, &file, &CreateOptions::default(), &Silent).unwrap();
    let mut options = ApplyOptions::default();
    options.refs.push("os".to_owned());
    scene.try_all(
        seeds,
        with(|repo| grove_engine::ops::delta::apply(repo, &file, &options, &Silent)),
        |path, acknowledged| {
            let repo = open(path);
            assert_sound(&repo);
            for (id, listing) in &scene.commits {
                assert_holds(&repo, id, listing);
            }
            let now = repo.resolve_rev("os").unwrap();
            assert!(now == to || (now == from && acknowledged.is_none()));
            if repo.commit(&to).is_ok() {
                assert_signed(&repo);
            }
            grove_engine::ops::delta::apply(&repo, &file, &options, &Silent).unwrap();
            assert_eq!(repo.resolve_rev("os").unwrap(), to);
            assert_signed(&repo);
            assert_holds(&repo, &to, &wanted);
            assert_sound(&repo);
        },
    )
}

fn cut_repacks(seeds: u64, parity: bool) -> u64 {
    let scene = Scene::new(parity);
    let options = RepackOptions {
        all: true,
        ..RepackOptions::default()
    };
    scene.try_all(
        seeds,
        with(|repo| repack(repo, &options, &Silent)),
        |path, _| {
            let repo = open(path);
            for (id, listing) in &scene.commits {
                assert_holds(&repo, id, listing);
            }
            repack(&repo, &options, &Silent).unwrap();
            for (id, listing) in &scene.commits {
                assert_holds(&repo, id, listing);
            }
            assert_sound(&repo);
        },
    )
}

fn cut_refs(seeds: u64) -> u64 {
    let scene = Scene::new(false);
    let (first, head) = (scene.commits[0].0, scene.commits[1].0);
    let update = |name: &str, new| grove_engine::RefUpdate {
        name: name.into(),
        expected: None,
        new,
    };
    scene.try_all(
        seeds,
        with(|repo| repo.update_refs(&[update("os", Some(first)), update("b", Some(head))])),
        |path, acknowledged| {
            let refs = open(path).refs().unwrap().map;
            let state = (refs.get("os").copied(), refs.get("b").copied());
            let (old, new) = ((Some(head), None), (Some(first), Some(head)));
            assert!(
                state == new || (state == old && acknowledged.is_none()),
                "{state:?}"
            );
        },
    )
}

/// Damages the packs of a scene; repairs are cut, repeated, and must make everything whole.
fn cut_repairs(seeds: u64, parity: bool, swapped: bool) -> u64 {
    let scene = Scene::new(parity);
    let good = scene.dir.path().join("good");
    copy_repository(&scene.base, &good);
    let mut files = packs(&scene.base);
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "pack")
    });
    files.sort_by_key(|path| fs::metadata(path).unwrap().len());
    // The largest pack has lost an extent, a small one its footer; two others were swapped.
    apply(Action::Flip(500), files.last().unwrap());
    apply(Action::Flip(997), &files[0]);
    if swapped {
        let aside = scene.base.join("aside");
        fs::rename(&files[1], &aside).unwrap();
        fs::rename(&files[2], &files[1]).unwrap();
        fs::rename(&aside, &files[2]).unwrap();
    }
    apply(Action::Garbage, &scene.base.join("refs"));
    let mend = |path: &Path, storage| {
        let other = RepositorySource::new(Repository::open(&good)?);
        let mut sources: Vec<Box<dyn Source>> = vec![Box::new(other)];
        repair(
            path,
            &storage,
            &RepairOptions::default(),
            &mut sources,
            &Silent,
        )
    };
    let head = scene.commits[1].0;
    let before = readable(&open(&scene.base), &head);
    assert!(swapped || before.len() > 3, "{before:?}");
    scene.try_all(seeds, mend, |path, _| {
        let now = readable(&open(path), &head);
        assert!(
            before.iter().all(|line| now.contains(line)),
            "what could be read still can be"
        );
        let report = mend(path, Arc::new(grove_engine::fs::DiskStorage)).unwrap();
        assert_eq!(report.lost, []);
        let repo = open(path);
        for (id, listing) in &scene.commits {
            assert_holds(&repo, id, listing);
        }
        assert_eq!(repo.resolve_rev("os").unwrap(), head);
        assert_sound(&repo);
    })
}

/// Files of a commit's `usr/lib` that can be read, as far as it can itself.
fn readable(repo: &Repository, commit: &ObjectId) -> Vec<String> {
    let list = || -> Result<Vec<String>> {
        let root = repo.dirtree(&repo.commit(commit)?.tree)?;
        let usr = repo.dirtree(&root.dir("usr").unwrap().tree)?;
        let lib = repo.dirtree(&usr.dir("lib").unwrap().tree)?;
        let read = |name: &String, id: &ObjectId| -> Result<String> {
            let file = repo.file(id)?;
            let mut bytes = vec![0; file.size as usize];
            repo.read_at(&file, 0, &mut bytes)?;
            Ok(format!("{name} {}", ObjectId::of(&bytes)))
        };
        let files = lib.files.iter();
        Ok(files.filter_map(|(name, id)| read(name, id).ok()).collect())
    };
    list().unwrap_or_default()
}

#[test]
fn a_commit_cut_anywhere_loses_nothing_and_can_be_repeated() {
    cut_commits(USUAL, false);
}

#[test]
fn a_prune_cut_anywhere_loses_nothing_that_is_kept() {
    cut_prunes(USUAL, false);
}

#[test]
fn refs_cut_anywhere_are_the_old_or_the_new_ones() {
    cut_refs(USUAL);
}

#[test]
fn a_delta_cut_anywhere_loses_nothing_and_a_second_run_finishes() {
    cut_deltas(USUAL);
}

#[test]
fn a_repair_cut_anywhere_loses_nothing_and_can_be_repeated() {
    cut_repairs(1, false, false);
    cut_repairs(1, false, true);
}

#[test]
fn with_parity_files_nothing_is_lost_either() {
    cut_commits(0, true);
    cut_prunes(0, true);
    cut_repairs(0, true, false);
    cut_repairs(0, true, true);
}

#[test]
#[ignore = "minutes"]
fn ten_thousand_cuts_lose_nothing() {
    let wanted: u64 = std::env::var("GROVE_CUTS").map_or(10_000, |text| text.parse().unwrap());
    let suite = |seeds: u64| {
        [
            ("commit", cut_commits(seeds, false)),
            ("commit with parity", cut_commits(seeds, true)),
            ("prune", cut_prunes(seeds, false)),
            ("prune with parity", cut_prunes(seeds, true)),
            ("refs", cut_refs(seeds)),
            ("delta", cut_deltas(seeds)),
            ("repair", cut_repairs(seeds, false, false)),
            ("repair with parity", cut_repairs(seeds, true, false)),
            ("repair of swapped packs", cut_repairs(seeds, false, true)),
            (
                "repair of swapped packs with parity",
                cut_repairs(seeds, true, true),
            ),
            ("repack", cut_repacks(seeds, false)),
            ("repack with parity", cut_repacks(seeds, true)),
        ]
    };
    let sum = |counts: &[(&str, u64)]| counts.iter().map(|(_, n)| n).sum::<u64>();
    let began = std::time::Instant::now();
    // Two fates at each operation; then as many more as it takes.
    let first = sum(&suite(0));
    let more = wanted.saturating_sub(first).div_ceil(first / 2);
    let counts = suite(more);
    for (what, n) in counts {
        println!("{what}: {n} cut points");
    }
    let total = first + sum(&counts);
    println!("{total} cut points, 0 losses, in {:.0?}", began.elapsed());
    assert!(total >= wanted);
}

#[test]
fn a_repack_cut_anywhere_loses_nothing() {
    cut_repacks(USUAL, false);
}

#[test]
fn a_dead_writers_staging_directory_is_cleared_away() {
    let scene = Scene::new(false);
    let dead = scene.base.join("staging/99999999.0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("data.0"), vec![1; 1000]).unwrap();
    let repo = Repository::open(&scene.base).unwrap();
    commit_dir(&repo, "os", &scene.tree).unwrap();
    let left = fs::read_dir(scene.base.join("staging")).unwrap();
    assert_eq!(left.count(), 0);
}

//! Power is cut at every single operation of a commit, a prune and a change of refs; afterwards
//! everything that was acknowledged must be there, whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::{ObjectId, Repository, Result, Silent};
use tempfile::{TempDir, tempdir};

use super::faulty::{Fate, PowerCut};
use super::support::{Listing, commit_dir, list_commit, list_dir, make_tree, noise, run};

/// A repository with a history, and a tree to commit next.
struct Scene {
    dir: TempDir,
    base: PathBuf,
    tree: PathBuf,
    commits: Vec<(ObjectId, Listing)>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let (base, tree) = (dir.path().join("base"), dir.path().join("tree"));
        make_tree(&tree, 1);
        let repo = Repository::init(&base).unwrap();
        let mut commits = Vec::new();
        for n in 0..2 {
            fs::write(tree.join("usr/changing"), noise(n, 700_000)).unwrap();
            let id = commit_dir(&repo, "os", &tree).unwrap().0;
            commits.push((id, list_dir(&tree)));
        }
        fs::write(tree.join("usr/changing"), noise(9, 700_000)).unwrap();
        fs::write(tree.join("usr/new"), b"new").unwrap();
        Self {
            dir,
            base,
            tree,
            commits,
        }
    }

    /// Runs `act` on a fresh copy with the power cut after `cut` operations, lets the medium settle
    /// and hands the result to `check`. Gives the number of operations.
    fn try_cut<T>(
        &self,
        cut: Option<u64>,
        fate: Fate,
        act: impl Fn(&Repository) -> Result<T>,
        check: impl Fn(&Repository, Option<T>),
    ) -> u64 {
        let copy = self.dir.path().join("copy");
        let attic = self.dir.path().join("attic");
        for old in [&copy, &attic] {
            drop(fs::remove_dir_all(old));
        }
        run(Command::new("cp").arg("-r").args([&self.base, &copy]));
        let disk = PowerCut::new(&attic, cut);
        let repo = Repository::open_on(&copy, Arc::new(disk.clone())).unwrap();
        let result = act(&repo).ok();
        drop(repo);
        disk.settle(fate);
        let reopened =
            Repository::open(&copy).unwrap_or_else(|e| panic!("cut {cut:?} {fate:?}: {e}"));
        check(&reopened, result);
        disk.operations()
    }

    /// Cuts at every operation, with every fate.
    fn try_all<T>(
        &self,
        act: impl Fn(&Repository) -> Result<T>,
        check: impl Fn(&Repository, Option<T>),
    ) {
        let total = self.try_cut(None, Fate::Kept, &act, &check);
        assert!(total > 3, "the storage seam is used");
        for cut in 0..total {
            for fate in [
                Fate::Lost,
                Fate::Kept,
                Fate::Mixed(cut),
                Fate::Mixed(cut + 1000),
            ] {
                self.try_cut(Some(cut), fate, &act, &check);
            }
        }
    }
}

fn assert_sound(repo: &Repository) {
    let report = fsck(repo, Level::Deep, &Silent).unwrap();
    assert_eq!(report.problems, []);
}

fn assert_holds(repo: &Repository, id: &ObjectId, listing: &Listing) {
    assert_eq!(&list_commit(repo, id).unwrap(), listing);
}

#[test]
fn a_commit_cut_anywhere_loses_nothing_and_can_be_repeated() {
    let scene = Scene::new();
    let (head, _) = &scene.commits[1];
    let wanted = list_dir(&scene.tree);
    scene.try_all(
        |repo| commit_dir(repo, "os", &scene.tree).map(|(id, ..)| id),
        |repo, acknowledged| {
            assert_sound(repo);
            for (id, listing) in &scene.commits {
                assert_holds(repo, id, listing);
            }
            let now = repo.resolve_rev("os").unwrap();
            match acknowledged {
                Some(id) => assert_eq!(now, id, "an acknowledged commit is never lost"),
                None => assert!(now == *head || list_commit(repo, &now).unwrap() == wanted),
            }
            let (again, ..) = commit_dir(repo, "again", &scene.tree).unwrap();
            assert_holds(repo, &again, &wanted);
            assert_sound(repo);
        },
    );
}

#[test]
fn a_prune_cut_anywhere_loses_nothing_that_is_kept() {
    let scene = Scene::new();
    let (head, listing) = &scene.commits[1];
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    scene.try_all(
        |repo| prune(repo, &options, &Silent),
        |repo, _| {
            assert_eq!(repo.resolve_rev("os").unwrap(), *head);
            assert_holds(repo, head, listing);
            prune(repo, &options, &Silent).unwrap();
            assert_holds(repo, head, listing);
            assert_sound(repo);
        },
    );
}

#[test]
fn refs_cut_anywhere_are_the_old_or_the_new_ones() {
    let scene = Scene::new();
    let (first, head) = (scene.commits[0].0, scene.commits[1].0);
    let update = |name: &str, new| grove_engine::RefUpdate {
        name: name.into(),
        expected: None,
        new,
    };
    scene.try_all(
        |repo| repo.update_refs(&[update("os", Some(first)), update("b", Some(head))]),
        |repo, acknowledged| {
            let refs = repo.refs().unwrap().map;
            let state = (refs.get("os").copied(), refs.get("b").copied());
            let (old, new) = ((Some(head), None), (Some(first), Some(head)));
            assert!(
                state == new || (state == old && acknowledged.is_none()),
                "{state:?}"
            );
        },
    );
}

#[test]
fn a_dead_writers_staging_directory_is_cleared_away() {
    let scene = Scene::new();
    let dead = scene.base.join("staging/99999999.0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("data.0"), vec![1; 1000]).unwrap();
    let repo = Repository::open(&scene.base).unwrap();
    commit_dir(&repo, "os", &scene.tree).unwrap();
    assert_eq!(entries(&scene.base.join("staging")), 0);
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

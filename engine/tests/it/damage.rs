//! What is done to a file x which file: the right error, never wrong bytes, the rest readable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use grove_engine::ops::{Level, fsck};
use grove_engine::{Error, Repository, Silent};
use tempfile::tempdir;

use super::support::{commit_dir, list_commit, list_dir, make_tree, noise, packs, run};

#[derive(Debug, Clone, Copy)]
pub enum Action {
    Flip(usize),
    Truncate(usize),
    Garbage,
    Empty,
    Delete,
}

pub fn apply(action: Action, path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    match action {
        Action::Flip(permille) => {
            let at = (bytes.len() - 1) * permille / 1000;
            bytes[at] ^= 0x40;
        }
        Action::Truncate(permille) => bytes.truncate(bytes.len() * permille / 1000),
        Action::Garbage => bytes = noise(7, bytes.len()),
        Action::Empty => bytes.clear(),
        Action::Delete => return fs::remove_file(path).unwrap(),
    }
    // Not in place: other copies of the repository may share the inode, maps may be open.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn actions() -> Vec<Action> {
    let mut actions = vec![Action::Garbage, Action::Empty, Action::Delete];
    actions.extend((0..=20).map(|n| Action::Flip(n * 50)));
    actions.extend((1..20).map(|n| Action::Truncate(n * 50)));
    actions
}

/// Two commits in their own packs; `touch` picks the file to damage, `check` looks at the result.
fn damage(touch: impl Fn(&Path) -> PathBuf, check: impl Fn(Action, Result<Repository, Error>)) {
    let dir = tempdir().unwrap();
    let (base, tree) = (dir.path().join("base"), dir.path().join("tree"));
    make_tree(&tree, 1);
    let repo = Repository::init(&base).unwrap();
    commit_dir(&repo, "first", &tree).unwrap();
    drop(repo);
    let copy = dir.path().join("copy");
    for action in actions() {
        drop(fs::remove_dir_all(&copy));
        run(Command::new("cp").arg("-r").args([&base, &copy]));
        apply(action, &touch(&copy));
        check(action, Repository::open(&copy));
    }
}

/// Reading gives what was committed, or an error; never anything else.
fn assert_right_or_error(action: Action, repo: &Repository) -> bool {
    let dir = tempdir().unwrap();
    make_tree(&dir.path().join("t"), 1);
    let listing = repo
        .resolve_rev("first")
        .and_then(|id| list_commit(repo, &id));
    match listing {
        Ok(listing) => {
            assert_eq!(listing, list_dir(&dir.path().join("t")), "{action:?}");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn largest_pack(repo: &Path) -> PathBuf {
    packs(repo)
        .into_iter()
        .max_by_key(|p| fs::metadata(p).unwrap().len())
        .unwrap()
}

fn smallest_pack(repo: &Path) -> PathBuf {
    packs(repo)
        .into_iter()
        .min_by_key(|p| fs::metadata(p).unwrap().len())
        .unwrap()
}

#[test]
fn damaged_packs_are_found_and_never_give_wrong_bytes() {
    for touch in [largest_pack, smallest_pack] {
        damage(touch, |action, repo| {
            // Each damage is found with and without the index.
            let repo = repo.unwrap();
            assert_right_or_error(action, &repo);
            let found = fsck(&repo, Level::Data, &Silent).unwrap().problems;
            assert!(!found.is_empty(), "{action:?} was not found");
            fs::remove_dir_all(repo.path().join("index")).unwrap();
            fs::create_dir(repo.path().join("index")).unwrap();
            let repo = Repository::open(repo.path()).unwrap();
            assert_right_or_error(action, &repo);
            assert!(
                !fsck(&repo, Level::Data, &Silent)
                    .unwrap()
                    .problems
                    .is_empty(),
                "{action:?}"
            );
        });
    }
}

#[test]
fn files_outside_the_damaged_block_stay_readable() {
    damage(largest_pack, |action, repo| {
        let Action::Flip(permille @ 100..=800) = action else {
            return;
        };
        let repo = repo.unwrap();
        let commit = repo.commit(&repo.resolve_rev("first").unwrap()).unwrap();
        let usr = repo.dirtree(&commit.tree).unwrap().dir("usr").unwrap().tree;
        let sizes = repo.dirtree(&usr).unwrap().dir("sizes").unwrap().tree;
        let readable = repo
            .dirtree(&sizes)
            .unwrap()
            .files
            .iter()
            .filter(|(_, id)| {
                let file = repo.file(id).unwrap();
                repo.read_at(&file, 0, &mut vec![0; file.size as usize])
                    .is_ok()
            })
            .count();
        assert!(readable >= 3, "flip at {permille}: {readable}");
    });
}

#[test]
fn a_damaged_index_heals_itself() {
    damage(
        |repo| {
            // Large enough a commit would have been merged; make the merged file by hand.
            Repository::open(repo).unwrap().reindex(&Silent).unwrap();
            repo.join("index/objects.idx")
        },
        |action, repo| {
            let repo = repo.unwrap();
            let whole = assert_right_or_error(action, &repo);
            repo.reindex(&Silent).unwrap();
            assert!(
                assert_right_or_error(action, &repo),
                "{action:?} (before: {whole})"
            );
            assert_eq!(fsck(&repo, Level::Quick, &Silent).unwrap().problems, []);
        },
    );
}

#[test]
fn a_damaged_database_is_passed_over() {
    damage(
        |repo| repo.join("index/sled/db"),
        |action, repo| assert!(assert_right_or_error(action, &repo.unwrap()), "{action:?}"),
    );
}

#[test]
fn damaged_refs_are_an_error_that_names_the_file() {
    damage(
        |repo| repo.join("refs"),
        |action, repo| match repo.unwrap().refs() {
            Err(Error::Corrupt { path, .. } | Error::Io { path, .. }) => {
                assert!(path.ends_with("refs"), "{action:?}");
            }
            other => panic!("{action:?}: {other:?}"),
        },
    );
}

#[test]
fn a_damaged_meta_file_is_an_error_that_names_the_file() {
    damage(
        |repo| repo.join("meta.json"),
        |action, repo| match repo {
            Err(Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. }) => {
                assert!(path.ends_with("meta.json"), "{action:?}");
            }
            Err(Error::NotARepository { .. }) => assert!(matches!(action, Action::Delete)),
            // White space, or a letter of a feature list's name that serde reports as missing.
            Ok(_) => assert!(matches!(action, Action::Flip(_)), "{action:?}"),
            Err(other) => panic!("{action:?}: {other:?}"),
        },
    );
}

#[test]
fn a_damaged_stat_cache_only_costs_time() {
    damage(
        |repo| {
            let cache = repo.join("cache/stat-00");
            fs::create_dir_all(cache.parent().unwrap()).unwrap();
            fs::write(&cache, noise(3, 1000)).unwrap();
            cache
        },
        |action, repo| assert!(assert_right_or_error(action, &repo.unwrap()), "{action:?}"),
    );
}

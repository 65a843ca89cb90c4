//! Files that moved to names that say nothing are found again by their content.

use std::fs;
use std::path::Path;

use grove_engine::ops::source::{SourceOptions, add_tar};
use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, Repository, Silent, WriteReport};
use grove_fixtures::content::code::{self, Object};
use grove_fixtures::rng::Rng;
use tempfile::tempdir;

use super::support::{commit_dir, list_commit, list_dir, noise, packs};

const FILES: u64 = 20;

/// Programs and libraries, from a few pages to more than what is one extent.
fn programs() -> Vec<Vec<u8>> {
    let program = |n: u64| {
        let size = 20_000 + (n * n) as usize * 1000;
        code::elf(&mut Rng::new(n), Object::Dynamic, size, "program")
    };
    (0..FILES).map(program).collect()
}

fn write(root: &Path, name: impl Fn(usize) -> String, files: &[Vec<u8>]) {
    for (n, bytes) in files.iter().enumerate() {
        let path = root.join(name(n));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Writes two releases: in the second, every file has changed and has another name.
fn write_releases(dir: &Path) -> u64 {
    let mut files = programs();
    let letter = |n: usize| char::from(b'a' + n as u8 % 26);
    write(
        &dir.join("old"),
        |n| format!("usr/lib/lib{}-{n}.so", letter(n)),
        &files,
    );
    for (n, file) in files.iter_mut().enumerate() {
        code::update(file, &mut Rng::new(100 + n as u64));
    }
    let name = |n: usize| format!("opt/{}/{}{n}", letter(n * 7), letter(n * 5));
    write(&dir.join("new"), name, &files);
    files.iter().map(|file| file.len() as u64).sum()
}

fn commit_releases(dir: &Path, repo: &str) -> (Repository, [(ObjectId, WriteReport); 2]) {
    let repo = Repository::init(&dir.join(repo)).unwrap();
    let (old, _, first) = commit_dir(&repo, "os", &dir.join("old")).unwrap();
    let (new, _, second) = commit_dir(&repo, "os", &dir.join("new")).unwrap();
    (repo, [(old, first), (new, second)])
}

#[test]
fn files_that_moved_are_stored_as_what_changed() {
    let dir = tempdir().unwrap();
    let bytes = write_releases(dir.path());
    let (repo, [(_, first), (id, second)]) = commit_releases(dir.path(), "repo");
    assert_eq!((first.alike_files, second.alike_files), (0, FILES));
    // Without a parent, nothing is compared.
    let alone = Repository::init(&dir.path().join("alone")).unwrap();
    let without = commit_dir(&alone, "os", &dir.path().join("new")).unwrap().2;
    let (with, without) = (second.stored_bytes, without.stored_bytes);
    assert!(with * 4 < without, "{with} of {without}, {bytes} plain");
    assert_eq!(
        list_commit(&repo, &id).unwrap(),
        list_dir(&dir.path().join("new"))
    );
    let (other, [_, (again, _)]) = commit_releases(dir.path(), "other");
    assert_eq!(id, again);
    let names = |repo: &Repository| -> Vec<_> {
        let packs = packs(repo.path());
        packs
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&repo), names(&other));
}

#[test]
fn what_a_moved_file_is_a_delta_to_outlives_its_commit() {
    let dir = tempdir().unwrap();
    write_releases(dir.path());
    let (repo, [(old, _), (new, _)]) = commit_releases(dir.path(), "repo");
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..Default::default()
    };
    prune(&repo, &options, &Silent).unwrap();
    assert!(repo.commit(&old).is_err());
    let repo = Repository::open(repo.path()).unwrap();
    assert_eq!(
        list_commit(&repo, &new).unwrap(),
        list_dir(&dir.path().join("new"))
    );
    let report = fsck(&repo, Level::Deep, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn moved_files_are_found_in_an_archive_that_does_not_say_what_it_holds() {
    let dir = tempdir().unwrap();
    write_releases(dir.path());
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("", dir.path().join("new")).unwrap();
    let archive = archive.into_inner().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (parent, _, first) = commit_dir(&repo, "os", &dir.path().join("old")).unwrap();
    let mut txn = repo.begin(&Silent).unwrap();
    txn.set_parent(&parent).unwrap();
    let mut tree = MutableTree::default();
    let options = SourceOptions {
        tar_autocreate_parents: true,
        ..Default::default()
    };
    add_tar(&mut txn, &mut tree, &*archive, "new.tar", &options, &Silent).unwrap();
    txn.put_tree(&tree).unwrap();
    let second = txn.publish(&[]).unwrap();
    assert!(second.alike_files * 10 >= FILES * 9, "{second:?}");
    assert!(second.stored_bytes * 3 < first.stored_bytes, "{second:?}");
}

#[test]
fn new_files_are_not_compared_with_those_that_stay() {
    let dir = tempdir().unwrap();
    let (tree, repo) = (dir.path().join("tree"), dir.path().join("repo"));
    let repo = Repository::init(&repo).unwrap();
    let mut files = programs();
    write(
        &tree,
        |n| format!("usr/{}/program", char::from(b'a' + n as u8 % 26)),
        &files,
    );
    commit_dir(&repo, "os", &tree).unwrap();
    files[9..12]
        .iter_mut()
        .for_each(|file| code::update(file, &mut Rng::new(1)));
    write(
        &tree,
        |n| format!("opt/copy-{}", char::from(b'a' + n as u8)),
        &files[9..12],
    );
    write(
        &tree,
        |n| format!("opt/{}", char::from(b'a' + n as u8)),
        &[noise(1, 90_000)],
    );
    let report = commit_dir(&repo, "os", &tree).unwrap().2;
    assert_eq!((report.new_files, report.alike_files), (4, 0));
    // One of the old ones goes: it may have moved.
    fs::remove_file(tree.join("usr/j/program")).unwrap();
    code::update(&mut files[9], &mut Rng::new(2));
    write(&tree, |_| "opt/moved".to_owned(), &files[9..10]);
    let report = commit_dir(&repo, "os", &tree).unwrap().2;
    assert_eq!((report.new_files, report.alike_files), (1, 1));
}

//! Later versions of files are stored as deltas, and read like any other.

use std::fs;
use std::path::Path;

use grove_engine::ops::checkout::{CheckoutOptions, checkout};
use grove_engine::ops::{Level, fsck};
use grove_engine::{ObjectId, Repository, Silent};
use tempfile::tempdir;

use super::support::{commit_dir, cpio, list_commit, list_dir, noise};

/// Something like a program: it compresses a little, and the next version differs everywhere.
pub fn program(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = noise(seed, len);
    bytes.iter_mut().for_each(|byte| *byte &= 0x3f);
    bytes
}

/// The next version: some bytes are inserted, and every few hundred bytes one changes.
pub fn relinked(old: &[u8], seed: u64) -> Vec<u8> {
    let mut new = old.to_vec();
    let at = old.len() / 3;
    new.splice(at..at, noise(seed, 1000));
    for n in (0..new.len()).step_by(600) {
        new[n] = new[n].wrapping_add(1);
    }
    new
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn assert_reads_anywhere(repo: &Repository, commit: &ObjectId, path: &str, wanted: &[u8]) {
    let mut listing = repo.dirtree(&repo.commit(commit).unwrap().tree).unwrap();
    let (dirs, name) = path.rsplit_once('/').unwrap();
    for dir in dirs.split('/') {
        listing = repo.dirtree(&listing.dir(dir).unwrap().tree).unwrap();
    }
    let file = repo.file(listing.file(name).unwrap()).unwrap();
    for (offset, len) in [(0, 100), (262_100, 100), (700_000, 300_000), (5, 1)] {
        let mut buf = vec![0; len];
        let n = repo.read_at(&file, offset as u64, &mut buf).unwrap();
        let end = wanted.len().min(offset + len);
        assert_eq!(&buf[..n], wanted.get(offset..end).unwrap_or_default());
    }
}

#[test]
fn an_update_takes_a_fraction_of_what_changed_and_reads_the_same() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let old: Vec<(String, Vec<u8>)> = (1..=6u64)
        .map(|n| {
            (
                format!("usr/lib/lib{n}.so.1.{n}"),
                program(n, 300 * 4usize.pow(n as u32)),
            )
        })
        .collect();
    for (path, bytes) in &old {
        write(&tree, path, bytes);
    }
    let first = commit_dir(&repo, "os", &tree).unwrap();
    // One keeps its path, the others move to a new version.
    fs::remove_dir_all(&tree).unwrap();
    let new: Vec<(String, Vec<u8>)> = old
        .iter()
        .enumerate()
        .map(|(n, (path, bytes))| {
            let path = if n == 0 {
                path.clone()
            } else {
                path.replace(".so.1.", ".so.2.")
            };
            (path, relinked(bytes, n as u64))
        })
        .collect();
    for (path, bytes) in &new {
        write(&tree, path, bytes);
    }
    let second = commit_dir(&repo, "os", &tree).unwrap();
    let (stored, full) = (second.2.stored_bytes, first.2.stored_bytes);
    assert!(stored * 5 < full, "{stored} of {full}");
    assert_eq!(list_commit(&repo, &second.0).unwrap(), list_dir(&tree));
    for (path, bytes) in &new {
        assert_reads_anywhere(&repo, &second.0, path, bytes);
    }
    let report = fsck(&repo, Level::Deep, &Silent).unwrap();
    assert_eq!(report.problems, []);
}

#[test]
fn deltas_of_deltas_are_made_against_the_first_base() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut bytes = program(1, 900_000);
    let mut stored = Vec::new();
    let mut commits = Vec::new();
    for n in 0..6 {
        write(&tree, "usr/bin/tool", &bytes);
        let (id, _, report) = commit_dir(&repo, "os", &tree).unwrap();
        stored.push(report.stored_bytes);
        commits.push((id, bytes.clone()));
        bytes = relinked(&bytes, n);
    }
    assert!(stored[1..].iter().all(|n| n * 4 < stored[0]), "{stored:?}");
    // A fresh repository: nothing is cached.
    let repo = Repository::open(repo.path()).unwrap();
    for (id, bytes) in &commits {
        assert_reads_anywhere(&repo, id, "usr/bin/tool", bytes);
    }
}

#[test]
fn what_has_nothing_in_common_is_stored_plain() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    write(&tree, "a/small", &program(1, 5000));
    write(&tree, "a/large", &program(2, 500_000));
    let first = commit_dir(&repo, "os", &tree).unwrap().2;
    write(&tree, "a/small", &program(3, 5000));
    write(&tree, "a/large", &program(4, 500_000));
    let (id, _, second) = commit_dir(&repo, "os", &tree).unwrap();
    assert!(second.stored_bytes.abs_diff(first.stored_bytes) < 2000);
    assert_eq!(list_commit(&repo, &id).unwrap(), list_dir(&tree));
}

#[test]
fn members_of_an_archive_are_shared_with_files_and_large_data_with_its_shifted_self() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (a, b) = (noise(1, 700_000), noise(2, 900_000));
    let archive = cpio(&[("usr/a", &a), ("usr/b", &b)]);
    write(&tree, "boot/initramfs", &archive);
    let data = noise(3, 40_000_000);
    write(&tree, "usr/data", &data);
    let first = commit_dir(&repo, "os", &tree).unwrap();
    write(&tree, "usr/a", &a);
    write(&tree, "usr/b", &b);
    fs::remove_file(tree.join("usr/data")).unwrap();
    let shifted = [b"inserted", &data[..]].concat();
    write(&tree, "other/name-of-it", &shifted);
    // Without a parent: nothing is a delta.
    let second = commit_dir(&repo, "fresh", &tree).unwrap();
    assert!(second.2.stored_bytes < 400_000, "{:?}", second.2);
    for (id, path, wanted) in [
        (first.0, "boot/initramfs", &archive),
        (first.0, "usr/data", &data),
        (second.0, "other/name-of-it", &shifted),
    ] {
        assert_reads_anywhere(&repo, &id, path, wanted);
    }
    assert_eq!(list_commit(&repo, &second.0).unwrap(), list_dir(&tree));
    let report = fsck(&repo, Level::Deep, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn zeros_take_no_space_here_nor_in_a_checkout() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut image = vec![0; 60_000_000];
    image[30_000_000..30_001_000].fill(7);
    write(&tree, "disk.img", &image);
    let (id, _, report) = commit_dir(&repo, "os", &tree).unwrap();
    assert!(report.stored_bytes < 60_000, "{report:?}");
    let copy = dir.path().join("copy");
    checkout(&repo, &id, &copy, &CheckoutOptions::default(), &Silent).unwrap();
    assert!(fs::read(copy.join("disk.img")).unwrap() == image);
    let meta = fs::metadata(copy.join("disk.img")).unwrap();
    assert!(meta.blocks() * 512 < 2_000_000, "{} blocks", meta.blocks());
}

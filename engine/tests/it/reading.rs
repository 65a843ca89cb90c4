//! What a read decodes, and what is kept of it: counted, not timed.

use std::fs;
use std::path::Path;

use grove_engine::object::FileObject;
use grove_engine::{CacheCounts, ObjectId, Repository};
use tempfile::{TempDir, tempdir};

use super::support::{commit_dir, noise};

const EXTENT: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// A repository of these files, opened anew: nothing is decoded yet.
fn committed(versions: &[&[(&str, Vec<u8>)]]) -> (TempDir, Repository, ObjectId) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("repo");
    let mut repo = Repository::init(&path).unwrap();
    let mut last = None;
    for files in versions {
        let tree = tempdir().unwrap();
        for (name, bytes) in *files {
            fs::write(tree.path().join(name), bytes).unwrap();
        }
        last = Some(commit_dir(&repo, "os", tree.path()).unwrap().0);
        repo = Repository::open(&path).unwrap();
    }
    (dir, repo, last.unwrap())
}

fn file(repo: &Repository, commit: &ObjectId, name: &str) -> FileObject {
    let listing = repo.dirtree(&repo.commit(commit).unwrap().tree).unwrap();
    repo.file(listing.file(name).unwrap()).unwrap()
}

/// Reads all of a file in steps; gives what that took of the cache.
fn read(repo: &Repository, file: &FileObject, step: usize, wanted: &[u8]) -> CacheCounts {
    let before = repo.cache_counts();
    let mut buf = vec![0; step];
    let mut at = 0;
    while at < wanted.len() {
        let n = repo.read_at(file, at as u64, &mut buf).unwrap();
        assert!(buf[..n] == wanted[at..at + n], "at {at}");
        at += n;
    }
    let after = repo.cache_counts();
    let mut took = CacheCounts::default();
    took.hits = after.hits - before.hits;
    took.misses = after.misses - before.misses;
    took.decoded_bytes = after.decoded_bytes - before.decoded_bytes;
    took
}

/// Something that is cut into extents, as programs are, and compresses.
fn program(len: usize) -> Vec<u8> {
    let mut bytes = noise(7, len);
    bytes.iter_mut().for_each(|byte| *byte &= 0x3f);
    bytes[..4].copy_from_slice(b"\x7fELF");
    bytes
}

#[test]
fn extents_that_are_wanted_whole_are_decoded_once_and_not_kept() {
    let large = program(10 * EXTENT + 12);
    let (_dir, repo, commit) = committed(&[&[("large", large.clone())]]);
    let file = file(&repo, &commit, "large");
    for _ in 0..2 {
        let took = read(&repo, &file, MIB, &large);
        assert_eq!((took.hits, took.misses), (0, 11));
        assert_eq!(took.decoded_bytes, large.len() as u64);
    }
}

#[test]
fn a_block_that_was_read_in_parts_goes_when_the_last_was_read() {
    let large = program(8 * EXTENT);
    let (_dir, repo, commit) = committed(&[&[("large", large.clone())]]);
    let file = file(&repo, &commit, "large");
    for _ in 0..2 {
        let took = read(&repo, &file, EXTENT / 4, &large);
        // Once in each round: within a round they stay, after it nothing is left.
        assert_eq!((took.hits, took.misses), (3 * 8, 8));
    }
}

#[test]
fn small_files_are_decoded_together_once() {
    let names: Vec<String> = (0..300).map(|n| format!("f{n:03}.txt")).collect();
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name.as_str(), format!("{n} ").repeat(n).into_bytes()))
        .collect();
    let (_dir, repo, commit) = committed(&[&files]);
    let objects: Vec<FileObject> = names.iter().map(|n| file(&repo, &commit, n)).collect();
    for round in 0..2 {
        let mut misses = 0;
        // Backwards and in small steps: neither matters.
        for (object, (_, bytes)) in objects.iter().zip(&files).rev().filter(|(o, _)| o.size > 0) {
            misses += read(&repo, object, 1000, bytes).misses;
        }
        assert_eq!(misses, 1, "in round {round}");
    }
}

#[test]
fn neighbouring_deltas_share_their_base() {
    let old = program(16 * EXTENT);
    let mut new = old.clone();
    for n in (100..new.len()).step_by(900) {
        new[n] = new[n].wrapping_add(1);
    }
    let (_dir, repo, commit) = committed(&[&[("lib.so", old)], &[("lib.so", new.clone())]]);
    let stored = fs::read_dir(repo.path().join("packs")).unwrap();
    let stored: u64 = stored
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        stored < new.len() as u64 * 3 / 2,
        "the second version is a delta"
    );
    let file = file(&repo, &commit, "lib.so");
    for step in [MIB, EXTENT] {
        let took = read(&repo, &file, step, &new);
        // Each extent of the base once, and the records; windows alone are half as much again.
        let most = new.len() as u64 * 5 / 4;
        assert!(took.decoded_bytes < most, "{took:?} in steps of {step}");
    }
}

#[test]
fn a_plain_copy_is_the_payload_and_outlives_the_repository_that_made_it() {
    let large = program(5 * EXTENT + 3);
    let (dir, repo, commit) = committed(&[&[("large", large.clone())]]);
    let file = file(&repo, &commit, "large");
    let id = file.payload.unwrap();
    drop(repo.plain_copy(&id, file.size).unwrap());
    let copy = dir.path().join("repo/cache/plain").join(id.to_string());
    assert!(fs::read(&copy).unwrap() == large);
    let again = Repository::open(&dir.path().join("repo")).unwrap();
    drop(again.plain_copy(&id, file.size).unwrap());
    assert_eq!(again.cache_counts().decoded_bytes, 0);
    assert_eq!(entries(copy.parent().unwrap()), 1);
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_payload_in_chunks_is_decoded_once_whatever_the_steps() {
    let lines = (0..200_000u32).map(|n| format!("{:08x}\n", n.wrapping_mul(0x9e37_79b9)));
    let large = lines.collect::<String>().into_bytes();
    let (_dir, repo, commit) = committed(&[&[("large.txt", large.clone())]]);
    let file = file(&repo, &commit, "large.txt");
    for step in [MIB, 100_000] {
        let took = read(&repo, &file, step, &large);
        // The recipe and what lies beside the chunks.
        assert!(took.decoded_bytes < large.len() as u64 * 5 / 4, "{took:?}");
    }
}

//! What is too large for limits that a simpler program would have.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::{View, can_mount_all};
use crate::env::Env;

const ENTRIES: usize = 100_000;
/// More than 32 bits can tell.
const SIZE: u64 = (4 << 30) + 12_345;
/// Where the file is not empty.
const PLACES: [u64; 4] = [0, (1 << 31) - 3, (4 << 30) - 5, SIZE - 10];
const DATA: &[u8; 10] = b"0123456789";

#[test]
fn a_directory_of_a_hundred_thousand_entries_is_listed_whole_and_each_found() {
    if !can_mount_all() {
        return;
    }
    let env = Env::new();
    fs::create_dir_all(env.path("tree/large")).expect("a directory");
    let name = |number: usize| format!("large/entry-{number:06}");
    for number in 0..ENTRIES {
        File::create(env.path("tree").join(name(number))).expect("a file");
    }
    env.ok(&["commit", "-q", "-b", "large", "--tree=dir=tree"]);
    let view = View::commit(&env, "large", "mnt");
    // Before the listing, which would leave every name in the kernel's cache.
    for number in (0..ENTRIES).step_by(997) {
        let found = view.path().join(name(number)).symlink_metadata();
        assert_eq!(found.expect("an entry").size(), 0);
    }
    assert!(!view.path().join("large/entry-100000").exists());
    let count = || {
        let mut seen = vec![false; ENTRIES];
        for entry in fs::read_dir(view.path().join("large")).expect("a directory") {
            let entry = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text");
            let number: usize = entry["entry-".len()..].parse().expect("a number");
            assert!(!std::mem::replace(&mut seen[number], true), "{entry} twice");
        }
        seen.into_iter().filter(|seen| *seen).count()
    };
    assert_eq!((count(), count()), (ENTRIES, ENTRIES));
}

#[test]
fn a_sparse_file_of_more_than_4_gib_is_read_at_every_place() {
    if !can_mount_all() {
        return;
    }
    let env = Env::new();
    fs::create_dir(env.path("tree")).expect("a directory");
    let file = File::create(env.path("tree/sparse")).expect("a file");
    file.set_len(SIZE).expect("a length");
    for place in PLACES {
        file.write_all_at(DATA, place).expect("a write");
    }
    env.ok(&["commit", "-q", "-b", "sparse", "--tree=dir=tree"]);
    let view = View::commit(&env, "sparse", "mnt");
    let path = view.path().join("sparse");
    assert_eq!(fs::metadata(&path).expect("a file").size(), SIZE);
    let file = File::open(&path).expect("a file");
    for place in PLACES {
        assert_eq!(
            around(&file, place),
            around(&File::open(env.path("tree/sparse")).expect("a file"), place)
        );
    }
    let zeros = 3 << 30;
    assert_eq!(read(&file, zeros, 4096), [0; 4096], "a hole");
    assert_eq!(read(&file, SIZE, 1), [0; 0], "the end");
    assert_small(&env.path("repo"));
}

fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, offset).expect("a read");
    bytes.truncate(read);
    bytes
}

/// What is at a place, with what is before and behind it.
fn around(file: &File, place: u64) -> Vec<u8> {
    read(file, place.saturating_sub(100), 300)
}

/// Holes are not stored as bytes.
fn assert_small(repo: &Path) {
    let mut bytes = 0;
    let mut queue = vec![repo.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() {
                queue.push(entry.path());
            } else {
                bytes += meta.size();
            }
        }
    }
    assert!(bytes < 16 << 20, "{bytes} bytes for a few");
}

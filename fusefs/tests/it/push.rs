//! Small files come into the kernel's cache without being asked for, and are right there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use grove_fusefs::{Mounted, What};

use crate::need_mounts;
use crate::support::{Fixture, assert_equal, noise, wait_until};

const FILES: usize = 400;

/// Names and contents of small files; together less than one block.
fn small() -> Vec<(String, Vec<u8>)> {
    // Lengths around the ends of pages, and so that no two contents are the same.
    let content = |n: usize| {
        let len = [1, 100, 4095, 4096, 4097][n % 5];
        let mut bytes = format!("{n} ").repeat(len).into_bytes();
        bytes.truncate(len.max(8));
        bytes
    };
    (0..FILES)
        .map(|n| (format!("d{}/f{n}", n % 13), content(n)))
        .collect()
}

fn filled() -> (Fixture, Vec<(PathBuf, Vec<u8>)>) {
    let fixture = Fixture::new();
    let mut files = Vec::new();
    for (path, content) in small() {
        fixture.write(&path, &content);
        files.push((fixture.mnt().join(path), content));
    }
    (fixture, files)
}

fn walk(fixture: &Fixture, mounted: &Mounted) {
    for dir in fs::read_dir(fixture.mnt()).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            file.unwrap().metadata().unwrap();
        }
    }
    // The server notes what is in a listing when the reader has it already.
    wait_until("all listings are noted", || {
        let stats = mounted.stats();
        let noted: u64 = stats.latency.readdirplus.counts().iter().sum();
        noted == stats.readdirplus
    });
}

#[test]
fn after_a_walk_two_reads_bring_all_small_files() {
    need_mounts!();
    let (fixture, files) = filled();
    let mounted = fixture.mounted();
    walk(&fixture, &mounted);
    assert_eq!(mounted.stats().data.pushed_files, 0, "nothing was read yet");
    let read = |(path, content): &(PathBuf, Vec<u8>)| {
        assert!(fs::read(path).unwrap() == *content, "{}", path.display());
    };
    read(&files[0]);
    assert_eq!(mounted.stats().data.pushed_files, 0, "one read says little");
    read(&files[1]);
    // Empty files have no content to push; there are none here.
    let pushed = || mounted.stats().data.pushed_files;
    wait_until("everything is pushed", || pushed() == FILES as u64 - 2);
    let before = mounted.stats();
    files.iter().for_each(read);
    assert_eq!(mounted.stats().requests(), before.requests());
    assert_eq!(before.read, 2);
    let data = before.data;
    assert_eq!((data.push_unknown, data.push_dropped), (0, 0));
    let bytes: usize = files[2..].iter().map(|(_, content)| content.len()).sum();
    assert_eq!(data.pushed_bytes, bytes as u64);
    assert_eq!(data.cache_misses, before.data.cache_misses);
}

#[test]
fn what_the_kernel_was_not_told_of_is_not_pushed() {
    need_mounts!();
    let (fixture, files) = filled();
    let mounted = fixture.mounted();
    // Four lookups of names, no listing.
    for (path, content) in &files[..4] {
        assert_eq!(fs::read(path).unwrap(), *content);
    }
    let stats = mounted.stats();
    assert_eq!((stats.readdirplus, stats.read), (0, 4));
    assert!(stats.data.pushed_files <= 4, "{stats:?}");
}

#[test]
fn files_of_a_directory_that_is_being_read_are_not_all_asked_for() {
    need_mounts!();
    let fixture = Fixture::new();
    // Too large to be stored many to a block.
    let content = |n: usize| noise(150_000 + n);
    let files: Vec<PathBuf> = (0..20)
        .map(|n| {
            let path = format!("dir/{n:02}");
            fixture.write(&path, &content(n));
            fixture.mnt().join(path)
        })
        .collect();
    let id = fixture.commit("main");
    let reads_with = |push: bool| {
        let mounted = fixture.mount_with(id, |options| options.push = push);
        walk(&fixture, &mounted);
        for (n, file) in files.iter().enumerate() {
            assert!(fs::read(file).unwrap() == content(n), "file {n}");
            if n == 1 && push {
                let pushed = || mounted.stats().data.pushed_files;
                wait_until("something is pushed", || pushed() > 0);
            }
        }
        let reads = mounted.stats().read;
        crate::support::end(mounted);
        reads
    };
    let (with, without) = (reads_with(true), reads_with(false));
    assert!(with < without, "{with} reads with push, {without} without");
    assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn files_with_one_content_are_all_pushed_and_keep_their_own_metadata() {
    need_mounts!();
    let (fixture, files) = filled();
    let tree = fixture.tree();
    for n in 0..40 {
        let path = format!("twins/{n}");
        fixture.write(&path, b"the same content");
        let mode = fs::Permissions::from_mode(0o400 + n);
        fs::set_permissions(tree.join(path), mode).unwrap();
    }
    // Contents that are stored otherwise stand between them.
    fixture.write("large/file", &noise(700_000));
    let mounted = fixture.mounted();
    walk(&fixture, &mounted);
    for (path, _) in &files[..2] {
        fs::read(path).unwrap();
    }
    let all = (FILES - 2 + 40) as u64;
    wait_until("everything is pushed", || {
        mounted.stats().data.pushed_files >= all
    });
    let reads = mounted.stats().read;
    assert_equal(&tree, &fixture.mnt());
    assert_eq!(*fixture.told.lock().unwrap(), Vec::<String>::new());
    // The large file alone: at most one for each 64 KiB while read-ahead grows.
    assert!(mounted.stats().read - reads <= 11);
}

#[test]
fn readers_and_pushes_of_the_same_files_do_not_disturb_each_other() {
    need_mounts!();
    let (fixture, files) = filled();
    let id = fixture.commit("main");
    for _ in 0..3 {
        let mounted = fixture.mount(What::Commit(id));
        walk(&fixture, &mounted);
        std::thread::scope(|scope| {
            for reader in 0..4 {
                let files = &files;
                scope.spawn(move || {
                    for n in 0..FILES {
                        let (path, content) = &files[(n * 7 + reader * 150) % FILES];
                        assert!(fs::read(path).unwrap() == *content, "{}", path.display());
                    }
                });
            }
        });
        crate::support::end(mounted);
    }
}

#[test]
fn a_mount_without_push_reads_each_file_when_asked() {
    need_mounts!();
    let (fixture, files) = filled();
    let id = fixture.commit("main");
    let mounted = fixture.mount_with(id, |options| options.push = false);
    walk(&fixture, &mounted);
    for (path, content) in &files {
        assert!(fs::read(path).unwrap() == *content);
    }
    let stats = mounted.stats();
    assert_eq!((stats.read, stats.data.pushed_files), (FILES as u64, 0));
    // The one block was decoded once.
    assert!(stats.data.decoded_bytes < 6 << 20, "{stats:?}");
}

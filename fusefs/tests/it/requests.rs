//! How many requests a piece of work needs: exact, and the same on every machine.

use std::fs;
use std::path::Path;

use crate::need_mounts;
use crate::support::Fixture;

/// Lists, looks at and reads everything, as `tar` does.
fn read_all(dir: &Path) -> (usize, usize) {
    let (mut entries, mut dirs) = (0, 1);
    let paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in paths {
        entries += 1;
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            let (more_entries, more_dirs) = read_all(&path);
            entries += more_entries;
            dirs += more_dirs;
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap();
        } else {
            assert_eq!(fs::read(&path).unwrap().len() as u64, meta.len());
        }
    }
    (entries, dirs)
}

#[test]
fn a_second_look_at_everything_needs_no_request() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    for n in 0..500 {
        fixture.write(&format!("small/{}/{n}", n % 10), &vec![n as u8; n]);
    }
    let mounted = fixture.mounted();
    let start = mounted.stats();
    let (entries, dirs) = read_all(&fixture.mnt());
    let first = mounted.stats();
    assert_eq!(read_all(&fixture.mnt()), (entries, dirs));
    let second = mounted.stats().requests();
    assert_eq!(second, first.requests(), "after {entries} entries");

    // The first look: two pages for each directory (its entries, and the end), and each file read.
    let opened = (first.open, first.opendir, first.flush);
    assert_eq!(opened, (1, 1, 1), "asked once, then never again");
    assert_eq!(first.readdirplus - start.readdirplus, 2 * dirs as u64);
    assert_eq!(
        (first.readdir, first.lookup, first.getattr - start.getattr),
        (0, 0, 0)
    );
    assert_eq!(first.readlink, 3);
    assert_eq!((first.other, first.write), (0, 0));
}

#[test]
fn a_missing_name_is_asked_for_once() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    let mounted = fixture.mounted();
    let miss = || assert!(!fixture.mnt().join("missing").exists());
    miss();
    let after = mounted.stats().requests();
    for _ in 0..100 {
        miss();
    }
    assert_eq!(mounted.stats().requests(), after);
}

#[test]
fn reads_of_a_large_file_are_large() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("large", &vec![1; 64 << 20]);
    let mounted = fixture.mounted();
    assert_eq!(
        fs::read(fixture.mnt().join("large")).unwrap().len(),
        64 << 20
    );
    let reads = mounted.stats().read;
    // 1 MiB each once read-ahead has grown; 512 at the kernel's own 128 KiB.
    assert!(reads <= 160, "{reads}");
}

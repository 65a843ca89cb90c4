//! A mount shows exactly what was committed, and cannot be changed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use grove_fusefs::{What, mount};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::need_mounts;
use crate::support::{Fixture, assert_equal, describe, noise, walk};

#[test]
fn a_mounted_commit_equals_the_tree_it_was_made_from() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    let mounted = fixture.mounted();
    assert_equal(&fixture.tree(), &fixture.mnt());
    // Once more, from the kernel's caches.
    assert_equal(&fixture.tree(), &fixture.mnt());
    assert_eq!(mounted.path(), fixture.mnt());
    assert!(fixture.told.lock().unwrap().is_empty());
}

#[test]
fn parallel_readers_see_the_same() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    for n in 0..300 {
        fixture.write(&format!("many/{}/{n}", n % 7), &noise(n * 37));
    }
    let _mounted = fixture.mounted();
    let expected = walk(&fixture.tree());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(walk(&fixture.mnt()) == expected));
        }
    });
}

#[test]
fn a_directory_of_ten_thousand_entries_lists_each_once() {
    need_mounts!();
    let fixture = Fixture::new();
    let mut expected: Vec<OsString> = Vec::new();
    for n in 0..10_000 {
        let name = format!("entry-{n:05}-{}", "x".repeat(n % 50));
        fixture.write(&format!("big/{name}"), b"");
        expected.push(name.into());
    }
    for n in 0..500 {
        let name = format!("sub-{n:05}");
        fs::create_dir(fixture.tree().join("big").join(&name)).unwrap();
        expected.push(name.into());
    }
    let _mounted = fixture.mounted();
    let entries = fs::read_dir(fixture.mnt().join("big")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn names_may_have_255_bytes_and_not_more() {
    need_mounts!();
    let fixture = Fixture::new();
    let name = "n".repeat(255);
    fixture.write(&name, b"long");
    let _mounted = fixture.mounted();
    assert_eq!(fs::read(fixture.mnt().join(&name)).unwrap(), b"long");
    let error = fs::read(fixture.mnt().join(format!("{name}n"))).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::NAMETOOLONG.raw_os_error())
    );
}

#[test]
fn every_way_to_write_is_refused_with_erofs() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", b"x");
    fixture.write("dir/inner", b"x");
    let mounted = fixture.mounted();
    let mnt = fixture.mnt();
    let (file, dir, new) = (mnt.join("file"), mnt.join("dir"), mnt.join("new"));
    let open = |path: &Path, flags| rustix::fs::open(path, flags, Mode::RUSR).map(drop);
    let time = rustix::fs::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let no_flags = rustix::fs::AtFlags::empty();
    let io = |result: std::io::Result<()>| result.map_err(|e| Errno::from_io_error(&e).unwrap());
    let table = [
        ("open for writing", open(&file, OFlags::WRONLY)),
        ("open for both", open(&file, OFlags::RDWR)),
        (
            "open and truncate",
            open(&file, OFlags::RDONLY | OFlags::TRUNC),
        ),
        ("create", open(&new, OFlags::WRONLY | OFlags::CREATE)),
        (
            "temporary file",
            open(&dir, OFlags::WRONLY | OFlags::TMPFILE),
        ),
        ("mkdir", rustix::fs::mkdir(&new, Mode::RWXU)),
        ("mkfifo", rustix::fs::mkfifoat(CWD, &new, Mode::RWXU)),
        ("unlink", rustix::fs::unlink(&file)),
        ("rmdir", rustix::fs::rmdir(&dir)),
        ("rename", rustix::fs::rename(&file, &new)),
        ("hard link", rustix::fs::link(&file, &new)),
        ("symbolic link", io(symlink("x", &new))),
        ("chmod", rustix::fs::chmod(&file, Mode::RWXU)),
        (
            "chown",
            io(std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ),
        (
            "utimes",
            rustix::fs::utimensat(CWD, &file, &times, no_flags),
        ),
        (
            "setxattr",
            rustix::fs::setxattr(&file, "user.x", b"x", XattrFlags::empty()),
        ),
        ("removexattr", rustix::fs::removexattr(&file, "user.x")),
        (
            "access",
            rustix::fs::access(&file, rustix::fs::Access::WRITE_OK),
        ),
    ];
    for (what, result) in table {
        assert_eq!(result, Err(Errno::ROFS), "{what}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"x");
    assert_eq!(mounted.stats().write, 0, "the kernel refuses by itself");
}

#[test]
fn programs_run_and_modes_bind_other_users() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    let _mounted = fixture.mounted();
    let tool = fixture.mnt().join("usr/bin/tool");
    assert_eq!(Command::new(&tool).status().unwrap().code(), Some(7));
    let opened = fs::File::open(fixture.mnt().join("usr/lib/large")).unwrap();
    drop(opened);
    // The mount point's parents are private to root, so another user starts inside the mount.
    let as_nobody = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            script,
        ]);
        command.current_dir(fixture.mnt()).status().unwrap().code()
    };
    assert_eq!(as_nobody("usr/bin/tool"), Some(7));
    assert_eq!(as_nobody("cat usr/lib/twin-1 > /dev/null"), Some(0));
    assert_eq!(as_nobody("cat usr/lib/large 2> /dev/null"), Some(1));
    assert_eq!(as_nobody("ls a/b 2> /dev/null"), Some(2));
}

#[test]
fn figures_of_the_file_system_are_those_of_a_full_one() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("file", &noise(1 << 20));
    let _mounted = fixture.mounted();
    let figures = rustix::fs::statvfs(fixture.mnt()).unwrap();
    assert!(figures.f_blocks * figures.f_frsize >= 1 << 20);
    assert!(figures.f_files > 0);
    assert_eq!(
        (figures.f_bfree, figures.f_bavail, figures.f_ffree),
        (0, 0, 0)
    );
    assert_eq!(figures.f_namemax, 255);
    assert!(
        figures
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY)
    );
    assert!(
        figures
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::NOSUID)
    );
}

#[test]
fn identical_files_share_an_inode_also_across_commits() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.write("one/file", b"same");
    fixture.write("two/file", b"same");
    let first = fixture.commit("first");
    fixture.write("three/file", b"same");
    let second = fixture.commit("second");
    let mounted = fixture.mount(What::All);
    let at =
        |id, path: &str| fs::metadata(fixture.mnt().join(format!("commits/{id}/{path}"))).unwrap();
    let inodes = [
        at(first, "one/file"),
        at(first, "two/file"),
        at(second, "three/file"),
    ];
    assert!(
        inodes
            .iter()
            .all(|meta| (meta.ino(), meta.nlink()) == (inodes[0].ino(), 1))
    );
    assert_ne!(at(first, "one").ino(), at(first, "two").ino());
    assert_ne!(at(first, "one").ino(), at(second, "one").ino());
    // Read in one commit, the data is there for the other.
    let path = |id| fixture.mnt().join(format!("commits/{id}/one/file"));
    assert_eq!(fs::read(path(first)).unwrap(), b"same");
    let reads = mounted.stats().read;
    assert_eq!(fs::read(path(second)).unwrap(), b"same");
    assert_eq!(mounted.stats().read, reads);
}

#[test]
fn all_shows_refs_and_commits_as_they_come_and_go() {
    need_mounts!();
    let fixture = Fixture::new();
    fixture.fill_as_root();
    let first = fixture.commit("os/first");
    let _mounted = fixture.mount(What::All);
    let mnt = fixture.mnt();
    let names = |dir: &str| {
        let entries = fs::read_dir(mnt.join(dir)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["commits", "refs"]);
    assert_eq!(names("commits"), [first.to_string()]);
    assert_eq!(names("refs/os"), ["first"]);
    assert_equal(&fixture.tree(), &mnt.join("refs/os/first/"));
    assert!(!mnt.join("refs/second").exists());

    fixture.write("more", b"more");
    let second = fixture.commit("second");
    // A name that was missing is asked for again; a listing may be a second old.
    assert_eq!(fs::read(mnt.join("refs/second/more")).unwrap(), b"more");
    assert!(
        describe(&mnt.join(format!("commits/{second}/more")))
            == describe(&fixture.tree().join("more"))
    );
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(names("commits").len(), 2);
    assert_eq!(names("refs"), ["os", "second"]);
}

#[test]
fn a_missing_commit_is_not_mounted() {
    need_mounts!();
    let fixture = Fixture::new();
    let id = grove_engine::ObjectId::of(b"nothing");
    let options = fixture.options();
    let error = mount(
        fixture.repo.clone(),
        What::Commit(id),
        &fixture.mnt(),
        &options,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), format!("commit object {id} is missing"));
}

//! Mounts of several commits in one session, and the daemon that serves it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use grove_engine::ops::{PruneOptions, prune};
use grove_engine::{ObjectId, RefUpdate, Repository, Silent};
use grove_fusefs::daemon::{
    Daemon, DaemonOptions, MountRequest, Place, Shared, Stay, mount_shared, shared_stats,
};
use grove_fusefs::{MountAttrs, MountError, Numbering, Umount, mounts, umount};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind};

use crate::need_mounts;
use crate::support::{Fixture, assert_equal, noise};

/// Daemons that run as threads of the test.
struct House {
    fixture: Fixture,
    started: AtomicUsize,
    running: Mutex<Vec<Running>>,
}

struct Running {
    signal: UnixStream,
    thread: JoinHandle<Result<(), MountError>>,
}

impl House {
    fn new() -> Self {
        Self {
            fixture: Fixture::new(),
            started: AtomicUsize::new(0),
            running: Mutex::default(),
        }
    }

    fn place(&self) -> Place {
        Place::of(&self.fixture.repo_path()).unwrap()
    }

    fn start(&self) -> Result<(), MountError> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let (signal, signals) = UnixStream::pair().unwrap();
        let repo = Arc::new(Repository::open(&self.fixture.repo_path())?);
        let mut options = DaemonOptions::default();
        let told = Arc::clone(&self.fixture.told);
        options.on_error = Arc::new(move |text| told.lock().unwrap().push(text.to_owned()));
        let daemon = Daemon::start(repo, self.place(), options, Stay::WhileMounted)?;
        let thread = thread::spawn(move || daemon.run(signals.as_fd()));
        self.running
            .lock()
            .unwrap()
            .push(Running { signal, thread });
        Ok(())
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.fixture.mnt().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn request(rev: Option<&str>) -> MountRequest {
        MountRequest {
            rev: rev.map(str::to_owned),
            attrs: MountAttrs::default(),
            xattrs: true,
            numbering: Numbering::Shared,
        }
    }

    fn try_mount(&self, request: &MountRequest, at: &Path) -> Result<Shared, MountError> {
        mount_shared(&self.place(), request, at, || self.start())
    }

    /// Mounts a rev at a directory of this name.
    fn mount(&self, rev: &str, name: &str) -> PathBuf {
        let dir = self.dir(name);
        let shared = self.try_mount(&Self::request(Some(rev)), &dir).unwrap();
        assert!(matches!(shared, Shared::Mounted(Some(_))), "{shared:?}");
        dir
    }

    fn starts(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// Waits for the daemons to leave.
    fn wait(&self) {
        let running: Vec<_> = self.running.lock().unwrap().drain(..).collect();
        for daemon in running {
            daemon.thread.join().unwrap().unwrap();
            drop(daemon.signal);
        }
    }

    fn told(&self) -> Vec<String> {
        self.fixture.told.lock().unwrap().clone()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // After a failed test: nothing that the test made stays behind.
        for mount in mounts().unwrap_or_default() {
            if mount.point.starts_with(self.fixture.mnt()) {
                let _ = umount(&mount.point, Umount::Lazy);
            }
        }
    }
}

fn figure(house: &House, name: &str) -> u64 {
    let reports = shared_stats(&house.place()).unwrap();
    let figures = reports.iter().flat_map(|report| &report.figures);
    let named = figures.filter(|(known, _)| known == name);
    named.map(|(_, value)| value).sum()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "waited for: {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn commits_share_one_session_that_ends_after_the_last_mount() {
    need_mounts!();
    let house = House::new();
    house.fixture.fill_as_root();
    house.fixture.commit("old");
    let (one, two) = (house.mount("old", "one"), house.dir("two"));
    assert_equal(&house.fixture.tree(), &one);
    house.fixture.write("usr/added", b"added");
    house.fixture.commit("new");
    house.mount("new", "two");
    let inode = |dir: &Path| {
        let meta = fs::metadata(dir.join("usr/lib/large")).unwrap();
        (meta.dev(), meta.ino())
    };
    assert_eq!(inode(&one), inode(&two));
    let before = figure(&house, "requests.read");
    let large = fs::read(two.join("usr/lib/large")).unwrap();
    assert_eq!(large, noise(700_000));
    assert_eq!(
        figure(&house, "requests.read"),
        before,
        "read once for both commits"
    );
    assert_equal(&house.fixture.tree(), &two);
    assert!(!one.join("usr/added").exists());

    assert_eq!(house.starts(), 1);
    umount(&one, Umount::Unused).unwrap();
    assert!(two.join("usr/added").exists());
    umount(&two, Umount::Unused).unwrap();
    house.wait();
    assert_eq!(shared_stats(&house.place()).unwrap(), []);
    assert_eq!(house.told(), Vec::<String>::new());
}

#[test]
fn nothing_but_what_was_asked_for_is_mounted() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    let id = house.fixture.commit("main");
    let one = house.mount("main", "one");
    let all = house.dir("all");
    house.try_mount(&House::request(None), &all).unwrap();
    let here: Vec<_> = mounts().unwrap();
    let here: Vec<_> = here
        .into_iter()
        .filter(|mount| mount.repository == house.place().repository())
        .map(|mount| (mount.point, mount.commit, mount.options))
        .collect();
    let options = "ro,nosuid,nodev,noatime".to_owned();
    assert_eq!(
        here,
        [
            (one.clone(), Some(id), options.clone()),
            (all.clone(), None, options)
        ]
    );
    let below = all.join("commits").join(id.to_string()).join("file");
    assert_eq!(fs::read(below).unwrap(), b"x");
    umount(&one, Umount::Unused).unwrap();
    umount(&all, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn each_mount_has_its_own_rights() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    house.fixture.commit("main");
    let table = [
        ("a", MountAttrs::default(), "ro,nosuid,nodev,noatime"),
        ("b", attrs(true, true, true), "ro,noatime"),
        ("c", attrs(false, true, false), "ro,nosuid,noexec,noatime"),
        ("d", attrs(true, false, true), "ro,nodev,noatime"),
        ("e", MountAttrs::default(), "ro,nosuid,nodev,noatime"),
    ];
    for (name, attrs, expected) in table {
        let mut request = House::request(Some("main"));
        request.attrs = attrs;
        let dir = house.dir(name);
        house.try_mount(&request, &dir).unwrap();
        let all = mounts().unwrap();
        let mount = all.iter().rfind(|mount| mount.point == dir).unwrap();
        assert_eq!(mount.options, expected, "{name}");
    }
    for (name, ..) in table {
        umount(&house.dir(name), Umount::Unused).unwrap();
    }
    house.wait();
}

fn attrs(suid: bool, dev: bool, exec: bool) -> MountAttrs {
    MountAttrs { suid, dev, exec }
}

#[test]
fn without_xattrs_the_kernel_is_told_once() {
    need_mounts!();
    let house = House::new();
    house.fixture.fill();
    house.fixture.commit("main");
    let mut request = House::request(Some("main"));
    request.xattrs = false;
    let (plain, full) = (house.dir("plain"), house.mount("main", "full"));
    house.try_mount(&request, &plain).unwrap();
    let get = |dir: &Path| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(dir.join("usr/lib/large"), "user.note", &mut value[..])
    };
    assert_eq!(get(&full).unwrap(), 8);
    assert_eq!(get(&plain).unwrap_err(), Errno::OPNOTSUPP);
    let before = figure(&house, "requests.getxattr");
    for _ in 0..10 {
        get(&plain).unwrap_err();
    }
    assert_eq!(figure(&house, "requests.getxattr"), before);
    let device = |dir: &Path| fs::metadata(dir).unwrap().dev();
    assert_ne!(device(&full), device(&plain));
    let reports = shared_stats(&house.place()).unwrap();
    let xattrs: Vec<_> = reports.iter().map(|report| report.xattrs).collect();
    assert_eq!(xattrs, [true, false]);
    umount(&plain, Umount::Unused).unwrap();
    umount(&full, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn a_commit_that_is_known_to_have_no_xattrs_goes_where_there_are_none() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    let id = house.fixture.commit("main");
    grove_fusefs::image::prepare(&house.fixture.repo, &id).unwrap();
    let one = house.mount("main", "one");
    let reports = shared_stats(&house.place()).unwrap();
    assert_eq!(reports.len(), 1);
    assert!(!reports[0].xattrs);
    umount(&one, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn paths_have_numbers_of_their_own_where_that_is_asked_for() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("a", b"same");
    house.fixture.write("b", b"same");
    let id = house.fixture.commit("main");
    let mut request = House::request(Some("main"));
    request.numbering = Numbering::Unique;
    let (one, unique) = (house.mount("main", "one"), house.dir("unique"));
    house.try_mount(&request, &unique).unwrap();
    let inode = |dir: &Path, name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    assert_eq!(inode(&one, "a"), inode(&one, "b"));
    assert_ne!(inode(&unique, "a"), inode(&unique, "b"));
    let all = mounts().unwrap();
    let mount = all.iter().find(|mount| mount.point == unique).unwrap();
    assert_eq!(mount.commit, Some(id));
    umount(&one, Umount::Unused).unwrap();
    umount(&unique, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn a_second_look_at_a_shared_mount_needs_no_request_later_either() {
    need_mounts!();
    let house = House::new();
    house.fixture.fill_as_root();
    house.fixture.commit("main");
    let one = house.mount("main", "one");
    let look = || {
        let paths = walkdir(&one);
        // Not through links: one leads to a name that is too long to be remembered as missing.
        let is_file = |path: &&PathBuf| fs::symlink_metadata(path).unwrap().is_file();
        for path in paths.iter().filter(is_file) {
            fs::read(path).unwrap();
        }
        paths.len()
    };
    let all = || shared_stats(&house.place()).unwrap().remove(0).figures;
    look();
    // The directory above the commits may change, so what the kernel knows of it, and of where the
    // commit is in it, holds for a second. The commit's own attributes hold for ever once asked for.
    thread::sleep(Duration::from_millis(1100));
    look();
    let before = all();
    thread::sleep(Duration::from_millis(1100));
    assert!(look() > 10);
    assert_eq!(all(), before);
    umount(&one, Umount::Unused).unwrap();
    house.wait();
}

fn walkdir(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let path = found[next].clone();
        next += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

#[test]
fn many_at_once_start_one_daemon_and_all_get_their_mount() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    house.fixture.commit("main");
    let names: Vec<_> = (0..8).map(|n| n.to_string()).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| assert!(house.mount("main", name).join("file").exists()));
        }
    });
    assert_eq!(house.starts(), 1);
    for name in &names {
        umount(&house.dir(name), Umount::Unused).unwrap();
    }
    house.wait();
}

#[test]
fn a_daemon_that_leaves_just_now_is_replaced() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    house.fixture.commit("main");
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let house = &house;
            scope.spawn(move || {
                for round in 0..20 {
                    let dir = house.mount("main", name);
                    assert_eq!(fs::read(dir.join("file")).unwrap(), b"x", "{name} {round}");
                    umount(&dir, Umount::Unused).unwrap();
                }
            });
        }
    });
    house.wait();
    assert!(house.starts() >= 1);
    assert_eq!(shared_stats(&house.place()).unwrap(), []);
    assert_eq!(house.told(), Vec::<String>::new());
}

#[test]
fn of_two_mounts_at_one_directory_one_is_refused() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    house.fixture.commit("main");
    let dir = house.dir("one");
    let try_it = || house.try_mount(&House::request(Some("main")), &dir);
    let results = thread::scope(|scope| {
        let other = scope.spawn(try_it);
        [try_it(), other.join().unwrap()]
    });
    let good = results.iter().filter(|result| result.is_ok()).count();
    let refused = |result: &&Result<Shared, MountError>| {
        matches!(result, Err(MountError::AlreadyMounted { .. }))
    };
    assert_eq!(
        (good, results.iter().filter(refused).count()),
        (1, 1),
        "{results:?}"
    );
    umount(&dir, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn what_cannot_be_mounted_is_refused_and_the_daemon_leaves() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"x");
    house.fixture.commit("main");
    let dir = house.dir("one");
    let shared = house
        .try_mount(&House::request(Some("none")), &dir)
        .unwrap();
    assert!(
        matches!(&shared, Shared::Not(why) if why.contains("none")),
        "{shared:?}"
    );
    house.wait();
}

fn forget(house: &House, branch: &str) {
    let update = RefUpdate {
        name: branch.into(),
        expected: None,
        new: None,
    };
    house.fixture.repo.update_refs(&[update]).unwrap();
}

fn leased(house: &House) -> Vec<ObjectId> {
    let repo = Repository::open(&house.fixture.repo_path()).unwrap();
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        dry_run: true,
        ..Default::default()
    };
    prune(&repo, &options, &Silent).unwrap().leased
}

#[test]
fn a_commit_is_kept_for_as_long_as_it_is_mounted() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"1");
    let dead = house.fixture.commit("dead");
    house.fixture.write("file", b"2");
    house.fixture.commit("main");
    let (one, two) = (house.mount("dead", "one"), house.dir("two"));
    forget(&house, "dead");
    house.mount("main", "two");
    assert_eq!(leased(&house), [dead]);
    // Also for a part of it that is bound elsewhere.
    let bound = house.dir("bound");
    mount_bind(&one, &bound).unwrap();
    umount(&one, Umount::Unused).unwrap();
    let again = house.mount("main", "again");
    assert_eq!(leased(&house), [dead]);
    umount(&bound, Umount::Unused).unwrap();
    until("the lease to end", || leased(&house).is_empty());
    for dir in [two, again] {
        umount(&dir, Umount::Unused).unwrap();
    }
    house.wait();
}

#[test]
fn a_signal_takes_every_mount_away() {
    need_mounts!();
    let house = House::new();
    house.fixture.write("file", b"to the end");
    house.fixture.commit("main");
    let one = house.mount("main", "one");
    let bound = house.dir("bound");
    mount_bind(&one, &bound).unwrap();
    let mut file = File::open(bound.join("file")).unwrap();
    let daemon = house.running.lock().unwrap().pop().unwrap();
    (&daemon.signal).write_all(&[0]).unwrap();
    until("the mounts to go", || {
        !one.join("file").exists() && !bound.join("file").exists()
    });
    // Whoever has a file open is served to the end.
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "to the end");
    assert!(!daemon.thread.is_finished());
    drop(file);
    daemon.thread.join().unwrap().unwrap();
    let told = house.told();
    assert!(
        told.iter().any(|line| line.contains("is in use by")),
        "{told:?}"
    );
}

/// Two mounts of one session, which is aborted as umount(8) does it for -f while a file is open.
fn aborted(house: &House, before: impl FnOnce(&Path)) -> [PathBuf; 2] {
    house.fixture.write("file", b"x");
    let id = house.fixture.commit("main");
    // Or the second mount may know meanwhile that the commit has no xattrs, and go to another session.
    grove_fusefs::image::prepare(&house.fixture.repo, &id).unwrap();
    let dirs = [house.mount("main", "one"), house.mount("main", "two")];
    let _open = File::open(dirs[0].join("file")).unwrap();
    before(&dirs[1]);
    // It is refused as busy, unless the mount is gone before the kernel looks.
    let refused = rustix::mount::unmount(&dirs[0], UnmountFlags::FORCE).unwrap_err();
    assert!(matches!(refused, Errno::BUSY | Errno::INVAL), "{refused:?}");
    dirs
}

fn is_empty(dir: &PathBuf) -> bool {
    fs::read_dir(dir).is_ok_and(|mut all| all.next().is_none())
}

#[test]
fn a_session_that_is_aborted_leaves_no_dead_mount() {
    need_mounts!();
    let house = House::new();
    let dirs = aborted(&house, |_| {});
    until("the mounts to go", || dirs.iter().all(is_empty));
    house.wait();
    let again = house.mount("main", "one");
    assert_eq!(fs::read(again.join("file")).unwrap(), b"x");
    assert_eq!(house.starts(), 2);
    umount(&again, Umount::Unused).unwrap();
    house.wait();
}

#[test]
fn a_dead_mount_below_another_goes_once_it_can() {
    need_mounts!();
    let house = House::new();
    let cover = |dir: &Path| {
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(dir.join("above"), b"x").unwrap();
    };
    let [one, two] = aborted(&house, cover);
    until("the mount to go", || is_empty(&one));
    // What somebody else has mounted is left alone.
    assert!(two.join("above").exists());
    rustix::mount::unmount(&two, UnmountFlags::empty()).unwrap();
    until("the mount that was below to go", || is_empty(&two));
    house.wait();
}

#[test]
fn a_repository_that_goes_away_and_comes_back_is_served_again() {
    need_mounts!();
    let house = House::new();
    for n in 0..40 {
        house
            .fixture
            .write(&format!("file{n}"), &noise(200_000 + n));
    }
    house.fixture.commit("main");
    let one = house.mount("main", "one");
    let names: Vec<_> = fs::read_dir(&one)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(names.len(), 40);
    let (repo, away) = (house.fixture.repo_path(), house.fixture.tree().join("away"));
    fs::rename(&repo, &away).unwrap();
    for path in &names {
        assert_eq!(fs::read(path).unwrap_err().raw_os_error(), Some(5));
    }
    let told = house.told();
    assert!(
        told.iter().any(|line| line.contains("/file7\" (file ")),
        "{}",
        told[0]
    );
    fs::rename(&away, &repo).unwrap();
    for n in 0..40 {
        let path = one.join(format!("file{n}"));
        assert_eq!(fs::read(path).unwrap(), noise(200_000 + n));
    }
    umount(&one, Umount::Unused).unwrap();
    house.wait();
}

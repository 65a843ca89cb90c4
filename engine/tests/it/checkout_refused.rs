//! Checkouts into places that are full or cannot be written to: an error that names the file, and
//! nothing that keeps the next run from making the whole tree.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use grove_engine::ops::checkout::{CheckoutOptions, checkout, update};
use grove_engine::{Error, ObjectId, Repository, Silent};
use tempfile::TempDir;

use crate::support::{Mount, commit_dir, list_dir, noise, run};

const FILE: usize = 128 << 10;

/// What is done to the target.
type Action = fn(&Scene, &CheckoutOptions) -> Result<(), Error>;

/// A repository on a file system of its own, two versions of a tree, and a place for checkouts.
struct Scene {
    repo: Repository,
    commits: [ObjectId; 2],
    disk: PathBuf,
    // In this order: what is mounted goes before the directory that it is in.
    _mount: Mount,
    dir: TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let mount = Mount::disk(&disk, 32 << 20)?;
        let repo = Repository::init(&disk.join("repo")).unwrap();
        fs::create_dir(disk.join("place")).unwrap();
        let commit = |name: &str, files: std::ops::Range<u64>| {
            let tree = dir.path().join(name);
            for n in files {
                let dir = tree.join(format!("dir{}", n % 3));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join(n.to_string()), noise(n, FILE)).unwrap();
                fs::write(dir.join(format!("small{n}")), n.to_string()).unwrap();
                std::os::unix::fs::symlink("nowhere", dir.join(format!("link{n}"))).unwrap();
            }
            commit_dir(&repo, "os", &tree).unwrap().0
        };
        // The second one has others, and more of them.
        let commits = [commit("tree0", 0..12), commit("tree1", 6..30)];
        Some(Self {
            commits,
            disk,
            repo,
            _mount: mount,
            dir,
        })
    }

    fn out(&self) -> PathBuf {
        self.disk.join("place/out")
    }

    fn checkout(&self, version: usize, options: &CheckoutOptions) -> Result<(), Error> {
        let id = &self.commits[version];
        checkout(&self.repo, id, &self.out(), options, &Silent).map(drop)
    }

    fn update(&self, options: &CheckoutOptions) -> Result<(), Error> {
        update(&self.repo, &self.commits[1], &self.out(), options, &Silent).map(drop)
    }

    /// Leaves room for so many bytes; gives the file that takes the rest.
    fn fill(&self, room: u64) -> PathBuf {
        let space = rustix::fs::statvfs(&self.disk).unwrap();
        let free = space.f_bavail * space.f_frsize;
        let ballast = self.disk.join("ballast");
        let bytes = usize::try_from(free.saturating_sub(room)).unwrap();
        fs::write(&ballast, vec![1; bytes]).unwrap();
        ballast
    }

    fn assert_whole(&self) {
        assert_eq!(
            list_dir(&self.out()),
            list_dir(&self.dir.path().join("tree1"))
        );
        assert_eq!(unfinished(&self.disk), Vec::<PathBuf>::new());
    }
}

/// Files that were being written.
fn unfinished(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(unfinished(&entry.path()));
        } else if entry.file_name().to_string_lossy().starts_with(".grove-") {
            found.push(entry.path());
        }
    }
    found
}

/// Fails as it must, with an error that names something below one of the directories.
fn assert_refused(done: Result<(), Error>, kind: ErrorKind, below: &[PathBuf]) {
    let error = done.unwrap_err();
    let Error::Io { path, source } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), kind, "{error}: {source}");
    assert!(below.iter().any(|dir| path.starts_with(dir)), "{error}");
}

fn options(hard_links: bool) -> CheckoutOptions {
    CheckoutOptions {
        hard_links,
        ..CheckoutOptions::default()
    }
}

/// With hard links or not; whether there is a checkout of the first version; what is tried.
const CASES: [(bool, bool, Action); 4] = [
    (false, false, |scene, options| scene.checkout(1, options)),
    (true, false, |scene, options| scene.checkout(1, options)),
    (false, true, |scene, options| scene.update(options)),
    (true, true, |scene, options| scene.update(options)),
];

#[test]
fn what_a_full_disk_cut_short_is_finished_when_there_is_room() {
    for (hard_links, updates, act) in CASES {
        let Some(scene) = Scene::new() else {
            return;
        };
        let options = options(hard_links);
        if updates {
            scene.checkout(0, &options).unwrap();
        }
        let ballast = scene.fill(5 * FILE as u64);
        for _ in 0..2 {
            assert_refused(
                act(&scene, &options),
                ErrorKind::StorageFull,
                &[scene.out(), scene.repo.path().join("cache")],
            );
            assert_eq!(unfinished(&scene.disk), Vec::<PathBuf>::new());
        }
        fs::remove_file(ballast).unwrap();
        act(&scene, &options).unwrap();
        scene.assert_whole();
    }
}

#[test]
fn a_place_that_is_only_read_is_named_and_left_as_it_is() {
    for (hard_links, updates, act) in CASES {
        let Some(scene) = Scene::new() else {
            return;
        };
        let options = options(hard_links);
        let place = scene.disk.join("place");
        if updates {
            scene.checkout(0, &options).unwrap();
        }
        let before = list_dir(&place);
        let source = place.to_str().unwrap();
        let Some(bound) = Mount::new(&place, &["--bind", source]) else {
            return;
        };
        let mut remount = Command::new("mount");
        run(remount.args(["-o", "remount,bind,ro"]).arg(&place));
        assert_refused(
            act(&scene, &options),
            ErrorKind::ReadOnlyFilesystem,
            &[scene.out()],
        );
        assert_eq!(list_dir(&place), before);
        drop(bound);
        act(&scene, &options).unwrap();
        scene.assert_whole();
    }
}

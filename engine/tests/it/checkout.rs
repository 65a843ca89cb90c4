//! Checkouts are whole, go on after an interruption, follow updates, and share files safely.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use grove_engine::monitor::Phase;
use grove_engine::ops::checkout::{CheckoutOptions, Durability, Union, checkout, update};
use grove_engine::{Error, Monitor, ObjectId, Repository, Silent};
use tempfile::{TempDir, tempdir};

use crate::support::{Listing, commit_dir, cpio, list_dir, make_tree, noise};

/// A repository with two versions of a tree, and the listings of both.
struct Scene {
    dir: TempDir,
    repo: Repository,
    commits: [ObjectId; 2],
    listings: [Listing; 2],
}

/// Without owners and set-user-ID bits, so that it needs no rights.
fn options() -> CheckoutOptions {
    CheckoutOptions {
        user_mode: true,
        ..CheckoutOptions::default()
    }
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

impl Scene {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let repo = Repository::init(&dir.path().join("repo")).unwrap();
        let tree = dir.path().join("tree");
        make_tree(&tree, 1);
        fs::set_permissions(tree.join("usr/bin/su"), fs::Permissions::from_mode(0o755)).unwrap();
        let large = noise(9, 700_000);
        for copy in 0..70 {
            write(&tree, &format!("large/{copy}"), &large);
        }
        write(&tree, "becomes-dir", b"file");
        write(&tree, "becomes-file/below/x", b"x");
        write(&tree, "removed/deep/x", b"x");
        symlink("one", tree.join("retargeted")).unwrap();
        let first = commit_dir(&repo, "os", &tree).unwrap().0;
        let before = list_dir(&tree);
        for gone in ["becomes-file", "removed"] {
            fs::remove_dir_all(tree.join(gone)).unwrap();
        }
        for gone in ["becomes-dir", "retargeted", "usr/link", "large/7"] {
            fs::remove_file(tree.join(gone)).unwrap();
        }
        write(&tree, "becomes-dir/now/y", b"y");
        write(&tree, "becomes-file", b"now a file");
        symlink("two", tree.join("retargeted")).unwrap();
        write(&tree, "usr/link", b"no link any more");
        write(&tree, "large/3", &noise(10, 800_000));
        write(&tree, "usr/new/file", b"new");
        for (name, mode) in [("private", 0o700), ("usr/same-1", 0o600)] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let second = commit_dir(&repo, "os", &tree).unwrap().0;
        Self {
            commits: [first, second],
            listings: [before, list_dir(&tree)],
            dir,
            repo,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn checkout(&self, version: usize, name: &str, options: &CheckoutOptions) -> Result<(), Error> {
        let id = &self.commits[version];
        checkout(&self.repo, id, &self.path(name), options, &Silent).map(drop)
    }
}

/// Stops after so many entries.
#[derive(Debug)]
struct StopAfter(AtomicUsize);

impl StopAfter {
    fn new(entries: usize) -> Self {
        Self(AtomicUsize::new(entries))
    }
}

impl Monitor for StopAfter {
    fn advance(&self, phase: Phase, _: u64) {
        if phase == Phase::Checkout {
            let _ = self
                .0
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// Everything has the time that marks it as whole.
fn assert_times(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (stat.mtime(), stat.mtime_nsec()),
            (0, 0),
            "{}",
            path.display()
        );
        if stat.is_dir() {
            assert_times(&path);
        }
    }
}

#[test]
fn an_interrupted_checkout_is_finished_by_the_same_call() {
    let scene = Scene::new();
    let mut interrupted = 0;
    for entries in [1, 20, 60] {
        let name = format!("out{entries}");
        let out = scene.path(&name);
        let stopped = checkout(
            &scene.repo,
            &scene.commits[0],
            &out,
            &options(),
            &StopAfter::new(entries),
        );
        match stopped {
            Err(Error::Cancelled) => interrupted += 1,
            // What is begun is ended: the rest may have been in hand already.
            Ok(_) => {
                assert_eq!(list_dir(&out), scene.listings[0], "{entries}");
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        // A file that a kill cut short, and a commit that is not the one that was begun.
        if out.join("usr/sizes/4096").exists() {
            write(&out, "usr/sizes/4096", b"cut");
        }
        assert!(scene.checkout(1, &name, &options()).is_err());
        scene.checkout(0, &name, &options()).unwrap();
        assert_eq!(list_dir(&out), scene.listings[0], "{entries}");
        assert_times(&out);
        assert!(
            scene.checkout(0, &name, &options()).is_err(),
            "it is finished"
        );
    }
    assert!(interrupted > 0, "none was interrupted");
}

#[test]
fn an_update_gives_what_a_new_checkout_gives() {
    let scene = Scene::new();
    let out = scene.path("out");
    for hard_links in [false, true] {
        let options = CheckoutOptions {
            hard_links,
            ..options()
        };
        scene.checkout(0, "out", &options).unwrap();
        for version in [1, 0, 0, 1] {
            let id = &scene.commits[version];
            update(&scene.repo, id, &out, &CheckoutOptions::default(), &Silent).unwrap();
            assert_eq!(
                list_dir(&out),
                scene.listings[version],
                "{hard_links} {version}"
            );
            assert_times(&out);
        }
        // What is not of the commit stays, and so does what did not change.
        write(&out, "usr/new/foreign", b"mine");
        fs::remove_file(out.join("usr/bin/tool")).unwrap();
        update(&scene.repo, &scene.commits[0], &out, &options, &Silent).unwrap();
        assert_eq!(fs::read(out.join("usr/new/foreign")).unwrap(), b"mine");
        assert!(!out.join("usr/bin/tool").exists());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn an_update_takes_attributes_from_directories_that_the_commit_does_not_have() {
    let dir = tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let tree = dir.path().join("tree");
    write(&tree, "marked/file", b"1");
    let attribute = |of: &Path, name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(of, name, &mut value[..]).is_ok()
    };
    let mark = |of: &Path, name: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(of, name, b"1", flags)
    };
    if let Err(error) = mark(&tree.join("marked"), "user.old") {
        println!("skipped: no attributes here: {error}");
        return;
    }
    mark(&tree, "user.old").unwrap();
    let first = commit_dir(&repo, "os", &tree).unwrap().0;
    for place in [&tree, &tree.join("marked")] {
        rustix::fs::removexattr(place, "user.old").unwrap();
        mark(place, "user.new").unwrap();
    }
    let second = commit_dir(&repo, "os", &tree).unwrap().0;
    let out = dir.path().join("out");
    let options = CheckoutOptions::default();
    checkout(&repo, &first, &out, &options, &Silent).unwrap();
    mark(&out.join("marked"), "user.mine").unwrap();
    update(&repo, &second, &out, &options, &Silent).unwrap();
    for place in [&out, &out.join("marked")] {
        assert!(!attribute(place, "user.old"), "{}", place.display());
        assert!(attribute(place, "user.new"), "{}", place.display());
    }
    assert!(attribute(&out.join("marked"), "user.mine"));
}

#[test]
fn an_interrupted_update_goes_on_to_any_commit() {
    let scene = Scene::new();
    let out = scene.path("out");
    for (entries, target) in [(1, 1), (2, 0), (4, 1), (4, 0)] {
        scene.checkout(0, "out", &options()).unwrap();
        let monitor = StopAfter::new(entries);
        let stopped = update(&scene.repo, &scene.commits[1], &out, &options(), &monitor);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        update(
            &scene.repo,
            &scene.commits[target],
            &out,
            &options(),
            &Silent,
        )
        .unwrap();
        assert_eq!(list_dir(&out), scene.listings[target], "{entries} {target}");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn only_known_checkouts_are_updated() {
    let scene = Scene::new();
    let out = scene.path("tree");
    let refused = update(&scene.repo, &scene.commits[0], &out, &options(), &Silent);
    assert!(
        matches!(refused, Err(Error::UnknownCheckout { .. })),
        "{refused:?}"
    );
    assert_eq!(list_dir(&out), scene.listings[1]);
}

#[test]
fn hard_links_share_files_and_never_what_was_written_through_one() {
    let scene = Scene::new();
    let linked = CheckoutOptions {
        hard_links: true,
        ..options()
    };
    let inode = |name: &str| {
        fs::metadata(scene.path(name).join("usr/bin/tool"))
            .unwrap()
            .ino()
    };
    scene.checkout(0, "a", &linked).unwrap();
    scene.checkout(0, "b", &linked).unwrap();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(list_dir(&scene.path("b")), scene.listings[0]);
    // Empty files are not worth a link, and everybody writes to them.
    assert_eq!(fs::metadata(scene.path("a/usr/empty")).unwrap().nlink(), 1);
    let tool = scene.path("a/usr/bin/tool");
    let size = fs::metadata(&tool).unwrap().len() as usize;
    fs::write(&tool, noise(77, size)).unwrap();
    let sizes = scene.path("a/usr/sizes/4095");
    fs::set_permissions(&sizes, fs::Permissions::from_mode(0o666)).unwrap();
    // Nor what a time that was set back hides, whether it is known what the file looked like or not.
    let set_back = |name: &str| {
        let path = scene.path(name);
        let size = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, noise(78, size)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    set_back("a/usr/sizes/4096");
    scene.checkout(0, "c", &linked).unwrap();
    assert_ne!(inode("a"), inode("c"));
    assert_eq!(list_dir(&scene.path("c")), scene.listings[0]);
    scene.checkout(0, "d", &options()).unwrap();
    assert_eq!(list_dir(&scene.path("d")), scene.listings[0]);
    set_back("c/usr/sizes/131073");
    let links = scene.path("repo/cache/links");
    for kind in fs::read_dir(links).unwrap() {
        fs::remove_file(kind.unwrap().path().join("seen")).unwrap();
    }
    scene.checkout(0, "e", &linked).unwrap();
    assert_eq!(list_dir(&scene.path("e")), scene.listings[0]);
    // Laid over itself, every name already is the file that it is to be.
    let over = CheckoutOptions {
        union: Union::Overwrite,
        ..linked
    };
    scene.checkout(0, "e", &over).unwrap();
    assert_eq!(list_dir(&scene.path("e")), scene.listings[0]);
}

#[test]
fn the_root_gets_the_metadata_of_the_commit() {
    let scene = Scene::new();
    scene.checkout(0, "a", &options()).unwrap();
    let stat = fs::metadata(scene.path("a")).unwrap();
    assert_eq!((stat.mtime(), stat.mode() & 0o7777), (0, 0o755));
}

#[test]
fn what_takes_long_to_make_is_made_once_for_all_checkouts() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let archive = cpio(&[
        ("usr/a", &noise(1, 4_500_000)),
        ("usr/b", &noise(2, 4_500_000)),
    ]);
    let packed = zstd::bulk::compress(&archive, 3).unwrap();
    write(&at("tree"), "boot/initrd", &packed);
    let repo = Repository::init(&at("repo")).unwrap();
    let id = commit_dir(&repo, "os", &at("tree")).unwrap().0;
    checkout(&repo, &id, &at("first"), &options(), &Silent).unwrap();
    let copies: Vec<_> = fs::read_dir(at("repo/cache/plain")).unwrap().collect();
    let [Ok(copy)] = copies.as_slice() else {
        panic!("{copies:?}");
    };
    assert!(fs::read(copy.path()).unwrap() == packed);
    let repo = Repository::open(&at("repo")).unwrap();
    checkout(&repo, &id, &at("second"), &options(), &Silent).unwrap();
    let decoded = repo.cache_counts().decoded_bytes;
    assert!(decoded < packed.len() as u64 / 2, "{decoded} bytes");
    for name in ["first", "second"] {
        assert_eq!(list_dir(&at(name)), list_dir(&at("tree")), "{name}");
    }
}

#[test]
fn an_update_reads_each_listing_once_however_much_in_it_has_changed() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let repo = Repository::init(&at("repo")).unwrap();
    let commits = ["old", "new"].map(|version| {
        for n in 0..400 {
            write(
                &at("tree"),
                &format!("usr/share/{n}"),
                format!("{version} {n}").as_bytes(),
            );
        }
        commit_dir(&repo, "os", &at("tree")).unwrap().0
    });
    checkout(&repo, &commits[0], &at("out"), &options(), &Silent).unwrap();
    let repo = Repository::open(&at("repo")).unwrap();
    update(&repo, &commits[1], &at("out"), &options(), &Silent).unwrap();
    let counts = repo.cache_counts();
    assert!(counts.hits + counts.misses < 200, "{counts:?}");
    assert_eq!(list_dir(&at("out")), list_dir(&at("tree")));
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Monitor for Told {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn an_update_never_writes_through_a_link_that_took_the_place_of_a_directory() {
    let scene = Scene::new();
    let out = scene.path("out");
    scene.checkout(0, "out", &options()).unwrap();
    // Of one entries change, of the other the mode.
    let links = ["large", "private"];
    for name in links {
        let elsewhere = scene.path(&format!("elsewhere-{name}"));
        fs::rename(out.join(name), &elsewhere).unwrap();
        symlink(&elsewhere, out.join(name)).unwrap();
    }
    let elsewhere = links.map(|name| list_dir(&scene.path(&format!("elsewhere-{name}"))));
    let monitor = Told::default();
    let update = |version: usize, monitor: &dyn Monitor| {
        update(
            &scene.repo,
            &scene.commits[version],
            &out,
            &options(),
            monitor,
        )
        .unwrap()
    };
    assert_eq!(update(1, &monitor).left_out, 3);
    let mut told = monitor.0.into_inner().unwrap();
    told.sort();
    assert!(
        told[0].starts_with("/large is no directory any more"),
        "{told:?}"
    );
    assert!(told[1].starts_with("/private is no directory"), "{told:?}");
    for (name, before) in links.iter().zip(&elsewhere) {
        assert!(fs::symlink_metadata(out.join(name)).unwrap().is_symlink());
        assert_eq!(list_dir(&scene.path(&format!("elsewhere-{name}"))), *before);
    }
    let rest = |listing: &Listing| -> Listing {
        let of_link = |path: &str| {
            links
                .iter()
                .any(|name| path.starts_with(&format!("/{name}")))
        };
        let rest = listing.iter().filter(|(path, _)| !of_link(path));
        rest.map(|(path, what)| (path.clone(), what.clone()))
            .collect()
    };
    assert_eq!(rest(&list_dir(&out)), rest(&scene.listings[1]));
    // Once the directory is back, later updates change it again.
    fs::remove_file(out.join("private")).unwrap();
    fs::create_dir(out.join("private")).unwrap();
    update(0, &Silent);
    assert_eq!(
        fs::metadata(out.join("private")).unwrap().mode() & 0o7777,
        0o1777
    );
}

#[test]
fn what_an_interrupted_run_or_the_cache_left_is_made_durable_like_the_rest() {
    let scene = Scene::new();
    let id = &scene.commits[0];
    let each = CheckoutOptions {
        durability: Durability::Each,
        ..options()
    };
    let listing = &scene.listings[0];
    let links = ["/usr/link", "/dangling", "/retargeted"];
    // All but symbolic links, and the directory above.
    let all = (listing.len() - links.len() + 1) as u64;
    let stopped = checkout(
        &scene.repo,
        id,
        &scene.path("out"),
        &options(),
        &StopAfter::new(20),
    );
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let done = checkout(&scene.repo, id, &scene.path("out"), &each, &Silent).unwrap();
    assert!(done.kept > 0, "{done:?}");
    assert_eq!(done.synced, all);
    let linked = |durability| CheckoutOptions {
        hard_links: true,
        durability,
        ..options()
    };
    scene
        .checkout(0, "cached", &linked(Durability::None))
        .unwrap();
    let options = linked(Durability::Each);
    let done = checkout(&scene.repo, id, &scene.path("linked"), &options, &Silent).unwrap();
    assert_eq!(done.synced, all);
    // Directories that were there have got new names in them.
    fs::create_dir_all(scene.path("union/usr")).unwrap();
    let options = CheckoutOptions {
        union: Union::Add,
        ..each
    };
    let done = checkout(&scene.repo, id, &scene.path("union"), &options, &Silent).unwrap();
    assert_eq!(done.synced, all - 1);
}

/// A file system of its own, in an image.
struct Loop(TempDir);

impl Loop {
    /// `None` where the machine cannot do that, which it says.
    fn new() -> Option<Self> {
        let dir = tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("mounted"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = std::process::Command::new(program).args(args).output();
            done.is_ok_and(|done| done.status.success())
        };
        let made = run("mkfs.btrfs", &["-q".as_ref(), image.as_os_str()]);
        let options: [&std::ffi::OsStr; 2] = ["-o".as_ref(), "loop".as_ref()];
        if made
            && run(
                "mount",
                &[&options[..], &[image.as_os_str(), at.as_os_str()]].concat(),
            )
        {
            return Some(Self(dir));
        }
        println!("skipped: needs mkfs.btrfs, and the right to mount an image");
        None
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join("mounted").join(name)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let done = umount.arg("--lazy").arg(self.path("")).status();
        assert!(done.is_ok_and(|done| done.success()));
    }
}

#[test]
fn copies_share_the_extents_of_cached_files_where_the_file_system_can() {
    let tree = tempdir().unwrap();
    let files: u64 = 5;
    for n in 0..files {
        write(tree.path(), &format!("lib/{n}"), &noise(n, 100_000));
    }
    let linked = CheckoutOptions {
        hard_links: true,
        ..options()
    };
    let (here, other) = (tempdir().unwrap(), Loop::new());
    let places = [
        Some(here.path().to_owned()),
        other.as_ref().map(|other| other.path("")),
    ];
    for (place, can) in places.into_iter().flatten().zip([None, Some(files)]) {
        let at = |name: &str| place.join(name);
        let repo = Repository::init(&at("repo")).unwrap();
        let id = commit_dir(&repo, "os", tree.path()).unwrap().0;
        checkout(&repo, &id, &at("linked"), &linked, &Silent).unwrap();
        // What was written to is not what copies are made of.
        fs::write(at("linked/lib/1"), noise(9, 100_000)).unwrap();
        let done = checkout(&repo, &id, &at("copied"), &options(), &Silent).unwrap();
        assert_eq!(done.files, files);
        if let Some(cloned) = can {
            assert_eq!(
                (done.cloned_files, done.written_bytes),
                (cloned - 1, 100_000)
            );
        }
        assert_eq!(list_dir(&at("copied")), list_dir(tree.path()));
        fs::write(at("copied/lib/0"), b"mine").unwrap();
        let linked = fs::read(at("linked/lib/0")).unwrap();
        assert!(linked == noise(0, 100_000));
    }
}

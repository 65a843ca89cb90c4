//! Grove's own deltas: made, described, applied; what they bring is what was committed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use grove_engine::monitor::{Monitor, Phase};
use grove_engine::object::{Commit, FileHeader, Metadata, Variant, Xattrs};
use grove_engine::ops::delta::{
    ApplyOptions, ApplyReport, CreateOptions, DeltaInfo, apply, create, show, verify,
};
use grove_engine::ops::source::{SourceOptions, add_dir};
use grove_engine::ops::static_delta::{
    DeltaAt, DeltaName, GenerateOptions, apply_offline, generate,
};
use grove_engine::ops::{Level, fsck};
use grove_engine::tree::MutableTree;
use grove_engine::{Body, Error, NewFile, ObjectId, Repository, Result, Silent};
use tempfile::{TempDir, tempdir};

use super::delta::{program, relinked};
use super::support::{cpio, list_commit, noise, packs};

/// Two commits in one repository, and the trees that they were made of.
pub struct Scene {
    pub dir: TempDir,
    pub repo: Repository,
    pub old: ObjectId,
    pub new: ObjectId,
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn text(changed: &str) -> Vec<u8> {
    let lines = (0..6000u32).map(|n| format!("line {} of many\n", n.wrapping_mul(2_654_435_761)));
    let lines: String = lines.collect();
    lines.replace("77", changed).into_bytes()
}

/// What two releases have in common and what not, in a few hundred kilobytes.
pub fn make_trees(root: &Path) {
    let (a, b) = (root.join("a"), root.join("b"));
    for tree in [&a, &b] {
        write(tree, "usr/same", b"the same");
        write(tree, "usr/private", b"only for its owner");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(tree.join("usr/private"), mode).unwrap();
        fs::create_dir_all(tree.join("usr/void")).unwrap();
    }
    write(&a, "usr/share/text", &text("77"));
    write(&b, "usr/share/text", &text("seventy-seven"));
    write(&a, "usr/share/doc/changelog.gz", &gzip(&text("77")));
    write(&b, "usr/share/doc/changelog.gz", &gzip(&text("7x7")));
    write(&b, "usr/share/doc/news.gz", &gzip(&text("news")));
    let library = program(1, 300_000);
    write(&a, "usr/lib/libx.so.1.2", &library);
    write(&b, "usr/lib/libx.so.1.3", &relinked(&library, 9));
    write(&a, "usr/lib/libdense.so", &noise(2, 90_000));
    write(&b, "usr/lib/libdense.so", &noise(3, 90_000));
    write(&a, "usr/moved", &noise(4, 30_000));
    write(&b, "opt/elsewhere", &noise(4, 30_000));
    write(&a, "usr/mode", &noise(5, 30_000));
    write(&b, "usr/mode", &noise(5, 30_000));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(b.join("usr/mode"), mode).unwrap();
    write(&a, "usr/deleted/file", b"gone in the next release");
    write(&b, "usr/new", &noise(6, 50_000));
    write(&b, "usr/twin", &noise(6, 50_000));
    write(&b, "usr/empty", b"");
    symlink("same", a.join("usr/link")).unwrap();
    symlink("new", b.join("usr/link")).unwrap();
}

/// Commits a directory, and a file with extended attributes that no file system need have.
pub fn commit(repo: &Repository, dir: &Path, parent: Option<ObjectId>) -> ObjectId {
    let mut txn = repo.begin(&Silent).unwrap();
    if let Some(parent) = &parent {
        txn.set_parent(parent).unwrap();
    }
    let mut tree = MutableTree::default();
    add_dir(&mut txn, &mut tree, dir, &SourceOptions::default(), &Silent).unwrap();
    let value = dir
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .as_bytes()
        .to_vec();
    let label = (b"security.selinux".to_vec(), value);
    let header = FileHeader {
        uid: 7,
        gid: 8,
        mode: 0o100_640,
        symlink_target: Vec::new(),
        xattrs: Xattrs::from_unsorted(vec![(b"user.a".to_vec(), b"1".to_vec()), label]),
    };
    let file = NewFile {
        header,
        hint: b"usr/labelled".to_vec(),
        body: Body::Bytes(b"labelled".to_vec()),
    };
    let entry = txn.put_files(vec![file]).unwrap().remove(0);
    let usr = tree.ensure_child(repo, "usr").unwrap();
    usr.put_file("labelled", entry).unwrap();
    let (tree, meta) = txn.put_tree(&tree).unwrap();
    let commit = Commit {
        metadata: Metadata::default(),
        parent,
        subject: "test".to_owned(),
        body: String::new(),
        timestamp: 1_700_000_000,
        tree,
        meta,
    };
    let id = txn.put_commit(&commit).unwrap();
    txn.publish(&[]).unwrap();
    id
}

impl Scene {
    /// With trees that `make` fills: `a` and `b`.
    pub fn new(make: impl FnOnce(&Path)) -> Self {
        let dir = tempdir().unwrap();
        make(dir.path());
        let repo = Repository::init(&dir.path().join("repo")).unwrap();
        let old = commit(&repo, &dir.path().join("a"), None);
        let new = commit(&repo, &dir.path().join("b"), Some(old));
        Self {
            dir,
            repo,
            old,
            new,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn delta(&self, file: &str) -> (PathBuf, DeltaInfo) {
        self.delta_from(Some(self.old), file)
    }

    fn delta_from(&self, from: Option<ObjectId>, file: &str) -> (PathBuf, DeltaInfo) {
        let path = self.path(file);
        let name = DeltaName { from, to: self.new };
        let info = create(&self.repo, name, &path, &CreateOptions::default(), &Silent);
        (path, info.unwrap())
    }

    /// A repository with the old commit only.
    pub fn client(&self, name: &str) -> Repository {
        let repo = Repository::init(&self.path(name)).unwrap();
        assert_eq!(commit(&repo, &self.path("a"), None), self.old);
        repo
    }

    /// Asserts that a repository has the whole new commit.
    pub fn assert_has_new(&self, client: &Repository) {
        let wanted = list_commit(&self.repo, &self.new).unwrap();
        assert_eq!(list_commit(client, &self.new).unwrap(), wanted);
        let report = fsck(client, Level::Deep, &Silent).unwrap();
        assert_eq!(report.problems, []);
    }
}

pub fn apply_to(repo: &Repository, delta: &Path) -> Result<ApplyReport> {
    apply(repo, delta, &ApplyOptions::default(), &Silent)
}

#[test]
fn a_delta_brings_a_repository_to_the_next_commit() {
    let scene = Scene::new(make_trees);
    let (path, info) = scene.delta("update.delta");
    assert_eq!((info.from, info.to), (Some(scene.old), scene.new));
    assert_eq!(show(&path).unwrap(), info);
    assert_eq!(info.size, fs::metadata(&path).unwrap().len());
    assert!(info.patched_contents >= 3, "{info:?}");
    assert!(info.recompressed_contents >= 1, "{info:?}");
    assert!(info.whole_contents >= 2, "{info:?}");
    // Noise of 140 kB and news of 40 are new; everything else is small.
    assert!(info.contents_size < 190_000, "{info:?}");
    let client = scene.client("client");
    let checked = verify(&client, &path, &Silent).unwrap();
    assert_eq!(
        (checked.files, checked.metadata),
        (info.files, info.metadata)
    );
    assert!(
        client.commit(&scene.new).is_err(),
        "verifying keeps nothing"
    );
    let mut options = ApplyOptions::default();
    options.refs = vec!["os/stable".to_owned(), "os/next".to_owned()];
    let report = apply(&client, &path, &options, &Silent).unwrap();
    assert!(!report.was_there && report.stored_bytes > 0);
    assert_eq!(
        (report.files, report.made_bytes),
        (info.files, info.made_bytes)
    );
    for name in &options.refs {
        assert_eq!(client.resolve_rev(name).unwrap(), scene.new);
    }
    scene.assert_has_new(&client);
    let again = apply(&client, &path, &options, &Silent).unwrap();
    assert!(again.was_there && again.stored_bytes == 0);
}

#[test]
fn without_a_beginning_a_delta_holds_a_whole_commit() {
    let scene = Scene::new(make_trees);
    let (path, info) = scene.delta_from(None, "whole.delta");
    assert_eq!(info.from, None);
    let client = Repository::init(&scene.path("client")).unwrap();
    apply_to(&client, &path).unwrap();
    scene.assert_has_new(&client);
}

#[test]
fn between_equal_commits_and_back_there_are_deltas_too() {
    let scene = Scene::new(make_trees);
    let (path, info) = scene.delta_from(Some(scene.new), "nothing.delta");
    assert_eq!((info.files, info.made_bytes, info.metadata), (0, 0, 1));
    assert!(verify(&scene.repo, &path, &Silent).is_ok());
    let back = scene.path("back.delta");
    let name = DeltaName {
        from: Some(scene.new),
        to: scene.old,
    };
    create(&scene.repo, name, &back, &CreateOptions::default(), &Silent).unwrap();
    let client = Repository::init(&scene.path("client")).unwrap();
    apply_to(&client, &scene.delta_from(None, "whole.delta").0).unwrap();
    apply_to(&client, &back).unwrap();
    let wanted = list_commit(&scene.repo, &scene.old).unwrap();
    assert_eq!(list_commit(&client, &scene.old).unwrap(), wanted);
}

#[test]
fn the_same_commits_give_the_same_delta() {
    let scene = Scene::new(make_trees);
    let (first, _) = scene.delta("first.delta");
    let (second, _) = scene.delta("second.delta");
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}

/// Frames are what programs get that were changed all over.
#[test]
fn what_patches_badly_is_compressed_behind_its_source() {
    let words: Vec<Vec<u8>> = (0..4000).map(|n| noise(n, 9)).collect();
    let shuffled = |seed: u64| -> Vec<u8> {
        let picks = noise(seed, 40_000);
        let pairs = picks.as_chunks::<2>().0.iter();
        pairs
            .flat_map(|pair| &words[usize::from(u16::from_le_bytes(*pair)) % words.len()])
            .copied()
            .collect()
    };
    let scene = Scene::new(|root| {
        write(&root.join("a"), "usr/bin/words", &shuffled(1));
        write(&root.join("b"), "usr/bin/words", &shuffled(2));
    });
    let (path, info) = scene.delta("update.delta");
    assert_eq!(info.framed_contents, 1, "{info:?}");
    let client = scene.client("client");
    apply_to(&client, &path).unwrap();
    scene.assert_has_new(&client);
}

/// An initial RAM disk, large because of one member that compresses to nothing.
fn ramdisk(modules: &[(String, Vec<u8>)], note: &[u8]) -> Vec<u8> {
    let zeros = vec![0; 17 << 20];
    let mut files: Vec<(&str, &[u8])> = vec![("zeros", &zeros), ("etc/note", note)];
    let named = modules
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    files.extend(named);
    zstd::bulk::compress(&cpio(&files), 3).unwrap()
}

#[test]
fn archives_that_are_compressed_are_sent_as_what_changed_in_their_members() {
    let modules = |version: &str, seed: u64| -> Vec<(String, Vec<u8>)> {
        let module = |n: u64| {
            let old = program(n, 40_000);
            let bytes = if seed == 0 {
                old
            } else {
                relinked(&old, seed + n)
            };
            let name = ["ext4", "xfs", "nfs", "fuse"][n as usize - 10];
            (format!("usr/lib/modules/{version}/{name}.ko"), bytes)
        };
        (10..14).map(module).collect()
    };
    let scene = Scene::new(|root| {
        for (tree, version, seed) in [("a", "6.1.0-47", 0), ("b", "6.1.0-50", 1)] {
            let root = root.join(tree);
            let mut members = modules(version, seed);
            members.push(("usr/bin/busybox".to_owned(), noise(77, 60_000)));
            let packed = ramdisk(&members, format!("note {version}").as_bytes());
            write(&root, &format!("boot/initrd.img-{version}"), &packed);
            // Half of the modules are files of the tree, too.
            for (name, bytes) in &members[..2] {
                write(&root, name, bytes);
            }
        }
    });
    let (path, info) = scene.delta("update.delta");
    assert_eq!(info.recompressed_contents, 1, "{info:?}");
    assert!(info.joined_contents >= 1, "{info:?}");
    // Each module has a thousand new bytes, and some change.
    assert!(info.size < 16_000, "{info:?}");
    let client = scene.client("client");
    apply_to(&client, &path).unwrap();
    scene.assert_has_new(&client);
}

#[test]
fn large_files_are_sent_in_segments_and_found_where_they_moved_to() {
    // Mostly holes, as the images of disks have them.
    let image = |seed: u64, mib: u64| -> Vec<u8> {
        let block = |n: u64| [noise(seed + n, 16 << 10), vec![0; (1 << 20) - (16 << 10)]].concat();
        (0..mib).flat_map(block).collect()
    };
    let old = image(100, 26);
    let scene = Scene::new(|root| {
        write(&root.join("a"), "usr/image", &old);
        let new = [&image(200, 6), &old[..]].concat();
        write(&root.join("b"), "usr/image", &new);
    });
    let (path, info) = scene.delta("update.delta");
    assert_eq!(info.joined_contents, 1, "{info:?}");
    let inserted = 6 * (16 << 10);
    assert!(info.size < inserted + (16 << 10), "{info:?}");
    let client = scene.client("client");
    apply_to(&client, &path).unwrap();
    scene.assert_has_new(&client);
}

#[test]
fn signatures_go_along_and_those_that_are_there_stay() {
    let scene = Scene::new(make_trees);
    let mut signed = Metadata::default();
    signed.push("signed", Variant::string("yes"));
    let signed = signed.to_bytes();
    let mut deltas = Vec::new();
    for (file, detached) in [
        ("yes", Some(&signed[..])),
        ("void", Some(&[][..])),
        ("no", None),
    ] {
        let set = scene.repo.set_detached_metadata(&scene.new, detached);
        set.unwrap();
        let (path, info) = scene.delta(file);
        assert_eq!(show(&path).unwrap(), info);
        let client = scene.client(&format!("client of {file}"));
        let stored = || client.detached_metadata(&scene.new).unwrap();
        verify(&client, &path, &Silent).unwrap();
        assert_eq!(stored(), None);
        apply_to(&client, &path).unwrap();
        assert_eq!(stored().as_deref(), detached);
        deltas.push((path, client));
    }
    // A commit that is there is left as it is.
    let (_, client) = &deltas[0];
    assert!(apply_to(client, &deltas[1].0).unwrap().was_there);
    let kept = client.detached_metadata(&scene.new).unwrap();
    assert_eq!(kept.as_deref(), Some(&signed[..]));
    // What is no dictionary is told of before anything is written.
    let set = scene.repo.set_detached_metadata(&scene.new, Some(b"x"));
    set.unwrap();
    let name = DeltaName {
        from: Some(scene.old),
        to: scene.new,
    };
    let bad = scene.path("bad");
    let refused = create(&scene.repo, name, &bad, &CreateOptions::default(), &Silent);
    match refused {
        Err(Error::Corrupt { path, .. }) => {
            assert!(path.ends_with(format!("state/{}.commitmeta", scene.new)));
        }
        other => panic!("{other:?}"),
    }
    assert!(!bad.exists());
}

/// Asks to stop after some progress.
#[derive(Debug)]
struct Impatient(AtomicU64);

impl Monitor for Impatient {
    fn advance(&self, _: Phase, _: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn interrupted_runs_leave_nothing_and_can_be_repeated() {
    let scene = Scene::new(make_trees);
    let (path, _) = scene.delta("update.delta");
    let client = scene.client("client");
    let before = packs(client.path());
    for patience in [0, 1, 3, 6] {
        let monitor = Impatient(AtomicU64::new(patience));
        let stopped = apply(&client, &path, &ApplyOptions::default(), &monitor);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        let other = scene.path("other.delta");
        let name = DeltaName {
            from: Some(scene.old),
            to: scene.new,
        };
        let monitor = Impatient(AtomicU64::new(patience));
        let options = CreateOptions::default();
        let stopped = create(&scene.repo, name, &other, &options, &monitor);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    }
    assert_eq!(packs(client.path()), before);
    let left: Vec<_> = fs::read_dir(scene.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("other.delta"))
        .collect();
    assert_eq!(left, [""; 0]);
    apply_to(&client, &path).unwrap();
    scene.assert_has_new(&client);
}

#[test]
fn what_a_killed_run_left_beside_a_delta_goes_with_the_next_one() {
    let scene = Scene::new(make_trees);
    let left = scene.path("update.delta.4000000.0.tmp");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    fs::write(left.join("delta"), "half of it").unwrap();
    fs::write(scene.path("update.delta"), "of yesterday").unwrap();
    let (path, info) = scene.delta("update.delta");
    assert!(!left.exists());
    assert_eq!(show(&path).unwrap(), info);
    // Nor does a static delta write over its old files until it is complete.
    let output = scene.path("static/superblock");
    write(scene.dir.path(), "static/superblock", b"of yesterday");
    let mut options = GenerateOptions::default();
    options.output = Some(output.clone());
    let name = DeltaName {
        from: Some(scene.old),
        to: scene.new,
    };
    for patience in [0, 1, 3] {
        let monitor = Impatient(AtomicU64::new(patience));
        let stopped = generate(&scene.repo, name, &options, &monitor);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        assert_eq!(fs::read(&output).unwrap(), b"of yesterday");
        assert_eq!(fs::read_dir(scene.path("static")).unwrap().count(), 1);
    }
    let made = generate(&scene.repo, name, &options, &Silent).unwrap();
    let files = fs::read_dir(scene.path("static")).unwrap().count() as u64;
    assert_eq!(files, made.parts + 1);
    let at = DeltaAt::Path(&output);
    let client = scene.client("client");
    apply_offline(&client, &at, &Silent).unwrap();
    scene.assert_has_new(&client);
}

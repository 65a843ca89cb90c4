//! Import and export of OSTree repositories, beside what `ostree` itself says of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use grove_engine::monitor::{Monitor, Phase};
use grove_engine::object::{Commit, DirMeta, Dirtree, FileHeader, Metadata, Xattrs};
use grove_engine::ops::ostree::{ExportOptions, ImportOptions, RepoMode, export, import};
use grove_engine::ops::{Level, PruneOptions, fsck, prune};
use grove_engine::{Error, ObjectId, ObjectKind, Repository, Silent};
use grove_fixtures::mini::{Scale, build_tree};

use crate::support::{commit_dir, have, list_commit, list_dir, make_tree, noise, packs, run};

const MODES: [(&str, RepoMode); 4] = [
    ("bare", RepoMode::Bare),
    ("bare-user", RepoMode::BareUser),
    ("bare-user-only", RepoMode::BareUserOnly),
    ("archive", RepoMode::Archive),
];

struct Ostree {
    repo: PathBuf,
}

impl Ostree {
    fn init(repo: PathBuf, args: &[&str]) -> Self {
        let ostree = Self { repo };
        ostree.run(&[&["init"][..], args].concat());
        ostree
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new("ostree");
        run(command
            .arg(format!("--repo={}", self.repo.display()))
            .args(args))
    }

    fn commit(&self, branch: &str, tree: &Path, args: &[&str]) -> ObjectId {
        let tree = format!("--tree=dir={}", tree.display());
        let fixed = ["commit", "-b", branch, "--timestamp=@1700000000", &tree];
        self.run(&[&fixed[..], args].concat()).parse().unwrap()
    }

    /// Names of all objects, with the bytes of those that are metadata.
    fn objects(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        for dir in fs::read_dir(self.repo.join("objects")).unwrap() {
            let dir = dir.unwrap().path();
            for object in fs::read_dir(&dir).unwrap() {
                let path = object.unwrap().path();
                let name = path.strip_prefix(&self.repo).unwrap();
                let extension = path.extension().unwrap().to_str().unwrap();
                let is_file = extension == "file" || extension == "filez";
                let bytes = (!is_file).then(|| fs::read(&path).unwrap());
                found.insert(name.to_str().unwrap().to_owned(), bytes);
            }
        }
        found
    }

    /// What file objects look like to whoever reads the files themselves.
    fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let is_file = |name: &String| name.ends_with(".file") || name.ends_with(".filez");
        for name in self.objects().into_keys().filter(is_file) {
            let path = self.repo.join(&name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.is_symlink() {
                true => format!("{:?}", fs::read_link(&path).unwrap()),
                // Any compressor may be used, so the bytes need not be those of `ostree`.
                false if name.ends_with("filez") => String::new(),
                false => ObjectId::of(&fs::read(&path).unwrap()).to_string(),
            };
            let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
            let xattrs = run(Command::new("getfattr")
                .args(["-hd", "-m-", "-ehex"])
                .arg(&path));
            let xattrs: Vec<&str> = xattrs.lines().filter(|l| !l.starts_with('#')).collect();
            let text = format!("{mode:o} {uid}:{gid} {content} {xattrs:?}");
            found.insert(name, text);
        }
        found
    }
}

/// A repository of ours, and a place for others.
struct Env {
    dir: tempfile::TempDir,
    repo: Repository,
}

impl Env {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init(&dir.path().join("grove")).unwrap();
        Self { dir, repo }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A tree with extended attributes, and its next version.
    fn trees(&self) -> [PathBuf; 2] {
        let trees = [self.path("one"), self.path("two")];
        for (seed, tree) in (1..).zip(&trees) {
            make_tree(tree, seed);
            let target = tree.join("usr/same-1");
            for (name, value) in [("user.b", "two"), ("user.a", "one")] {
                run(Command::new("setfattr")
                    .args(["-n", name, "-v", value])
                    .arg(&target));
            }
        }
        trees
    }

    fn assert_sound(&self) {
        let report = fsck(&self.repo, Level::Deep, &Silent).unwrap();
        assert_eq!(report.problems, []);
    }

    fn import(&self, from: &Ostree) -> grove_engine::ops::ostree::ImportReport {
        import(&self.repo, &from.repo, &ImportOptions::default(), &Silent).unwrap()
    }

    fn export(&self, name: &str, mode: RepoMode) -> Ostree {
        let repo = self.path(name);
        let options = ExportOptions {
            mode: Some(mode),
            ..ExportOptions::default()
        };
        export(&self.repo, &repo, &options, &Silent).unwrap();
        Ostree { repo }
    }
}

fn have_tools() -> bool {
    have("ostree") && have("getfattr")
}

#[test]
fn what_ostree_committed_is_the_same_after_import_and_export() {
    if !have_tools() {
        return;
    }
    for (name, mode) in MODES {
        let env = Env::new();
        let theirs = Ostree::init(env.path("theirs"), &["--mode", name]);
        let [one, two] = env.trees();
        let canonical: &[&str] = match mode {
            RepoMode::BareUserOnly => &["--canonical-permissions"],
            _ => &[],
        };
        let first = theirs.commit("os/main", &one, canonical);
        let detached = "--add-detached-metadata-string=signed=yes";
        let second = theirs.commit("os/main", &two, &[&[detached][..], canonical].concat());
        theirs.run(&["refs", "--create=origin:os/main", &first.to_string()]);

        let report = env.import(&theirs);
        assert_eq!((report.commits, report.new_commits), (2, 2), "{name}");
        let refs = env.repo.refs().unwrap().map;
        let expected = [("origin:os/main", first), ("os/main", second)];
        assert_eq!(
            refs,
            expected.map(|(n, id)| (n.to_owned(), id)).into(),
            "{name}"
        );
        assert!(
            env.repo.detached_metadata(&second).unwrap().is_some(),
            "{name}"
        );
        env.assert_sound();

        let ours = env.export("ours", mode);
        assert_eq!(ours.objects(), theirs.objects(), "{name}");
        assert_eq!(ours.files(), theirs.files(), "{name}");
        ours.run(&["fsck"]);
        let refs = |ostree: &Ostree| {
            let names = ostree.run(&["refs"]);
            let revs = names.lines().map(|name| ostree.run(&["rev-parse", name]));
            (revs.collect::<Vec<_>>(), names.clone())
        };
        assert_eq!(refs(&ours), refs(&theirs), "{name}");
        if mode == RepoMode::Archive {
            let summary = ours.run(&["summary", "-v"]);
            assert!(
                summary.contains("os/main") && !summary.contains("origin"),
                "{summary}"
            );
        }
        let again = env.import(&theirs);
        assert_eq!((again.new_commits, again.read_files), (0, 0), "{name}");
    }
}

#[test]
fn a_commit_of_ours_is_checked_out_by_ostree_as_the_tree_that_it_was() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let [one, two] = env.trees();
    commit_dir(&env.repo, "os/main", &one).unwrap();
    commit_dir(&env.repo, "os/main", &two).unwrap();
    for (name, mode) in MODES {
        if mode == RepoMode::BareUserOnly {
            continue;
        }
        let ours = env.export(name, mode);
        ours.run(&["fsck"]);
        if mode == RepoMode::BareUser {
            // Its files can be checked out by users only, who get other owners.
            continue;
        }
        let out = env.path(&format!("{name}-out"));
        ours.run(&["checkout", "os/main", out.to_str().unwrap()]);
        assert_eq!(list_dir(&out), list_dir(&two), "{name}");
        let attribute = ["--only-values", "-n", "user.b"];
        let file = out.join("usr/same-1");
        assert_eq!(
            run(Command::new("getfattr").args(attribute).arg(file)),
            "two"
        );
    }
}

#[test]
fn commits_go_from_one_mode_to_all_others() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let theirs = Ostree::init(env.path("theirs"), &["--mode=archive"]);
    let [one, _] = env.trees();
    // What bare-user-only can hold, too.
    let plain = ["--canonical-permissions"];
    let commit = theirs.commit("os/main", &one, &plain);
    env.import(&theirs);
    for (name, mode) in MODES {
        let ours = env.export(name, mode);
        ours.run(&["fsck"]);
        let other = Env::new();
        assert_eq!(other.import(&ours).refs["os/main"], commit);
        let listings = [&env.repo, &other.repo].map(|repo| list_commit(repo, &commit).unwrap());
        assert_eq!(listings[0], listings[1], "{name}");
    }
}

#[test]
fn what_a_mode_cannot_hold_is_refused() {
    let env = Env::new();
    let tree = env.path("tree");
    make_tree(&tree, 1);
    commit_dir(&env.repo, "os/main", &tree).unwrap();
    let plain = ExportOptions {
        mode: Some(RepoMode::BareUserOnly),
        ..ExportOptions::default()
    };
    let refused = export(&env.repo, &env.path("plain"), &plain, &Silent).unwrap_err();
    assert!(refused.to_string().contains("bare-user-only"), "{refused}");
    let Error::UnsupportedInput { path, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(tree.join(&path[1..]).symlink_metadata().is_ok(), "{path}");
    assert!(!env.path("plain/refs/heads/os/main").exists());
    env.export("archive", RepoMode::Archive);
    let refused = export(&env.repo, &env.path("archive"), &plain, &Silent).unwrap_err();
    let text = "its mode is archive, not bare-user-only";
    assert!(refused.to_string().ends_with(text), "{refused}");
    fs::write(env.path("grove-no"), "").unwrap();
    let refused = export(&env.repo, env.dir.path(), &plain, &Silent).unwrap_err();
    assert!(refused.to_string().ends_with("is not empty"), "{refused}");
}

#[test]
fn damage_that_ends_an_export_is_told_with_the_path_in_the_tree() {
    let env = Env::new();
    let tree = env.path("tree");
    let large = tree.join("usr/noise");
    fs::create_dir_all(tree.join("usr")).unwrap();
    // Most of the pack, so that its middle is in there.
    fs::write(&large, noise(1, 3_000_000)).unwrap();
    commit_dir(&env.repo, "os/main", &tree).unwrap();
    let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
    let pack = packs(env.repo.path()).into_iter().max_by_key(size).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(&pack, bytes).unwrap();
    let repo = Repository::open(env.repo.path()).unwrap();
    for (name, mode) in [MODES[1], MODES[3]] {
        let options = ExportOptions {
            mode: Some(mode),
            ..ExportOptions::default()
        };
        let failed = export(&repo, &env.path(name), &options, &Silent).unwrap_err();
        assert!(failed.is_damage(), "{failed:?}");
        assert!(
            failed.to_string().starts_with("/usr/noise: file object "),
            "{failed}"
        );
    }
}

/// An OSTree repository made by hand.
struct Handmade {
    ostree: Ostree,
}

impl Handmade {
    fn archive(repo: PathBuf) -> Self {
        fs::create_dir_all(repo.join("refs/heads")).unwrap();
        fs::create_dir_all(repo.join("objects")).unwrap();
        fs::write(
            repo.join("config"),
            "[core]\nrepo_version=1\nmode=archive-z2\n",
        )
        .unwrap();
        Self {
            ostree: Ostree { repo },
        }
    }

    fn put(&self, id: &ObjectId, extension: &str, bytes: &[u8]) {
        let id = id.to_string();
        let dir = self.ostree.repo.join("objects").join(&id[..2]);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{}.{extension}", &id[2..])), bytes).unwrap();
    }

    /// A file of some bytes, under a name.
    fn file(&self, id: &ObjectId, header: &FileHeader, content: &[u8]) {
        let len = (content.len() as u16).to_le_bytes();
        let not = (!(content.len() as u16)).to_le_bytes();
        let stored = [&[1][..], &len, &not, content].concat();
        let bytes = [header.archive_prefix(content.len() as u64), stored].concat();
        self.put(id, "filez", &bytes);
    }

    fn commit(&self, files: &[(&str, ObjectId)]) -> ObjectId {
        let files = files.iter().map(|(name, id)| ((*name).to_owned(), *id));
        let tree = Dirtree {
            files: files.collect(),
            dirs: Vec::new(),
        };
        let meta = DirMeta {
            uid: 0,
            gid: 0,
            mode: 0o40755,
            xattrs: Xattrs::default(),
        };
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: String::new(),
            body: String::new(),
            timestamp: 1,
            tree: tree.object_id(),
            meta: meta.object_id(),
        };
        self.put(&tree.object_id(), "dirtree", &tree.to_bytes());
        self.put(&meta.object_id(), "dirmeta", &meta.to_bytes());
        self.put(&commit.object_id(), "commit", &commit.to_bytes());
        let id = commit.object_id();
        fs::write(self.ostree.repo.join("refs/heads/old"), format!("{id}\n")).unwrap();
        id
    }
}

#[test]
fn attributes_keep_the_order_in_which_an_old_writer_hashed_them() {
    let env = Env::new();
    // `user.a` comes after the label, as writers before 2025.2 had it.
    let unsorted = [("user.b", "2"), ("security.selinux", "x"), ("user.a", "1")];
    let array = |names: &[(&str, &str)]| {
        let entry = |(name, value): &(&str, &str)| {
            Xattrs::from_unsorted(vec![(name.as_bytes().to_vec(), value.as_bytes().to_vec())])
        };
        // Elements of an array of one are framed alike, so arrays can be joined by hand.
        let ones: Vec<Vec<u8>> = names.iter().map(|e| entry(e).to_bytes()).collect();
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for one in ones {
            bytes.extend_from_slice(&one[..one.len() - 1]);
            ends.push(bytes.len() as u8);
        }
        bytes.extend(ends);
        Xattrs::parse(&bytes).unwrap()
    };
    let header = FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs: array(&unsorted),
    };
    let sorted = header.with_sorted_xattrs().into_owned();
    assert_ne!(header, sorted);
    let theirs = Handmade::archive(env.path("theirs"));
    let old = header.object_id(b"old");
    theirs.file(&old, &header, b"old");
    // Newer writers sort what they hash, but not what they write.
    let new = sorted.object_id(b"new");
    theirs.file(&new, &header, b"new");
    theirs.commit(&[("new", new), ("old", old)]);
    env.import(&theirs.ostree);
    assert_eq!(env.repo.file(&old).unwrap().header, header);
    assert_eq!(env.repo.file(&new).unwrap().header, sorted);
    env.assert_sound();
    let ours = env.export("ours", RepoMode::Archive);
    let id = old.to_string();
    let path = format!("objects/{}/{}.filez", &id[..2], &id[2..]);
    let written = fs::read(ours.repo.join(path)).unwrap();
    assert!(written.starts_with(&header.archive_prefix(3)));
}

#[test]
fn attributes_in_objects_of_their_own_are_read() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let theirs = Ostree::init(env.path("theirs"), &["--mode=bare"]);
    let [one, _] = env.trees();
    let commit = theirs.commit("os/main", &one, &[]);
    for name in theirs
        .objects()
        .into_keys()
        .filter(|name| name.ends_with(".file"))
    {
        let path = theirs.repo.join(&name);
        let mut attributes = Vec::new();
        for name in ["user.a", "user.b"] {
            let value = Command::new("getfattr")
                .args(["-h", "--only-values", "-n", name])
                .arg(&path)
                .output()
                .unwrap();
            if value.status.success() {
                attributes.push((name.as_bytes().to_vec(), value.stdout));
                run(Command::new("setfattr").args(["-h", "-x", name]).arg(&path));
            }
        }
        let bytes = Xattrs::from_unsorted(attributes).to_bytes();
        fs::write(path.with_extension("file-xattrs-link"), bytes).unwrap();
    }
    let config = fs::read_to_string(theirs.repo.join("config")).unwrap();
    let config = config.replace("mode=bare", "mode=bare-split-xattrs");
    fs::write(theirs.repo.join("config"), config).unwrap();
    assert_eq!(env.import(&theirs).refs["os/main"], commit);
    env.assert_sound();
    let listing = list_commit(&env.repo, &commit).unwrap();
    assert_eq!(listing.len(), list_dir(&one).len());
}

#[test]
fn an_incomplete_commit_stays_one_until_the_rest_comes() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let whole = Ostree::init(env.path("whole"), &["--mode=archive"]);
    let [one, _] = env.trees();
    let commit = whole.commit("os/main", &one, &[]);
    let part = Ostree::init(env.path("part"), &["--mode=archive"]);
    let url = format!("file://{}", whole.repo.display());
    part.run(&["remote", "add", "--no-gpg-verify", "o", &url]);
    part.run(&["pull", "--subpath=/usr/text", "o", "os/main"]);
    assert!(
        part.repo
            .join(format!("state/{commit}.commitpartial"))
            .exists()
    );

    let report = env.import(&part);
    assert_eq!((report.partial_commits, report.new_commits), (1, 1));
    assert!(env.repo.is_partial(&commit));
    assert!(list_commit(&env.repo, &commit).is_err());
    env.assert_sound();
    let stored = env.repo.stored().unwrap().1;
    prune(&env.repo, &PruneOptions::default(), &Silent).unwrap();
    assert_eq!(
        env.repo.stored().unwrap().1,
        stored,
        "nothing of it was pruned"
    );
    let ours = env.export("ours", RepoMode::Archive);
    assert!(
        ours.repo
            .join(format!("state/{commit}.commitpartial"))
            .exists()
    );
    assert_eq!(ours.objects(), part.objects());
    ours.run(&["fsck"]);

    let report = env.import(&whole);
    assert_eq!((report.partial_commits, report.new_commits), (0, 0));
    assert!(!env.repo.is_partial(&commit));
    env.assert_sound();
    assert!(list_commit(&env.repo, &commit).is_ok());
    env.export("ours", RepoMode::Archive);
    assert!(
        !ours
            .repo
            .join(format!("state/{commit}.commitpartial"))
            .exists()
    );
    assert_eq!(ours.objects(), whole.objects());
}

#[test]
fn what_is_known_of_a_commit_goes_with_it() {
    let env = Env::new();
    let tree = env.path("tree");
    make_tree(&tree, 1);
    let (commit, _, _) = commit_dir(&env.repo, "os/main", &tree).unwrap();
    env.repo.set_detached_metadata(&commit, Some(b"")).unwrap();
    let delete = PruneOptions {
        refs_only: true,
        ..PruneOptions::default()
    };
    prune(&env.repo, &delete, &Silent).unwrap();
    assert_eq!(
        env.repo.detached_metadata(&commit).unwrap().as_deref(),
        Some(&b""[..])
    );
    let gone = grove_engine::RefUpdate {
        name: "os/main".to_owned(),
        expected: None,
        new: None,
    };
    env.repo.update_refs(&[gone]).unwrap();
    prune(&env.repo, &delete, &Silent).unwrap();
    assert!(!env.repo.contains(ObjectKind::Commit, &commit).unwrap());
    assert_eq!(env.repo.detached_metadata(&commit).unwrap(), None);
}

#[test]
fn collections_and_remotes_come_and_go_with_the_commits() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let theirs = Ostree::init(
        env.path("theirs"),
        &["--mode=archive", "--collection-id=org.example.Os"],
    );
    let [one, two] = env.trees();
    let own = theirs.commit("os/main", &one, &[]);
    let bound = ["--orphan", "--no-bindings"];
    let tree = format!("--tree=dir={}", two.display());
    let other = theirs.run(&[&["commit"][..], &bound, &[&tree]].concat());
    let mirrors = theirs.repo.join("refs/mirrors/org.example.Other/os");
    fs::create_dir_all(&mirrors).unwrap();
    fs::write(mirrors.join("test"), format!("{other}\n")).unwrap();
    theirs.run(&[
        "remote",
        "add",
        "--no-gpg-verify",
        "up",
        "http://example.com/",
    ]);
    let report = env.import(&theirs);
    assert_eq!(report.refs["os/main"], own);
    assert_eq!(
        report.refs["refs/mirrors/org.example.Other/os/test"].to_string(),
        other
    );
    let ours = env.export("ours", RepoMode::Archive);
    for ask in [
        &["refs", "-c"][..],
        &["remote", "show-url", "up"],
        &["config", "get", "core.collection-id"],
    ] {
        assert_eq!(ours.run(ask), theirs.run(ask), "{ask:?}");
    }
    let summary = ours.run(&["summary", "-v"]);
    for name in ["org.example.Os", "org.example.Other", "os/main", "os/test"] {
        assert!(summary.contains(name), "{name} in {summary}");
    }
}

/// Stops a run when something was published.
#[derive(Debug, Default)]
struct StopsAtPublication(AtomicU64);

impl Monitor for StopsAtPublication {
    fn end(&self, phase: Phase) {
        if phase == Phase::Publish {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[test]
fn an_interrupted_import_goes_on_without_reading_again() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let theirs = Ostree::init(env.path("theirs"), &["--mode=archive"]);
    let [one, _] = env.trees();
    let commit = theirs.commit("os/main", &one, &[]);
    let options = ImportOptions {
        publish_bytes: 1,
        ..ImportOptions::default()
    };
    let stops = StopsAtPublication::default();
    let stopped = import(&env.repo, &theirs.repo, &options, &stops);
    assert!(matches!(stopped, Err(grove_engine::Error::Cancelled)));
    assert_eq!(env.repo.commits().unwrap(), []);
    assert_eq!(env.repo.refs().unwrap().map.len(), 0);
    let report = env.import(&theirs);
    assert_eq!(report.refs["os/main"], commit);
    assert!(report.read_files < report.files, "{report:?}");
    env.assert_sound();
}

#[test]
fn an_imported_history_takes_no_more_than_a_committed_one() {
    if !have_tools() {
        return;
    }
    let env = Env::new();
    let theirs = Ostree::init(env.path("theirs"), &["--mode=archive"]);
    let committed = Repository::init(&env.path("committed")).unwrap();
    for release in 1..=2 {
        let tree = env.path(&release.to_string());
        build_tree(&tree, release, Scale::Small).unwrap();
        theirs.commit("os/main", &tree, &[]);
        commit_dir(&committed, "os/main", &tree).unwrap();
    }
    env.import(&theirs);
    let size = |repo: &Repository| -> u64 {
        let packs = packs(repo.path()).into_iter();
        packs.map(|pack| fs::metadata(pack).unwrap().len()).sum()
    };
    let (imported, committed) = (size(&env.repo), size(&committed));
    assert!(
        imported * 100 <= committed * 102,
        "{imported} for {committed}"
    );
}

#[test]
fn a_ref_that_cannot_be_set_stops_an_export_before_any_other_is() {
    let env = Env::new();
    make_tree(&env.path("tree"), 1);
    for name in ["aa", "os/stable", "zz"] {
        commit_dir(&env.repo, name, &env.path("tree")).unwrap();
    }
    let to = env.path("target");
    let heads = to.join("refs/heads");
    let options = ExportOptions::default();
    let only_first = ExportOptions {
        refs: vec!["aa".to_owned()],
        ..ExportOptions::default()
    };
    export(&env.repo, &to, &only_first, &Silent).unwrap();
    fs::remove_file(heads.join("aa")).unwrap();
    let objects = || run(Command::new("find").arg(to.join("objects")));
    let before = objects();
    fs::write(env.path("tree/new"), b"new").unwrap();
    commit_dir(&env.repo, "aa", &env.path("tree")).unwrap();
    // A ref in the way, above and below.
    for (there, named) in [
        ("os", "refs/heads/os"),
        ("zz/old/ref", "refs/heads/zz/old/ref"),
    ] {
        fs::create_dir_all(heads.join(there).parent().unwrap()).unwrap();
        fs::write(heads.join(there), format!("{}\n", "0".repeat(64))).unwrap();
        match export(&env.repo, &to, &options, &Silent) {
            Err(grove_engine::Error::RefConflict { other, .. }) => assert_eq!(other, named),
            other => panic!("{other:?}"),
        }
        assert!(!heads.join("aa").exists() && objects() == before);
        fs::remove_file(heads.join(there)).unwrap();
    }
    // Directories that deleted refs have left are in nobody's way.
    assert!(heads.join("zz/old").is_dir());
    let done = export(&env.repo, &to, &options, &Silent).unwrap();
    for (name, id) in &done.refs {
        assert_eq!(
            fs::read_to_string(heads.join(name)).unwrap(),
            format!("{id}\n")
        );
    }
    assert_eq!(done.refs.len(), 3);
}

/// Looks how many leases there are whenever a commit is to be published.
#[derive(Debug)]
struct LeaseCounter {
    dir: PathBuf,
    most: AtomicU64,
}

impl Monitor for LeaseCounter {
    fn begin(&self, phase: Phase, _: Option<u64>) {
        if phase == Phase::Publish {
            let leases = fs::read_dir(&self.dir).map_or(0, Iterator::count) as u64;
            self.most.fetch_max(leases, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_long_history_is_kept_by_few_leases_while_it_comes() {
    const COMMITS: u64 = 150;
    let env = Env::new();
    let (tree, www) = (env.path("tree"), env.path("www"));
    fs::create_dir(&tree).unwrap();
    let mut last = None;
    for number in 0..COMMITS {
        fs::write(tree.join("number"), number.to_string()).unwrap();
        last = Some(commit_dir(&env.repo, "os/main", &tree).unwrap().0);
    }
    let options = ExportOptions {
        fsync: false,
        ..ExportOptions::default()
    };
    export(&env.repo, &www, &options, &Silent).unwrap();
    let to = Repository::init(&env.path("other")).unwrap();
    let counter = LeaseCounter {
        dir: to.path().join("leases"),
        most: AtomicU64::new(0),
    };
    let report = import(&to, &www, &ImportOptions::default(), &counter).unwrap();
    assert_eq!(report.new_commits, COMMITS);
    let most = counter.most.into_inner();
    assert!((2..=70).contains(&most), "{most} leases");
    prune(&to, &PruneOptions::default(), &Silent).unwrap();
    let found = list_commit(&to, &last.unwrap()).unwrap();
    assert_eq!(found, list_dir(&tree));
}

#[test]
fn two_imports_at_once_keep_the_remotes_of_both() {
    let env = Env::new();
    let tree = env.path("tree");
    make_tree(&tree, 1);
    let sources: Vec<PathBuf> = (0..8).map(|n| env.path(&format!("from-{n}"))).collect();
    for (number, source) in sources.iter().enumerate() {
        let repo = Repository::init(&env.path(&format!("grove-{number}"))).unwrap();
        commit_dir(&repo, &format!("os/{number}"), &tree).unwrap();
        export(&repo, source, &ExportOptions::default(), &Silent).unwrap();
        let remote = format!("[remote \"r{number}\"]\nurl=https://{number}.example/\n");
        let config = source.join("config");
        let text = fs::read_to_string(&config).unwrap() + "\n" + &remote;
        fs::write(&config, text).unwrap();
    }
    let repo = &env.repo;
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(move || import(repo, source, &ImportOptions::default(), &Silent).unwrap());
        }
    });
    let to = env.path("to");
    export(repo, &to, &ExportOptions::default(), &Silent).unwrap();
    let config = fs::read_to_string(to.join("config")).unwrap();
    for number in 0..sources.len() {
        let wanted = format!("[remote \"r{number}\"]");
        assert!(config.contains(&wanted), "{wanted} is not in:\n{config}");
    }
}

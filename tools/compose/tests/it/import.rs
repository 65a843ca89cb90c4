//! Packages in a repository: what was imported is what was packaged, once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use grove_compose::import::{DigestCache, DigestTable, FileStamp, import_packages};
use grove_compose::{
    Error, ImportOptions, ImportedPackage, MergeReport, PathRules, UnknownOwner, find_packages,
    merge_packages, package_list,
};
use grove_engine::object::Commit;
use grove_engine::tree::MutableTree;
use grove_engine::{Monitor, ObjectId, Repository, Silent};

use crate::forge::{DIR, FILE, Forge, LINK, item};
use crate::support::{Seen, data, explain, read};

struct Bench {
    dir: tempfile::TempDir,
    repo: Repository,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init(&dir.path().join("repo")).unwrap();
        std::fs::create_dir(dir.path().join("rpms")).unwrap();
        Self { dir, repo }
    }

    fn write(&self, name: &str, forge: &Forge) -> PathBuf {
        let forge = Forge {
            name: name.into(),
            ..forge.clone()
        };
        forge.write(&self.dir.path().join("rpms"))
    }

    fn import(&self, paths: &[PathBuf], options: &ImportOptions) -> Result<Built, Error> {
        self.import_with(paths, options, &DigestTable::default(), &Silent)
    }

    fn import_with(
        &self,
        paths: &[PathBuf],
        options: &ImportOptions,
        digests: &dyn DigestCache,
        monitor: &dyn Monitor,
    ) -> Result<Built, Error> {
        let mut txn = self.repo.begin(monitor)?;
        let packages = import_packages(&mut txn, paths, options, digests, monitor)?;
        let mut tree = MutableTree::default();
        let report = merge_packages(&self.repo, &mut tree, &packages)?;
        let (tree, meta) = txn.put_tree(&tree)?;
        let written = txn.publish(&[])?;
        Ok(Built {
            packages,
            report,
            tree,
            meta,
            new_files: written.new_files,
        })
    }

    /// Everything in a stored tree, with owners and capabilities.
    fn walk(&self, built: &Built) -> BTreeMap<String, (Seen, u32, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        self.walk_dir("", &built.tree, &built.meta, &mut found);
        found
    }

    fn walk_dir(
        &self,
        path: &str,
        tree: &ObjectId,
        meta: &ObjectId,
        found: &mut BTreeMap<String, (Seen, u32, u32, Vec<u8>)>,
    ) {
        let meta = self.repo.dirmeta(meta).unwrap();
        let seen = Seen::Dir { mode: meta.mode };
        found.insert(path.to_owned(), (seen, meta.uid, meta.gid, Vec::new()));
        let join = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            }
        };
        let listing = self.repo.dirtree(tree).unwrap();
        for (name, id) in &listing.files {
            let file = self.repo.file(id).unwrap();
            let header = &file.header;
            let seen = if header.is_symlink() {
                Seen::Symlink {
                    target: String::from_utf8(header.symlink_target.clone()).unwrap(),
                }
            } else {
                let mut bytes = vec![0; file.size as usize];
                assert_eq!(
                    self.repo.read_at(&file, 0, &mut bytes).unwrap(),
                    bytes.len()
                );
                let sha256 = *grove_engine::PayloadId::of(&bytes).as_bytes();
                Seen::File {
                    mode: header.mode,
                    size: file.size,
                    sha256,
                }
            };
            let caps = header
                .xattrs
                .get(b"security.capability")
                .unwrap_or_default()
                .to_vec();
            found.insert(join(name), (seen, header.uid, header.gid, caps));
        }
        for dir in &listing.dirs {
            self.walk_dir(&join(&dir.name), &dir.tree, &dir.meta, found);
        }
    }
}

struct Built {
    packages: Vec<ImportedPackage>,
    report: MergeReport,
    tree: ObjectId,
    meta: ObjectId,
    new_files: u64,
}

/// Options under which no package of the data set is refused for its owners or devices.
fn lenient() -> ImportOptions {
    let mut options = ImportOptions::default();
    options.owners.unknown = UnknownOwner::Root;
    options.skip_special = true;
    options
}

#[test]
fn what_is_imported_equals_what_is_read_for_every_package_of_the_data_set() {
    let Some(dir) = data("rpms") else { return };
    let bench = Bench::new();
    let mut paths = find_packages(&dir).unwrap();
    paths.retain(|path| read(path).is_ok());
    let mut txn = bench.repo.begin(&Silent).unwrap();
    let digests = DigestTable::default();
    let packages = import_packages(&mut txn, &paths, &lenient(), &digests, &Silent).unwrap();
    let build = |package: ImportedPackage| {
        let packages = vec![package];
        let mut tree = MutableTree::default();
        let report = merge_packages(&bench.repo, &mut tree, &packages).unwrap();
        let (tree, meta) = txn.put_tree(&tree).unwrap();
        Built {
            packages,
            report,
            tree,
            meta,
            new_files: 0,
        }
    };
    let all: Vec<_> = packages.into_iter().map(build).collect();
    txn.publish(&[]).unwrap();
    let compared: usize = all.iter().map(|built| compare(&bench, built)).sum();
    println!("{compared} entries compared");
}

/// Compares a package's tree with its file; returns the number of entries.
fn compare(bench: &Bench, built: &Built) -> usize {
    let package = &built.packages[0];
    let mut expected = read(&package.path).unwrap().seen;
    expected.retain(|_, seen| !matches!(seen, Seen::Special { .. }));
    let mut found = bench.walk(built);
    found.retain(|name, (seen, ..)| {
        expected.contains_key(name) || !matches!(seen, Seen::Dir { mode: 0o40755 })
    });
    assert_eq!(found.len(), expected.len(), "{}", package.path.display());
    for (name, seen) in &expected {
        let (got, uid, gid, _) = &found[name];
        // Set-id bits go with owners that nobody knows.
        let bare = package.record.skipped.unowned > 0 && (*uid, *gid) == (0, 0);
        let same = got == seen || (bare && without_set_id(got) == without_set_id(seen));
        assert!(
            same,
            "{name} in {}: {got:?} is not {seen:?}",
            package.path.display()
        );
    }
    expected.len()
}

fn without_set_id(seen: &Seen) -> Seen {
    match seen.clone() {
        Seen::File { mode, size, sha256 } => Seen::File {
            mode: mode & !0o6000,
            size,
            sha256,
        },
        Seen::Dir { mode } => Seen::Dir {
            mode: mode & !0o6000,
        },
        other => other,
    }
}

#[test]
fn the_same_packages_make_the_same_packs() {
    let Some(dir) = data("rpms/real-opensuse") else {
        return;
    };
    let packs = || {
        let bench = Bench::new();
        let paths = find_packages(&dir).unwrap();
        let mut txn = bench.repo.begin(&Silent).unwrap();
        import_packages(
            &mut txn,
            &paths,
            &lenient(),
            &DigestTable::default(),
            &Silent,
        )
        .unwrap();
        txn.publish(&[]).unwrap();
        let mut found = Vec::new();
        let mut todo = vec![bench.repo.path().join("packs")];
        while let Some(path) = todo.pop() {
            match std::fs::read_dir(&path) {
                Ok(entries) => todo.extend(entries.map(|e| e.unwrap().path())),
                Err(_) => found.push(path.file_name().unwrap().to_owned()),
            }
        }
        found.sort();
        found
    };
    assert_eq!(packs(), packs());
}

#[test]
fn a_package_imported_before_is_not_read_again() {
    let bench = Bench::new();
    let items = [item("/usr/a", FILE, b"a"), item("/usr/b", FILE, b"b")];
    let path = bench.write("pkg", &Forge::new(&items));
    let first = bench
        .import(std::slice::from_ref(&path), &ImportOptions::default())
        .unwrap();
    assert_eq!((first.packages[0].known, first.new_files), (false, 2));

    /// Knows every file to be this one.
    #[derive(Debug)]
    struct Same([u8; 32]);
    impl DigestCache for Same {
        fn get(&self, _: &FileStamp) -> Option<[u8; 32]> {
            Some(self.0)
        }
        fn put(&self, _: FileStamp, _: [u8; 32], _: SystemTime) {}
    }
    let digests = Same(first.packages[0].digest);
    std::fs::write(&path, b"no package any more").unwrap();
    let options = ImportOptions::default();
    let second = bench
        .import_with(std::slice::from_ref(&path), &options, &digests, &Silent)
        .unwrap();
    assert_eq!((second.packages[0].known, second.new_files), (true, 0));
    assert_eq!((second.tree, second.meta), (first.tree, first.meta));
    assert_eq!(second.packages[0].record, first.packages[0].record);
    // Other options make another import, for which the file is needed.
    let other = lenient();
    assert!(
        bench
            .import_with(&[path], &other, &digests, &Silent)
            .is_err()
    );
}

#[test]
fn owners_modes_and_capabilities_arrive() {
    let bench = Bench::new();
    let mut items = vec![
        item("/usr", DIR, b""),
        item("/usr/bin/ping", 0o100755, b"ping"),
        item("/usr/bin/su", 0o104755, b"su"),
        item("/usr/mail", 0o042775, b""),
        item("/usr/link", LINK, b"bin/su"),
    ];
    items[1].caps = "cap_net_raw+ep".into();
    items[3].group = "mail".into();
    items[4].user = "bin".into();
    let path = bench.write("pkg", &Forge::new(&items));
    let built = bench
        .import(std::slice::from_ref(&path), &ImportOptions::default())
        .unwrap();
    let found = bench.walk(&built);
    let owner = |name: &str| (found[name].1, found[name].2);
    assert_eq!(owner("usr/mail"), (0, 12));
    assert_eq!(owner("usr/link"), (1, 0));
    assert_eq!(found["usr/bin/ping"].3[..8], [1, 0, 0, 2, 0, 0x20, 0, 0]);
    assert_eq!(found["usr/mail"].0, Seen::Dir { mode: 0o042775 });
    assert!(matches!(
        found["usr/bin/su"].0,
        Seen::File { mode: 0o104755, .. }
    ));
    assert_eq!(found[""].0, Seen::Dir { mode: 0o40755 });
    assert_eq!((built.report.dirs, built.report.unowned_dirs), (2, 2));

    let mut canonical = ImportOptions::default();
    canonical.canonical_permissions = true;
    let found = bench.walk(&bench.import(&[path], &canonical).unwrap());
    assert_eq!(
        found["usr/mail"],
        (Seen::Dir { mode: 0o040755 }, 0, 0, vec![])
    );
    assert_eq!(
        (&found["usr/bin/ping"].3, found["usr/link"].1),
        (&vec![], 0)
    );
}

#[test]
fn what_cannot_be_imported_is_refused_with_package_and_path() {
    let bench = Bench::new();
    let mut foreign = item("/usr/x", 0o104755, b"x");
    foreign.user = "stranger".into();
    let mut caps = item("/usr/x", FILE, b"x");
    caps.caps = "cap_of_good_hope=ep".into();
    for (item, words) in [
        (foreign.clone(), "usr/x: unknown owner \"stranger\""),
        (
            caps,
            "usr/x: file capabilities \"cap_of_good_hope=ep\": an unknown capability",
        ),
        (item("/dev/x", 0o020644, b""), "dev/x: a character device"),
        (item("/dev/x", 0o010644, b""), "dev/x: a FIFO"),
        (
            item("/usr/l", LINK, b""),
            "usr/l: a symbolic link to nothing",
        ),
        (item("/", FILE, b""), "the root is not a directory"),
    ] {
        let path = bench.write("bad", &Forge::new(&[item]));
        let error = bench
            .import(&[path], &ImportOptions::default())
            .err()
            .unwrap();
        let error = explain(&error);
        assert!(
            error.contains("bad.rpm") && error.contains(words),
            "{error}"
        );
    }
    // Under the stated options they are counted.
    let items = [foreign, item("/dev/x", 0o020644, b"")];
    let path = bench.write("bad", &Forge::new(&items));
    let built = bench.import(&[path], &lenient()).unwrap();
    let skipped = built.packages[0].record.skipped;
    assert_eq!((skipped.unowned, skipped.special), (1, 1));
    assert!(matches!(
        bench.walk(&built)["usr/x"].0,
        Seen::File { mode: 0o100755, .. }
    ));
}

#[test]
fn large_files_pass_through_in_pieces_and_hard_links_share_them() {
    let bench = Bench::new();
    let content: Vec<u8> = (0..40u32 << 20)
        .map(|n| (n >> 7) as u8 ^ (n % 251) as u8)
        .collect();
    let mut items = vec![
        item("/usr/small", FILE, b"before"),
        item("/usr/nine", FILE, &content[..9 << 20]),
        item("/usr/forty", FILE, &content),
        item("/var/forty", FILE, &content),
        item("/usr/zzz", FILE, b"after"),
    ];
    items[2].inode = 5;
    items[3].inode = 5;
    let mut forge = Forge::new(&items);
    forge.records[2].content.clear();
    forge.records[2].links = 2;
    forge.records[3].links = 2;
    let path = bench.write("large", &forge);
    let keep = read(&path).unwrap();
    let built = bench.import(&[path], &ImportOptions::default()).unwrap();
    let found = bench.walk(&built);
    for (name, seen) in &keep.seen {
        assert_eq!(&found[name].0, seen, "{name}");
    }
    let mut damaged = forge;
    damaged.records[3].content[30 << 20] ^= 1;
    let path = bench.write("damaged", &damaged);
    let error = bench
        .import(&[path], &ImportOptions::default())
        .err()
        .unwrap();
    let error = explain(&error);
    assert!(
        error.contains("damaged.rpm") && error.contains("var/forty: SHA-256"),
        "{error}"
    );
}

#[test]
fn rpm_ostrees_layout_is_made_on_request() {
    let bench = Bench::new();
    let mut dir = item("/var/lib/pkg", 0o040700, b"");
    dir.user = "bin".into();
    let items = [
        item("/etc/pkg.conf", FILE, b"conf"),
        item("/opt/pkg/bin", 0o040555, b""),
        item("/var/lib/pkg/data", FILE, b"dropped"),
        dir,
    ];
    let path = bench.write("pkg", &Forge::new(&items));
    let mut options = ImportOptions::default();
    options.rules = PathRules::RpmOstree;
    let built = bench.import(&[path], &options).unwrap();
    let found = bench.walk(&built);
    let is_dir = |name: &str| matches!(found[name].0, Seen::Dir { .. });
    let names: Vec<_> = found.keys().filter(|name| !is_dir(name)).collect();
    let tmpfiles = "usr/lib/rpm-ostree/tmpfiles.d/pkg.conf";
    assert_eq!(names, ["usr/etc/pkg.conf", tmpfiles]);
    assert_eq!(found["usr/lib/opt/pkg/bin"].0, Seen::Dir { mode: 0o040755 });
    let text = "L /opt/pkg - - - - ../../usr/lib/opt/pkg\nd /var/lib/pkg 0700 bin root - -\n";
    let sha256 = *grove_engine::PayloadId::of(text.as_bytes()).as_bytes();
    let size = text.len() as u64;
    assert_eq!(
        found[tmpfiles].0,
        Seen::File {
            mode: FILE,
            size,
            sha256
        }
    );
    assert_eq!(built.packages[0].record.skipped.dropped, 2);
    // Two entries that come to one place must be one.
    let items = [item("/etc/x", FILE, b"1"), item("/usr/etc/x", FILE, b"2")];
    let path = bench.write("twice", &Forge::new(&items));
    let error = explain(&bench.import(&[path], &options).err().unwrap());
    assert!(
        error.contains("usr/etc/x: several of its entries"),
        "{error}"
    );
}

#[test]
fn packages_merge_where_they_agree() {
    let bench = Bench::new();
    let shared = item("/usr/share/x", FILE, b"same");
    let mut other_dir = item("/usr/share", 0o040700, b"");
    other_dir.group = "mail".into();
    let a = [item("/usr/share", DIR, b""), shared.clone()];
    let b = [other_dir, shared, item("/usr/other/y", FILE, b"y")];
    let paths = [
        bench.write("b", &Forge::new(&b)),
        bench.write("a", &Forge::new(&a)),
    ];
    let built = bench.import(&paths, &ImportOptions::default()).unwrap();
    assert_eq!(
        built.report,
        MergeReport {
            packages: 2,
            files: 2,
            dirs: 1,
            shared_files: 1,
            differing_dirs: 1,
            unowned_dirs: 3,
            replaced_files: 0,
        }
    );
    // The first by name decides, in whatever order they are given.
    assert_eq!(
        bench.walk(&built)["usr/share"].0,
        Seen::Dir { mode: 0o040755 }
    );
    let reversed = bench.import(
        &[paths[1].clone(), paths[0].clone()],
        &ImportOptions::default(),
    );
    assert_eq!(reversed.unwrap().tree, built.tree);
    let list = package_list(&built.packages);
    assert_eq!(list.signature(), "a(sssss)");
    let text = String::from_utf8_lossy(list.bytes());
    assert!(
        text.starts_with("a\x000\x001.0\x001\x00noarch\x00"),
        "{text:?}"
    );
}

#[test]
fn conflicts_name_both_packages_and_every_path() {
    let bench = Bench::new();
    let a = [
        item("/usr/x", FILE, b"1"),
        item("/usr/y", FILE, b"1"),
        item("/usr/d", LINK, b"e"),
    ];
    let b = [
        item("/usr/x", FILE, b"2"),
        item("/usr/y", LINK, b"1"),
        item("/usr/d/z", FILE, b""),
    ];
    let paths = [
        bench.write("a", &Forge::new(&a)),
        bench.write("b", &Forge::new(&b)),
    ];
    let error = bench
        .import(&paths, &ImportOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "packages conflict at 3 paths:\
         \n  /usr/d: a-1.0-1.noarch and b-1.0-1.noarch: a directory in one, a file in the other\
         \n  /usr/x: a-1.0-1.noarch and b-1.0-1.noarch: they differ\
         \n  /usr/y: a-1.0-1.noarch and b-1.0-1.noarch: they differ"
    );
}

#[test]
fn a_failed_import_leaves_the_repository_as_it_was() {
    #[derive(Debug)]
    struct Impatient;
    impl Monitor for Impatient {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let bench = Bench::new();
    let good = bench.write("good", &Forge::new(&[item("/usr/x", FILE, b"1")]));
    let mut lying = Forge::new(&[item("/usr/y", FILE, b"2")]);
    lying.records[0].content = b"3".to_vec();
    let bad = bench.write("lying", &lying);
    let before = bench.repo.stored().unwrap();
    let options = ImportOptions::default();
    let error = bench.import(&[good.clone(), bad], &options).err().unwrap();
    assert!(
        explain(&error).contains("usr/y: SHA-256 digest mismatch"),
        "{}",
        explain(&error)
    );
    let digests = DigestTable::default();
    let error = bench
        .import_with(&[good], &options, &digests, &Impatient)
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "interrupted");
    assert_eq!(bench.repo.stored().unwrap(), before);
    let staging = std::fs::read_dir(bench.repo.path().join("staging")).unwrap();
    assert_eq!(staging.count(), 0);
}

#[test]
fn a_commit_of_packages_can_be_published() {
    let bench = Bench::new();
    let path = bench.write("pkg", &Forge::new(&[item("/usr/x", FILE, b"1")]));
    let built = bench.import(&[path], &ImportOptions::default()).unwrap();
    let mut metadata = grove_engine::object::Metadata::default();
    metadata.push("rpmostree.rpmdb.pkglist", package_list(&built.packages));
    let commit = Commit {
        metadata,
        parent: None,
        subject: String::new(),
        body: String::new(),
        timestamp: 0,
        tree: built.tree,
        meta: built.meta,
    };
    let mut txn = bench.repo.begin(&Silent).unwrap();
    let id = txn.put_commit(&commit).unwrap();
    txn.publish(&[]).unwrap();
    assert_eq!(bench.repo.commit(&id).unwrap(), commit);
    assert!(find_packages(Path::new("/nonexistent")).is_err());
}

#[test]
#[ignore = "prints times, which only mean something in a release build"]
fn times_of_importing_many_packages() {
    let bench = Bench::new();
    // Any directory of packages can be measured instead of forged ones.
    let paths = match std::env::var_os("GROVE_TEST_RPMS") {
        Some(dir) => find_packages(Path::new(&dir)).unwrap(),
        None => (0..1_400)
            .map(|package| many_files(&bench, package))
            .collect(),
    };
    let options = ImportOptions::default();
    for what in ["new", "known to the repository", "known by their stamps"] {
        let start = std::time::Instant::now();
        let digests = DigestTable::load(&bench.repo.cache_dir());
        let repo = Repository::open(bench.repo.path()).unwrap();
        let mut txn = repo.begin(&Silent).unwrap();
        let packages = import_packages(&mut txn, &paths, &options, &digests, &Silent).unwrap();
        let imported = start.elapsed();
        let mut tree = MutableTree::default();
        let report = merge_packages(&repo, &mut tree, &packages).unwrap();
        let merged = start.elapsed();
        txn.put_tree(&tree).unwrap();
        txn.publish(&[]).unwrap();
        if what != "new" {
            digests.store().unwrap();
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        println!(
            "{} files of {} packages {what}: imported {imported:?}, merged {merged:?}, \
             published {:?}, {peak}",
            report.files,
            paths.len(),
            start.elapsed()
        );
    }
}

/// A package of 70 files of 40 kB each.
fn many_files(bench: &Bench, package: u32) -> PathBuf {
    let mut items = vec![item("/usr/share", DIR, b"")];
    items.extend((0..70).map(|n| {
        let content: Vec<u8> = (0..40_000u32)
            .map(|at| (at.wrapping_mul(package * 71 + n + 1) >> 13) as u8 & 0x3f)
            .collect();
        item(
            &format!("/usr/share/p{package}/d{}/f{n}", n % 7),
            FILE,
            &content,
        )
    }));
    bench.write(&format!("package-{package}"), &Forge::new(&items))
}

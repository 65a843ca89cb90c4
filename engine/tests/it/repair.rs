//! What is damaged and can be had from elsewhere is restored; what cannot is named, and the rest
//! goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use grove_engine::fs::{DiskStorage, Storage};
use grove_engine::object::{Commit, Metadata, Variant};
use grove_engine::ops::checkout::{CheckoutOptions, checkout};
use grove_engine::ops::repair::{
    DirectorySource, RepairOptions, RepairReport, RepositorySource, Source, repair,
};
use grove_engine::ops::{FsckOptions, Level, ProblemKind, PruneOptions, fsck, prune};
use grove_engine::{ObjectId, Repository, Result, Silent};
use tempfile::{TempDir, tempdir};

use super::damage::{Action, apply};
use super::support::{Listing, commit_dir, list_commit, list_dir, make_tree, noise, packs, run};

/// A repository with two commits, and a copy to be damaged.
struct Scene {
    dir: TempDir,
    commits: Vec<(ObjectId, Listing)>,
}

impl Scene {
    fn new(parity: bool) -> Self {
        let dir = tempdir().unwrap();
        let tree = dir.path().join("tree");
        make_tree(&tree, 1);
        let mut repo = Repository::init(&dir.path().join("base")).unwrap();
        repo.set_parity(parity).unwrap();
        let mut commits = Vec::new();
        for n in 0..2 {
            fs::write(tree.join("usr/changing"), noise(n + 77, 700_000)).unwrap();
            fs::write(tree.join("usr/small"), noise(n + 99, 3000)).unwrap();
            let id = commit_dir(&repo, "os", &tree).unwrap().0;
            commits.push((id, list_dir(&tree)));
        }
        let scene = Self { dir, commits };
        scene.renew();
        scene
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy")
    }

    /// Makes the copy anew.
    fn renew(&self) {
        drop(fs::remove_dir_all(self.copy()));
        run(Command::new("cp")
            .arg("-r")
            .args([self.base(), self.copy()]));
    }

    fn other(&self) -> Box<dyn Source> {
        Box::new(RepositorySource::new(
            Repository::open(&self.base()).unwrap(),
        ))
    }

    fn repair(&self, sources: Vec<Box<dyn Source>>) -> Result<RepairReport> {
        repair_with(&self.copy(), &RepairOptions::default(), sources)
    }

    /// Everything is there, to the last bit, and nothing is left over.
    fn assert_whole(&self, what: &str) {
        self.assert_whole_but(what, false);
    }

    /// Like that, but a commit that no ref leads to may be gone: nothing is left to tell of it.
    fn assert_whole_but(&self, what: &str, traceless: bool) {
        let repo = Repository::open(&self.copy()).unwrap();
        for (id, listing) in &self.commits {
            if traceless && !repo.contains(grove_engine::ObjectKind::Commit, id).unwrap() {
                continue;
            }
            assert_eq!(&list_commit(&repo, id).unwrap(), listing, "{what}");
        }
        assert_eq!(repo.refs().unwrap().map["os"], self.commits[1].0, "{what}");
        assert_eq!(
            fsck(&repo, Level::Deep, &Silent).unwrap().problems,
            [],
            "{what}"
        );
        assert!(!self.copy().join("quarantine").exists(), "{what}");
        assert_eq!(
            fs::read_dir(self.copy().join("staging")).unwrap().count(),
            0,
            "{what}"
        );
    }
}

fn repair_with(
    repo: &Path,
    options: &RepairOptions,
    mut sources: Vec<Box<dyn Source>>,
) -> Result<RepairReport> {
    let storage: Arc<dyn Storage> = Arc::new(DiskStorage);
    repair(repo, &storage, options, &mut sources, &Silent)
}

/// Packs without their parity files, the largest first.
fn by_size(repo: &Path) -> Vec<PathBuf> {
    let mut found = packs(repo);
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "pack")
    });
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

fn actions() -> Vec<Action> {
    let mut actions = vec![
        Action::Garbage,
        Action::Empty,
        Action::Delete,
        Action::Truncate(600),
    ];
    actions.extend([0, 20, 100, 350, 600, 850, 970, 999].map(Action::Flip));
    actions
}

#[test]
fn any_damage_to_any_pack_is_mended_from_another_repository() {
    let scene = Scene::new(false);
    let count = by_size(&scene.base()).len();
    assert!(count >= 4);
    for n in 0..count {
        for action in actions() {
            for forget_index in [false, true] {
                scene.renew();
                apply(action, &by_size(&scene.copy())[n]);
                if forget_index {
                    fs::remove_dir_all(scene.copy().join("index")).unwrap();
                }
                let what = format!("pack {n}, {action:?}, without index: {forget_index}");
                let report = scene.repair(vec![scene.other()]).unwrap();
                assert_eq!(report.lost, [], "{what}");
                // What was in a damaged place that nobody knows of may stay in quarantine.
                if report.packs_quarantined > 0 {
                    assert!(forget_index || !matches!(action, Action::Flip(_)), "{what}");
                    fs::remove_dir_all(scene.copy().join("quarantine")).unwrap();
                }
                scene.assert_whole_but(&what, forget_index || matches!(action, Action::Delete));
                let again = scene.repair(Vec::new()).unwrap();
                assert_eq!(again, RepairReport::default(), "{what}");
            }
        }
    }
}

#[test]
fn without_a_source_the_sound_rest_stays_and_what_is_lost_is_named() {
    let scene = Scene::new(false);
    let mut losses = 0;
    for n in 0..by_size(&scene.base()).len() {
        for action in actions() {
            scene.renew();
            apply(action, &by_size(&scene.copy())[n]);
            let what = format!("pack {n}, {action:?}");
            let report = scene.repair(Vec::new()).unwrap();
            let repo = Repository::open(&scene.copy()).unwrap();
            let lost: Vec<_> = report
                .lost
                .iter()
                .flat_map(|problem| &problem.paths)
                .collect();
            if report.lost.is_empty() {
                drop(fs::remove_dir_all(scene.copy().join("quarantine")));
                scene.assert_whole_but(&what, matches!(action, Action::Delete));
                continue;
            }
            losses += 1;
            let named = report
                .lost
                .iter()
                .any(|problem| problem.detail.contains("ref os"));
            assert!(!lost.is_empty() || named, "{what}: {report:?}");
            assert_eq!(
                report.packs_quarantined > 0,
                !matches!(action, Action::Delete),
                "{what}"
            );
            let found = fsck(&repo, Level::Data, &Silent).unwrap().problems;
            let kinds = [ProblemKind::Object, ProblemKind::Payload, ProblemKind::Refs];
            assert!(
                found.iter().all(|problem| kinds.contains(&problem.kind)),
                "{what}: {found:?}"
            );
            // A later repair with a source makes it whole.
            let report = scene.repair(vec![scene.other()]).unwrap();
            assert_eq!(report.lost, [], "{what}");
            drop(fs::remove_dir_all(scene.copy().join("quarantine")));
            scene.assert_whole_but(&what, true);
        }
    }
    assert!(losses > 5, "{losses}");
}

#[test]
fn a_flipped_bit_in_small_files_costs_none_of_their_neighbours() {
    let scene = Scene::new(false);
    let pack = by_size(&scene.copy())[0].clone();
    let size = fs::metadata(&pack).unwrap().len() as usize;
    let bytes = fs::read(&pack).unwrap();
    // The first block has all small payloads.
    let head = 40 + 40 * u32::from_le_bytes(bytes[24..28].try_into().unwrap()) as usize;
    for at in [16 + 50, 16 + 76, 16 + head - 3] {
        assert!(at < size);
        scene.renew();
        let mut bytes = fs::read(&pack).unwrap();
        bytes[at] ^= 4;
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
        let report = scene.repair(Vec::new()).unwrap();
        assert_eq!(report.lost, [], "at {at}: {report:?}");
        drop(fs::remove_dir_all(scene.copy().join("quarantine")));
        scene.assert_whole(&format!("entry table at {at}"));
    }
}

#[test]
fn packs_that_were_swapped_get_their_names_back() {
    let scene = Scene::new(true);
    for (a, b) in [(0, 1), (1, 2), (0, 3)] {
        scene.renew();
        let packs = by_size(&scene.copy());
        swap(&packs[a], &packs[b]);
        let report = scene.repair(Vec::new()).unwrap();
        assert_eq!(
            (report.lost.as_slice(), report.packs_quarantined),
            ([].as_slice(), 0)
        );
        scene.assert_whole(&format!("{a} and {b}"));
        assert_eq!(by_size(&scene.copy()).len(), packs.len());
    }
}

fn swap(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(&aside, b).unwrap();
}

#[test]
fn parity_mends_packs_without_any_source() {
    let scene = Scene::new(true);
    for n in 0..by_size(&scene.base()).len() {
        let mut actions = vec![Action::Truncate(990)];
        actions.extend([0, 20, 100, 350, 600, 850, 970, 999].map(Action::Flip));
        for action in actions {
            scene.renew();
            let pack = by_size(&scene.copy())[n].clone();
            apply(action, &pack);
            let report = scene.repair(Vec::new()).unwrap();
            assert_eq!(
                (report.packs_mended, report.packs_rewritten),
                (1, 0),
                "{n} {action:?}"
            );
            assert_eq!(report.lost, []);
            scene.assert_whole(&format!("{n} {action:?}"));
            let same = fs::read(scene.base().join("packs").join(pack.file_name().unwrap()));
            assert!(same.unwrap() == fs::read(&pack).unwrap());
        }
    }
}

#[test]
fn a_random_mebibyte_of_a_pack_is_mended_from_parity() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for n in 0..44 {
        fs::write(tree.join(format!("f{n}")), noise(n, 1 << 20)).unwrap();
    }
    let path = dir.path().join("repo");
    let mut repo = Repository::init(&path).unwrap();
    repo.set_parity(true).unwrap();
    let (id, ..) = commit_dir(&repo, "os", &tree).unwrap();
    drop(repo);
    let pack = by_size(&path)[0].clone();
    let good = fs::read(&pack).unwrap();
    let side = fs::metadata(pack.with_extension("par")).unwrap().len();
    assert!(
        side * 100 < good.len() as u64 * 3,
        "{side} of {}",
        good.len()
    );
    for seed in 0..4u64 {
        let mut bad = good.clone();
        let at = (seed * 13_370_001 + 777) as usize % (bad.len() - (1 << 20));
        bad[at..at + (1 << 20)].copy_from_slice(&noise(seed + 1000, 1 << 20));
        fs::write(&pack, bad).unwrap();
        let report = repair_with(&path, &RepairOptions::default(), Vec::new()).unwrap();
        assert_eq!((report.packs_mended, report.lost.len()), (1, 0), "at {at}");
        assert!(fs::read(&pack).unwrap() == good, "at {at}");
    }
    let repo = Repository::open(&path).unwrap();
    assert_eq!(list_commit(&repo, &id).unwrap(), list_dir(&tree));
}

#[test]
fn damaged_parity_files_are_made_anew_and_those_without_pack_deleted() {
    let scene = Scene::new(true);
    for action in actions() {
        scene.renew();
        apply(action, &by_size(&scene.copy())[0].with_extension("par"));
        let repo = Repository::open(&scene.copy()).unwrap();
        let report = fsck(&repo, Level::Data, &Silent).unwrap();
        let deleted = matches!(action, Action::Delete);
        let kinds: Vec<ProblemKind> = report.problems.iter().map(|p| p.kind).collect();
        let expected = if deleted {
            vec![]
        } else {
            vec![ProblemKind::Parity]
        };
        assert_eq!(
            (kinds, report.without_parity),
            (expected, u64::from(deleted)),
            "{action:?}"
        );
        drop(repo);
        fs::write(
            scene.copy().join(format!("packs/{}.par", "ab".repeat(16))),
            "old",
        )
        .unwrap();
        let report = scene.repair(Vec::new()).unwrap();
        assert_eq!(
            (report.parity_made, report.parity_deleted),
            (1, 1),
            "{action:?}"
        );
        scene.assert_whole(&format!("{action:?}"));
    }
}

#[test]
fn parity_is_switched_on_and_off_and_goes_with_its_pack() {
    let scene = Scene::new(false);
    let files = |repo: &Path| packs(repo).len() - by_size(repo).len();
    let switch = |parity| RepairOptions {
        parity: Some(parity),
        ..RepairOptions::default()
    };
    let count = by_size(&scene.copy()).len() as u64;
    let on = repair_with(&scene.copy(), &switch(true), Vec::new()).unwrap();
    assert_eq!(
        (on.parity_made, files(&scene.copy()) as u64),
        (count, count)
    );
    let repo = Repository::open(&scene.copy()).unwrap();
    assert!(repo.has_parity());
    let options = PruneOptions {
        refs_only: true,
        depth: Some(0),
        ..PruneOptions::default()
    };
    prune(&repo, &options, &Silent).unwrap();
    assert_eq!(files(&scene.copy()), by_size(&scene.copy()).len());
    assert_eq!(fsck(&repo, Level::Data, &Silent).unwrap().without_parity, 0);
    drop(repo);
    let off = repair_with(&scene.copy(), &switch(false), Vec::new()).unwrap();
    assert_eq!((off.parity_made, files(&scene.copy())), (0, 0));
    assert!(!Repository::open(&scene.copy()).unwrap().has_parity());
}

#[test]
fn a_checkout_gives_back_files_and_directories() {
    let scene = Scene::new(false);
    let out = scene.dir.path().join("out");
    let repo = Repository::open(&scene.base()).unwrap();
    let options = CheckoutOptions::default();
    if checkout(&repo, &scene.commits[1].0, &out, &options, &Silent).is_err() {
        println!("skipped: a checkout with owners takes root");
        return;
    }
    let tree = scene.dir.path().join("tree");
    // All payloads; all metadata; the first and largest metadata pack.
    for damaged in [0, 2] {
        scene.renew();
        apply(Action::Delete, &by_size(&scene.copy())[damaged]);
        let first: Box<dyn Source> = Box::new(DirectorySource::new(&out));
        let report = scene.repair(vec![first]).unwrap();
        assert!(
            report.objects_restored + report.payloads_restored > 0,
            "{damaged}"
        );
        let repo = Repository::open(&scene.copy()).unwrap();
        let commits = repo.commits().unwrap();
        if damaged == 0 {
            // The first commit's version of one large and one small file is nowhere.
            assert_eq!(
                list_commit(&repo, &scene.commits[1].0).unwrap(),
                scene.commits[1].1
            );
            assert!(report.lost.iter().all(|p| {
                p.paths
                    .iter()
                    .all(|p| p.commit == commits[0] || p.commit == commits[1])
            }));
            let paths = report.lost.iter().flat_map(|p| &p.paths);
            assert!(
                paths
                    .clone()
                    .all(|p| p.path == "/usr/changing" || p.path == "/usr/small"),
                "{report:?}"
            );
        } else {
            assert!(
                report.lost.iter().all(|p| p
                    .object
                    .as_deref()
                    .is_none_or(|o| o.starts_with("commit")
                        || o.starts_with("file")
                        || o.starts_with("dirtree"))),
                "{report:?}"
            );
        }
    }
    drop(tree);
}

#[test]
fn a_dry_run_tells_what_a_repair_does_and_changes_nothing() {
    let scene = Scene::new(true);
    let dry = RepairOptions {
        dry_run: true,
        ..RepairOptions::default()
    };
    for (action, with_source) in [
        (Action::Flip(500), false),
        (Action::Garbage, false),
        (Action::Garbage, true),
        (Action::Delete, true),
    ] {
        scene.renew();
        apply(action, &by_size(&scene.copy())[0]);
        fs::write(scene.copy().join("refs"), "garbage").unwrap();
        let listing = || {
            let mut listing = list_dir(&scene.copy());
            // Opening the database alone changes its files.
            listing.retain(|path, _| !path.starts_with("/index/"));
            listing
        };
        let before = listing();
        let sources = || match with_source {
            true => vec![scene.other()],
            false => Vec::new(),
        };
        let told = repair_with(&scene.copy(), &dry, sources()).unwrap();
        assert_eq!(listing(), before, "{action:?}");
        let done = scene.repair(sources()).unwrap();
        assert_eq!(told.packs_mended, done.packs_mended, "{action:?}");
        assert_eq!(told.payloads_restored, done.payloads_restored, "{action:?}");
        assert_eq!(
            told.lost
                .iter()
                .filter(|p| p.kind != ProblemKind::Refs)
                .count(),
            done.lost.len(),
            "{action:?}"
        );
    }
}

#[test]
fn damaged_refs_come_back_from_their_copy() {
    let scene = Scene::new(false);
    for action in actions() {
        for name in ["refs", "refs.copy"] {
            scene.renew();
            apply(action, &scene.copy().join(name));
            let report = scene.repair(Vec::new()).unwrap();
            assert_eq!(report.notes.len(), 1, "{action:?} {name}: {report:?}");
            scene.assert_whole(&format!("{action:?} {name}"));
            assert_eq!(
                fs::read(scene.copy().join("refs")).unwrap(),
                fs::read(scene.copy().join("refs.copy")).unwrap()
            );
        }
    }
}

#[test]
fn refs_without_copy_are_rebuilt_from_what_commits_say() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let path = dir.path().join("repo");
    let repo = Repository::init(&path).unwrap();
    let (plain, ..) = commit_dir(&repo, "plain", &tree).unwrap();
    let mut last = Vec::new();
    for (name, count) in [("os/a", 3u64), ("os/b", 1)] {
        let mut parent = None;
        for n in 0..count {
            let mut metadata = Metadata::default();
            metadata.push("ostree.ref-binding", Variant::strings([name]));
            let commit = Commit {
                metadata,
                parent,
                timestamp: 1_700_000_000 + n,
                ..repo.commit(&plain).unwrap()
            };
            let mut txn = repo.begin(&Silent).unwrap();
            parent = Some(txn.put_commit(&commit).unwrap());
            txn.publish(&[]).unwrap();
        }
        last.push((name.to_owned(), parent.unwrap()));
    }
    drop(repo);
    fs::write(path.join("refs"), "garbage").unwrap();
    fs::remove_file(path.join("refs.copy")).unwrap();
    let report = repair_with(&path, &RepairOptions::default(), Vec::new()).unwrap();
    assert_eq!(report.lost, [], "{report:?}");
    let refs = Repository::open(&path).unwrap().refs().unwrap().map;
    assert_eq!(refs.into_iter().collect::<Vec<_>>(), last);
}

#[test]
fn small_files_of_the_repository_are_made_anew() {
    let scene = Scene::new(false);
    for action in [
        Action::Garbage,
        Action::Empty,
        Action::Delete,
        Action::Truncate(500),
    ] {
        for name in [
            "meta.json",
            "doomed",
            "cache/scrub",
            "index/objects.idx",
            "index/sled/db",
        ] {
            scene.renew();
            let file = scene.copy().join(name);
            if !file.exists() {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, "something that is not right").unwrap();
            }
            apply(action, &file);
            if name == "doomed" && matches!(action, Action::Empty | Action::Truncate(_)) {
                assert!(Repository::open(&scene.copy()).is_err());
            }
            let report = scene.repair(Vec::new()).unwrap();
            assert_eq!(report.lost, [], "{action:?} {name}");
            drop(fs::remove_dir_all(scene.copy().join("quarantine")));
            scene.assert_whole(&format!("{action:?} {name}"));
        }
        scene.renew();
        let dead = scene.copy().join("staging/99999999.0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("data.0"), noise(1, 1000)).unwrap();
        apply(action, &dead.join("data.0"));
        // The next writer clears it away, and nobody minds it before.
        scene.repair(Vec::new()).unwrap();
        let repo = Repository::open(&scene.copy()).unwrap();
        drop(repo.begin(&Silent).unwrap());
        scene.assert_whole(&format!("{action:?} staging"));
    }
}

#[test]
fn files_that_were_swapped_are_told_apart() {
    let scene = Scene::new(true);
    let pack = |repo: &Path, n: usize| by_size(repo)[n].clone();
    let pairs: [fn(&Path) -> PathBuf; 6] = [
        |repo| repo.join("refs"),
        |repo| repo.join("meta.json"),
        |repo| by_size(repo)[0].clone(),
        |repo| by_size(repo)[1].with_extension("par"),
        |repo| repo.join("index/objects.idx"),
        |repo| repo.join("cache/scrub"),
    ];
    for (n, a) in pairs.iter().enumerate() {
        for b in &pairs[n + 1..] {
            scene.renew();
            let repo = Repository::open(&scene.copy()).unwrap();
            repo.reindex(&Silent).unwrap();
            fsck(&repo, Level::Data, &Silent).unwrap();
            drop(repo);
            let (a, b) = (a(&scene.copy()), b(&scene.copy()));
            swap(&a, &b);
            let what = format!("{} and {}", a.display(), b.display());
            let report = scene.repair(vec![scene.other()]).unwrap();
            assert_eq!(report.lost, [], "{what}");
            drop(fs::remove_dir_all(scene.copy().join("quarantine")));
            scene.assert_whole(&what);
        }
    }
    assert!(pack(&scene.base(), 0).exists());
}

/// Adds a pack whose every checksum is right, with other bytes under the name of a dirmeta object.
fn forge(repo: &Path) {
    use sha2::{Digest, Sha256};
    let sum = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_64(bytes).to_le_bytes();
    let data = b"not what it is called";
    let len = (data.len() as u32).to_le_bytes();
    let row = [[7; 32].as_slice(), &[3, 0, 0, 0], &len].concat();
    let one = 1u32.to_le_bytes();
    let mut head = [
        b"GBLK".as_slice(),
        &[0; 4],
        &one,
        &len,
        &len,
        &[0; 4],
        &sum(data),
    ]
    .concat();
    let head_sum = sum(&[head.as_slice(), &row].concat());
    head.extend([head_sum.as_slice(), &row, data].concat());
    let block_len = (head.len() as u32).to_le_bytes();
    let mut footer = [
        &16u64.to_le_bytes(),
        block_len.as_slice(),
        &one,
        &len,
        &[0; 4],
    ]
    .concat();
    footer.extend([sum(data), head_sum].concat());
    let end = (16 + head.len() as u64).to_le_bytes();
    footer.extend([one.as_slice(), &one, &end].concat());
    footer.extend(sum(&footer));
    footer.extend(b"GROVEFT1");
    let id: String = Sha256::digest(&footer)[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let pack = [b"GROVEPK1".as_slice(), &[0; 8], &head, &footer].concat();
    fs::write(repo.join(format!("packs/{id}.pack")), pack).unwrap();
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_replaced_when_looked_for() {
    let scene = Scene::new(false);
    forge(&scene.copy());
    let repo = Repository::open(&scene.copy()).unwrap();
    let quick = fsck(&repo, Level::Data, &Silent).unwrap();
    let deep = fsck(&repo, Level::Deep, &Silent).unwrap();
    assert_eq!(
        (quick.problems.len(), deep.problems.len()),
        (0, 1),
        "{deep:?}"
    );
    drop(repo);
    let options = RepairOptions {
        deep: true,
        ..RepairOptions::default()
    };
    let report = repair_with(&scene.copy(), &options, vec![scene.other()]).unwrap();
    assert_eq!(
        (report.lost.as_slice(), report.packs_quarantined),
        ([].as_slice(), 1)
    );
    fs::remove_dir_all(scene.copy().join("quarantine")).unwrap();
    scene.assert_whole("forged");
}

#[test]
fn fsck_names_the_paths_that_damage_hits() {
    let scene = Scene::new(false);
    let pack = by_size(&scene.copy())[0].clone();
    apply(Action::Flip(500), &pack);
    let repo = Repository::open(&scene.copy()).unwrap();
    for level in [Level::Data, Level::Deep] {
        let found = fsck(&repo, level, &Silent).unwrap().problems;
        let block = found.iter().find(|p| p.kind == ProblemKind::Block);
        let block = block.unwrap_or_else(|| panic!("{found:?}"));
        assert!(block.pack.is_some() && block.offset.is_some() && block.object.is_some());
        assert!(!block.paths.is_empty(), "{block:?}");
        // Exactly those that cannot be read.
        for (id, listing) in &scene.commits {
            let commit = repo.commit(id).unwrap();
            for path in listing
                .keys()
                .filter(|path| path.starts_with("/usr/sizes/"))
            {
                let usr = repo.dirtree(&commit.tree).unwrap().dir("usr").unwrap().tree;
                let sizes = repo.dirtree(&usr).unwrap().dir("sizes").unwrap().tree;
                let name = path.rsplit('/').next().unwrap();
                let sizes = repo.dirtree(&sizes).unwrap();
                let Some((_, file)) = sizes.files.iter().find(|(n, _)| n == name) else {
                    continue;
                };
                let file = repo.file(file).unwrap();
                let read = repo.read_at(&file, 0, &mut vec![0; file.size as usize]);
                let hit = found
                    .iter()
                    .flat_map(|p| &p.paths)
                    .any(|hit| hit.commit == *id && hit.path == *path);
                assert_eq!(read.is_err(), hit, "{path}");
            }
        }
    }
    let one = FsckOptions {
        paths: 1,
        ..FsckOptions::default()
    };
    let found = fsck(&repo, one, &Silent).unwrap().problems;
    let block = found.iter().find(|p| p.kind == ProblemKind::Block);
    let block = block.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(block.paths.len(), 1);
    assert!(block.more_paths > 0, "both commits have the file");
}

/// Cancels after some bytes have been checked.
#[derive(Debug)]
struct Impatient(std::sync::atomic::AtomicU64);

impl grove_engine::Monitor for Impatient {
    fn advance(&self, _: grove_engine::monitor::Phase, amount: u64) {
        self.0
            .fetch_add(amount, std::sync::atomic::Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) > 100_000
    }
}

#[test]
fn a_check_goes_on_where_it_was_interrupted_and_leaves_out_what_is_young() {
    for level in [Level::Data, Level::Deep] {
        let scene = Scene::new(false);
        let repo = Repository::open(&scene.copy()).unwrap();
        let packs = by_size(&scene.copy()).len() as u64;
        let at = |now, resume, max_age| FsckOptions {
            level,
            now: Some(now),
            resume,
            max_age,
            ..FsckOptions::default()
        };
        let pool = rayon_of_one();
        let impatient = Impatient(0.into());
        let stopped = pool.install(|| fsck(&repo, at(1000, false, None), &impatient));
        assert!(
            matches!(stopped, Err(grove_engine::Error::Cancelled)),
            "{stopped:?}"
        );
        let resumed = fsck(&repo, at(2000, true, None), &Silent).unwrap();
        assert!((1..packs).contains(&resumed.packs_skipped), "{resumed:?}");
        assert_eq!(
            (resumed.never_checked, resumed.oldest_check),
            (0, Some(1000))
        );
        // It came to its end: the next one begins anew.
        let again = fsck(&repo, at(3000, true, None), &Silent).unwrap();
        assert_eq!((again.packs_skipped, again.oldest_check), (0, Some(3000)));
        let young = fsck(&repo, at(3500, false, Some(600)), &Silent).unwrap();
        assert_eq!((young.packs_skipped, young.bytes), (packs, 0));
        let old = fsck(&repo, at(3500, false, Some(500)), &Silent).unwrap();
        assert_eq!((old.packs_skipped, old.oldest_check), (0, Some(3500)));
        // Damage takes the date away.
        let damaged = by_size(&scene.copy())[0].clone();
        drop(repo);
        apply(Action::Flip(500), &damaged);
        let repo = Repository::open(&scene.copy()).unwrap();
        let report = fsck(&repo, at(4000, false, None), &Silent).unwrap();
        assert!(!report.problems.is_empty());
        assert_eq!((report.never_checked, report.oldest_check), (1, None));
        let quick = fsck(&repo, Level::Quick, &Silent).unwrap();
        assert_eq!((quick.never_checked, quick.bytes), (1, 0));
    }
}

fn rayon_of_one() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
}

//! Committing directories: equal to ostree, deterministic, nothing read or written twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use grove_engine::ops::source::SourceOptions;
use grove_engine::{ObjectId, Repository};
use tempfile::tempdir;

use super::support::{
    commit_dir, commit_dir_with, have, list_commit, list_dir, make_tree, packs, run,
};

#[test]
fn a_commit_gives_back_exactly_what_was_committed() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (id, source, _) = commit_dir(&repo, "os", &tree).unwrap();
    assert_eq!(list_commit(&repo, &id).unwrap(), list_dir(&tree));
    assert_eq!(
        source.files as usize + source.dirs as usize,
        list_dir(&tree).len()
    );
    let reopened = Repository::open(repo.path()).unwrap();
    assert_eq!(list_commit(&reopened, &id).unwrap(), list_dir(&tree));
}

#[test]
fn the_checksum_is_the_one_ostree_computes() {
    if !have("ostree") {
        return;
    }
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 2);
    let xattr = |path: &str, name: &str, value: &str| {
        let set = Command::new("setfattr")
            .args(["-n", name, "-v", value])
            .arg(tree.join(path))
            .output();
        set.is_ok_and(|out| out.status.success())
    };
    for (path, name, value) in [
        ("usr/bin/tool", "user.zeta", "last"),
        ("usr/bin/tool", "user.alpha", "first"),
        ("usr/bin/tool", "user.empty", ""),
        ("usr/bin", "user.on-a-directory", "value"),
        (
            "usr/bin/su",
            "security.capability",
            "0x0100000200240000000000000000000000000000",
        ),
    ] {
        if !xattr(path, name, value) {
            println!("not covered here: {name}");
        }
    }
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    for (options, theirs) in [
        (SourceOptions::default(), &[][..]),
        (
            SourceOptions {
                canonical_permissions: true,
                ..Default::default()
            },
            &["--canonical-permissions"],
        ),
        (
            SourceOptions {
                no_xattrs: true,
                ..Default::default()
            },
            &["--no-xattrs"],
        ),
        (
            SourceOptions {
                owner_uid: Some(7),
                owner_gid: Some(8),
                ..Default::default()
            },
            &["--owner-uid=7", "--owner-gid=8"],
        ),
    ] {
        let other = dir.path().join(format!(
            "ostree{}",
            theirs.len() + theirs.first().map_or(0, |t| t.len())
        ));
        run(Command::new("ostree")
            .arg(format!("--repo={}", other.display()))
            .args(["init", "--mode=archive"]));
        let expected = run(Command::new("ostree")
            .arg(format!("--repo={}", other.display()))
            .args([
                "commit",
                "-b",
                "os",
                "-s",
                "test",
                "--orphan",
                "--no-bindings",
            ])
            .args(["--timestamp=@1700000000"])
            .args(theirs)
            .arg(&tree));
        repo.update_refs(&[grove_engine::RefUpdate {
            name: "os".into(),
            expected: None,
            new: None,
        }])
        .unwrap();
        let (id, _, _) = commit_dir_with(&repo, "os", &tree, &options).unwrap();
        assert_eq!(id.to_string(), expected, "{theirs:?}");
    }
}

#[test]
fn the_same_input_gives_the_same_packs() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 3);
    let names = ["a", "b"].map(|name| {
        let repo = Repository::init(&dir.path().join(name)).unwrap();
        commit_dir(&repo, "os", &tree).unwrap();
        let packs = packs(repo.path());
        packs
            .iter()
            .map(|p| (p.file_name().unwrap().to_owned(), fs::read(p).unwrap()))
            .collect::<Vec<_>>()
    });
    assert_eq!(names[0], names[1]);
}

#[test]
fn a_second_commit_of_the_same_tree_reads_and_writes_nothing() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 4);
    settle(&tree);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    commit_dir(&repo, "os", &tree).unwrap();
    let before = packs(repo.path());
    let (_, source, write) = commit_dir(&repo, "other", &tree).unwrap();
    let links = list_dir(&tree)
        .values()
        .filter(|v| v.starts_with("120777"))
        .count() as u64;
    assert_eq!(source.unread_files, source.files - links);
    assert_eq!(
        (write.new_files, write.new_payload_bytes, write.new_metadata),
        (0, 0, 0)
    );
    assert_eq!(packs(repo.path()), before);
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_seen() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 5);
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    settle(&tree);
    commit_dir(&repo, "os", &tree).unwrap();
    let path = tree.join("usr/same-1");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"THE SAME BYTES").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    let (id, _, _) = commit_dir(&repo, "os", &tree).unwrap();
    assert_eq!(list_commit(&repo, &id).unwrap(), list_dir(&tree));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let (id, _, _) = commit_dir(&repo, "os", &tree).unwrap();
    assert_eq!(list_commit(&repo, &id).unwrap(), list_dir(&tree));
}

#[test]
fn several_changes_within_one_second_are_all_seen() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    for round in 0..20 {
        fs::write(tree.join("f"), format!("round {round:02}")).unwrap();
        let (id, _, _) = commit_dir(&repo, "os", &tree).unwrap();
        assert_eq!(
            list_commit(&repo, &id).unwrap(),
            list_dir(&tree),
            "round {round}"
        );
    }
}

#[test]
fn equal_payloads_under_other_metadata_are_stored_once() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), super::support::noise(1, 500_000)).unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    commit_dir(&repo, "os", &tree).unwrap();
    let options = SourceOptions {
        owner_uid: Some(99),
        ..Default::default()
    };
    let (_, _, write) = commit_dir_with(&repo, "os", &tree, &options).unwrap();
    assert_eq!((write.new_files, write.new_payload_bytes), (1, 0));
}

#[test]
fn revs_resolve_as_in_ostree() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let (first, _, _) = commit_dir(&repo, "os/x", &tree).unwrap();
    fs::write(tree.join("f"), "2").unwrap();
    let (second, _, _) = commit_dir(&repo, "os/x", &tree).unwrap();
    let resolve = |rev: &str| repo.resolve_rev(rev).ok();
    assert_eq!(resolve("os/x"), Some(second));
    assert_eq!(resolve("os/x^"), Some(first));
    assert_eq!(resolve(&second.to_string()[..9]), Some(second));
    assert_eq!(
        resolve(&format!("{}^", &second.to_string()[..9])),
        Some(first)
    );
    for unknown in [
        "",
        "os",
        "os/x^^",
        "nothing",
        &ObjectId::of(b"?").to_string(),
    ] {
        assert_eq!(resolve(unknown), None, "{unknown}");
    }
}

/// Makes files look as if they had not changed for a while, as far as the stat cache is concerned.
fn settle(tree: &std::path::Path) {
    let newest = || SystemTime::now() + Duration::from_millis(1);
    let ready = newest() + Duration::from_millis(2100);
    // The change time cannot be set, only waited for.
    while SystemTime::now() < ready {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(tree.exists());
}

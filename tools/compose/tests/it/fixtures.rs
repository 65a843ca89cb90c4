//! The odd packages and the small distribution that the workspace shares.

use std::path::{Path, PathBuf};

use grove_compose::find_packages;
use grove_compose::import::{DigestTable, import_packages};
use grove_compose::{ImportOptions, UnknownOwner, merge_packages, package_list};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, Repository, Silent};
use grove_fixtures::{mini, odd::packages};

use crate::support::explain;

/// Imports packages into a new repository and merges them; returns the tree and what was skipped.
fn import(paths: &[PathBuf], options: &ImportOptions) -> Result<(ObjectId, u64), String> {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut txn = repo.begin(&Silent).unwrap();
    let packages = import_packages(&mut txn, paths, options, &DigestTable::default(), &Silent)
        .map_err(|error| explain(&error))?;
    let mut tree = MutableTree::default();
    merge_packages(&repo, &mut tree, &packages).map_err(|error| explain(&error))?;
    let (tree, _) = txn.put_tree(&tree).unwrap();
    txn.publish(&[]).unwrap();
    let special = packages
        .iter()
        .map(|package| package.record.skipped.special);
    Ok((tree, special.sum()))
}

type Build = fn(&Path) -> grove_fixtures::Result<PathBuf>;

#[test]
fn odd_packages_are_refused_for_what_is_odd_about_them() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(Build, &str); 15] = [
        (
            packages::parent_traversal,
            "etc/evil: \".\" or \"..\" in the path",
        ),
        (
            packages::payload_traversal,
            "../../../etc/evil: in the payload, but not in the header",
        ),
        (
            packages::file_through_symlink,
            "usr/x/passwd: passes through the symbolic link usr/x",
        ),
        (packages::unclean_path, "/usr/./share//unclean: \".\""),
        (packages::duplicate_path, "usr/share/twice: listed twice"),
        (packages::truncated, "payload: the file is truncated"),
        (packages::truncated_header, "ends after"),
        (
            packages::flipped_payload,
            "payload: SHA-256 digest mismatch",
        ),
        (packages::flipped_header, "digest mismatch"),
        (packages::huge_header, "more tags or data than rpm allows"),
        (
            packages::file_digest_mismatch,
            "usr/share/mismatch: SHA-256 digest mismatch",
        ),
        (
            packages::size_mismatch,
            "usr/share/longer: 3 bytes in the header",
        ),
        (
            packages::non_utf8_name,
            "usr/share/caf\u{fffd}: the name is not UTF-8",
        ),
        (packages::device_nodes, "dev/odd-null: a character device"),
        (
            |_| Ok(PathBuf::from("/nonexistent.rpm")),
            "/nonexistent.rpm: cannot be read",
        ),
    ];
    for (build, words) in cases {
        let path = build(dir.path()).unwrap();
        let error = import(std::slice::from_ref(&path), &ImportOptions::default()).unwrap_err();
        assert!(error.contains(words), "{error} is not: {words}");
        assert!(
            error.contains(&*path.to_string_lossy()),
            "{error} does not name the package"
        );
    }
}

#[test]
fn packages_that_are_only_unusual_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let mut skipping = ImportOptions::default();
    skipping.skip_special = true;
    let cases: [(Build, u64); 5] = [
        (packages::absolute_payload_name, 0),
        (packages::many_entries, 0),
        (packages::lzma_payload, 0),
        (packages::non_utf8_name, 1),
        (packages::device_nodes, 4),
    ];
    for (build, skipped) in cases {
        let path = build(dir.path()).unwrap();
        assert_eq!(import(&[path], &skipping).unwrap().1, skipped);
    }
    let (a, b) = packages::identical_pair(dir.path()).unwrap();
    assert!(import(&[a, b], &ImportOptions::default()).is_ok());
    for build in [packages::conflicting_pair, packages::kind_conflict_pair] {
        let (a, b) = build(dir.path()).unwrap();
        let error = import(&[a, b], &ImportOptions::default()).unwrap_err();
        assert!(
            error.contains("-a-1.0-1.noarch and ") && error.contains("-b-1.0-1"),
            "{error}"
        );
    }
}

#[test]
fn a_second_release_reads_only_packages_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut trees = Vec::new();
    let mut known = Vec::new();
    for release in [1, 2, 1] {
        let rpms = dir.path().join(format!("release-{release}"));
        mini::build_distribution(&rpms, release, mini::Scale::Small).unwrap();
        let paths = find_packages(&rpms).unwrap();
        let mut txn = repo.begin(&Silent).unwrap();
        let digests = DigestTable::default();
        let mut options = ImportOptions::default();
        options.owners.unknown = UnknownOwner::Root;
        options.skip_special = true;
        let packages = import_packages(&mut txn, &paths, &options, &digests, &Silent);
        let packages = packages.unwrap_or_else(|error| panic!("{}", explain(&error)));
        let mut tree = MutableTree::default();
        merge_packages(&repo, &mut tree, &packages).unwrap();
        trees.push(txn.put_tree(&tree).unwrap());
        txn.publish(&[]).unwrap();
        known.push(packages.iter().filter(|package| package.known).count());
        assert!(package_list(&packages).bytes().len() > packages.len() * 8);
    }
    println!("packages known in release 1, 2 and 1 again: {known:?}");
    assert_eq!(known[0], 0);
    assert!(known[1] > 0 && known[2] > known[1]);
    assert_eq!(trees[0], trees[2]);
    assert_ne!(trees[0], trees[1]);
}

//! Files that the next version of a package has at other places.

use grove_compose::import::{DigestTable, import_packages};
use grove_compose::{ImportOptions, merge_packages};
use grove_engine::object::{Commit, Metadata};
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, Repository, Silent, WriteReport};
use grove_fixtures::content::code::{self, Object};
use grove_fixtures::rng::Rng;

use crate::forge::{FILE, Forge, Item, item};

fn program(seed: u64) -> Vec<u8> {
    code::elf(&mut Rng::new(seed), Object::Dynamic, 200_000, "program")
}

/// Commits two packages, one of which is always the same.
fn commit(repo: &Repository, parent: Option<ObjectId>, items: &[Item]) -> (ObjectId, WriteReport) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, items: &[Item]| {
        let forge = Forge {
            name: name.into(),
            ..Forge::new(items)
        };
        forge.write(dir.path())
    };
    let paths = [
        write("app", items),
        write("other", &[item("/usr/lib/other", FILE, &program(1))]),
    ];
    let mut txn = repo.begin(&Silent).unwrap();
    if let Some(parent) = &parent {
        txn.set_parent(parent).unwrap();
    }
    let (options, digests) = (ImportOptions::default(), DigestTable::default());
    let packages = import_packages(&mut txn, &paths, &options, &digests, &Silent).unwrap();
    let mut tree = MutableTree::default();
    merge_packages(repo, &mut tree, &packages).unwrap();
    let (tree, meta) = txn.put_tree(&tree).unwrap();
    let commit = Commit {
        metadata: Metadata::default(),
        parent,
        subject: String::new(),
        body: String::new(),
        timestamp: 0,
        tree,
        meta,
    };
    let id = txn.put_commit(&commit).unwrap();
    (id, txn.publish(&[]).unwrap())
}

#[test]
fn a_package_that_moves_its_files_is_stored_as_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repository::init(&dir.path().join("repo")).unwrap();
    let mut files = [program(2), program(3)];
    let old = [
        item("/usr/lib/chromium/engine.so", FILE, &files[0]),
        item("/usr/lib/chromium/codec.so", FILE, &files[1]),
    ];
    let (parent, first) = commit(&repo, None, &old);
    files
        .iter_mut()
        .for_each(|file| code::update(file, &mut Rng::new(4)));
    // Like the file of a package that stays where it is, which it is not compared with.
    let mut copy = program(1);
    code::update(&mut copy, &mut Rng::new(5));
    let new = [
        item("/opt/browser/libengine-7f3a.so", FILE, &files[0]),
        item("/opt/browser/libcodec-00be.so", FILE, &files[1]),
        item("/opt/browser/copy", FILE, &copy),
    ];
    let (_, second) = commit(&repo, Some(parent), &new);
    assert_eq!((first.alike_files, second.alike_files), (0, 2));
    // Of three programs, one is stored whole.
    assert!(second.stored_bytes * 2 < first.stored_bytes, "{second:?}");
}

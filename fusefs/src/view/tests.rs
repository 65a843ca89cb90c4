//! The view over a repository in memory.

mod images;
mod numbers;

use grove_engine::PayloadId;

use super::attr::{S_IFMT, S_IFREG};
use super::fake::Fake;
use super::*;
use crate::inode::ROOT;

/// `/usr/{a,b,link}`, `/opt/a`: `a` is the same file object in both directories, whose listings
/// are the same too.
fn sample() -> (Arc<Fake>, ObjectId) {
    let fake = Arc::new(Fake::default());
    let a = fake.file(
        0o644,
        b"hello",
        &[("user.x", "1"), ("security.capability", "cap")],
    );
    let b = fake.file(0o4755, &[7; 1000], &[]);
    let twin = fake.dir(&[("a", a)], &[]);
    let usr = fake.dir(
        &[("a", a), ("b", b), ("link", fake.symlink("a"))],
        &[("twin", twin)],
    );
    let opt = fake.dir(&[("a", a)], &[("twin", twin)]);
    let root = fake.dir(&[], &[("opt", opt), ("usr", usr)]);
    let commit = fake.commit(root, "one");
    (fake, commit)
}

fn open(fake: &Arc<Fake>, what: What) -> View<Fake> {
    View::new(Arc::clone(fake), what).unwrap()
}

/// The same repository, with a place for images.
fn with_images(fake: Arc<Fake>, images: &std::path::Path) -> Arc<Fake> {
    let mut fake = Arc::into_inner(fake).unwrap();
    fake.images = Some(images.to_owned());
    Arc::new(fake)
}

fn walk_to(view: &View<Fake>, path: &str) -> Entry {
    let mut entry = view.getattr(ROOT).unwrap();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match view.lookup(entry.attr.number, name.as_bytes()).unwrap() {
            Lookup::Found(found) => entry = found,
            Lookup::Absent(_) => panic!("{path}: no {name}"),
        }
    }
    entry
}

fn number(view: &View<Fake>, path: &str) -> u64 {
    walk_to(view, path).attr.number
}

/// Names of a listing, asked for in pages of `page` entries.
fn list(view: &View<Fake>, number: u64, page: usize) -> Vec<(String, Entry, bool)> {
    let mut all: Vec<(String, Entry, bool)> = Vec::new();
    let mut offset = 0;
    loop {
        let mut taken = 0;
        view.readdir(number, offset, &mut |item| {
            if taken == page {
                return true;
            }
            taken += 1;
            offset = item.next;
            all.push((item.name.to_owned(), item.entry, item.damage.is_some()));
            false
        })
        .unwrap();
        if taken == 0 {
            return all;
        }
    }
}

fn names(view: &View<Fake>, number: u64) -> Vec<String> {
    let mut names: Vec<_> = list(view, number, 2)
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    names.sort();
    names.retain(|name| name != "." && name != "..");
    names
}

#[test]
fn attributes_are_those_of_the_objects() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    let table = [
        ("usr/a", 0o100_644, 7, 8, 5, 1),
        ("usr/b", 0o104_755, 7, 8, 1000, 2),
        ("usr/link", 0o120_777, 7, 8, 1, 0),
        ("usr", 0o040_755, 1, 2, 4096, 8),
        ("", 0o040_755, 1, 2, 4096, 8),
    ];
    for (path, mode, uid, gid, size, blocks) in table {
        let Entry { attr, lifetime } = walk_to(&view, path);
        let found = (attr.mode, attr.uid, attr.gid, attr.size, attr.blocks);
        assert_eq!(found, (mode, uid, gid, size, blocks), "{path}");
        assert_eq!(lifetime, Lifetime::Forever, "{path}");
        assert_eq!(attr.mtime, std::time::SystemTime::UNIX_EPOCH, "{path}");
        assert_eq!(view.getattr(attr.number).unwrap().attr, attr, "{path}");
    }
}

#[test]
fn listings_agree_with_lookups_whatever_the_page_size() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    let usr = number(&view, "usr");
    for page in [1, 2, 3, 100] {
        let listed = list(&view, usr, page);
        let names: Vec<_> = listed.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, [".", "..", "a", "b", "link", "twin"], "{page}");
        assert_eq!(
            [listed[0].1.attr.number, listed[1].1.attr.number],
            [usr, ROOT]
        );
        for (name, entry, damaged) in &listed[2..] {
            assert_eq!(*entry, walk_to(&view, &format!("usr/{name}")));
            assert!(!damaged);
        }
    }
}

#[test]
fn identical_files_share_a_number_and_directories_never_do() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    assert_eq!(number(&view, "usr/a"), number(&view, "opt/a"));
    assert_eq!(number(&view, "usr/a"), number(&view, "opt/twin/a"));
    assert_ne!(number(&view, "usr/twin"), number(&view, "opt/twin"));
    let again = open(&fake, What::Commit(commit));
    for path in ["usr/a", "usr/link", "opt/twin", "usr"] {
        assert_eq!(number(&again, path), number(&view, path), "{path}");
    }
}

#[test]
fn reads_end_where_the_file_ends() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    let a = number(&view, "usr/a");
    let table: [(u64, usize, &[u8]); 6] = [
        (0, 100, b"hello"),
        (0, 2, b"he"),
        (4, 10, b"o"),
        (5, 10, b""),
        (u64::MAX, 10, b""),
        (0, 0, b""),
    ];
    for (offset, len, expected) in table {
        let mut buf = vec![0; len];
        let read = view.read(a, offset, &mut buf).unwrap();
        assert_eq!(&buf[..read], expected, "{offset} {len}");
    }
    assert_eq!(view.readlink(number(&view, "usr/link")).unwrap(), b"a");
}

#[test]
fn extended_attributes_of_files_and_directories_are_served() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    let a = number(&view, "usr/a");
    assert_eq!(view.xattr(a, b"security.capability").unwrap(), b"cap");
    assert_eq!(
        view.xattr_names(a).unwrap(),
        b"security.capability\0user.x\0"
    );
    assert!(matches!(
        view.xattr(a, b"user.y"),
        Err(ViewError::NoAttribute)
    ));
    assert_eq!(view.xattr(ROOT, b"user.root").unwrap(), b"yes");
    assert_eq!(view.xattr_names(number(&view, "usr/b")).unwrap(), b"");
}

#[test]
fn what_cannot_be_answered_says_why() {
    let (fake, commit) = sample();
    let view = open(&fake, What::Commit(commit));
    let (a, link) = (number(&view, "usr/a"), number(&view, "usr/link"));
    let absent = |name: &[u8]| view.lookup(ROOT, name).unwrap();
    assert_eq!(absent(b"nothing"), Lookup::Absent(Lifetime::Forever));
    assert_eq!(absent(b"\xff"), Lookup::Absent(Lifetime::Forever));
    assert!(matches!(
        view.lookup(ROOT, &[b'x'; 256]),
        Err(ViewError::NameTooLong)
    ));
    assert!(matches!(
        view.lookup(a, b"x"),
        Err(ViewError::NotADirectory)
    ));
    assert!(matches!(
        view.readdir(a, 0, &mut |_| false),
        Err(ViewError::NotADirectory)
    ));
    assert!(matches!(
        view.read(ROOT, 0, &mut [0]),
        Err(ViewError::IsADirectory)
    ));
    assert!(matches!(
        view.read(link, 0, &mut [0]),
        Err(ViewError::WrongType)
    ));
    assert!(matches!(view.readlink(a), Err(ViewError::WrongType)));
    assert!(matches!(
        view.getattr(5),
        Err(ViewError::Stale { number: 5 })
    ));
}

#[test]
fn damage_names_object_and_path_and_hides_nothing_else() {
    let (fake, commit) = sample();
    let b = fake.file(0o4755, &[7; 1000], &[]);
    fake.files.lock().unwrap().remove(&b);
    let view = open(&fake, What::Commit(commit));
    let usr = number(&view, "usr");
    let damaged: Vec<_> = list(&view, usr, 100)
        .into_iter()
        .filter(|(_, _, damaged)| *damaged)
        .collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(
        (damaged[0].0.as_str(), damaged[0].1.lifetime),
        ("b", Lifetime::None)
    );
    let error = view.lookup(usr, b"b").unwrap_err();
    assert!(error.is_damage());
    assert_eq!(
        error.to_string(),
        format!("cannot read \"usr/b\" (file {b})")
    );
    let error = view.getattr(damaged[0].1.attr.number).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read \"usr/b\" (file {b})")
    );
}

#[test]
fn a_payload_that_ends_early_is_damage_not_zeroes() {
    let (fake, commit) = sample();
    fake.payloads
        .lock()
        .unwrap()
        .insert(PayloadId::of(b"hello"), b"hel".to_vec());
    let view = open(&fake, What::Commit(commit));
    let a = number(&view, "usr/a");
    let error = view.read(a, 1, &mut [0; 100]).unwrap_err();
    assert!(error.is_damage());
    assert!(
        error.to_string().ends_with("payload ends at byte 3"),
        "{error}"
    );
}

#[test]
fn mounting_loads_the_commit_alone_and_an_image_answers_for_all_directories() {
    let (fake, commit) = sample();
    let images = tempfile::tempdir().unwrap();
    let fake = with_images(fake, images.path());
    names(&open(&fake, What::Commit(commit)), ROOT);
    let loads = || std::mem::take(&mut *fake.loads.lock().unwrap()).len();
    assert!(loads() > 10, "everything is loaded once, to make the image");
    let view = open(&fake, What::Commit(commit));
    view.getattr(ROOT).unwrap();
    assert_eq!(loads(), 2, "the commit, and the metadata of its root");
    for path in ["", "usr", "opt", "usr/twin"] {
        list(&view, number(&view, path), 1);
    }
    assert_eq!(loads(), 0);
    view.getattr(number(&view, "usr/a")).unwrap();
    assert_eq!(loads(), 1, "a file by its number");
}

#[test]
fn all_refs_and_commits_are_shown_as_they_are_now() {
    let (fake, one) = sample();
    fake.set_ref("os/june", Some(one));
    fake.set_ref("main", Some(one));
    let view = open(&fake, What::All);
    assert_eq!(names(&view, ROOT), ["commits", "refs"]);
    let (refs, commits) = (number(&view, "refs"), number(&view, "commits"));
    assert_eq!(names(&view, refs), ["main", "os"]);
    let link = number(&view, "refs/os/june");
    assert_eq!(
        view.readlink(link).unwrap(),
        format!("../../commits/{one}").as_bytes()
    );
    assert_eq!(
        walk_to(&view, &format!("commits/{one}")).lifetime,
        Lifetime::Short
    );
    let inside = walk_to(&view, &format!("commits/{one}/usr/a"));
    assert_eq!(inside.lifetime, Lifetime::Forever);

    let changed = || ["refs", "commits"].map(|name| walk_to(&view, name).attr.mtime);
    let before = changed();
    let tree = fake.commits.lock().unwrap()[&one].tree;
    let two = fake.commit(tree, "two");
    assert_eq!(
        view.lookup(refs, b"new").unwrap(),
        Lookup::Absent(Lifetime::None)
    );
    fake.set_ref("new", Some(two));
    fake.set_ref("os/june", Some(two));
    let after = changed();
    assert!(
        before[0] < after[0] && before[1] < after[1],
        "noticed before anyone lists them"
    );
    assert_eq!(names(&view, commits).len(), 2);
    assert_eq!(names(&view, refs), ["main", "new", "os"]);
    assert_ne!(
        number(&view, "refs/os/june"),
        link,
        "a link's target is cached for ever"
    );
    let later = [refs, commits].map(|number| view.getattr(number).unwrap().attr.mtime);
    assert!(after[0] <= later[0] && after[1] <= later[1]);
    assert_eq!(
        number(&view, &format!("commits/{two}/usr/a")),
        inside.attr.number
    );

    let os = number(&view, "refs/os");
    fake.commits.lock().unwrap().remove(&one);
    fake.set_ref("os/june", None);
    assert_eq!(names(&view, commits), [two.to_string()]);
    let gone = view.lookup(commits, one.to_string().as_bytes()).unwrap();
    assert_eq!(gone, Lookup::Absent(Lifetime::None));
    assert!(matches!(view.getattr(os), Err(ViewError::NotFound)));
}

#[test]
fn a_ref_that_is_also_a_directory_of_refs_shows_as_the_directory() {
    let (fake, one) = sample();
    fake.set_ref("a", Some(one));
    fake.set_ref("a/b", Some(one));
    fake.set_ref("a.b", Some(one));
    let view = open(&fake, What::All);
    assert_eq!(names(&view, number(&view, "refs")), ["a", "a.b"]);
    assert_eq!(names(&view, number(&view, "refs/a")), ["b"]);
}

#[test]
fn a_missing_commit_cannot_be_viewed() {
    let (fake, _) = sample();
    let id = ObjectId::of(b"nothing");
    let error = View::new(fake, What::Commit(id)).unwrap_err();
    assert!(matches!(error, EngineError::MissingObject { .. }));
}

#[test]
fn usage_counts_whole_blocks() {
    let (fake, commit) = sample();
    let usage = open(&fake, What::Commit(commit)).usage().unwrap();
    assert_eq!(
        usage,
        Usage {
            blocks: 3,
            files: 12
        }
    );
}

//! Images that are missing, damaged, or of a commit that is damaged itself.

use std::fs;
use std::path::Path;

use super::*;

fn sample_with_images(images: &Path) -> (Arc<Fake>, ObjectId) {
    let (fake, commit) = sample();
    (with_images(fake, images), commit)
}

fn image_of(images: &Path, commit: &ObjectId) -> std::path::PathBuf {
    images.join(format!("{commit}.img"))
}

#[test]
fn a_damaged_image_is_made_anew_under_those_who_use_it() {
    let images = tempfile::tempdir().unwrap();
    let (fake, commit) = sample_with_images(images.path());
    let path = image_of(images.path(), &commit);
    names(&open(&fake, What::Commit(commit)), ROOT);
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bad).unwrap();
        let view = open(&fake, What::Commit(commit));
        let usr = number(&view, "usr");
        assert_eq!(names(&view, usr), ["a", "b", "link", "twin"], "{at}");
        assert_eq!(walk_to(&view, "usr/b").attr.size, 1000, "{at}");
        assert_eq!(fs::read(&path).unwrap(), good, "{at}");
    }
    for len in [0, 10, good.len() - 1] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &good[..len]).unwrap();
        names(&open(&fake, What::Commit(commit)), ROOT);
        assert_eq!(fs::read(&path).unwrap(), good, "{len}");
    }
}

#[test]
fn where_no_image_can_be_written_it_is_held_in_memory() {
    let images = tempfile::tempdir().unwrap();
    // A file where the directory should be.
    let blocked = images.path().join("blocked");
    fs::write(&blocked, b"").unwrap();
    let (fake, commit) = sample_with_images(&blocked);
    let view = open(&fake, What::Commit(commit));
    let usr = number(&view, "usr");
    assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
    assert_eq!(view.has_xattrs(&commit), Some(true));
}

#[test]
fn a_damaged_image_that_cannot_be_replaced_is_not_asked_again() {
    let images = tempfile::tempdir().unwrap();
    let (fake, commit) = sample_with_images(images.path());
    names(&open(&fake, What::Commit(commit)), ROOT);
    let path = image_of(images.path(), &commit);
    let mut bad = fs::read(&path).unwrap();
    *bad.last_mut().unwrap() ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bad).unwrap();
    let file = fs::File::open(&path).unwrap();
    let mut fake = Arc::into_inner(fake).unwrap();
    // A name that can be opened, but neither removed nor replaced.
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    fake.image = Some(format!("/proc/self/fd/{descriptor}").into());
    let fake = Arc::new(fake);
    let view = open(&fake, What::Commit(commit));
    let usr = number(&view, "usr");
    assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
    fake.loads.lock().unwrap().clear();
    assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
    assert!(fake.loads.lock().unwrap().is_empty());
}

#[test]
fn whether_there_are_extended_attributes_is_known_when_the_image_is_there() {
    let (fake, commit) = sample();
    let view = open(&fake, What::All);
    assert_eq!(view.has_xattrs(&commit), None);
    number(&view, &format!("commits/{commit}/usr"));
    assert_eq!(view.has_xattrs(&commit), Some(true));
    let plain = fake.file(0o644, b"plain", &[]);
    let root = fake.dir(&[("plain", plain)], &[]);
    let bare = fake.bare_commit(root);
    number(&view, &format!("commits/{bare}/plain"));
    assert_eq!(view.has_xattrs(&bare), Some(false));
}

#[test]
fn a_directory_whose_listing_is_missing_is_an_error_until_it_is_repaired() {
    let images = tempfile::tempdir().unwrap();
    let (fake, commit) = sample_with_images(images.path());
    let path = image_of(images.path(), &commit);
    let opt = {
        let root = fake.commits.lock().unwrap()[&commit].tree;
        let dirtrees = fake.dirtrees.lock().unwrap();
        dirtrees[&root].dirs[0].tree
    };
    for numbering in [Numbering::Shared, Numbering::Unique] {
        let listing = fake.dirtrees.lock().unwrap().remove(&opt).unwrap();
        let what = What::Commit(commit);
        let view = View::with_numbering(Arc::clone(&fake), what, numbering).unwrap();
        assert_eq!(names(&view, ROOT), ["opt", "usr"]);
        let [opt_number, usr, twin, a] =
            ["opt", "usr", "usr/twin", "usr/a"].map(|path| number(&view, path));
        let expected = format!("cannot read \"opt\" (dirtree {opt})");
        for error in [
            view.lookup(opt_number, b"a").unwrap_err(),
            view.readdir(opt_number, 0, &mut |_| false).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
        assert!(!path.exists(), "what lacks something is not kept");

        fake.dirtrees.lock().unwrap().insert(opt, listing);
        assert_eq!(names(&view, opt_number), ["a", "twin"]);
        assert!(path.exists());
        // Numbers that were given meanwhile still stand for the same.
        assert_eq!(view.path(twin), "usr/twin");
        assert_eq!(names(&view, twin), ["a"]);
        assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
        assert_eq!(list(&view, twin, 9)[1].1.attr.number, number(&view, "usr"));
        assert_eq!(view.getattr(a).unwrap().attr.size, 5);
        assert_eq!(view.read(a, 0, &mut [0; 9]).unwrap(), 5);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_or_metadata_that_comes_back_is_served_without_a_new_mount() {
    let (fake, commit) = sample();
    let b = fake.file(0o4755, &[7; 1000], &[]);
    let object = fake.files.lock().unwrap().remove(&b).unwrap();
    let meta = fake.meta(0o755, &[]);
    let described = fake.metas.lock().unwrap().remove(&meta).unwrap();
    let view = open(&fake, What::Commit(commit));
    let error = view.lookup(ROOT, b"usr").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read \"usr\" (dirmeta {meta})")
    );
    let listed = list(&view, ROOT, 100);
    assert_eq!(listed.iter().filter(|(_, _, damaged)| *damaged).count(), 2);
    let usr = listed[3].1.attr.number;
    assert!(view.getattr(usr).is_err());
    assert!(view.lookup(usr, b"b").is_err());

    fake.metas.lock().unwrap().insert(meta, described);
    assert_eq!(view.getattr(usr).unwrap().attr.mode, S_IFDIR | 0o755);
    assert!(view.lookup(usr, b"b").is_err());
    fake.files.lock().unwrap().insert(b, object);
    assert!(matches!(view.lookup(usr, b"b"), Ok(Lookup::Found(_))));
    assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
}

#[test]
fn places_of_a_whole_commit_mean_nothing_in_one_that_lacks_parts() {
    let (fake, commit) = sample();
    let before = open(&fake, What::Commit(commit));
    let (usr, a) = (number(&before, "usr"), number(&before, "usr/a"));
    let root = fake.commits.lock().unwrap()[&commit].tree;
    let opt = fake.dirtrees.lock().unwrap()[&root].dirs[0].tree;
    let listing = fake.dirtrees.lock().unwrap().remove(&opt).unwrap();
    let after = open(&fake, What::Commit(commit));
    let error = after.getattr(usr).unwrap_err();
    assert!(matches!(error, ViewError::Incomplete { .. }), "{error}");
    assert!(error.is_damage());
    assert_eq!(
        after.getattr(a).unwrap().attr.size,
        5,
        "files are not places"
    );
    assert_ne!(number(&after, "usr"), usr);
    fake.dirtrees.lock().unwrap().insert(opt, listing);
    assert_eq!(names(&after, number(&after, "opt")), ["a", "twin"]);
    assert_eq!(number(&after, "usr"), usr);
}

#[test]
fn a_commit_that_has_gone_is_named_but_not_read() {
    let (fake, commit) = sample();
    let view = open(&fake, What::All);
    let usr = number(&view, &format!("commits/{commit}/usr"));
    let a = number(&view, &format!("commits/{commit}/usr/a"));
    let id = fake.file(
        0o644,
        b"hello",
        &[("user.x", "1"), ("security.capability", "cap")],
    );
    fake.commits.lock().unwrap().remove(&commit);
    fake.files.lock().unwrap().clear();
    assert_eq!(names(&view, usr), ["a", "b", "link", "twin"]);
    let error = view.getattr(a).unwrap_err();
    let expected = format!("cannot read \"commits/{commit}/opt/a\" (file {id})");
    assert_eq!(error.to_string(), expected, "the first of its paths");
    fake.dirtrees.lock().unwrap().clear();
    let error = view.getattr(a).unwrap_err().to_string();
    assert!(error.contains("/opt\" (dirtree "), "{error}");
}

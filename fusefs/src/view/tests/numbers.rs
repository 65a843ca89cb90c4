//! Inode numbers lead back to what they stand for, whatever was looked at before.

use super::*;
use crate::image::Images;

fn open_unique(fake: &Arc<Fake>, what: What) -> View<Fake> {
    View::with_numbering(Arc::clone(fake), what, Numbering::Unique).unwrap()
}

/// Every path below a directory, with what was found there.
fn walk(view: &View<Fake>, dir: u64, path: &str) -> Vec<(String, Entry)> {
    let mut found = Vec::new();
    for (name, entry, damaged) in list(view, dir, 3) {
        if name == "." || name == ".." {
            continue;
        }
        assert!(!damaged);
        let path = join(path, &name);
        if entry.attr.mode & S_IFMT == S_IFDIR {
            found.extend(walk(view, entry.attr.number, &path));
        }
        found.push((path, entry));
    }
    found
}

#[test]
fn numbers_hold_after_a_restart_without_being_looked_up_again() {
    let (fake, commit) = sample();
    fake.set_ref("main", Some(commit));
    for what in [What::Commit(commit), What::All] {
        for numbering in [Numbering::Shared, Numbering::Unique] {
            let start = || View::with_numbering(Arc::clone(&fake), what, numbering).unwrap();
            let before = start();
            let root = match what {
                What::Commit(_) => ROOT,
                What::All => number(&before, &format!("commits/{commit}")),
            };
            let found = walk(&before, root, "");
            assert_eq!(found.len(), 10);
            for (path, entry) in found {
                let after = start();
                let number = entry.attr.number;
                assert_eq!(after.getattr(number).unwrap(), entry, "{path}");
                match entry.attr.mode & S_IFMT {
                    S_IFDIR => assert_eq!(names(&after, number), names(&before, number)),
                    S_IFREG => {
                        assert_eq!(after.read(number, 0, &mut [0; 3]).unwrap(), 3);
                    }
                    _ => assert_eq!(after.readlink(number).unwrap(), b"a"),
                }
                if what == What::Commit(commit) && numbering == Numbering::Unique {
                    assert_eq!(after.path(number), path);
                }
            }
        }
    }
    let commits = number(&open(&fake, What::All), "commits");
    let after = open(&fake, What::All);
    assert_eq!(names(&after, commits), [commit.to_string()]);
}

#[test]
fn each_path_has_a_number_of_its_own_where_that_is_wanted() {
    let (fake, commit) = sample();
    let view = open_unique(&fake, What::Commit(commit));
    let found = walk(&view, ROOT, "");
    let mut numbers: Vec<u64> = found.iter().map(|(_, entry)| entry.attr.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), found.len());
    assert!(
        numbers
            .iter()
            .all(|number| number >> 62 == 0 && *number > ROOT)
    );
    let shared = open(&fake, What::Commit(commit));
    for (path, Entry { attr, .. }) in found {
        let number = attr.number;
        let there = walk_to(&shared, &path).attr;
        assert_eq!(Attr { number, ..there }, attr, "{path}");
    }
    let a = number(&view, "usr/a");
    assert_eq!(view.xattr(a, b"security.capability").unwrap(), b"cap");
    assert!(matches!(
        view.read(number(&view, "usr"), 0, &mut [0]),
        Err(ViewError::IsADirectory)
    ));
}

#[test]
fn a_mount_of_everything_has_a_hidden_directory_with_a_number_for_each_path() {
    let (fake, commit) = sample();
    let view = open(&fake, What::All);
    let at = |dir: &str, path: &str| number(&view, &format!("{dir}/{commit}/{path}"));
    assert_eq!(names(&view, ROOT), ["commits", "refs"]);
    assert_eq!(at("commits", "usr/a"), at("commits", "opt/a"));
    assert_ne!(at("unique", "usr/a"), at("unique", "opt/a"));
    assert_ne!(at("unique", "usr"), at("commits", "usr"));
    for dir in ["commits", "unique"] {
        let above = number(&view, dir);
        let root = number(&view, &format!("{dir}/{commit}"));
        let listed = list(&view, root, 100);
        assert_eq!(listed[1].1.attr.number, above, "{dir}: `..` of a commit");
        let usr = list(&view, at(dir, "usr"), 100);
        assert_eq!(usr[1].1.attr.number, root, "{dir}: `..` of a directory");
        let twin = list(&view, at(dir, "usr/twin"), 100);
        assert_eq!(twin[1].1.attr.number, at(dir, "usr"), "{dir}");
    }
    let all = open_unique(&fake, What::All);
    assert_eq!(
        all.lookup(ROOT, b"unique").unwrap(),
        Lookup::Absent(Lifetime::Forever)
    );
}

#[test]
fn two_files_whose_names_begin_alike_are_an_error_and_never_each_other() {
    let (fake, _) = sample();
    let one = fake.file(0o644, b"one", &[]);
    let alone = open(
        &fake,
        What::Commit(fake.commit(fake.dir(&[("f", one)], &[]), "")),
    );
    let number_of_one = number(&alone, "f");
    assert_eq!(alone.read(number_of_one, 0, &mut [0; 9]).unwrap(), 3);
    let two = fake.alike(&one);
    let other = fake.file(0o644, b"other", &[]);
    let root = fake.dir(&[("one", one), ("other", other), ("two", two)], &[]);
    let view = open(&fake, What::Commit(fake.commit(root, "")));
    for (path, ids) in [("one", [one, two]), ("two", [two, one])] {
        let error = view.lookup(ROOT, path.as_bytes()).unwrap_err();
        let expected = format!(
            "cannot number {path:?}: files {} and {} begin alike",
            ids[0], ids[1]
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.is_damage());
    }
    let listed = list(&view, ROOT, 100);
    let damaged: Vec<bool> = listed.iter().map(|(_, _, damaged)| *damaged).collect();
    assert_eq!(damaged, [false, false, true, false, true]);
    let by_number = view.read(number_of_one, 0, &mut [0; 9]).unwrap_err();
    assert!(
        matches!(by_number, ViewError::Collision { .. }),
        "{by_number}"
    );
    assert!(
        view.files_of_payload(&PayloadId::of(b"one"), &|_| true)
            .is_empty()
    );
    assert_eq!(
        view.read(number(&view, "other"), 0, &mut [0; 9]).unwrap(),
        5
    );
}

#[test]
fn two_commits_whose_names_begin_alike_are_not_confused() {
    let (fake, one) = sample();
    let mut bytes = *one.as_bytes();
    bytes[31] ^= 1;
    let two = ObjectId::from_bytes(bytes);
    let late = open(&fake, What::All);
    let usr = number(&late, &format!("commits/{one}/usr"));
    let copy = fake.commits.lock().unwrap()[&one].clone();
    fake.commits.lock().unwrap().insert(two, copy);
    let of_two = |view: &View<Fake>| -> Vec<u64> {
        let listed = list(view, number(view, "commits"), 9).split_off(2);
        listed
            .iter()
            .map(|(_, entry, _)| entry.attr.number)
            .collect()
    };
    assert!(matches!(of_two(&late)[..], [a, b] if a != b));
    // The one that was there first keeps its numbers, the other one gets none.
    assert_eq!(names(&late, usr), ["a", "b", "link", "twin"]);
    let commits = number(&late, "commits");
    let error = late
        .lookup(commits, two.to_string().as_bytes())
        .unwrap_err();
    assert!(matches!(error, ViewError::Collision { .. }));
    let after = open(&fake, What::All);
    for id in [one, two] {
        let error = after
            .lookup(commits, id.to_string().as_bytes())
            .unwrap_err();
        assert!(matches!(error, ViewError::Collision { .. }), "{error}");
    }
    assert!(matches!(
        after.getattr(usr),
        Err(ViewError::Collision { .. })
    ));
    assert!(matches!(of_two(&after)[..], [a, b] if a != b));
    // Alone, each can be mounted.
    let alone = open(&fake, What::Commit(two));
    assert_eq!(names(&alone, ROOT), ["opt", "usr"]);
}

#[test]
fn files_are_found_by_what_they_hold() {
    let (fake, commit) = sample();
    let hello = PayloadId::of(b"hello");
    let view = open(&fake, What::All);
    assert!(
        view.files_of_payload(&hello, &|_| true).is_empty(),
        "no image is open"
    );
    let a = number(&view, &format!("commits/{commit}/usr/a"));
    assert_eq!(view.files_of_payload(&hello, &|_| true), [a]);
    assert!(
        view.files_of_payload(&PayloadId::of(b"nowhere"), &|_| true)
            .is_empty()
    );
    let unique: Vec<u64> = ["usr/a", "opt/a", "usr/twin/a", "opt/twin/a"]
        .map(|path| number(&view, &format!("unique/{commit}/{path}")))
        .into();
    let mut expected = [unique.clone(), vec![a]].concat();
    expected.sort_unstable();
    assert_eq!(view.files_of_payload(&hello, &|_| true), expected);
    let alone = open_unique(&fake, What::Commit(commit));
    names(&alone, ROOT);
    let mut unique = unique;
    unique.sort_unstable();
    assert_eq!(alone.files_of_payload(&hello, &|_| true), unique);
}

#[test]
fn deep_trees_and_long_names_have_paths() {
    let fake = Arc::new(Fake::default());
    let name = "n".repeat(255);
    let file = fake.file(0o644, b"deep", &[]);
    let mut tree = fake.dir(&[(name.as_str(), file)], &[]);
    for _ in 0..3000 {
        tree = fake.dir(&[], &[("d", tree)]);
    }
    let view = open(&fake, What::Commit(fake.commit(tree, "")));
    let mut dir = ROOT;
    for _ in 0..3000 {
        match view.lookup(dir, b"d").unwrap() {
            Lookup::Found(entry) => dir = entry.attr.number,
            Lookup::Absent(_) => panic!("no d"),
        }
    }
    assert_eq!(view.path(dir).len(), 2 * 3000 - 1);
    let Lookup::Found(found) = view.lookup(dir, name.as_bytes()).unwrap() else {
        panic!("no {name}");
    };
    assert!(
        view.path(found.attr.number)
            .ends_with(&format!("/d/{name}"))
    );
    let longer = [name.as_bytes(), b"n"].concat();
    assert!(matches!(
        view.lookup(dir, &longer),
        Err(ViewError::NameTooLong)
    ));
}

#[test]
fn a_listing_of_very_many_entries_goes_on_anywhere() {
    let fake = Arc::new(Fake::default());
    let file = fake.file(0o644, b"x", &[]);
    let all: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
    let files: Vec<_> = all.iter().map(|name| (name.as_str(), file)).collect();
    let empty = fake.dir(&[], &[]);
    let dirs: Vec<String> = (0..1000).map(|n| format!("d{n:04}")).collect();
    let dirs: Vec<_> = dirs.iter().map(|name| (name.as_str(), empty)).collect();
    let view = open(
        &fake,
        What::Commit(fake.commit(fake.dir(&files, &dirs), "")),
    );
    let mut listed = names(&view, ROOT);
    assert_eq!(listed.len(), 101_000);
    listed.truncate(100_000);
    assert_eq!(listed, all);
    let mut first = None;
    view.readdir(ROOT, 100_501, &mut |item| {
        first = Some(item.name.to_owned());
        true
    })
    .unwrap();
    assert_eq!(first.as_deref(), Some("d0499"));
    for past in [101_002, u64::MAX] {
        view.readdir(ROOT, past, &mut |item| panic!("{}", item.name))
            .unwrap();
    }
}

#[test]
fn what_a_number_stands_for_and_what_is_above_it_are_found_by_the_names_of_dots() {
    let (fake, commit) = sample();
    for (what, above) in [
        (What::Commit(commit), String::new()),
        (What::All, format!("commits/{commit}/")),
    ] {
        let before = open(&fake, what);
        let at = |path: &str| walk_to(&before, &format!("{above}{path}"));
        let dots = |number: u64, name: &[u8]| match open(&fake, what).lookup(number, name) {
            Ok(Lookup::Found(entry)) => entry.attr,
            other => panic!("{other:?}"),
        };
        for path in ["usr", "usr/twin", "usr/a", "usr/link"] {
            assert_eq!(dots(at(path).attr.number, b"."), at(path).attr, "{path}");
        }
        for (path, above) in [("usr/twin", "usr"), ("usr", "")] {
            assert_eq!(dots(at(path).attr.number, b".."), at(above).attr, "{path}");
        }
        let file = at("usr/a").attr.number;
        assert!(matches!(
            before.lookup(file, b".."),
            Err(ViewError::NotADirectory)
        ));
    }
    let view = open(&fake, What::All);
    for path in ["", "commits", "refs"] {
        let entry = walk_to(&view, path);
        assert_eq!(
            view.lookup(entry.attr.number, b"..").unwrap(),
            Lookup::Found(walk_to(&view, ""))
        );
    }
    let past = view.getattr(1 << 61 | 7).unwrap_err();
    assert!(matches!(past, ViewError::Stale { .. }), "no such commit");
    let (commit, last) = (number(&view, &format!("commits/{commit}")), (1 << 30) - 1);
    let past = view.getattr(commit | last).unwrap_err();
    assert!(matches!(past, ViewError::Stale { .. }), "no such directory");
}

#[test]
fn those_who_want_an_image_wait_for_the_one_who_makes_it() {
    let (fake, commit) = sample();
    let images = Images::new(Arc::clone(&fake));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| images.get(&commit).unwrap()))
            .collect();
        let all: Vec<_> = all
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert!(all.iter().all(|image| Arc::ptr_eq(image, &all[0])));
    });
    let root = fake.commits.lock().unwrap()[&commit].tree;
    let loads = fake.loads.lock().unwrap();
    assert_eq!(loads.iter().filter(|id| **id == root).count(), 1);
}

#[test]
fn the_way_to_a_commit_leads_past_the_list_of_all() {
    let (fake, commit) = sample();
    let view = open(&fake, What::All);
    number(&view, &format!("commits/{commit}/usr/a"));
    number(&view, &format!("unique/{commit}/usr/a"));
    assert_eq!(fake.listed(), 0);
    names(&view, number(&view, "commits"));
    assert!(fake.listed() > 0);
}

//! Packages that lie, are damaged, or want out of the tree.

use std::path::Path;

use crate::forge::{DIR, FILE, Forge, Item, LINK, item};
use crate::support::{Keep, Seen, explain, read};

fn attempt(forge: &Forge) -> Result<Keep, String> {
    let dir = tempfile::tempdir().unwrap();
    read(&forge.write(dir.path())).map_err(|error| explain(&error))
}

fn assert_refused(forge: &Forge, words: &[&str]) {
    let error = attempt(forge).map(|keep| keep.seen).unwrap_err();
    for word in words.iter().chain(&["forged.rpm"]) {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

fn base() -> Vec<Item> {
    vec![
        item("/usr", DIR, b""),
        item("/usr/file", FILE, b"hello"),
        item("/usr/link", LINK, b"file"),
    ]
}

#[test]
fn a_sound_package_is_read() {
    let keep = attempt(&Forge::new(&base())).unwrap();
    assert_eq!(
        keep.seen.keys().collect::<Vec<_>>(),
        ["usr", "usr/file", "usr/link"]
    );
}

#[test]
fn payload_names_may_begin_in_any_usual_way() {
    for prefix in ["./", "/", ""] {
        let mut forge = Forge::new(&base());
        for rec in &mut forge.records {
            rec.name = [prefix.as_bytes(), &rec.name[2..]].concat();
        }
        assert_eq!(attempt(&forge).unwrap().seen.len(), 3, "{prefix:?}");
    }
}

#[test]
fn paths_that_could_leave_the_tree_are_refused() {
    for (items, words) in [
        (
            vec![item("/usr/../../etc/passwd", FILE, b"x")],
            ["..", "/usr/../../etc/passwd"],
        ),
        (vec![item("/..", DIR, b"")], ["..", "/.."]),
        (
            vec![item("usr/x", FILE, b"x")],
            ["not an absolute path", "usr/x"],
        ),
        (vec![item("//etc", FILE, b"x")], ["empty", "//etc"]),
        (
            vec![
                item("/usr/x", LINK, b"/etc"),
                item("/usr/x/passwd", FILE, b"x"),
            ],
            ["usr/x/passwd", "passes through the symbolic link usr/x"],
        ),
        (
            vec![item("/usr/x", FILE, b"y"), item("/usr/x/a/b", FILE, b"x")],
            ["usr/x/a/b", "passes through the regular file usr/x"],
        ),
        (
            vec![item("/a", FILE, b"y"), item("/a", FILE, b"x")],
            ["a: ", "listed twice"],
        ),
        (vec![item("/masked\u{e9}", FILE, b"x")], ["masked", "UTF-8"]),
    ] {
        assert_refused(&Forge::new(&items), &words);
    }
}

#[test]
fn a_header_and_a_payload_that_disagree_are_refused() {
    let change = |edit: fn(&mut Forge)| {
        let mut forge = Forge::new(&base());
        edit(&mut forge);
        forge
    };
    for (forge, words) in [
        (
            change(|f| f.records[1].content.push(b'!')),
            ["usr/file", "5 bytes in the header"],
        ),
        (
            change(|f| f.records[1].content = b"HELLO".to_vec()),
            ["usr/file", "SHA-256 digest"],
        ),
        (
            change(|f| f.records[1].content.clear()),
            ["usr/file", "5 bytes of content are missing"],
        ),
        (
            change(|f| f.records[1].mode = LINK),
            ["usr/file", "a regular file in the header"],
        ),
        (
            change(|f| f.records[2].content = b"/etc".to_vec()),
            ["usr/link", "/etc"],
        ),
        (
            change(|f| f.records[0].content = b"x".to_vec()),
            ["usr", "a directory with content"],
        ),
        (
            change(|f| drop(f.records.remove(2))),
            ["usr/link", "not in the payload"],
        ),
        (
            change(|f| drop(f.items.remove(2))),
            ["usr/link", "not in the header"],
        ),
        (
            change(|f| f.records.push(f.records[2].clone())),
            ["usr/link", "twice"],
        ),
        (
            change(|f| f.records[1].stripped = Some(9)),
            ["archive", "entry 9"],
        ),
        (change(|f| f.trailer = false), ["archive", "ends early"]),
        (
            change(|f| f.tail = vec![b'x'; 100_000]),
            ["archive", "data after its end"],
        ),
        (
            change(|f| f.payload_digest = Some("00".repeat(32))),
            ["payload", "SHA-256 digest"],
        ),
    ] {
        assert_refused(&forge, &words);
    }
}

fn linked(contents_at: &[usize], links: u32) -> Forge {
    let mut items = vec![item("/a", DIR, b""), item("/b", DIR, b"")];
    for path in ["/a/one", "/a/two", "/b/three"] {
        let mut item = item(path, FILE, b"shared");
        item.inode = 7;
        items.push(item);
    }
    let mut forge = Forge::new(&items);
    for (at, rec) in forge.records[2..].iter_mut().enumerate() {
        rec.links = links;
        if !contents_at.contains(&at) {
            rec.content.clear();
        }
    }
    forge
}

#[test]
fn every_name_of_a_hard_link_gets_the_content() {
    for contents_at in [&[0][..], &[1], &[2], &[0, 2], &[0, 1, 2]] {
        let keep = attempt(&linked(contents_at, 3)).unwrap();
        let files = keep
            .seen
            .values()
            .filter(|seen| matches!(seen, Seen::File { size: 6, .. }));
        assert_eq!(files.count(), 3, "{contents_at:?}");
        assert_eq!(keep.contents, 1, "{contents_at:?}");
    }
    // Packages whose builder gives every file the same inode are not hard links.
    assert_eq!(attempt(&linked(&[0, 1, 2], 1)).unwrap().contents, 3);
    assert_refused(&linked(&[], 3), &["a/one", "its content is missing"]);
    let mut lying = linked(&[0, 2], 3);
    lying.records[4].content = b"SHARED".to_vec();
    assert_refused(&lying, &["b/three", "SHA-256 digest"]);
    lying.file_digests = false;
    assert_refused(&lying, &["b/three", "comes twice"]);
}

#[test]
fn stripped_hard_links_and_empty_groups_are_read() {
    let mut stripped = linked(&[2], 3);
    for (at, rec) in stripped.records.iter_mut().enumerate() {
        rec.stripped = Some(at as u32);
    }
    assert_eq!(attempt(&stripped).unwrap().seen.len(), 5);
    let mut empty = linked(&[], 3);
    empty.items.iter_mut().for_each(|item| item.content.clear());
    assert_eq!(attempt(&empty).unwrap().seen.len(), 5);
}

#[test]
fn ghosts_are_announced_but_need_no_payload() {
    let mut items = base();
    items[1].flags = 64;
    let keep = attempt(&Forge::new(&items)).unwrap();
    assert_eq!(keep.ghosts, ["usr/file"]);
    assert_eq!(keep.seen.len(), 2);
}

#[test]
fn no_truncation_and_no_flipped_byte_panics_or_passes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.rpm");
    let good = Forge::new(&base()).bytes();
    let attempt = |bytes: &[u8], path: &Path| {
        std::fs::write(path, bytes).unwrap();
        read(path)
    };
    for end in 0..good.len() {
        assert!(attempt(&good[..end], &path).is_err(), "cut at {end}");
    }
    let whole = attempt(&good, &path).unwrap().seen;
    let mut same = 0;
    for at in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            same += usize::from(attempt(&bad, &path).is_ok_and(|keep| keep.seen == whole));
        }
    }
    // What may change without harm: most of the lead, names of owners, facts not compared here.
    println!(
        "{same} of {} flips change nothing that is read",
        3 * good.len()
    );
}

#[test]
fn fourteen_thousand_entries_are_one_visit_each() {
    let mut items: Vec<_> = (0..14_000)
        .map(|n| {
            item(
                &format!("/usr/share/d{}/f{n}", n % 50),
                FILE,
                format!("{n}").as_bytes(),
            )
        })
        .collect();
    items.extend((0..50).map(|n| item(&format!("/usr/share/d{n}"), DIR, b"")));
    let keep = attempt(&Forge::new(&items)).unwrap();
    assert_eq!((keep.seen.len(), keep.contents), (14_050, 14_000));
}

#[test]
#[ignore = "prints times, which only mean something in a release build"]
fn times_of_packages_with_many_entries() {
    let dir = tempfile::tempdir().unwrap();
    for (count, size) in [(14_515, 0), (17_620, 1_200)] {
        let content = |n: usize| {
            (0..size)
                .map(|at| ((n * 31 + at * at) % 97) as u8 + 32)
                .collect::<Vec<u8>>()
        };
        let path = |n: usize| format!("/usr/share/icons/theme/{}x/name-{n}.svg", n % 40);
        let items: Vec<_> = (0..count)
            .map(|n| item(&path(n), FILE, &content(n)))
            .collect();
        let file = Forge::new(&items).write(dir.path());
        let start = std::time::Instant::now();
        let keep = read(&file).unwrap();
        println!("{count} files of {size} bytes: {:?}", start.elapsed());
        assert_eq!(keep.contents, count);
    }
}

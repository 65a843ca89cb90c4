//! The rules objects must keep beyond being well-formed.

use std::borrow::Cow;

use super::*;

fn rule<T: std::fmt::Debug>(result: Result<T, DecodeError>) -> &'static str {
    match result {
        Err(DecodeError::Rule(rule)) => rule,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a/b", "/", "../x", "a\0b", &long] {
        assert!(check_name(name).is_err(), "{name:?}");
        let tree = Dirtree {
            files: vec![(name.into(), id(Z))],
            dirs: vec![],
        };
        // A NUL already breaks the string.
        assert!(Dirtree::parse(&tree.to_bytes()).is_err(), "{name:?}");
    }
    for name in ["a", "...", ".x", "..x", " ", "\u{e9}", "a\nb", "-"] {
        let tree = Dirtree {
            files: vec![(name.into(), id(Z))],
            dirs: vec![],
        };
        assert_eq!(Dirtree::parse(&tree.to_bytes()), Ok(tree));
    }
    let mut bytes = sub().to_bytes();
    bytes[0] = 0xff;
    let error = DecodeError::Format {
        what: "string is not UTF-8",
        offset: 0,
    };
    assert_eq!(Dirtree::parse(&bytes), Err(error));
}

#[test]
fn listings_out_of_order_or_with_duplicates_are_refused() {
    let dir = |name: &str| DirEntry {
        name: name.into(),
        tree: id(SUB),
        meta: id(DIRMETA),
    };
    let file = |name: &str| (name.to_owned(), id(Z));
    let order = "the names of a directory are not in order";
    let both = "a name is both a file's and a directory's";
    let cases = [
        (vec![file("b"), file("a")], vec![], order),
        (vec![file("a"), file("a")], vec![], order),
        (vec![], vec![dir("b"), dir("a")], order),
        (vec![], vec![dir("a"), dir("a")], order),
        // Bytes, not letters, decide.
        (vec![file("\u{e9}"), file("z")], vec![], order),
        (vec![file("a"), file("b")], vec![dir("b")], both),
    ];
    for (files, dirs, expected) in cases {
        let tree = Dirtree { files, dirs };
        assert_eq!(rule(Dirtree::parse(&tree.to_bytes())), expected);
    }
}

#[test]
fn lookups_find_names_in_their_list_only() {
    let tree = root();
    assert_eq!(tree.file("link"), Some(&id(LINK)));
    assert_eq!(tree.dir("sub").map(|dir| dir.tree), Some(id(SUB)));
    assert_eq!(
        (tree.file("sub"), tree.dir("link"), tree.file("zzz")),
        (None, None, None)
    );
}

#[test]
fn modes_and_targets_must_fit_the_type() {
    let kind = "the mode is neither a regular file's nor a symbolic link's";
    let cases = [
        (0o100644, "", None),
        (0o107777, "", None),
        (0o120777, "x", None),
        (0o120755, "x", None),
        (
            0o100644,
            "x",
            Some("a regular file has a symbolic link's target"),
        ),
        (0o120777, "", Some("a symbolic link has no target")),
        (0o040755, "", Some(kind)),
        (0o020644, "", Some(kind)),
        (0o060644, "", Some(kind)),
        (0o010644, "", Some(kind)),
        (0o140644, "", Some(kind)),
        (0o000644, "", Some(kind)),
        (0o300644, "", Some(kind)),
    ];
    for (mode, target, expected) in cases {
        let header = header(mode, target, &[]);
        let parsed = FileHeader::parse(&header.to_bytes());
        match expected {
            None => assert_eq!(parsed, Ok(header)),
            Some(expected) => assert_eq!(rule(parsed), expected, "{mode:o}"),
        }
    }
    let mut bytes = header(0o100644, "", &[]).to_bytes();
    bytes[15] = 1;
    assert_eq!(
        rule(FileHeader::parse(&bytes)),
        "a file has a device number"
    );
    for mode in [0o100755, 0o755, 0o240755, 0o050755] {
        let meta = DirMeta {
            uid: 0,
            gid: 0,
            mode,
            xattrs: Xattrs::default(),
        };
        assert!(DirMeta::parse(&meta.to_bytes()).is_err(), "{mode:o}");
    }
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .collect()
}

#[test]
fn new_xattrs_are_sorted_without_empty_values() {
    let given = [
        ("user.b", "2"),
        ("user.a", "1"),
        ("user.c", ""),
        ("user.b", "3"),
        ("", "x"),
    ];
    let xattrs = Xattrs::from_unsorted(pairs(&given));
    let expected = [("user.a", "1"), ("user.b", "3")];
    assert!(
        xattrs
            .iter()
            .eq(expected.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
    );
    assert_eq!(xattrs.get(b"user.b"), Some(b"3".as_slice()));
    assert_eq!(xattrs.get(b"user.c"), None);
    assert!(xattrs.is_sorted() && !xattrs.is_empty());
}

#[test]
fn stored_xattrs_keep_their_order_and_both_orders_name_the_object() {
    // (user.z, 1), (security.selinux, 2), as written before 2025.2.
    let bytes = hex("757365722e7a0031 07 73656375726974792e73656c696e757800 32 11 09 1c");
    let xattrs = Xattrs::parse(&bytes).unwrap();
    assert_eq!(xattrs.to_bytes(), bytes);
    assert!(!xattrs.is_sorted() && xattrs.sorted().is_sorted());

    let old = FileHeader {
        xattrs,
        ..header(0o100644, "", &[])
    };
    let Cow::Owned(new) = old.with_sorted_xattrs() else {
        panic!("the order did not change")
    };
    assert_ne!(old.object_id(b"x"), new.object_id(b"x"));
    assert_eq!(FileHeader::parse(&old.to_bytes()), Ok(old.clone()));
    for name in [old.object_id(b"x"), new.object_id(b"x")] {
        assert!(old.is_named(&name, b"x".as_slice()).unwrap());
        assert!(!old.is_named(&name, b"y".as_slice()).unwrap());
    }
    // A sorted header does not stand for an unsorted one: the order would be lost.
    assert!(!new.is_named(&old.object_id(b"x"), b"x".as_slice()).unwrap());
}

#[test]
fn malformed_xattrs_are_refused() {
    let cases = [
        ("no NUL behind the name", "6131 01 03"),
        ("empty name", "0031 01 03"),
        ("NUL in the name", "61006200 31 04 06"),
        ("one name twice", "610031 02 610032 02 04 08"),
        ("offset behind the end", "610031 09 04"),
        ("junk between elements and offsets", "610031 02 00 04"),
    ];
    for (what, bytes) in cases {
        assert!(Xattrs::parse(&hex(bytes)).is_err(), "{what}");
    }
    assert_eq!(
        Xattrs::parse(&hex("610031 02 04")).unwrap().get(b"a"),
        Some(b"1".as_slice())
    );
}

#[test]
fn commits_with_bad_fields_are_refused() {
    let mut empty_key = commit();
    empty_key.metadata.push("", Variant::bool(true));
    assert_eq!(
        rule(Commit::parse(&empty_key.to_bytes())),
        "a metadata key is empty"
    );

    // Fields behind each other with all offsets; the parent and the related objects vary.
    let build = |parent: &[u8], related: &[u8], meta: &[u8]| {
        let mut bytes = parent.to_vec();
        let mut ends = vec![0, bytes.len()];
        bytes.extend(related);
        ends.push(bytes.len());
        for _ in 0..2 {
            bytes.push(0);
            ends.push(bytes.len());
        }
        bytes.resize(bytes.len().next_multiple_of(8) + 8, 0);
        bytes.extend(id(ROOT).as_bytes());
        ends.push(bytes.len());
        bytes.extend(meta);
        bytes.extend(ends.iter().rev().map(|end| *end as u8));
        bytes
    };
    let meta = id(DIRMETA);
    let parent = id(COMMIT);
    let parsed = Commit::parse(&build(parent.as_bytes(), b"", meta.as_bytes())).unwrap();
    assert_eq!((parsed.parent, parsed.meta), (Some(parent), meta));
    assert!(Commit::parse(&build(b"", b"", meta.as_bytes())).is_ok());
    assert!(Commit::parse(&build(&parent.as_bytes()[1..], b"", meta.as_bytes())).is_err());
    assert!(Commit::parse(&build(b"", b"", b"")).is_err());
    assert!(Commit::parse(&build(b"", b"", &meta.as_bytes()[1..])).is_err());
    let related = hex("6100 00 02 03");
    let error = Commit::parse(&build(b"", &related, meta.as_bytes()));
    assert_eq!(rule(error), "a commit has related objects");
}

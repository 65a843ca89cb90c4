//! Golden vectors: objects `ostree` itself has written.

#![allow(clippy::unwrap_used)]

mod properties;
mod rules;

use super::*;
use crate::id::ObjectId;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn id(text: &str) -> ObjectId {
    text.parse().unwrap()
}

const EMPTY: &str = "cc700d46f407c6c5ab2d5dde474366a928b7398277e61162e7f8ec06f469f07e";
const HELLO: &str = "44f778e59f0a4748d6b0c90a47347212a231c4ad1e8f7ea5c5dffc7749153a6b";
const LINK: &str = "73baaba0102e9154b8522687d33eedb8ed1bc78eadb82428b2616144ec502934";
const XAT: &str = "db4e5b0f033978ab58cbd96b9e42c723fee1972dc315f45c56f581588cfcf2ab";
const Z: &str = "3168f4d201f9f3d84807f2231e5855dba6ca96f3637ec7562a3c57d0cfd0fbb2";
const DIRMETA: &str = "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488";
const SUB: &str = "422b5aa3f923299f95409d019877621dafb62372d87d94146f0c3db348bd6ad4";
const ROOT: &str = "da9b33da11f0f08aefc9a462d11242ca9401a6bf8213108badc7c93dbf5667e9";
const COMMIT: &str = "b3ea09cf618925a867e740159cd5df6ecdd3474d8efd37be3a5370baeb6665c5";

fn header(mode: u32, target: &str, xattrs: &[(&str, &str)]) -> FileHeader {
    let xattrs = xattrs
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()));
    FileHeader {
        uid: 0,
        gid: 0,
        mode,
        symlink_target: target.as_bytes().to_vec(),
        xattrs: Xattrs::from_unsorted(xattrs.collect()),
    }
}

#[test]
fn files_are_written_and_named_as_by_ostree() {
    let xattrs = [("user.b", "two"), ("user.a", "one"), ("user.none", "")];
    let cases = [
        (
            header(0o100644, "", &[]),
            "hello\n",
            HELLO,
            "0000001200000000 00000000 00000000 000081a4 00000000 00 11",
        ),
        (
            header(0o100644, "", &[]),
            "",
            EMPTY,
            "0000001200000000 00000000 00000000 000081a4 00000000 00 11",
        ),
        (
            header(0o120777, "hello", &[]),
            "",
            LINK,
            "0000001700000000 00000000 00000000 0000a1ff 00000000 68656c6c6f00 16",
        ),
        (
            header(0o100644, "", &xattrs),
            "caps",
            XAT,
            "0000002a00000000 00000000 00000000 000081a4 00000000 00
          757365722e6100 6f6e65 07 757365722e6200 74776f 07 0b16 11",
        ),
        (
            header(0o104755, "", &[]),
            "x",
            Z,
            "0000001200000000 00000000 00000000 000089ed 00000000 00 11",
        ),
    ];
    for (header, payload, name, prefix) in cases {
        assert_eq!(header.content_prefix(), hex(prefix), "{name}");
        assert_eq!(header.object_id(payload.as_bytes()), id(name));
        assert_eq!(header.object_id_of(payload.as_bytes()).unwrap(), id(name));
        assert!(header.is_named(&id(name), payload.as_bytes()).unwrap());
        assert_eq!(FileHeader::parse(&header.to_bytes()), Ok(header));
    }
}

fn sub() -> Dirtree {
    Dirtree {
        files: vec![("z".into(), id(Z))],
        dirs: vec![],
    }
}

fn root() -> Dirtree {
    let files = [
        ("empty", EMPTY),
        ("hello", HELLO),
        ("link", LINK),
        ("xat", XAT),
    ];
    Dirtree {
        files: files
            .map(|(name, file)| (name.to_owned(), id(file)))
            .to_vec(),
        dirs: vec![DirEntry {
            name: "sub".into(),
            tree: id(SUB),
            meta: id(DIRMETA),
        }],
    }
}

#[test]
fn directories_are_written_and_named_as_by_ostree() {
    let meta = DirMeta {
        uid: 0,
        gid: 0,
        mode: 0o040755,
        xattrs: Xattrs::default(),
    };
    assert_eq!(meta.to_bytes(), hex("00000000 00000000 000041ed"));
    assert_eq!(meta.object_id(), id(DIRMETA));
    assert_eq!(DirMeta::parse(&meta.to_bytes()), Ok(meta));

    assert_eq!(sub().to_bytes(), hex(&format!("7a00 {Z} 02 23 24")));
    assert_eq!(sub().object_id(), id(SUB));
    assert_eq!(Dirtree::parse(&sub().to_bytes()), Ok(sub()));

    let bytes = root().to_bytes();
    assert_eq!(bytes.len(), 229);
    let expected = format!(
        "656d70747900 {EMPTY} 06 68656c6c6f00 {HELLO} 06 6c696e6b00 {LINK} 05 78617400 {XAT} 04
         274e7499 73756200 {SUB} {DIRMETA} 2404 46 9d"
    );
    assert_eq!(bytes, hex(&expected));
    assert_eq!(root().object_id(), id(ROOT));
    assert_eq!(Dirtree::parse(&bytes), Ok(root()));
}

fn commit() -> Commit {
    let mut metadata = Metadata::default();
    metadata.push("version", Variant::string("1.0"));
    metadata.push("ostree.ref-binding", Variant::strings(["t/main"]));
    Commit {
        metadata,
        parent: None,
        subject: "subj".into(),
        body: "body".into(),
        timestamp: 1_700_000_000,
        tree: id(ROOT),
        meta: id(DIRMETA),
    }
}

#[test]
fn commits_are_written_and_named_as_by_ostree() {
    let bytes = commit().to_bytes();
    let expected = "
        76657273696f6e00312e3000007308006f73747265652e7265662d62696e64696e67000000000000742f6d61
        696e0007006173130f347375626a00626f647900000000006553f100da9b33da11f0f08aefc9a462d11242ca94
        01a6bf8213108badc7c93dbf5667e9446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b
        6c548868403b363636";
    assert_eq!(bytes, hex(expected));
    assert_eq!(commit().object_id(), id(COMMIT));
    assert_eq!(Commit::parse(&bytes), Ok(commit()));
}

#[test]
fn content_checksum_names_the_tree_alone() {
    let bytes = hex(&format!("{ROOT}{DIRMETA}"));
    assert_eq!(commit().content_checksum(), ObjectId::of(&bytes));
    let later = Commit {
        timestamp: 1,
        parent: Some(id(COMMIT)),
        ..commit()
    };
    assert_eq!(later.content_checksum(), commit().content_checksum());
}

#[test]
fn wide_listings_use_wider_offsets() {
    for (count, width) in [(6, 1), (7, 2), (2000, 4)] {
        let name = |i: usize| format!("{i:06}");
        let tree = Dirtree {
            files: (0..count).map(|i| (name(i), id(HELLO))).collect(),
            dirs: vec![],
        };
        let bytes = tree.to_bytes();
        // Name with NUL, checksum, the entry's own offset and the array's; then the tuple's.
        assert_eq!(bytes.len(), count * (7 + 32 + 1 + width) + width, "{count}");
        assert_eq!(Dirtree::parse(&bytes), Ok(tree));
    }
}

/// Reads an object and writes it again, if it is accepted.
type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

fn golden() -> Vec<(Vec<u8>, Rewrite)> {
    let xattrs = [("user.a", "one"), ("user.b", "two")];
    let meta = DirMeta {
        uid: 1,
        gid: 2,
        mode: 0o042755,
        xattrs: header(0, "", &xattrs).xattrs,
    };
    vec![
        (header(0o100644, "", &[]).to_bytes(), |b| {
            Some(FileHeader::parse(b).ok()?.to_bytes())
        }),
        (header(0o120777, "x", &xattrs).to_bytes(), |b| {
            Some(FileHeader::parse(b).ok()?.to_bytes())
        }),
        (meta.to_bytes(), |b| {
            Some(DirMeta::parse(b).ok()?.to_bytes())
        }),
        (sub().to_bytes(), |b| {
            Some(Dirtree::parse(b).ok()?.to_bytes())
        }),
        (root().to_bytes(), |b| {
            Some(Dirtree::parse(b).ok()?.to_bytes())
        }),
        (commit().to_bytes(), |b| {
            Some(Commit::parse(b).ok()?.to_bytes())
        }),
    ]
}

#[test]
fn damaged_objects_are_refused_or_written_back_alike() {
    for (bytes, parse) in golden() {
        assert_eq!(parse(&bytes).as_ref(), Some(&bytes));
        let check = |damaged: &[u8]| {
            if let Some(written) = parse(damaged) {
                assert_eq!(written, damaged);
            }
        };
        (0..bytes.len()).for_each(|len| check(&bytes[..len]));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                check(&flipped);
            }
            for value in [0, 1, 0x7f, 0xff] {
                let mut inserted = bytes.clone();
                inserted.insert(at, value);
                check(&inserted);
            }
            let mut removed = bytes.clone();
            removed.remove(at);
            check(&removed);
        }
    }
}

//! What is written is read back, whatever it is.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn ids() -> impl Strategy<Value = ObjectId> {
    any::<[u8; 32]>().prop_map(ObjectId::from_bytes)
}

fn names() -> impl Strategy<Value = String> {
    "[^/\0]{1,40}".prop_filter("not a link to itself or its parent", |name| {
        check_name(name).is_ok()
    })
}

fn texts() -> impl Strategy<Value = String> {
    "[^\0]{0,300}"
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    vec((vec(1u8.., 1..20), vec(any::<u8>(), 0..200)), 0..6).prop_map(Xattrs::from_unsorted)
}

fn dirtrees() -> impl Strategy<Value = Dirtree> {
    btree_map(names(), (ids(), ids(), any::<bool>()), 0..40).prop_map(
        |entries: BTreeMap<_, (ObjectId, ObjectId, bool)>| {
            let mut tree = Dirtree::default();
            for (name, (first, second, is_dir)) in entries {
                match is_dir {
                    true => tree.dirs.push(DirEntry {
                        name,
                        tree: first,
                        meta: second,
                    }),
                    false => tree.files.push((name, first)),
                }
            }
            tree
        },
    )
}

fn variants() -> impl Strategy<Value = Variant> {
    prop_oneof![
        texts().prop_map(|text| Variant::string(&text)),
        vec(texts(), 0..6).prop_map(|items| Variant::strings(items.iter().map(String::as_str))),
        vec(any::<u8>(), 0..70_000).prop_map(|bytes| Variant::byte_array(&bytes)),
        any::<u64>().prop_map(Variant::u64),
        any::<u32>().prop_map(Variant::u32),
        any::<bool>().prop_map(Variant::bool),
    ]
}

fn commits() -> impl Strategy<Value = Commit> {
    let metadata = vec(("[^\0]{1,30}", variants()), 0..6);
    (
        metadata,
        proptest::option::of(ids()),
        texts(),
        texts(),
        any::<u64>(),
        ids(),
        ids(),
    )
        .prop_map(|(entries, parent, subject, body, timestamp, tree, meta)| {
            let mut metadata = Metadata::default();
            entries
                .into_iter()
                .for_each(|(key, value)| metadata.push(key, value));
            Commit {
                metadata,
                parent,
                subject,
                body,
                timestamp,
                tree,
                meta,
            }
        })
}

proptest! {
    #[test]
    fn dirtrees_are_read_back(tree in dirtrees()) {
        prop_assert_eq!(Dirtree::parse(&tree.to_bytes()), Ok(tree));
    }

    #[test]
    fn dirmetas_are_read_back(uid: u32, gid: u32, bits in 0u32..0o10000, xattrs in xattrs()) {
        let meta = DirMeta { uid, gid, mode: 0o040000 | bits, xattrs };
        prop_assert_eq!(DirMeta::parse(&meta.to_bytes()), Ok(meta));
    }

    #[test]
    fn file_headers_are_read_back(
        uid: u32, gid: u32, bits in 0u32..0o10000, target in "[^\0]{0,300}", xattrs in xattrs(),
    ) {
        let kind = if target.is_empty() { 0o100000 } else { 0o120000 };
        let header =
            FileHeader { uid, gid, mode: kind | bits, symlink_target: target.into_bytes(), xattrs };
        prop_assert_eq!(FileHeader::parse(&header.to_bytes()), Ok(header));
    }

    #[test]
    fn commits_are_read_back(commit in commits()) {
        prop_assert_eq!(Commit::parse(&commit.to_bytes()), Ok(commit));
    }

    #[test]
    fn accepted_bytes_are_written_back(bytes in vec(prop_oneof![0u8..9, any::<u8>()], 0..64)) {
        if let Ok(tree) = Dirtree::parse(&bytes) {
            prop_assert_eq!(tree.to_bytes(), bytes.clone());
        }
        if let Ok(xattrs) = Xattrs::parse(&bytes) {
            prop_assert_eq!(xattrs.to_bytes(), bytes.clone());
        }
        if let Ok(metadata) = Metadata::parse(&bytes) {
            prop_assert_eq!(metadata.to_bytes(), bytes);
        }
    }
}

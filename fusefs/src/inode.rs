//! Inode numbers, and what each number that was handed out stands for.
//!
//! * A file object (regular file or symbolic link: content and all metadata) has one number,
//!   derived from its id, wherever and in whichever commit it appears. The kernel then keeps one
//!   inode and one copy of its pages for all of them. Real link counts are not known: every file
//!   reports one link.
//! * A directory has a number of its own at each path, derived from its parent's number and its
//!   name. Sharing would let the kernel move a directory from one path to another.
//!
//! Numbers are derived, so they are the same at every mount; two things that derive the same one
//! (not seen below 2^30 objects) are kept apart by taking the next free number. Bits 62 and 63 are
//! zero (overlayfs uses them), bit 61 tells directories, 0 and 1 are never derived.
//!
//! The table only grows, by about 100 bytes for each file and directory that was ever looked at.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use grove_engine::ObjectId;

/// Number of the mount's root directory, fixed by the protocol.
pub(crate) const ROOT: u64 = 1;

const DIRECTORY: u64 = 1 << 61;
const SHARDS: usize = 16;

/// What an inode number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory.
    Dir(Arc<Dir>),
    /// A regular file or symbolic link.
    File {
        /// Its object.
        id: ObjectId,
        /// A directory it was seen in, to name it in messages.
        seen_in: u64,
    },
    /// A ref, shown as a symbolic link to its commit.
    RefLink(Arc<str>),
}

/// A directory at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dir {
    /// Number of the directory it is in; the root's is its own.
    pub(crate) parent: u64,
    /// Its name there.
    pub(crate) name: Box<str>,
    /// Where its contents come from.
    pub(crate) kind: DirKind,
}

/// Where a directory's contents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DirKind {
    /// A directory of a commit.
    Tree {
        /// Listing.
        tree: ObjectId,
        /// Metadata.
        meta: ObjectId,
    },
    /// The root above all refs and commits.
    Top,
    /// All commits by checksum.
    Commits,
    /// The refs whose names begin with this and a slash; empty for all.
    Refs(Box<str>),
}

impl Node {
    fn derive(&self) -> u64 {
        match self {
            Self::File { id, .. } => low_bits(id),
            Self::RefLink(target) => low_bits(&ObjectId::of(target.as_bytes())),
            Self::Dir(dir) => {
                let mut key = dir.parent.to_le_bytes().to_vec();
                key.extend_from_slice(dir.name.as_bytes());
                low_bits(&ObjectId::of(&key)) | DIRECTORY
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { id: a, .. }, Self::File { id: b, .. }) => a == b,
            _ => self == other,
        }
    }
}

/// 61 bits of an id as a number of at least 2.
fn low_bits(id: &ObjectId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) & (DIRECTORY - 1)).max(2)
}

/// A position in a listing whose order is that of the positions: survives additions and removals.
pub(crate) fn cookie(name: &str) -> u64 {
    low_bits(&ObjectId::of(name.as_bytes()))
}

/// Every number handed out.
#[derive(Debug)]
pub(crate) struct Inodes {
    shards: [RwLock<HashMap<u64, Node>>; SHARDS],
}

impl Inodes {
    /// A table that knows the root only.
    pub(crate) fn new(root: DirKind) -> Self {
        let inodes = Self {
            shards: Default::default(),
        };
        let root = Dir {
            parent: ROOT,
            name: "".into(),
            kind: root,
        };
        inodes.insert_at(ROOT, &Node::Dir(Arc::new(root)));
        inodes
    }

    /// What a number stands for, if it was handed out.
    pub(crate) fn get(&self, number: u64) -> Option<Node> {
        let shard = self
            .shard(number)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(&number).cloned()
    }

    /// The number of a file object.
    pub(crate) fn file(&self, id: ObjectId, seen_in: u64) -> u64 {
        self.number(&Node::File { id, seen_in })
    }

    /// The number of a directory.
    pub(crate) fn dir(&self, parent: u64, name: &str, kind: DirKind) -> u64 {
        self.number(&Node::Dir(Arc::new(Dir {
            parent,
            name: name.into(),
            kind,
        })))
    }

    /// The number of a ref's link.
    pub(crate) fn ref_link(&self, target: &str) -> u64 {
        self.number(&Node::RefLink(target.into()))
    }

    fn number(&self, node: &Node) -> u64 {
        let mut number = node.derive();
        while !self.insert_at(number, node) {
            number = next(number);
        }
        number
    }

    /// Whether the number now stands for the node.
    fn insert_at(&self, number: u64, node: &Node) -> bool {
        let shard = self.shard(number);
        if let Some(there) = shard
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
        {
            return there.is_same(node);
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard
            .entry(number)
            .or_insert_with(|| node.clone())
            .is_same(node)
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Node>> {
        &self.shards[number as usize % SHARDS]
    }
}

/// The number to try when one is taken: stays among files or among directories.
fn next(number: u64) -> u64 {
    let low = ((number + 1) & (DIRECTORY - 1)).max(2);
    (number & DIRECTORY) | low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(n: u8) -> DirKind {
        DirKind::Tree {
            tree: ObjectId::from_bytes([n; 32]),
            meta: ObjectId::from_bytes([n; 32]),
        }
    }

    #[test]
    fn a_file_object_has_one_number_and_a_directory_one_per_path() {
        let inodes = Inodes::new(tree(0));
        let id = ObjectId::of(b"file");
        assert_eq!(inodes.file(id, ROOT), inodes.file(id, 77));
        let usr = inodes.dir(ROOT, "usr", tree(1));
        assert_eq!(usr, inodes.dir(ROOT, "usr", tree(1)));
        let twins = [
            inodes.dir(ROOT, "a", tree(1)),
            inodes.dir(usr, "a", tree(1)),
        ];
        assert_ne!(twins[0], twins[1]);
        assert!(twins.iter().all(|n| n >> 62 == 0 && n & DIRECTORY != 0));
    }

    #[test]
    fn ids_that_derive_the_same_number_get_different_ones() {
        let inodes = Inodes::new(tree(0));
        for start in [0u8, 0xff] {
            let mut ids = [[start; 32]; 3];
            for (n, id) in ids.iter_mut().enumerate() {
                id[31] = n as u8;
            }
            let numbers = ids.map(|id| inodes.file(ObjectId::from_bytes(id), ROOT));
            let again = ids.map(|id| inodes.file(ObjectId::from_bytes(id), ROOT));
            assert_eq!(numbers, again);
            assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2]);
            assert!(numbers.iter().all(|n| *n > ROOT && n & DIRECTORY == 0));
        }
    }

    #[test]
    fn unknown_numbers_stand_for_nothing() {
        assert_eq!(Inodes::new(tree(0)).get(99), None);
    }
}

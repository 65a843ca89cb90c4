//! Inode numbers. Nearly all are computed, and what they stand for is found from the number alone:
//! nothing is remembered for what was looked at, and numbers hold across restarts.
//!
//! ```text
//! 00 0 <61 bits>              a file object, wherever and in whichever commit it appears
//! 00 1 00 <slot> <index>      a directory of a commit, by its place in the commit's image
//! 00 1 01 <slot> <index>      the same where every path has a number of its own
//! 00 1 10 <slot> <index>      a file of a commit where every path has a number of its own
//! 00 1 11 <59 bits>           what has a name only: refs, and directories of damaged commits
//! ```
//!
//! Files that are identical (content and all metadata) share a number, so the kernel keeps one inode
//! and one copy of their pages. Real link counts are not known: every file reports one link.
//! Directories never share: the kernel would move a directory from one path to another.
//!
//! The 61 bits are the first of the object's id, the slot the first 29 of the commit's. Two objects
//! that begin alike are never confused: whoever turns a number into an object, or an object into a
//! number, looks whether there is another one, and fails if so. The two highest bits are zero, as
//! overlayfs uses them; 0 and 1 are never computed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use grove_engine::ObjectId;

/// Number of the mount's root directory, fixed by the protocol.
pub(crate) const ROOT: u64 = 1;

const NOT_A_FILE: u64 = 1 << 61;
const CLASS_SHIFT: u32 = 59;
const SLOT_BITS: u32 = 29;
/// Bits of the index of a directory or file in its commit.
pub(crate) const INDEX_BITS: u32 = 30;

/// How files of a commit are numbered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Numbering {
    /// Identical files share a number, in one commit and between commits.
    #[default]
    Shared,
    /// Each path has a number of its own.
    Unique,
}

/// What a number says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inode {
    /// The mount's root directory.
    Root,
    /// A file object.
    File,
    /// A directory of a commit.
    Dir(Numbering, Place),
    /// A file at one path of a commit.
    PathFile(Place),
    /// Something in the table of names.
    Named,
}

/// Something in a commit's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first bits of the commit's id.
    pub(crate) slot: u32,
    /// Which of the commit's directories, or files.
    pub(crate) index: u32,
}

impl Place {
    pub(crate) fn new(commit: &ObjectId, index: u32) -> Self {
        let slot = first_bits(commit, SLOT_BITS) as u32;
        Self { slot, index }
    }

    fn bits(self) -> u64 {
        u64::from(self.slot) << INDEX_BITS | u64::from(self.index)
    }
}

impl Inode {
    /// What a number says; `None` for one that is never given.
    pub(crate) fn of(number: u64) -> Option<Self> {
        let place = Place {
            slot: (number >> INDEX_BITS) as u32 & ((1 << SLOT_BITS) - 1),
            index: number as u32 & ((1 << INDEX_BITS) - 1),
        };
        match number >> CLASS_SHIFT {
            _ if number == 0 => None,
            _ if number == ROOT => Some(Self::Root),
            0..4 => Some(Self::File),
            4 => Some(Self::Dir(Numbering::Shared, place)),
            5 => Some(Self::Dir(Numbering::Unique, place)),
            6 => Some(Self::PathFile(place)),
            7 => Some(Self::Named),
            _ => None,
        }
    }
}

/// The number of a file object.
pub(crate) fn of_file(id: &ObjectId) -> u64 {
    first_bits(id, 61).max(2)
}

/// The number of a directory of a commit.
pub(crate) fn of_dir(numbering: Numbering, place: Place) -> u64 {
    let class = match numbering {
        Numbering::Shared => 4,
        Numbering::Unique => 5,
    };
    class << CLASS_SHIFT | place.bits()
}

/// The number of a file at one path of a commit.
pub(crate) fn of_path_file(place: Place) -> u64 {
    6 << CLASS_SHIFT | place.bits()
}

/// The first and the last id that a file object of this number can have.
pub(crate) fn file_ids(number: u64) -> (ObjectId, ObjectId) {
    let (first, last) = ids_beginning_with(number, 61);
    match number {
        2 => (ObjectId::from_bytes([0; ObjectId::LEN]), last),
        _ => (first, last),
    }
}

/// The first and the last id that a commit of this slot can have.
pub(crate) fn commit_ids(slot: u32) -> (ObjectId, ObjectId) {
    ids_beginning_with(slot.into(), SLOT_BITS)
}

/// A position in a listing whose order is that of the positions: survives additions and removals.
pub(crate) fn cookie(name: &str) -> u64 {
    of_file(&ObjectId::of(name.as_bytes()))
}

fn first_bits(id: &ObjectId, bits: u32) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> (64 - bits)
}

fn ids_beginning_with(beginning: u64, bits: u32) -> (ObjectId, ObjectId) {
    let end = |bits64: u64, rest: u8| {
        let mut id = [rest; ObjectId::LEN];
        let (head, _) = id.split_at_mut(8);
        head.copy_from_slice(&bits64.to_be_bytes());
        ObjectId::from_bytes(id)
    };
    let low = 64 - bits;
    (
        end(beginning << low, 0),
        end(beginning << low | ((1 << low) - 1), 0xff),
    )
}

/// What has a number because of its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    /// A directory above the commits.
    Live(LiveDir),
    /// A ref, shown as a symbolic link to its commit: where it leads.
    RefLink(Arc<str>),
    /// A directory or file of a commit whose image is not complete, so that places in it change
    /// when the damage is repaired.
    Inside(Arc<Inside>),
}

/// A directory above the commits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LiveDir {
    /// The root above all refs and commits.
    Top,
    /// All commits by checksum.
    Commits,
    /// The same, each path with a number of its own.
    Unique,
    /// The refs whose names begin with this and a slash; empty for all.
    Refs(Box<str>),
}

/// Something at a path of a commit.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inside {
    pub(crate) commit: ObjectId,
    pub(crate) numbering: Numbering,
    pub(crate) path: Box<str>,
    pub(crate) is_dir: bool,
}

impl Named {
    fn derive(&self) -> u64 {
        let mut key = Vec::new();
        match self {
            Self::Live(LiveDir::Top) => return ROOT,
            Self::Live(LiveDir::Commits) => key.push(b'c'),
            Self::Live(LiveDir::Unique) => key.push(b'u'),
            Self::Live(LiveDir::Refs(prefix)) => {
                key.push(b'r');
                key.extend_from_slice(prefix.as_bytes());
            }
            Self::RefLink(target) => {
                key.push(b'l');
                key.extend_from_slice(target.as_bytes());
            }
            Self::Inside(inside) => {
                key.push(match inside.numbering {
                    Numbering::Shared => b's',
                    Numbering::Unique => b'p',
                });
                key.extend_from_slice(inside.commit.as_bytes());
                key.extend_from_slice(inside.path.as_bytes());
            }
        }
        named(first_bits(&ObjectId::of(&key), CLASS_SHIFT))
    }
}

fn named(bits: u64) -> u64 {
    NOT_A_FILE | 3 << CLASS_SHIFT | bits & ((1 << CLASS_SHIFT) - 1)
}

/// The numbers of what has a name only. They are derived from the names, and kept apart by taking
/// the next one where two names derive the same.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: RwLock<HashMap<u64, Named>>,
}

impl Names {
    /// What a number stands for, if it was handed out.
    pub(crate) fn get(&self, number: u64) -> Option<Named> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&number).cloned()
    }

    /// The number of something.
    pub(crate) fn number(&self, of: &Named) -> u64 {
        let mut number = of.derive();
        if number == ROOT || self.get(number).as_ref() == Some(of) {
            return number;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        while known.entry(number).or_insert_with(|| of.clone()) != of {
            number = named(number + 1);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: [u8; 8], last: u8) -> ObjectId {
        let mut bytes = [last; 32];
        bytes[..8].copy_from_slice(&first);
        ObjectId::from_bytes(bytes)
    }

    #[test]
    fn the_number_of_a_file_leads_back_to_its_id() {
        let samples = [[0; 8], [0xff; 8], [0x12; 8], [0, 0, 0, 0, 0, 0, 0, 0x17]];
        for first in samples {
            for last in [0, 0x80, 0xff] {
                let id = id(first, last);
                let number = of_file(&id);
                assert_eq!(Inode::of(number), Some(Inode::File), "{id}");
                let (low, high) = file_ids(number);
                assert!(low <= id && id <= high, "{id}");
                assert_eq!(of_file(&low), number);
                assert_eq!(of_file(&high), number);
            }
        }
        let (low, high) = file_ids(77);
        let outside = [
            id((low_of(&low) - 1).to_be_bytes(), 0xff),
            id((low_of(&high) + 1).to_be_bytes(), 0),
        ];
        assert!(outside.iter().all(|id| of_file(id) != 77));
    }

    fn low_of(id: &ObjectId) -> u64 {
        u64::from_be_bytes(*id.as_bytes().first_chunk().unwrap())
    }

    #[test]
    fn places_lead_back_to_commit_and_index_and_leave_the_highest_bits_free() {
        for commit in [id([0; 8], 0), id([0xff; 8], 0xff), id([0xa5; 8], 3)] {
            for index in [0, 1, (1 << INDEX_BITS) - 1] {
                let place = Place::new(&commit, index);
                let (low, high) = commit_ids(place.slot);
                assert!(low <= commit && commit <= high);
                let table = [
                    (
                        of_dir(Numbering::Shared, place),
                        Inode::Dir(Numbering::Shared, place),
                    ),
                    (
                        of_dir(Numbering::Unique, place),
                        Inode::Dir(Numbering::Unique, place),
                    ),
                    (of_path_file(place), Inode::PathFile(place)),
                ];
                for (number, inode) in table {
                    assert_eq!(Inode::of(number), Some(inode));
                    assert_eq!(number >> 62, 0);
                }
            }
        }
    }

    #[test]
    fn names_have_numbers_of_their_own_that_lead_back() {
        let names = Names::default();
        let inside = |numbering| {
            Named::Inside(Arc::new(Inside {
                commit: ObjectId::of(b"c"),
                numbering,
                path: "usr".into(),
                is_dir: true,
            }))
        };
        let all = [
            Named::Live(LiveDir::Commits),
            Named::Live(LiveDir::Unique),
            Named::Live(LiveDir::Refs("".into())),
            Named::Live(LiveDir::Refs("os".into())),
            Named::RefLink("os".into()),
            inside(Numbering::Shared),
            inside(Numbering::Unique),
        ];
        let numbers: Vec<u64> = all.iter().map(|of| names.number(of)).collect();
        for (of, number) in all.iter().zip(&numbers) {
            assert_eq!(Inode::of(*number), Some(Inode::Named));
            assert_eq!(names.get(*number).as_ref(), Some(of));
            assert_eq!(names.number(of), *number);
        }
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), numbers.len());
        assert_eq!(names.number(&Named::Live(LiveDir::Top)), ROOT);
    }

    #[test]
    fn a_name_whose_number_is_taken_gets_the_next_one() {
        let names = Names::default();
        let wanted = Named::RefLink("a".into());
        let number = wanted.derive();
        names
            .known
            .write()
            .unwrap()
            .insert(number, Named::RefLink("other".into()));
        assert_eq!(names.number(&wanted), named(number + 1));
        assert_eq!(names.get(named(number + 1)), Some(wanted));
        assert_eq!(
            named(u64::MAX) + 1,
            1 << 62,
            "the last one is followed by the first"
        );
        assert_eq!(Inode::of(named(named(u64::MAX) + 1)), Some(Inode::Named));
    }

    #[test]
    fn numbers_that_are_never_given_stand_for_nothing() {
        for number in [0, 1 << 62, 1 << 63, u64::MAX] {
            assert_eq!(Inode::of(number), None);
        }
        assert_eq!(Inode::of(ROOT), Some(Inode::Root));
    }
}

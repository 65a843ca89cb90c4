//! What the view answers.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use grove_engine::{ObjectId, PayloadId};

use super::ViewError;

/// What a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One commit: the mount's root is the commit's.
    Commit(ObjectId),
    /// Every commit and every ref, as they come and go.
    All,
}

/// Attributes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub number: u64,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Size in units of 512 bytes.
    pub blocks: u64,
    /// Time of last change.
    pub mtime: SystemTime,
}

/// How long an answer may be used without asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// A commit never changes.
    Forever,
    /// About a second: refs and commits come and go.
    Short,
    /// Not at all.
    None,
}

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes.
    pub attr: Attr,
    /// How long name and attributes hold.
    pub lifetime: Lifetime,
}

/// Answer to [`View::lookup`](super::View::lookup).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// There is such an entry.
    Found(Entry),
    /// There is none, for as long as stated.
    Absent(Lifetime),
}

/// One entry of a listing.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its name.
    pub name: &'a str,
    /// The offset at which the listing goes on after this entry.
    pub next: u64,
    /// What it is; with a lifetime of [`Lifetime::None`] only number and type count.
    pub entry: Entry,
    /// Why its attributes are not known: the rest of the listing is good all the same.
    pub damage: Option<ViewError>,
}

/// A file's content as a file of its own.
#[derive(Debug, Clone)]
pub struct PlainCopy {
    /// What it is a copy of.
    pub payload: PayloadId,
    /// The copy, open for reading.
    pub file: Arc<File>,
}

/// Figures for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What the repository stores, in units of [`BLOCK_SIZE`](super::BLOCK_SIZE).
    pub blocks: u64,
    /// Its objects.
    pub files: u64,
}

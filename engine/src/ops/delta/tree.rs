//! The sections of the tree and of the files: what a commit has beside contents.
//!
//! Names of objects are in neither. Metadata objects are named by their bytes, and files are listed in
//! the order in which a walk of the new listings meets them.

use std::collections::HashSet;
use std::io;

use super::base::Base;
use super::limits::{MAX_KEPT, MAX_METADATA, MAX_TREE_RAW};
use super::streams::{Cursors, Streams};
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::object::FileHeader;
use crate::ops::changes::{Fault, NewTree, Object};
use crate::repo::Repository;

/// Streams of the tree: kinds and lengths, then the objects, the detached metadata among them.
const TREE_HEADS: usize = 0;
const TREE_OBJECTS: usize = 1;
type TreeStreams = Streams<2>;

/// Streams of the files: lengths of headers, headers, contents, and which contents are needed again.
const LENS: usize = 0;
const HEADERS: usize = 1;
const CONTENTS: usize = 2;
const KEPT: usize = 3;
type FileStreams = Streams<4>;

/// The section with the commit, its detached metadata and its new objects.
pub(super) fn pack_tree(
    repo: &Repository,
    commit: &ObjectId,
    metadata: &[Object],
    (base, level): (&Base<'_>, i32),
) -> Result<Vec<u8>> {
    let mut streams = TreeStreams::default();
    let detached = repo.sound_detached_metadata(commit)?;
    let commit = repo.object_bytes(ObjectKind::Commit, commit)?;
    let detached_word = detached.as_ref().map_or(0, |bytes| 1 + bytes.len() as u64);
    streams.number(TREE_HEADS, commit.len() as u64);
    streams.number(TREE_HEADS, detached_word);
    streams.bytes(TREE_OBJECTS, &commit);
    streams.bytes(TREE_OBJECTS, &detached.unwrap_or_default());
    for (kind, id) in metadata {
        let bytes = repo.object_bytes(*kind, id)?;
        let is_meta = u64::from(*kind == ObjectKind::Dirmeta);
        streams.number(TREE_HEADS, (bytes.len() as u64) << 1 | is_meta);
        streams.bytes(TREE_OBJECTS, &bytes);
    }
    streams.pack(&base.prefix()?, level).at(base.delta())
}

/// The commit and its new metadata.
pub(super) fn unpack_tree(
    section: &[u8],
    commit: &ObjectId,
    base: &Base<'_>,
) -> Result<NewTree, Fault> {
    let streams = TreeStreams::unpack(section, &base.prefix()?, MAX_TREE_RAW)?;
    let mut cursors = Cursors::new(&streams);
    let len = cursors.number(TREE_HEADS)?;
    let detached_word = cursors.number(TREE_HEADS)?;
    let bytes = cursors.bytes(TREE_OBJECTS, len)?;
    if ObjectId::of(bytes) != *commit {
        return Err(Fault::other_object(ObjectKind::Commit, commit));
    }
    let mut tree = NewTree::new(bytes)?;
    if let Some(len) = detached_word.checked_sub(1) {
        tree.set_detached(cursors.bytes(TREE_OBJECTS, len)?)?;
    }
    while !cursors.is_empty(TREE_HEADS) {
        let word = cursors.number(TREE_HEADS)?;
        let kind = match word & 1 {
            0 => ObjectKind::Dirtree,
            _ => ObjectKind::Dirmeta,
        };
        if word >> 1 > MAX_METADATA {
            return Err(Fault::invalid("one of its metadata objects is too large"));
        }
        let bytes = cursors.bytes(TREE_OBJECTS, word >> 1)?;
        let object = (kind, ObjectId::of(bytes));
        if !tree.add(&object, bytes) {
            return Err(Fault::other_object(kind, &object.1));
        }
    }
    cursors.finish()?;
    Ok(tree)
}

/// How many metadata objects a section holds, with the commit.
pub(super) fn count_metadata(section: &[u8]) -> Result<u64, Fault> {
    let heads = TreeStreams::unpack_one(section, TREE_HEADS, MAX_TREE_RAW)?;
    // Each number ends with the one byte of it that has no top bit; one is of what is no object.
    let numbers = heads.iter().filter(|byte| **byte < 0x80).count() as u64;
    numbers
        .checked_sub(1)
        .ok_or_else(|| Fault::invalid("it is cut short"))
}

/// Where the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentOf {
    /// It is a symbolic link, or empty.
    Nothing,
    /// A payload of the base commit, by number.
    Base(u64),
    /// A content of the delta, by number.
    Made(u64),
}

/// A new file.
#[derive(Debug)]
pub(super) struct FileRow {
    pub(super) id: ObjectId,
    /// One of its paths.
    pub(super) path: String,
    pub(super) header: FileHeader,
    pub(super) content: ContentOf,
}

/// The section of the files, in the order of the walk, and the contents that are needed again.
pub(super) fn pack_files<'f>(
    files: impl Iterator<Item = (&'f FileHeader, ContentOf)>,
    kept: impl Iterator<Item = u64>,
    level: i32,
) -> io::Result<Vec<u8>> {
    let mut streams = FileStreams::default();
    for (header, content) in files {
        let bytes = header.to_bytes();
        streams.number(LENS, bytes.len() as u64);
        streams.bytes(HEADERS, &bytes);
        streams.number(
            CONTENTS,
            match content {
                ContentOf::Nothing => 0,
                ContentOf::Base(number) => 1 + 2 * number,
                ContentOf::Made(number) => 2 + 2 * number,
            },
        );
    }
    let mut next = 0;
    for number in kept {
        streams.number(KEPT, number - next);
        next = number + 1;
    }
    streams.pack(&[], level)
}

/// The files of a new tree, and the contents that are needed again.
pub(super) fn unpack_files(
    section: &[u8],
    tree: &NewTree,
    base: &Base<'_>,
) -> Result<(Vec<FileRow>, HashSet<u64>), Fault> {
    let streams = FileStreams::unpack(section, &[], MAX_TREE_RAW)?;
    let mut cursors = Cursors::new(&streams);
    let contents = tree.contents(|object| base.knows(object));
    let contents = contents.map_err(Fault::of_tree)?;
    let mut files = Vec::new();
    for (path, id) in contents.unique_files() {
        let len = cursors.number(LENS)?;
        let header = FileHeader::parse(cursors.bytes(HEADERS, len)?)
            .map_err(|error| Fault::invalid(format!("file object {id}: {error}")))?;
        let word = cursors.number(CONTENTS)?;
        let content = match word.checked_sub(1) {
            None => ContentOf::Nothing,
            Some(word) if word & 1 == 0 => ContentOf::Base(word >> 1),
            Some(word) => ContentOf::Made(word >> 1),
        };
        if header.is_symlink() && content != ContentOf::Nothing {
            return Err(Fault::invalid(format!(
                "file object {id} is a symbolic link with content"
            )));
        }
        files.push(FileRow {
            id: *id,
            path: path.clone(),
            header,
            content,
        });
    }
    let mut kept = HashSet::new();
    let mut next = 0u64;
    while !cursors.is_empty(KEPT) {
        let number = next.checked_add(cursors.number(KEPT)?);
        let number = number.filter(|number| *number < u64::MAX);
        let number = number.ok_or_else(|| Fault::invalid("it keeps a content that none is"))?;
        if kept.len() == MAX_KEPT {
            return Err(Fault::invalid("it keeps more contents than any"));
        }
        kept.insert(number);
        next = number + 1;
    }
    cursors.finish()?;
    Ok((files, kept))
}

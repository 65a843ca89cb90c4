//! Listings of directories.

use crate::id::ObjectId;
use crate::object::DecodeError;
use crate::object::gvariant::{Elements, Frame, Part, Tuple};

/// One directory entry of a [`Dirtree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, UTF-8, without `/`, not `.` or `..`.
    pub name: String,
    /// The subdirectory's listing.
    pub tree: ObjectId,
    /// The subdirectory's metadata.
    pub meta: ObjectId,
}

/// A directory's listing, `(a(say)a(sayay))`; both lists are sorted bytewise by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dirtree {
    /// Regular files and symbolic links.
    pub files: Vec<(String, ObjectId)>,
    /// Subdirectories.
    pub dirs: Vec<DirEntry>,
}

/// No file system of Linux has longer names, in bytes (NAME_MAX in limits.h).
const MAX_NAME: usize = 255;

/// Checks a file name: not empty, not `.` or `..`, neither `/` nor NUL inside, at most 255 bytes.
///
/// # Errors
/// [`DecodeError::Rule`] if it cannot name a directory entry.
pub fn check_name(name: &str) -> Result<(), DecodeError> {
    if matches!(name, "" | "." | "..") {
        return Err(DecodeError::Rule("a file name is empty, `.` or `..`"));
    }
    if name.contains(['/', '\0']) {
        return Err(DecodeError::Rule("a file name contains `/` or NUL"));
    }
    if name.len() > MAX_NAME {
        return Err(DecodeError::Rule("a file name is longer than 255 bytes"));
    }
    Ok(())
}

impl Dirtree {
    /// The object's bytes. The lists must be sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Most names are shorter than this; each entry has up to two end offsets.
        const ENTRY: usize = 24 + ObjectId::LEN;
        let mut files = Frame::with_capacity(self.files.len() * ENTRY, self.files.len());
        for (name, id) in &self.files {
            let mut entry = Frame::with_capacity(ENTRY, 2);
            entry.text(name);
            entry.variable(1, id.as_bytes());
            files.variable(1, &entry.into_tuple());
        }
        let mut dirs = Frame::with_capacity(self.dirs.len() * 2 * ENTRY, self.dirs.len());
        for dir in &self.dirs {
            let mut entry = Frame::with_capacity(2 * ENTRY, 3);
            entry.text(&dir.name);
            entry.variable(1, dir.tree.as_bytes());
            entry.variable(1, dir.meta.as_bytes());
            dirs.variable(1, &entry.into_tuple());
        }
        let mut tuple = Frame::default();
        tuple.variable(1, &files.into_array());
        tuple.variable(1, &dirs.into_array());
        tuple.into_tuple()
    }

    /// The object's name: the SHA-256 of its bytes.
    pub fn object_id(&self) -> ObjectId {
        ObjectId::of(&self.to_bytes())
    }

    /// Parses a dirtree object; rejects bad names, wrong order and duplicates.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form or [`check`](Self::check) fails.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 1)?;
        let files = Elements::new(tuple.variable(1)?, 1)?;
        let dirs = Elements::new(tuple.last(1)?, 1)?;
        let tree = Self {
            files: files
                .map(|entry| read_file(entry?))
                .collect::<Result<_, _>>()?,
            dirs: dirs
                .map(|entry| read_dir(entry?))
                .collect::<Result<_, _>>()?,
        };
        tree.check()?;
        Ok(tree)
    }

    /// Checks names, their order, and that no name occurs twice.
    ///
    /// # Errors
    /// [`DecodeError::Rule`] if one of the rules is broken.
    pub fn check(&self) -> Result<(), DecodeError> {
        let files = || self.files.iter().map(|(name, _)| name.as_str());
        let dirs = || self.dirs.iter().map(|dir| dir.name.as_str());
        files().chain(dirs()).try_for_each(check_name)?;
        if !files().is_sorted_by(|a, b| a < b) || !dirs().is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::Rule(
                "the names of a directory are not in order",
            ));
        }
        if dirs().any(|name| self.file(name).is_some()) {
            return Err(DecodeError::Rule(
                "a name is both a file's and a directory's",
            ));
        }
        Ok(())
    }

    /// Finds a file by name.
    pub fn file(&self, name: &str) -> Option<&ObjectId> {
        let at = self
            .files
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()?;
        self.files.get(at).map(|(_, id)| id)
    }

    /// Finds a subdirectory by name.
    pub fn dir(&self, name: &str) -> Option<&DirEntry> {
        let at = self
            .dirs
            .binary_search_by(|d| d.name.as_str().cmp(name))
            .ok()?;
        self.dirs.get(at)
    }
}

fn read_file(part: Part<'_>) -> Result<(String, ObjectId), DecodeError> {
    let mut entry = Tuple::new(part, 1)?;
    let name = entry.variable(1)?.text()?;
    Ok((name.to_owned(), read_id(entry.last(1)?)?))
}

fn read_dir(part: Part<'_>) -> Result<DirEntry, DecodeError> {
    let mut entry = Tuple::new(part, 2)?;
    let name = entry.variable(1)?.text()?.to_owned();
    let tree = read_id(entry.variable(1)?)?;
    Ok(DirEntry {
        name,
        tree,
        meta: read_id(entry.last(1)?)?,
    })
}

/// A checksum stored as bytes.
pub(super) fn read_id(part: Part<'_>) -> Result<ObjectId, DecodeError> {
    ObjectId::from_slice(part.bytes()).ok_or_else(|| part.error("checksum is not 32 bytes long"))
}

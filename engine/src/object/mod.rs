//! OSTree's objects: parsing and writing of commit, dirtree, dirmeta and file headers.
//!
//! Byte-exact with what `ostree` writes; the layouts are in docs/format.md, "Objects".

use crate::id::{ObjectId, PayloadId};

/// Why bytes are not a well-formed object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not in GVariant normal form, or not of the expected type.
    #[error("{what} at byte {offset}")]
    Format {
        /// What is wrong.
        what: &'static str,
        /// Offset from the beginning of the object.
        offset: usize,
    },
    /// A rule of the object model is broken.
    #[error("{0}")]
    Rule(&'static str),
}

/// Extended attributes: names without trailing NUL, values verbatim, in stored order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xattrs(Vec<(Vec<u8>, Vec<u8>)>);

impl Xattrs {
    /// Sorts by name and drops empty values, as `ostree commit` does.
    pub fn from_unsorted(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let _ = entries;
        todo!()
    }
    /// Name and value pairs in stored order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))
    }
    /// The value of one attribute.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Metadata of a regular file or symbolic link, `(uuuusa(ayay))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHeader {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Full `st_mode`, type bits included; symbolic links are always `0o120777`.
    pub mode: u32,
    /// Target of a symbolic link, empty for regular files.
    pub symlink_target: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl FileHeader {
    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & 0o170000 == 0o120000
    }
    /// The header variant.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
    /// Parses a header variant (strict normal form; mode and xattr rules are checked).
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        todo!()
    }
    /// The bytes hashed before the payload: big-endian header length, four zero bytes, header.
    pub fn content_prefix(&self) -> Vec<u8> {
        todo!()
    }
}

/// Metadata of a directory, `(uuua(ayay))`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirMeta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Full `st_mode`, type bits included.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl DirMeta {
    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
    /// Parses a dirmeta object.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        todo!()
    }
}

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

impl Dirtree {
    /// The object's bytes. The lists must be sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
    /// Parses a dirtree object; rejects bad names, wrong order and duplicates.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        todo!()
    }
    /// Finds a file by name.
    pub fn file(&self, name: &str) -> Option<&ObjectId> {
        let at = self.files.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        self.files.get(at).map(|(_, id)| id)
    }
    /// Finds a subdirectory by name.
    pub fn dir(&self, name: &str) -> Option<&DirEntry> {
        let at = self.dirs.binary_search_by(|d| d.name.as_str().cmp(name)).ok()?;
        self.dirs.get(at)
    }
}

/// A commit, `(a{sv}aya(say)sstayay)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Metadata in stored order.
    pub metadata: Metadata,
    /// The previous commit.
    pub parent: Option<ObjectId>,
    /// One-line description, may be empty.
    pub subject: String,
    /// Longer description, may be empty.
    pub body: String,
    /// Seconds since 1970, UTC.
    pub timestamp: u64,
    /// Root directory's listing.
    pub tree: ObjectId,
    /// Root directory's metadata.
    pub meta: ObjectId,
}

impl Commit {
    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
    /// Parses a commit object.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let _ = bytes;
        todo!()
    }
}

/// An ordered `a{sv}` dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(Vec<(String, Variant)>);

impl Metadata {
    /// Appends an entry; order is part of the hashed bytes.
    pub fn push(&mut self, key: impl Into<String>, value: Variant) {
        self.0.push((key.into(), value));
    }
    /// Entries in stored order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Variant)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }
    /// The first value with this key.
    pub fn get(&self, key: &str) -> Option<&Variant> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

/// A GVariant value: its type string and its serialised bytes, both verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    signature: String,
    bytes: Vec<u8>,
}

impl Variant {
    /// A string, type `s`.
    pub fn string(text: &str) -> Self {
        let _ = text;
        todo!()
    }
    /// An array of strings, type `as`.
    pub fn strings<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let _: Vec<&str> = items.into_iter().collect();
        todo!()
    }
    /// Type string.
    pub fn signature(&self) -> &str {
        &self.signature
    }
    /// Serialised bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The text if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        todo!()
    }
}

/// A file as the store knows it: header, size and where the payload is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileObject {
    /// OSTree's name of the object.
    pub id: ObjectId,
    /// Metadata.
    pub header: FileHeader,
    /// Payload size in bytes; 0 for symbolic links.
    pub size: u64,
    /// Name of the payload; `None` for symbolic links and empty files.
    pub payload: Option<PayloadId>,
}

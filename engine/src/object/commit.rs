//! Commits and their metadata.

use crate::id::ObjectId;
use crate::object::dirtree::read_id;
use crate::object::gvariant::{Elements, Frame, Part, Tuple};
use crate::object::{DecodeError, Variant};

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
    /// The object's bytes. Subject, body and metadata keys must not contain NUL.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tuple = Frame::default();
        tuple.variable(8, &self.metadata.to_bytes());
        tuple.variable(
            1,
            self.parent
                .as_ref()
                .map_or(&[], |id| id.as_bytes().as_slice()),
        );
        tuple.variable(1, &[]);
        tuple.text(&self.subject);
        tuple.text(&self.body);
        tuple.fixed(8, &self.timestamp.to_be_bytes());
        tuple.variable(1, self.tree.as_bytes());
        tuple.variable(1, self.meta.as_bytes());
        tuple.into_tuple()
    }

    /// The commit's name: the SHA-256 of its bytes.
    pub fn object_id(&self) -> ObjectId {
        ObjectId::of(&self.to_bytes())
    }

    /// Names the tree alone: the SHA-256 over the checksums of the root's dirtree and dirmeta.
    /// Equal for two commits exactly if their trees are equal.
    pub fn content_checksum(&self) -> ObjectId {
        ObjectId::of(&[*self.tree.as_bytes(), *self.meta.as_bytes()].concat())
    }

    /// Parses a commit object.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form, a metadata key is empty or related
    /// objects are given.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 6)?;
        let metadata = Metadata::read(tuple.variable(8)?)?;
        let parent = tuple.variable(1)?;
        let related = tuple.variable(1)?;
        let commit = Self {
            metadata,
            parent: match parent.bytes() {
                [] => None,
                _ => Some(read_id(parent)?),
            },
            subject: tuple.variable(1)?.text()?.to_owned(),
            body: tuple.variable(1)?.text()?.to_owned(),
            timestamp: u64::from_be_bytes(tuple.fixed(8, 8)?.array()?),
            tree: read_id(tuple.variable(1)?)?,
            meta: read_id(tuple.last(1)?)?,
        };
        if !related.bytes().is_empty() {
            return Err(DecodeError::Rule("a commit has related objects"));
        }
        Ok(commit)
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

    /// The serialised dictionary.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut array = Frame::default();
        for (key, value) in &self.0 {
            let mut entry = Frame::default();
            entry.text(key);
            entry.variable(8, &value.to_boxed_bytes());
            array.variable(8, &entry.into_tuple());
        }
        array.into_array()
    }

    /// Parses a serialised dictionary, as in commits and in detached metadata.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not in normal form or a key is empty.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(Part::whole(bytes))
    }

    fn read(part: Part<'_>) -> Result<Self, DecodeError> {
        let mut entries = Vec::new();
        for element in Elements::new(part, 8)? {
            let mut entry = Tuple::new(element?, 1)?;
            let key = entry.variable(1)?.text()?;
            if key.is_empty() {
                return Err(DecodeError::Rule("a metadata key is empty"));
            }
            entries.push((key.to_owned(), Variant::read_boxed(entry.last(8)?)?));
        }
        Ok(Self(entries))
    }
}

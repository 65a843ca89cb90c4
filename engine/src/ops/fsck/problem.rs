//! What is wrong, where, and which paths of which commits it hits.

use std::fmt;

use crate::error::Error;
use crate::id::{ObjectId, PackId};
use crate::ops::describe;
use crate::pack::{EntryKind, Key};

/// What sort of thing is wrong. The names are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The refs file or its copy, or a ref to a commit that is missing.
    Refs,
    /// An object is missing, malformed, or not what its checksum names.
    Object,
    /// A payload, or a part of it, is missing or not what its name says.
    Payload,
    /// A block of a pack.
    Block,
    /// A pack as a whole: its header, footer or size.
    Pack,
    /// The index; it is made anew by itself.
    Index,
    /// A parity file.
    Parity,
}

impl ProblemKind {
    /// The name of the kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Object => "object",
            Self::Payload => "payload",
            Self::Block => "block",
            Self::Pack => "pack",
            Self::Index => "index",
            Self::Parity => "parity",
        }
    }
}

/// A path that a problem hits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HitPath {
    /// In which commit.
    pub commit: ObjectId,
    /// Path in the commit; that of a directory ends in `/`. Empty if the commit itself is hit.
    pub path: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What sort of thing.
    pub kind: ProblemKind,
    /// The pack concerned.
    pub pack: Option<PackId>,
    /// Offset of the block in the pack.
    pub offset: Option<u64>,
    /// The object or payload concerned, as `kind id`.
    pub object: Option<String>,
    /// What is wrong, in one line that also has the fields above.
    pub detail: String,
    /// Paths that cannot be read because of it, those of the newest commits first.
    pub paths: Vec<HitPath>,
    /// How many more paths there are.
    pub more_paths: u64,
    /// The entries that it takes away.
    pub(crate) keys: Vec<Key>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            pack: None,
            offset: None,
            object: None,
            detail: detail.into(),
            paths: Vec::new(),
            more_paths: 0,
            keys: Vec::new(),
        }
    }

    pub(crate) fn of(kind: ProblemKind, error: &Error) -> Self {
        Self::new(kind, describe(error))
    }

    pub(crate) fn in_pack(mut self, pack: PackId, offset: Option<u64>) -> Self {
        self.pack = Some(pack);
        self.offset = offset;
        self
    }

    /// About some entries, of which the first is named.
    pub(crate) fn about(mut self, keys: Vec<Key>) -> Self {
        self.object = keys.first().map(name);
        self.keys = keys;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// An entry as people know it.
pub(crate) fn name(key: &Key) -> String {
    let kind = match key.kind {
        EntryKind::File => "file",
        EntryKind::Dirtree => "dirtree",
        EntryKind::Dirmeta => "dirmeta",
        EntryKind::Commit => "commit",
        EntryKind::Payload => "payload",
        EntryKind::Recipe => "recipe of payload",
        EntryKind::Import => "import",
    };
    format!("{kind} {}", ObjectId::from_bytes(key.id))
}

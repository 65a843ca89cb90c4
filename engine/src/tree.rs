//! A tree under construction, as one or several inputs overlay each other.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::id::{ObjectId, PayloadId};
use crate::object::{DirMeta, FileHeader};

/// A file as it stands in a tree under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Name of the file object.
    pub id: ObjectId,
    /// What the store needs to write the file's record; `None` when the record is known to be
    /// stored already.
    pub new: Option<Box<NewRecord>>,
}

/// Contents of a file record that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Metadata.
    pub header: FileHeader,
    /// Payload size in bytes.
    pub size: u64,
    /// Payload name; `None` for symbolic links and empty files.
    pub payload: Option<PayloadId>,
}

/// A directory under construction.
#[derive(Debug, Clone, Default)]
pub struct MutableTree {
    /// Metadata; a directory that never got any is an error when the tree is written.
    pub meta: Option<DirMeta>,
    /// Files and symbolic links by name.
    pub files: BTreeMap<String, FileEntry>,
    /// Subdirectories by name.
    pub dirs: BTreeMap<String, Subtree>,
}

/// A subdirectory: as stored already, or under construction.
#[derive(Debug, Clone)]
pub enum Subtree {
    /// Unchanged from a stored commit.
    Stored {
        /// Listing.
        tree: ObjectId,
        /// Metadata.
        meta: ObjectId,
    },
    /// Under construction.
    Mutable(Box<MutableTree>),
}

impl MutableTree {
    /// The directory at a `/`-separated relative path, made (without metadata) where missing.
    /// Fails where a file stands in the way.
    pub fn ensure_dir(&mut self, repo: &crate::Repository, path: &str) -> Result<&mut Self> {
        let _ = (repo, path);
        todo!()
    }
}

//! The repository: opening, looking up, and writing transactions.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::object::{Commit, DirMeta, Dirtree, FileHeader, FileObject};
use crate::tree::{FileEntry, MutableTree};

/// An open repository. Cheap to share between threads (`&Repository` everywhere).
#[derive(Debug)]
pub struct Repository {}

/// A snapshot of all refs.
#[derive(Debug, Clone, Default)]
pub struct Refs {
    /// Grows by one with each change.
    pub generation: u64,
    /// Name to commit.
    pub map: BTreeMap<String, ObjectId>,
}

/// One ref to change by compare-and-swap.
#[derive(Debug, Clone)]
pub struct RefUpdate {
    /// Ref name.
    pub name: String,
    /// The value the ref must still have: `None` = any value, `Some(None)` = must not exist.
    pub expected: Option<Option<ObjectId>>,
    /// New value; `None` deletes.
    pub new: Option<ObjectId>,
}

impl Repository {
    /// Makes a new empty repository.
    pub fn init(path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
    /// Opens an existing repository.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
    /// Its directory.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// All refs.
    pub fn refs(&self) -> Result<Refs> {
        todo!()
    }
    /// Changes refs, all or none.
    pub fn update_refs(&self, updates: &[RefUpdate]) -> Result<()> {
        let _ = updates;
        todo!()
    }
    /// Finds the commit that a rev names: ref, checksum, unique abbreviation of one, `REV^`.
    pub fn resolve_rev(&self, rev: &str) -> Result<ObjectId> {
        let _ = rev;
        todo!()
    }
    /// Every commit in the repository, sorted.
    pub fn commits(&self) -> Result<Vec<ObjectId>> {
        todo!()
    }
    /// Loads a commit.
    pub fn commit(&self, id: &ObjectId) -> Result<Commit> {
        let _ = id;
        todo!()
    }
    /// Loads a directory listing.
    pub fn dirtree(&self, id: &ObjectId) -> Result<Arc<Dirtree>> {
        let _ = id;
        todo!()
    }
    /// Loads a directory's metadata.
    pub fn dirmeta(&self, id: &ObjectId) -> Result<Arc<DirMeta>> {
        let _ = id;
        todo!()
    }
    /// Loads a file's header, size and payload name.
    pub fn file(&self, id: &ObjectId) -> Result<FileObject> {
        let _ = id;
        todo!()
    }
    /// Verbatim bytes of a commit, dirtree or dirmeta object; of a file, the header variant.
    pub fn object_bytes(&self, kind: ObjectKind, id: &ObjectId) -> Result<Vec<u8>> {
        let _ = (kind, id);
        todo!()
    }
    /// Reads payload bytes at an offset, like `pread`; short only at the end of the file.
    pub fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let _ = (file, offset, buf);
        todo!()
    }
    /// Begins a transaction that adds objects and then changes refs.
    pub fn begin<'r>(&'r self, monitor: &'r dyn Monitor) -> Result<Transaction<'r>> {
        let _ = monitor;
        todo!()
    }
    /// The record of an earlier package import, by its key.
    pub fn import(&self, key: &ObjectId) -> Result<Option<Vec<u8>>> {
        let _ = key;
        todo!()
    }
    /// Figures for `statfs` and `stats`: (stored bytes, objects).
    pub fn stored(&self) -> Result<(u64, u64)> {
        todo!()
    }
}

/// Bytes of a new regular file.
pub enum Body {
    /// Symbolic links: the target is in the header.
    None,
    /// The whole payload in memory.
    Bytes(Vec<u8>),
    /// A file to read, of this size; read twice when it is large.
    File(PathBuf, u64),
    /// A stream of exactly this size; spooled to the staging directory when it is large.
    Stream(Box<dyn Read + Send>, u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

/// A file to add to the store.
#[derive(Debug)]
pub struct NewFile {
    /// Its metadata.
    pub header: FileHeader,
    /// Its path in the tree: decides next to what it is stored.
    pub hint: Vec<u8>,
    /// Its payload.
    pub body: Body,
}

/// Adds objects; nothing is visible to others until [`Transaction::publish`].
#[derive(Debug)]
pub struct Transaction<'r> {
    _repo: &'r Repository,
}

impl Transaction<'_> {
    /// Stores files. Results are in the order of `files`. Callers keep one batch below about
    /// 32 MiB of in-memory payload; larger payloads go in as `File` or `Stream`.
    pub fn put_files(&mut self, files: Vec<NewFile>) -> Result<Vec<FileEntry>> {
        let _ = files;
        todo!()
    }
    /// Whether a file object is already in the repository or in this transaction.
    pub fn has_file(&self, id: &ObjectId) -> Result<bool> {
        let _ = id;
        todo!()
    }
    /// Remembers an import: `bytes` are the caller's, `files` are the file entries it names
    /// (their records are written too, so that a later commit finds them).
    pub fn put_import(&mut self, key: &ObjectId, bytes: &[u8], files: &[FileEntry]) -> Result<()> {
        let _ = (key, bytes, files);
        todo!()
    }
    /// Writes the objects of a tree, bottom-up; returns the root's (dirtree, dirmeta).
    pub fn put_tree(&mut self, tree: &MutableTree) -> Result<(ObjectId, ObjectId)> {
        let _ = tree;
        todo!()
    }
    /// Writes a commit object.
    pub fn put_commit(&mut self, commit: &Commit) -> Result<ObjectId> {
        let _ = commit;
        todo!()
    }
    /// Makes everything durable (packs, index) and then changes the refs, all or none.
    pub fn publish(self, refs: &[RefUpdate]) -> Result<()> {
        let _ = refs;
        todo!()
    }
}

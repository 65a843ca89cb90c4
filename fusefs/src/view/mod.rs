//! A commit, or all of them, as a tree of inodes: everything but the protocol.
//!
//! The view answers what a file system is asked (look up, list, read) from a [`Source`], loads
//! directories when they are first looked at, and knows nothing of FUSE.
//!
//! OSTree records no times: every file and directory of a commit has the time 0, as after a
//! checkout. Files have one link (identical files share one inode number);
//! directories too, which tells tools like `find` that the number of subdirectories is not known.
//!
//! With [`What::All`] the root has two directories. `commits` has one directory for each commit,
//! named by its checksum. `refs` has a symbolic link for each ref, which leads there; slashes in
//! the name of a ref make directories, and hide a ref of exactly that shorter name. Only these
//! change while they are mounted, so only they have a [`Lifetime::Short`].
//!
//! The one commit of a view is leased: a prune leaves it alone. With [`What::All`] commits can go;
//! what was looked at of one that has gone then answers with an error.

mod attr;
mod error;
mod live;
mod source;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

use grove_engine::fs::lease::Lease;
use grove_engine::object::{DirEntry, DirMeta, Dirtree, FileObject, Xattrs};
use grove_engine::{
    CacheCounts, Error as EngineError, Group, Member, ObjectId, Read, Result as EngineResult,
};

use crate::cache::Cache;
use crate::inode::{Dir, DirKind, Inodes, Node, ROOT};
use crate::known::Known;
use crate::prefetch::Contents;
use crate::push::Files;
use attr::{S_IFDIR, S_IFMT, S_IFREG, dir_attr, file_entry, link_entry, placeholder};
pub use error::ViewError;
use live::Live;
pub use source::Source;
pub use types::{Attr, Entry, Item, Lifetime, Lookup, PlainCopy, Usage, What};

/// Longest name that is looked for, in bytes.
pub const NAME_MAX: usize = 255;
/// Unit of [`Usage::blocks`], in bytes.
pub const BLOCK_SIZE: u32 = 4096;

/// Larger files are never stored together with others.
const PUSHED_MAX: u64 = 128 << 10;

/// Smaller files are not worth a copy of their own.
const COPIED_MIN: u64 = 1 << 20;

/// Bytes of parsed listings, and of parsed file headers, that are kept.
const CACHE_BYTES: usize = 16 << 20;

type Result<T> = std::result::Result<T, ViewError>;

/// A commit, or all of them, as a tree of inodes.
#[derive(Debug)]
pub struct View<S> {
    source: Arc<S>,
    inodes: Inodes,
    dirtrees: Cache<Dirtree>,
    metas: Cache<DirMeta>,
    files: Cache<FileObject>,
    live: Live,
    known: Known,
    /// Keeps the one commit that is shown. Where all are shown, each may go.
    _lease: Option<Lease>,
}

impl<S: Source> View<S> {
    /// A view of `what`; loads at most the root directory.
    pub fn new(source: Arc<S>, what: What) -> EngineResult<Self> {
        let (root, lease) = match what {
            What::All => (DirKind::Top, None),
            What::Commit(id) => {
                let lease = source.lease(&id)?;
                let commit = source.commit(&id)?;
                source.dirtree(&commit.tree)?;
                source.dirmeta(&commit.meta)?;
                let root = DirKind::Tree {
                    tree: commit.tree,
                    meta: commit.meta,
                };
                (root, lease)
            }
        };
        Ok(Self {
            source,
            inodes: Inodes::new(root),
            dirtrees: Cache::new(CACHE_BYTES, dirtree_weight),
            metas: Cache::new(CACHE_BYTES / 16, |meta| 128 + xattrs_weight(&meta.xattrs)),
            files: Cache::new(CACHE_BYTES, file_weight),
            live: Live::default(),
            known: Known::default(),
            _lease: lease,
        })
    }

    /// Looks a name up in a directory.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Lookup> {
        let dir = self.dir_node(parent)?;
        let found = match std::str::from_utf8(name) {
            Ok(name) => self.child(parent, &dir, name)?,
            Err(_) => None,
        };
        match found {
            Some(entry) => Ok(Lookup::Found(entry)),
            None if name.len() > NAME_MAX => Err(ViewError::NameTooLong),
            None if matches!(dir.kind, DirKind::Tree { .. } | DirKind::Top) => {
                Ok(Lookup::Absent(Lifetime::Forever))
            }
            None => Ok(Lookup::Absent(Lifetime::None)),
        }
    }

    /// Attributes of an inode.
    pub fn getattr(&self, number: u64) -> Result<Entry> {
        match self.node(number)? {
            Node::File { id, seen_in } => {
                let file = self.file(&id, || self.file_path(seen_in, &id))?;
                Ok(file_entry(number, &file))
            }
            Node::RefLink(target) => Ok(link_entry(number, &target, Lifetime::Forever)),
            Node::Dir(dir) => self.dir_attr(number, &dir),
        }
    }

    /// Lists a directory from an offset on (0, or an [`Item::next`]), until `full` says so.
    pub fn readdir(
        &self,
        number: u64,
        offset: u64,
        full: &mut dyn FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dir_node(number)?;
        for (at, name, number) in [(0, ".", number), (1, "..", dir.parent)] {
            let entry = placeholder(number, S_IFDIR | 0o755);
            if offset <= at
                && full(&Item {
                    name,
                    next: at + 1,
                    entry,
                    damage: None,
                })
            {
                return Ok(());
            }
        }
        match &dir.kind {
            DirKind::Tree { tree, .. } => {
                let listing = self.dirtree(tree, number)?;
                let first = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
                self.list_tree(number, &listing, first, full);
                Ok(())
            }
            kind => self.list_live(number, kind, offset, full),
        }
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>> {
        match self.node(number)? {
            Node::RefLink(target) => Ok(target.as_bytes().to_vec()),
            Node::Dir(_) => Err(ViewError::WrongType),
            Node::File { id, seen_in } => {
                let file = self.file(&id, || self.file_path(seen_in, &id))?;
                match file.header.is_symlink() {
                    true => Ok(file.header.symlink_target.clone()),
                    false => Err(ViewError::WrongType),
                }
            }
        }
    }

    /// Reads a regular file into `buf`; short only at the end of the file.
    pub fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read_grouped(number, offset, buf).map(|read| read.len)
    }

    /// The same; tells the block that a small file was found in.
    pub fn read_grouped(&self, number: u64, offset: u64, buf: &mut [u8]) -> Result<Read> {
        let (id, seen_in) = match self.node(number)? {
            Node::File { id, seen_in } => (id, seen_in),
            Node::Dir(_) => return Err(ViewError::IsADirectory),
            Node::RefLink(_) => return Err(ViewError::WrongType),
        };
        let path = || self.file_path(seen_in, &id);
        let file = self.file(&id, path)?;
        if file.header.is_symlink() {
            return Err(ViewError::WrongType);
        }
        let left = file.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..len).filter(|buf| !buf.is_empty()) else {
            return Ok(Read::from(0));
        };
        let read = self
            .source
            .read_grouped(&file, offset, buf)
            .map_err(|source| object_error(path(), "file", id, source))?;
        if read.len < len {
            let end = offset.saturating_add(read.len as u64);
            return Err(ViewError::ShortPayload {
                path: path(),
                id,
                end,
            });
        }
        Ok(read)
    }

    /// A plain copy of a large regular file, made if there is none; `None` for other files.
    pub fn plain_copy(&self, number: u64) -> Result<Option<PlainCopy>> {
        let Node::File { id, seen_in } = self.node(number)? else {
            return Ok(None);
        };
        let path = || self.file_path(seen_in, &id);
        let file = self.file(&id, path)?;
        let Some(payload) = file.payload.filter(|_| file.size >= COPIED_MIN) else {
            return Ok(None);
        };
        let copy = self.source.plain_copy(&file);
        let copy = copy.map_err(|source| object_error(path(), "file", id, source))?;
        Ok(copy.map(|file| PlainCopy { payload, file }))
    }

    /// Value of an extended attribute.
    pub fn xattr(&self, number: u64, name: &[u8]) -> Result<Vec<u8>> {
        let value = self.with_xattrs(number, |xattrs| xattrs.get(name).map(<[u8]>::to_vec))?;
        value.flatten().ok_or(ViewError::NoAttribute)
    }

    /// Names of the extended attributes, each followed by a NUL.
    pub fn xattr_names(&self, number: u64) -> Result<Vec<u8>> {
        let names = self.with_xattrs(number, |xattrs| {
            xattrs
                .iter()
                .flat_map(|(name, _)| name.iter().copied().chain([0]))
                .collect()
        })?;
        Ok(names.unwrap_or_default())
    }

    /// Figures for `statfs`.
    pub fn usage(&self) -> Result<Usage> {
        let (bytes, files) = self
            .source
            .stored()
            .map_err(|source| repository_error("size", source))?;
        Ok(Usage {
            blocks: bytes.div_ceil(u64::from(BLOCK_SIZE)),
            files,
        })
    }

    /// Path of an inode below the mount's root, for messages.
    pub fn path(&self, number: u64) -> String {
        match self.inodes.get(number) {
            Some(Node::Dir(dir)) => self.dir_path(number, dir),
            Some(Node::File { id, seen_in }) => self.file_path(seen_in, &id),
            Some(Node::RefLink(target)) => target.to_string(),
            None => format!("inode {number}"),
        }
    }

    /// Not recursive: a commit may be deeper than a thread's stack.
    fn dir_path(&self, mut number: u64, mut dir: Arc<Dir>) -> String {
        let mut names = Vec::new();
        while number != ROOT {
            names.push(dir.name.clone());
            number = dir.parent;
            match self.inodes.get(number) {
                Some(Node::Dir(parent)) => dir = parent,
                _ => break,
            }
        }
        names.reverse();
        names.join("/")
    }

    fn node(&self, number: u64) -> Result<Node> {
        self.inodes.get(number).ok_or(ViewError::Stale { number })
    }

    fn dir_node(&self, number: u64) -> Result<Arc<Dir>> {
        match self.node(number)? {
            Node::Dir(dir) => Ok(dir),
            _ => Err(ViewError::NotADirectory),
        }
    }

    fn child(&self, parent: u64, dir: &Dir, name: &str) -> Result<Option<Entry>> {
        let DirKind::Tree { tree, .. } = &dir.kind else {
            return self.live_child(parent, &dir.kind, name);
        };
        let listing = self.dirtree(tree, parent)?;
        if let Some(id) = listing.file(name) {
            return self.file_child(parent, name, id).map(Some);
        }
        listing
            .dir(name)
            .map(|entry| self.dir_child(parent, entry))
            .transpose()
    }

    fn file_child(&self, parent: u64, name: &str, id: &ObjectId) -> Result<Entry> {
        let file = self.file(id, || join(&self.path(parent), name))?;
        let number = self.inodes.file(*id, parent);
        if let Some(payload) = file.payload.filter(|_| file.size <= PUSHED_MAX) {
            self.known.note(&payload, number);
        }
        Ok(file_entry(number, &file))
    }

    fn dir_child(&self, parent: u64, entry: &DirEntry) -> Result<Entry> {
        let kind = DirKind::Tree {
            tree: entry.tree,
            meta: entry.meta,
        };
        let number = self.inodes.dir(parent, &entry.name, kind);
        self.tree_attr(number, &entry.meta)
    }

    fn dir_attr(&self, number: u64, dir: &Dir) -> Result<Entry> {
        match &dir.kind {
            DirKind::Tree { meta, .. } => self.tree_attr(number, meta),
            kind => self.live_attr(number, kind),
        }
    }

    fn tree_attr(&self, number: u64, meta: &ObjectId) -> Result<Entry> {
        let meta = self.dirmeta(meta, number)?;
        let mode = S_IFDIR | (meta.mode & !S_IFMT);
        let attr = Attr {
            uid: meta.uid,
            gid: meta.gid,
            ..dir_attr(number, mode)
        };
        Ok(Entry {
            attr,
            lifetime: Lifetime::Forever,
        })
    }

    /// Entries of a commit's directory: files, then directories; the offset is index + 2.
    fn list_tree(
        &self,
        parent: u64,
        listing: &Dirtree,
        first: usize,
        full: &mut dyn FnMut(&Item<'_>) -> bool,
    ) {
        let files = listing
            .files
            .iter()
            .map(|(name, id)| (name.as_str(), Child::File(id)));
        let dirs = listing
            .dirs
            .iter()
            .map(|dir| (dir.name.as_str(), Child::Dir(dir)));
        for (at, (name, child)) in files.chain(dirs).enumerate().skip(first) {
            let found = match child {
                Child::File(id) => self.file_child(parent, name, id),
                Child::Dir(dir) => self.dir_child(parent, dir),
            };
            let (entry, damage) = match found {
                Ok(entry) => (entry, None),
                Err(damage) => (self.damaged(parent, &child), Some(damage)),
            };
            if full(&Item {
                name,
                next: at as u64 + 3,
                entry,
                damage,
            }) {
                return;
            }
        }
    }

    /// Stands in a listing for an entry whose attributes cannot be read: a lookup tells the error.
    fn damaged(&self, parent: u64, child: &Child<'_>) -> Entry {
        match child {
            Child::File(id) => placeholder(self.inodes.file(**id, parent), S_IFREG),
            Child::Dir(dir) => {
                let kind = DirKind::Tree {
                    tree: dir.tree,
                    meta: dir.meta,
                };
                placeholder(self.inodes.dir(parent, &dir.name, kind), S_IFDIR)
            }
        }
    }

    fn with_xattrs<T>(&self, number: u64, use_: impl FnOnce(&Xattrs) -> T) -> Result<Option<T>> {
        match self.node(number)? {
            Node::File { id, seen_in } => {
                let file = self.file(&id, || self.file_path(seen_in, &id))?;
                Ok(Some(use_(&file.header.xattrs)))
            }
            Node::Dir(dir) => match &dir.kind {
                DirKind::Tree { meta, .. } => Ok(Some(use_(&self.dirmeta(meta, number)?.xattrs))),
                _ => Ok(None),
            },
            Node::RefLink(_) => Ok(None),
        }
    }

    fn dirtree(&self, id: &ObjectId, number: u64) -> Result<Arc<Dirtree>> {
        self.dirtrees
            .get_or_load(id, || self.source.dirtree(id))
            .map_err(|source| object_error(self.path(number), "dirtree", *id, source))
    }

    fn dirmeta(&self, id: &ObjectId, number: u64) -> Result<Arc<DirMeta>> {
        self.metas
            .get_or_load(id, || self.source.dirmeta(id))
            .map_err(|source| object_error(self.path(number), "dirmeta", *id, source))
    }

    fn file(&self, id: &ObjectId, path: impl FnOnce() -> String) -> Result<Arc<FileObject>> {
        self.files
            .get_or_load(id, || self.source.file(id).map(Arc::new))
            .map_err(|source| object_error(path(), "file", *id, source))
    }

    /// A path of a file object in a directory it was seen in.
    fn file_path(&self, seen_in: u64, id: &ObjectId) -> String {
        let name = match self.inodes.get(seen_in) {
            Some(Node::Dir(dir)) => match &dir.kind {
                DirKind::Tree { tree, .. } => self.name_in(tree, id),
                _ => None,
            },
            _ => None,
        };
        join(&self.path(seen_in), name.as_deref().unwrap_or("?"))
    }

    fn name_in(&self, tree: &ObjectId, id: &ObjectId) -> Option<String> {
        let listing = self
            .dirtrees
            .get_or_load(tree, || self.source.dirtree(tree))
            .ok()?;
        listing
            .files
            .iter()
            .find(|(_, file)| file == id)
            .map(|(name, _)| name.clone())
    }
}

impl<S: Source> Files for View<S> {
    fn numbers_of(&self, member: &Member<'_>) -> Vec<u64> {
        let is_it = |number: &u64| match self.inodes.get(*number) {
            Some(Node::File { id, .. }) => self.file(&id, String::new).is_ok_and(|file| {
                file.payload == Some(member.id) && file.size == member.bytes.len() as u64
            }),
            _ => false,
        };
        let mut numbers = self.known.candidates(&member.id);
        numbers.retain(is_it);
        numbers
    }

    fn note_done(&self, group: &Group, number: usize) {
        self.source.note_done(group, number);
    }
}

impl<S: Source> Contents for View<S> {
    fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        Self::read(self, number, offset, buf).map_err(std::io::Error::other)
    }

    fn cache_counts(&self) -> CacheCounts {
        self.source.cache_counts()
    }
}

#[derive(Debug)]
enum Child<'a> {
    File(&'a ObjectId),
    Dir(&'a DirEntry),
}

fn object_error(path: String, what: &'static str, id: ObjectId, source: EngineError) -> ViewError {
    ViewError::Object {
        path,
        what,
        id,
        source: Box::new(source),
    }
}

fn repository_error(what: &'static str, source: EngineError) -> ViewError {
    ViewError::Repository {
        what,
        source: Box::new(source),
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

fn dirtree_weight(tree: &Dirtree) -> usize {
    let files: usize = tree.files.iter().map(|(name, _)| 64 + name.len()).sum();
    let dirs: usize = tree.dirs.iter().map(|dir| 96 + dir.name.len()).sum();
    128 + files + dirs
}

fn file_weight(file: &FileObject) -> usize {
    256 + file.header.symlink_target.len() + xattrs_weight(&file.header.xattrs)
}

fn xattrs_weight(xattrs: &Xattrs) -> usize {
    xattrs
        .iter()
        .map(|(name, value)| 64 + name.len() + value.len())
        .sum()
}

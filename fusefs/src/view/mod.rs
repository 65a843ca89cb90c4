//! A commit, or all of them, as a tree of inodes: everything but the protocol.
//!
//! The view answers what a file system is asked (look up, list, read) from a [`Source`] and from
//! images of commits, and knows nothing of FUSE. It keeps no table of what was looked at: what an
//! inode number stands for follows from the number (see `inode`).
//!
//! OSTree records no times: every file and directory of a commit has the time 0, as after a
//! checkout. Files have one link (identical files share one inode number);
//! directories too, which tells tools like `find` that the number of subdirectories is not known.
//!
//! With [`What::All`] the root has two directories. `commits` has one directory for each commit,
//! named by its checksum. `refs` has a symbolic link for each ref, which leads there; slashes in
//! the name of a ref make directories, and hide a ref of exactly that shorter name. Only these
//! change while they are mounted, so only they have a [`Lifetime::Short`]. A third directory,
//! `unique`, is found by its name but not listed: the commits again, with each path numbered by
//! itself ([`Numbering::Unique`]).
//!
//! The first request into a commit waits until its image is there; attributes of its root do not.
//!
//! The one commit of a view is leased: a prune leaves it alone. With [`What::All`] commits can go;
//! what was looked at of one that has gone then answers with an error.

mod attr;
mod data;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod files;
mod here;
mod live;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod types;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use grove_engine::fs::lease::Lease;
use grove_engine::object::{DirMeta, FileObject, Xattrs};
use grove_engine::{Error as EngineError, ObjectId, ObjectKind, Result as EngineResult};

use crate::cache::Cache;
use crate::image::Images;
pub use crate::inode::Numbering;
use crate::inode::{self, Inode, LiveDir, Named, Names};
use attr::{S_IFDIR, file_entry, link_entry, placeholder};
pub use error::ViewError;
use live::Live;
pub use source::Source;
use tree::{At, PathFile, TreeDir};
pub use types::{Attr, Entry, Item, Lifetime, Lookup, Usage, What};

/// Longest name that is looked for, in bytes.
pub const NAME_MAX: usize = 255;
/// Unit of [`Usage::blocks`], in bytes.
pub const BLOCK_SIZE: u32 = 4096;

/// Bytes of parsed file headers that are kept.
const CACHE_BYTES: usize = 8 << 20;

type Result<T> = std::result::Result<T, ViewError>;

/// A commit, or all of them, as a tree of inodes.
#[derive(Debug)]
pub struct View<S> {
    source: Arc<S>,
    root: Root,
    numbering: Numbering,
    names: Names,
    images: Images<S>,
    metas: Cache<ObjectId, DirMeta>,
    files: Cache<u64, FileObject>,
    /// The commits whose directories have numbers, by the first bits of their ids.
    slots: Mutex<HashMap<u32, ObjectId>>,
    /// Whether numbers of single paths were given beside shared ones.
    both_numberings: AtomicBool,
    live: Live,
    /// Keeps the one commit that is shown. Where all are shown, each may go.
    _lease: Option<Lease>,
}

#[derive(Debug)]
enum Root {
    All,
    Commit { id: ObjectId, meta: ObjectId },
}

/// What an inode number stands for.
#[derive(Debug)]
enum Node {
    Live(LiveDir),
    RefLink(Arc<str>),
    Dir(TreeDir),
    /// A file object, by its number.
    File(u64),
    /// A file at a path of a commit.
    PathFile(PathFile),
}

impl<S: Source> View<S> {
    /// A view of `what` in which identical files share an inode number.
    pub fn new(source: Arc<S>, what: What) -> EngineResult<Self> {
        Self::with_numbering(source, what, Numbering::Shared)
    }

    /// A view of `what`. Takes no time that depends on its size: an image that is missing is made
    /// in the background.
    pub fn with_numbering(source: Arc<S>, what: What, numbering: Numbering) -> EngineResult<Self> {
        let mut slots = HashMap::new();
        let metas = Cache::new(CACHE_BYTES / 8, |meta: &DirMeta| {
            128 + xattrs_weight(&meta.xattrs)
        });
        let (root, lease) = match what {
            What::All => (Root::All, None),
            What::Commit(id) => {
                let lease = source.lease(&id)?;
                let meta = source.commit(&id)?.meta;
                metas.get_or_load(&meta, || source.dirmeta(&meta))?;
                slots.insert(inode::Place::new(&id, 0).slot, id);
                (Root::Commit { id, meta }, lease)
            }
        };
        let view = Self {
            root,
            numbering,
            names: Names::default(),
            images: Images::new(Arc::clone(&source)),
            metas,
            files: Cache::new(CACHE_BYTES, file_weight),
            slots: Mutex::new(slots),
            both_numberings: AtomicBool::new(false),
            live: Live::default(),
            source,
            _lease: lease,
        };
        match view.root {
            Root::Commit { id, .. } => view.prepare(&id),
            Root::All => view.name_live_dirs(),
        }
        Ok(view)
    }

    /// Sees to it that the image of a commit is there when it is needed: makes it in the background
    /// where it is missing.
    pub fn prepare(&self, commit: &ObjectId) {
        self.images.prepare(*commit);
    }

    /// Whether some file or directory of a commit has extended attributes; `None` when that is not
    /// known yet.
    pub fn has_xattrs(&self, commit: &ObjectId) -> Option<bool> {
        let image = self.images.existing(commit)?;
        match image.has_xattrs() {
            false if !image.is_complete() => None,
            known => Some(known),
        }
    }

    /// Looks a name up in a directory. `.` finds any inode by its number alone, and `..` what a
    /// directory is in: so the kernel finds what a file handle stands for that it has forgotten.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Lookup> {
        match name {
            b"." => return self.getattr(parent).map(Lookup::Found),
            b".." => return self.getattr(self.parent_of(parent)?).map(Lookup::Found),
            _ => {}
        }
        let dir = self.node(parent)?;
        let text = std::str::from_utf8(name).ok();
        let (found, absent) = match &dir {
            Node::Live(dir) => {
                let found = text.map_or(Ok(None), |name| self.live_child(dir, name))?;
                let absent = match dir {
                    LiveDir::Top => Lifetime::Forever,
                    _ => Lifetime::None,
                };
                (found, absent)
            }
            Node::Dir(dir) => {
                let found = text.map_or(Ok(None), |name| self.tree_child(dir, name))?;
                (found, Lifetime::Forever)
            }
            _ => return Err(ViewError::NotADirectory),
        };
        match found {
            Some(entry) => Ok(Lookup::Found(entry)),
            None if name.len() > NAME_MAX => Err(ViewError::NameTooLong),
            None => Ok(Lookup::Absent(absent)),
        }
    }

    /// Attributes of an inode.
    pub fn getattr(&self, number: u64) -> Result<Entry> {
        match self.node(number)? {
            Node::File(object) => Ok(file_entry(number, &*self.file(object)?)),
            Node::PathFile(file) => self.path_file_attr(number, &file),
            Node::RefLink(target) => Ok(link_entry(number, &target, Lifetime::Forever)),
            Node::Live(dir) => self.live_attr(number, &dir),
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
        match self.node(number)? {
            Node::Live(dir) => {
                let parent = self.live_parent(&dir);
                if dots(number, parent, offset, full) {
                    return Ok(());
                }
                self.list_live(&dir, offset, full)
            }
            Node::Dir(dir) => self.list_tree(number, &dir, offset, full),
            _ => Err(ViewError::NotADirectory),
        }
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>> {
        let node = self.node(number)?;
        match &node {
            Node::RefLink(target) => Ok(target.as_bytes().to_vec()),
            Node::Live(_) | Node::Dir(_) => Err(ViewError::WrongType),
            Node::File(_) | Node::PathFile(_) => {
                let file = self.file_of(&node)?;
                match file.header.is_symlink() {
                    true => Ok(file.header.symlink_target.clone()),
                    false => Err(ViewError::WrongType),
                }
            }
        }
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

    /// Path of an inode below the mount's root, for messages; of a file in several places, one of
    /// them. Looks through open images, so it is for errors only.
    pub fn path(&self, number: u64) -> String {
        let path = match self.node(number) {
            Ok(Node::Live(dir)) => Some(live::path(&dir)),
            Ok(Node::RefLink(target)) => Some(target.to_string()),
            Ok(Node::Dir(dir)) => self.tree_path(&dir),
            Ok(Node::File(object)) => self.find(object).map(|found| found.path),
            Ok(Node::PathFile(file)) => self.path_file_path(&file),
            Err(_) => None,
        };
        path.unwrap_or_else(|| format!("inode {number}"))
    }

    /// The number of the directory that a directory is in; of the root, its own.
    fn parent_of(&self, number: u64) -> Result<u64> {
        match self.node(number)? {
            Node::Live(dir) => Ok(self.live_parent(&dir)),
            Node::Dir(dir) => self.tree_parent(&dir),
            _ => Err(ViewError::NotADirectory),
        }
    }

    fn node(&self, number: u64) -> Result<Node> {
        let stale = ViewError::Stale { number };
        Ok(match Inode::of(number).ok_or(stale)? {
            Inode::Root => match self.root {
                Root::All => Node::Live(LiveDir::Top),
                Root::Commit { id, .. } => Node::Dir(TreeDir::root(id, self.numbering)),
            },
            Inode::File => Node::File(number),
            Inode::Dir(numbering, place) => Node::Dir(TreeDir {
                commit: self.commit_of(number, place.slot)?,
                numbering,
                at: At::Index(place.index),
            }),
            Inode::PathFile(place) => Node::PathFile(PathFile {
                commit: self.commit_of(number, place.slot)?,
                at: At::Index(place.index),
            }),
            Inode::Named => match self.names.get(number) {
                None => return Err(ViewError::Stale { number }),
                Some(Named::Live(dir)) => Node::Live(dir),
                Some(Named::RefLink(target)) => Node::RefLink(target),
                Some(Named::Inside(inside)) => {
                    let (commit, numbering) = (inside.commit, inside.numbering);
                    let (is_dir, at) = (inside.is_dir, At::Path(inside));
                    match is_dir {
                        true => Node::Dir(TreeDir {
                            commit,
                            numbering,
                            at,
                        }),
                        false => Node::PathFile(PathFile { commit, at }),
                    }
                }
            },
        })
    }

    /// The commit that a number's slot stands for.
    fn commit_of(&self, number: u64, slot: u32) -> Result<ObjectId> {
        if let Some(commit) = lock(&self.slots).get(&slot) {
            return Ok(*commit);
        }
        if matches!(self.root, Root::Commit { .. }) {
            return Err(ViewError::Stale { number });
        }
        match self.commits_of(slot)?[..] {
            [] => Err(ViewError::Stale { number }),
            [commit] => Ok(*lock(&self.slots).entry(slot).or_insert(commit)),
            [commit, other, ..] => Err(commit_collision(commit, other)),
        }
    }

    /// Makes sure that the numbers of a commit stand for this commit alone.
    fn claim_slot(&self, commit: &ObjectId) -> Result<()> {
        let slot = inode::Place::new(commit, 0).slot;
        let known = lock(&self.slots).get(&slot).copied();
        let other = match known {
            Some(known) => Some(known).filter(|known| known != commit),
            None => {
                let all = self.commits_of(slot)?;
                all.into_iter().find(|other| other != commit)
            }
        };
        match other {
            Some(other) => Err(commit_collision(*commit, other)),
            None => match *lock(&self.slots).entry(slot).or_insert(*commit) {
                first if first == *commit => Ok(()),
                first => Err(commit_collision(*commit, first)),
            },
        }
    }

    fn commits_of(&self, slot: u32) -> Result<Vec<ObjectId>> {
        let (first, last) = inode::commit_ids(slot);
        let found = self
            .source
            .objects_between(ObjectKind::Commit, &first, &last);
        found.map_err(|source| repository_error("commits", source))
    }

    fn with_xattrs<T>(&self, number: u64, use_: impl FnOnce(&Xattrs) -> T) -> Result<Option<T>> {
        let node = self.node(number)?;
        match &node {
            Node::File(_) | Node::PathFile(_) => {
                Ok(Some(use_(&self.file_of(&node)?.header.xattrs)))
            }
            Node::Dir(dir) => {
                let meta = self.meta_of(dir)?;
                Ok(Some(use_(
                    &self.dirmeta(&meta, || self.path(number))?.xattrs,
                )))
            }
            Node::Live(_) | Node::RefLink(_) => Ok(None),
        }
    }

    fn dirmeta(&self, id: &ObjectId, path: impl FnOnce() -> String) -> Result<Arc<DirMeta>> {
        self.metas
            .get_or_load(id, || self.source.dirmeta(id))
            .map_err(|source| object_error(path(), "dirmeta", *id, source))
    }
}

/// Lists `.` and `..`; whether that was all there was room for.
fn dots(number: u64, parent: u64, offset: u64, full: &mut dyn FnMut(&Item<'_>) -> bool) -> bool {
    let dots = [(0, ".", number), (1, "..", parent)];
    dots.into_iter()
        .filter(|(at, ..)| offset <= *at)
        .any(|(at, name, number)| {
            full(&Item {
                name,
                next: at + 1,
                entry: placeholder(number, S_IFDIR | 0o755),
                damage: None,
            })
        })
}

fn commit_collision(id: ObjectId, other: ObjectId) -> ViewError {
    ViewError::Collision {
        path: format!("commits/{id}"),
        what: "commit",
        id,
        other,
    }
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

//! New objects on the side that receives them: gathered, then written below the commit.
//!
//! Writing goes bottom-up, and what nobody brought must be in the repository: a commit that comes
//! out of here is whole, and has the detached metadata that came with it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Contents, Fault, Object};
use crate::Body;
use crate::NewFile;
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::object::{Commit, DecodeError, DirMeta, Dirtree, Metadata};
use crate::refs::RefUpdate;
use crate::repo::state::MAX_DETACHED;
use crate::repo::{Repository, Transaction};
use crate::tree::{FileEntry, check_depth};

/// Bytes of files that wait to be stored together.
const BATCH: u64 = 16 << 20;
/// Files that wait to be stored together.
const BATCH_FILES: usize = 4096;

/// A commit and the directories that came with it.
#[derive(Debug)]
pub(in crate::ops) struct NewTree {
    pub(in crate::ops) commit: Commit,
    /// Its detached metadata, if any came.
    detached: Option<Vec<u8>>,
    metadata: HashMap<Object, Vec<u8>>,
}

/// Sees what is new below a commit, children first.
pub(in crate::ops) trait Visitor {
    /// A directory's metadata.
    fn dirmeta(&mut self, meta: &DirMeta) -> Result<()>;
    /// A file that a new directory lists; says whether it came with the commit.
    fn file(&mut self, id: &ObjectId) -> Result<bool>;
    /// A directory of which everything was seen.
    fn dirtree(&mut self, tree: &Dirtree) -> Result<()>;
}

impl NewTree {
    /// A commit of which nothing came yet.
    pub(in crate::ops) fn new(commit: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            commit: Commit::parse(commit)?,
            detached: None,
            metadata: HashMap::new(),
        })
    }

    /// Takes the detached metadata of the commit. No name vouches for it: it has the form and the size
    /// that repositories have it in, and that is all that is known.
    pub(in crate::ops) fn set_detached(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() as u64 > MAX_DETACHED {
            return Err(Fault::invalid("its detached metadata is larger than any"));
        }
        Metadata::parse(bytes)
            .map_err(|error| Fault::invalid(format!("its detached metadata: {error}")))?;
        self.detached = Some(bytes.to_vec());
        Ok(())
    }

    /// Stores the detached metadata that came. What the repository has of a commit that was there stays:
    /// it may be of later.
    pub(in crate::ops) fn store_detached(
        &self,
        repo: &Repository,
        commit: &ObjectId,
    ) -> Result<()> {
        let Some(bytes) = &self.detached else {
            return Ok(());
        };
        let there = repo.contains(ObjectKind::Commit, commit)?;
        if there && repo.detached_metadata(commit)?.is_some() {
            return Ok(());
        }
        repo.set_detached_metadata(commit, Some(bytes))
    }

    /// Metadata objects that came.
    pub(in crate::ops) fn len(&self) -> usize {
        self.metadata.len()
    }

    /// Adds a metadata object; says whether it is what its name says.
    #[must_use]
    pub(in crate::ops) fn add(&mut self, object: &Object, bytes: &[u8]) -> bool {
        let same = ObjectId::of(bytes) == object.1;
        if same {
            self.metadata.insert(*object, bytes.to_vec());
        }
        same
    }

    /// What came and is not known from another commit, in the order of the walk.
    ///
    /// # Errors
    /// [`Error::MissingObject`] if a listing did not come, [`Error::MalformedObject`].
    pub(in crate::ops) fn contents(&self, known: impl Fn(&Object) -> bool) -> Result<Contents> {
        Contents::walk(&self.commit, known, |id| {
            let object = (ObjectKind::Dirtree, *id);
            let (kind, id) = object;
            let bytes = self.metadata.get(&object);
            let bytes = bytes.ok_or(Error::MissingObject { kind, id })?;
            Dirtree::parse(bytes)
                .map(Arc::new)
                .map_err(malformed(object))
        })
    }

    /// Sees that the commit has nothing but what came and what is known; `came` says which files did.
    pub(in crate::ops) fn check_whole(
        &self,
        came: impl Fn(&ObjectId) -> bool,
        known: impl Fn(&Object) -> bool,
    ) -> Result<(), Fault> {
        let lacks = |kind, id| Fault::invalid(format!("it lacks {kind} object {id} of its commit"));
        let contents = self.contents(known).map_err(|error| match error {
            Error::MissingObject { kind, id } => lacks(kind, id),
            other => Fault::of_tree(other),
        })?;
        for object in contents.objects() {
            let (kind, id) = object;
            let bytes = self.metadata.get(&object);
            match (kind, bytes) {
                (ObjectKind::File, _) if came(&id) => {}
                (ObjectKind::Dirmeta, Some(bytes)) => {
                    let parsed = DirMeta::parse(bytes).map_err(malformed(object));
                    parsed.map_err(Fault::of_tree)?;
                }
                // It was read to find what it lists.
                (ObjectKind::Dirtree, Some(_)) => {}
                _ => return Err(lacks(kind, id)),
            }
        }
        Ok(())
    }

    /// One path of each file that the directories list which came so far.
    pub(in crate::ops) fn paths(&self) -> HashMap<ObjectId, String> {
        let mut paths = HashMap::new();
        let mut seen = HashSet::new();
        let mut todo = vec![(String::new(), self.commit.tree, 0)];
        while let Some((path, tree, depth)) = todo.pop() {
            let bytes = self.metadata.get(&(ObjectKind::Dirtree, tree));
            let Some(Ok(listing)) = bytes.map(|bytes| Dirtree::parse(bytes)) else {
                continue;
            };
            // Some directories are at many places: one is enough.
            if !seen.insert(tree) || check_depth(&path, depth).is_err() {
                continue;
            }
            for (name, id) in listing.files {
                paths.entry(id).or_insert_with(|| format!("{path}{name}"));
            }
            let dirs = listing.dirs.iter();
            todo.extend(dirs.map(|d| (format!("{path}{}/", d.name), d.tree, depth + 1)));
        }
        paths
    }

    /// Shows what is new to a visitor, and sees that the rest is in the repository.
    ///
    /// # Errors
    /// [`Error::MissingObject`] if something is in neither, [`Error::MalformedObject`].
    pub(in crate::ops) fn visit(&self, repo: &Repository, visitor: &mut dyn Visitor) -> Result<()> {
        let mut walk = Walk {
            tree: self,
            repo,
            visitor,
            seen: HashSet::new(),
            heights: HashMap::new(),
        };
        walk.dirmeta(&self.commit.meta)?;
        walk.dirtree(&self.commit.tree, "", 0).map(drop)
    }
}

struct Walk<'a> {
    tree: &'a NewTree,
    repo: &'a Repository,
    visitor: &'a mut dyn Visitor,
    /// Objects that were shown, or found: many directories may share one.
    seen: HashSet<Object>,
    /// Levels below the directories that were looked at. What did not come is looked at, too: it may
    /// be of a commit that is known to be incomplete.
    heights: HashMap<ObjectId, usize>,
}

impl<'a> Walk<'a> {
    /// The bytes of an object that came and was not shown.
    fn take(&mut self, object: Object) -> Result<Option<&'a [u8]>> {
        if !self.seen.insert(object) {
            return Ok(None);
        }
        let tree: &'a NewTree = self.tree;
        match tree.metadata.get(&object) {
            Some(bytes) => Ok(Some(bytes)),
            None => self.must_have(object).map(|()| None),
        }
    }

    fn dirmeta(&mut self, id: &ObjectId) -> Result<()> {
        let object = (ObjectKind::Dirmeta, *id);
        let Some(bytes) = self.take(object)? else {
            return Ok(());
        };
        let meta = DirMeta::parse(bytes).map_err(malformed(object))?;
        self.visitor.dirmeta(&meta)
    }

    /// How many levels there are below.
    fn dirtree(&mut self, id: &ObjectId, path: &str, depth: usize) -> Result<usize> {
        let known = self.heights.get(id).copied();
        check_depth(path, depth + known.unwrap_or(0))?;
        if let Some(height) = known {
            return Ok(height);
        }
        let object = (ObjectKind::Dirtree, *id);
        let tree: &'a NewTree = self.tree;
        let came = tree.metadata.get(&object);
        let listing = match came {
            Some(bytes) => Arc::new(Dirtree::parse(bytes).map_err(malformed(object))?),
            None => self.repo.dirtree(id)?,
        };
        let mut height = 0;
        for dir in &listing.dirs {
            self.dirmeta(&dir.meta)?;
            let path = format!("{path}/{}", dir.name);
            height = height.max(1 + self.dirtree(&dir.tree, &path, depth + 1)?);
        }
        for (_, file) in &listing.files {
            if !self.visitor.file(file)? {
                self.must_have((ObjectKind::File, *file))?;
            }
        }
        if came.is_some() {
            self.visitor.dirtree(&listing)?;
        }
        self.heights.insert(*id, height);
        Ok(height)
    }

    fn must_have(&self, (kind, id): Object) -> Result<()> {
        match self.repo.contains(kind, &id)? {
            true => Ok(()),
            false => Err(Error::MissingObject { kind, id }),
        }
    }
}

fn malformed((kind, id): Object) -> impl FnOnce(DecodeError) -> Error {
    move |source| Error::MalformedObject { kind, id, source }
}

/// Puts what came into a transaction.
#[derive(Debug)]
pub(in crate::ops) struct Receiver<'r> {
    txn: Transaction<'r>,
    entries: HashMap<ObjectId, FileEntry>,
    batch: Vec<(Option<ObjectId>, NewFile)>,
    batch_bytes: u64,
}

impl<'r> Receiver<'r> {
    pub(in crate::ops) fn new(txn: Transaction<'r>) -> Self {
        Self {
            txn,
            entries: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Files that were received.
    pub(in crate::ops) fn files(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Adds a file, of `size` bytes in memory.
    ///
    /// # Errors
    /// The name of a file that is not what its name says, sooner or later.
    pub(in crate::ops) fn put(
        &mut self,
        id: Option<ObjectId>,
        file: NewFile,
        size: u64,
    ) -> Result<(), Refused> {
        let file = match id {
            Some(id) => named_so(file, &id)?,
            None => file,
        };
        let large = matches!(file.body, Body::File(..) | Body::Stream(..));
        self.batch.push((id, file));
        self.batch_bytes += size;
        if self.batch_bytes >= BATCH || large || self.batch.len() >= BATCH_FILES {
            self.flush()?;
        }
        Ok(())
    }

    /// Stores the files that wait.
    pub(in crate::ops) fn flush(&mut self) -> Result<(), Refused> {
        self.batch_bytes = 0;
        let (ids, files): (Vec<_>, Vec<NewFile>) =
            std::mem::take(&mut self.batch).into_iter().unzip();
        for (id, entry) in ids.into_iter().zip(self.txn.put_files(files)?) {
            match id {
                Some(id) if id != entry.id => return Err(Refused::Other(id)),
                _ => self.entries.insert(entry.id, entry),
            };
        }
        Ok(())
    }

    /// Writes the tree and the commit, shows them to everyone and sets refs; says by how much the
    /// repository grew.
    pub(in crate::ops) fn finish(
        mut self,
        repo: &Repository,
        tree: &NewTree,
        refs: &[RefUpdate],
    ) -> Result<u64> {
        tree.visit(repo, &mut self)?;
        let commit = self.txn.put_commit(&tree.commit)?;
        // Before the commit can be seen: nobody shall find it without its signatures.
        tree.store_detached(repo, &commit)?;
        let stored = self.txn.publish(refs)?.stored_bytes;
        // It may have been here in part.
        repo.set_partial(&commit, false)?;
        Ok(stored)
    }
}

/// Why a file was not received.
#[derive(Debug, thiserror::Error)]
pub(in crate::ops) enum Refused {
    /// It could not be stored.
    #[error(transparent)]
    Engine(#[from] Error),
    /// What came is not this object.
    #[error("what it makes is not file object {0}")]
    Other(ObjectId),
}

impl Visitor for Receiver<'_> {
    fn dirmeta(&mut self, meta: &DirMeta) -> Result<()> {
        self.txn.put_dirmeta(meta).map(drop)
    }

    fn file(&mut self, id: &ObjectId) -> Result<bool> {
        let Some(entry) = self.entries.get(id) else {
            return Ok(false);
        };
        self.txn.put_listed_file(entry)?;
        Ok(true)
    }

    fn dirtree(&mut self, tree: &Dirtree) -> Result<()> {
        self.txn.put_dirtree(tree).map(drop)
    }
}

/// The file with the form of its header that gives the name. If none does, that is seen when it is
/// stored.
fn named_so(file: NewFile, id: &ObjectId) -> Result<NewFile> {
    if file.header.xattrs.is_sorted() {
        return Ok(file);
    }
    let named = match &file.body {
        Body::None => file.header.named(id, io::empty()).ok(),
        Body::Bytes(bytes) => file.header.named(id, bytes.as_slice()).ok(),
        Body::File(path, _) => {
            let content = File::open(path).at(path)?;
            Some(file.header.named(id, content).at(path)?)
        }
        // It can be read once only.
        Body::Stream(..) => None,
    };
    let header = named.flatten().unwrap_or_else(|| file.header.clone());
    Ok(NewFile { header, ..file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;
    use crate::object::{FileHeader, Xattrs};

    #[test]
    fn both_orders_of_attributes_are_taken_wherever_the_content_is() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init(&dir.path().join("repo")).unwrap();
        let spooled = dir.path().join("spooled");
        std::fs::write(&spooled, b"content").unwrap();
        // (user.z, 1), (security.selinux, 2), as written before 2025.2.
        let xattrs = b"user.z\x001\x07security.selinux\x002\x11\x09\x1c";
        let old = FileHeader {
            uid: 0,
            gid: 0,
            mode: 0o100644,
            symlink_target: Vec::new(),
            xattrs: Xattrs::parse(xattrs).unwrap(),
        };
        let link = FileHeader {
            mode: FileHeader::SYMLINK_MODE,
            symlink_target: b"target".to_vec(),
            ..old.clone()
        };
        let content: &[u8] = b"content";
        for (header, bytes) in [(&old, content), (&link, b"")] {
            for name in [header, &*header.with_sorted_xattrs()].map(|form| form.object_id(bytes)) {
                let bodies = match header.is_symlink() {
                    true => vec![Body::None],
                    false => vec![Body::Bytes(bytes.to_vec()), Body::File(spooled.clone(), 7)],
                };
                for body in bodies {
                    let mut receiver = Receiver::new(repo.begin(&Silent).unwrap());
                    let file = NewFile {
                        header: header.clone(),
                        hint: Vec::new(),
                        body,
                    };
                    receiver.put(Some(name), file, 7).unwrap();
                    receiver.flush().unwrap();
                    assert_eq!(receiver.files(), 1);
                }
            }
        }
    }
}

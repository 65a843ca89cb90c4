//! Where a repair looks for what is missing: other repositories, directories, and whatever else
//! implements [`Source`].

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::object::{DirEntry, DirMeta, Dirtree, FileHeader, FileObject, Xattrs};
use crate::ops::repair::Found;
use crate::repo::Repository;
use crate::tree::check_depth;

/// What a repair looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub(crate) payloads: HashMap<PayloadId, u64>,
    pub(crate) objects: HashSet<(ObjectKind, ObjectId)>,
}

impl Wanted {
    /// Payloads, with their sizes in bytes.
    pub fn payloads(&self) -> impl Iterator<Item = (&PayloadId, u64)> {
        self.payloads.iter().map(|(id, size)| (id, *size))
    }

    /// Objects; of files, their metadata.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectKind, &ObjectId)> {
        self.objects.iter().map(|(kind, id)| (*kind, id))
    }

    /// Whether a payload of this size is wanted.
    pub fn may_want(&self, size: u64) -> bool {
        self.payloads.values().any(|wanted| *wanted == size)
    }

    /// Whether objects of a kind are wanted.
    pub fn wants(&self, kind: ObjectKind) -> bool {
        self.objects.iter().any(|(wanted, _)| *wanted == kind)
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty() && self.objects.is_empty()
    }
}

/// Something that may have what a damaged repository lacks. What it gives is believed only where
/// its SHA-256 is the one wanted.
pub trait Source {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Gives everything wanted that it has to `found`. It may give more.
    fn supply(&mut self, wanted: &Wanted, found: &mut Found<'_>) -> Result<()>;
}

/// Reads a payload from its beginning to its end.
pub(crate) struct PayloadReader<'a> {
    repo: &'a Repository,
    file: &'a FileObject,
    at: u64,
}

impl<'a> PayloadReader<'a> {
    pub(crate) fn new(repo: &'a Repository, file: &'a FileObject) -> Self {
        Self { repo, file, at: 0 }
    }
}

impl Read for PayloadReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.repo.read_at(self.file, self.at, buf);
        let n = n.map_err(io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A file header that names nothing, for payloads without a file.
pub(crate) fn no_header() -> FileHeader {
    FileHeader {
        uid: 0,
        gid: 0,
        mode: 0o100_644,
        symlink_target: Vec::new(),
        xattrs: Xattrs::default(),
    }
}

/// Another repository.
#[derive(Debug)]
pub struct RepositorySource(Repository);

impl RepositorySource {
    /// Uses an open repository.
    pub fn new(repo: Repository) -> Self {
        Self(repo)
    }

    fn give_object(&self, kind: ObjectKind, id: &ObjectId, found: &mut Found<'_>) -> Result<()> {
        if !self.0.contains(kind, id)? {
            return Ok(());
        }
        if kind != ObjectKind::File {
            return found.object(kind, &self.0.object_bytes(kind, id)?);
        }
        let file = self.0.file(id)?;
        let mut payload = PayloadReader::new(&self.0, &file);
        let given = found.file(Some(&file.header), b"", file.size, &mut payload);
        given.map(drop)
    }
}

impl Source for RepositorySource {
    fn name(&self) -> String {
        self.0.path().display().to_string()
    }

    fn supply(&mut self, wanted: &Wanted, found: &mut Found<'_>) -> Result<()> {
        let _lock = self.0.lock_shared()?;
        for (kind, id) in wanted.objects() {
            let given = self.give_object(kind, id, found);
            found.tolerate(given)?;
        }
        for (id, size) in wanted.payloads() {
            let file = FileObject {
                id: ObjectId::from_bytes([0; 32]),
                header: no_header(),
                size,
                payload: Some(*id),
            };
            if self.0.contains_payload(id, size)? {
                let given = found.file(None, b"", size, &mut PayloadReader::new(&self.0, &file));
                found.tolerate(given)?;
            }
        }
        Ok(())
    }
}

/// The files below a directory, such as a checkout.
#[derive(Debug)]
pub struct DirectorySource {
    root: PathBuf,
    /// Names of files hashed before, so that a file is hashed once: file object and payload.
    known: HashMap<PathBuf, (ObjectId, Option<PayloadId>)>,
}

impl DirectorySource {
    /// Uses a directory.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
        }
    }

    /// Offers what is wanted of a directory; gives the names of the directory itself if all of it
    /// could be read and `wanted` makes that worth the while.
    fn directory(
        &mut self,
        dir: &Path,
        depth: usize,
        wanted: &Wanted,
        found: &mut Found<'_>,
    ) -> Result<Option<(ObjectId, ObjectId)>> {
        found.check_cancelled()?;
        check_depth(&dir.to_string_lossy(), depth)?;
        let mut listing = Some(Dirtree::default());
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).at(dir)? {
            paths.push(entry.at(dir)?.path());
        }
        paths.sort();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str());
            let meta = std::fs::symlink_metadata(&path).at(&path)?;
            let done = if meta.is_dir() {
                let child = self.directory(&path, depth + 1, wanted, found);
                let entry = found.tolerate(child)?.flatten();
                entry.zip(name).map(|((tree, meta), name)| {
                    let name = name.to_owned();
                    listing.iter_mut().for_each(|listing| {
                        let name = name.clone();
                        listing.dirs.push(DirEntry { name, tree, meta });
                    });
                })
            } else {
                let given = self.file(&path, &meta, wanted, found);
                let entry = found.tolerate(given)?.flatten();
                entry.zip(name).map(|(id, name)| {
                    let listed = listing.iter_mut();
                    listed.for_each(|listing| listing.files.push((name.to_owned(), id)));
                })
            };
            listing = listing.filter(|_| done.is_some());
        }
        if !wanted.wants(ObjectKind::Dirmeta) && !wanted.wants(ObjectKind::Dirtree) {
            return Ok(None);
        }
        let meta = dir_meta(dir)?.to_bytes();
        found.object(ObjectKind::Dirmeta, &meta)?;
        let Some(listing) = listing.filter(|_| wanted.wants(ObjectKind::Dirtree)) else {
            return Ok(None);
        };
        let tree = listing.to_bytes();
        found.object(ObjectKind::Dirtree, &tree)?;
        Ok(Some((ObjectId::of(&tree), ObjectId::of(&meta))))
    }

    /// Offers a file; gives its name if that had to be found out.
    fn file(
        &mut self,
        path: &Path,
        meta: &std::fs::Metadata,
        wanted: &Wanted,
        found: &mut Found<'_>,
    ) -> Result<Option<ObjectId>> {
        let whole = wanted.wants(ObjectKind::File) || wanted.wants(ObjectKind::Dirtree);
        let of_use = meta.is_file() || whole && meta.is_symlink();
        if !of_use {
            return Ok(None);
        }
        if !whole && !wanted.may_want(meta.len()) {
            return Ok(None);
        }
        if let Some((id, payload)) = self.known.get(path) {
            let of_use = wanted.objects.contains(&(ObjectKind::File, *id))
                || payload.is_some_and(|id| wanted.payloads.contains_key(&id));
            if !of_use {
                return Ok(Some(*id));
            }
        }
        let header = header_of(path, meta)?;
        let hint = path.strip_prefix(&self.root).unwrap_or(path);
        let hint = std::os::unix::ffi::OsStrExt::as_bytes(hint.as_os_str());
        let (id, payload) = if meta.is_symlink() {
            found.file(Some(&header), hint, 0, &mut io::empty())?
        } else {
            let mut file = std::fs::File::open(path).at(path)?;
            found.file(Some(&header), hint, meta.len(), &mut file)?
        };
        self.known.insert(path.to_owned(), (id, payload));
        Ok(Some(id))
    }
}

impl Source for DirectorySource {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn supply(&mut self, wanted: &Wanted, found: &mut Found<'_>) -> Result<()> {
        let root = self.root.clone();
        self.directory(&root, 0, wanted, found).map(drop)
    }
}

fn header_of(path: &Path, meta: &std::fs::Metadata) -> Result<FileHeader> {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::MetadataExt;
    let symlink_target = match meta.is_symlink() {
        true => std::fs::read_link(path)
            .at(path)?
            .into_os_string()
            .into_vec(),
        false => Vec::new(),
    };
    let mode = if meta.is_symlink() {
        FileHeader::SYMLINK_MODE
    } else {
        meta.mode()
    };
    Ok(FileHeader {
        uid: meta.uid(),
        gid: meta.gid(),
        mode,
        symlink_target,
        xattrs: crate::fs::xattr::of_path(path).at(path)?,
    })
}

fn dir_meta(path: &Path) -> Result<DirMeta> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(path).at(path)?;
    Ok(DirMeta {
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode(),
        xattrs: crate::fs::xattr::of_path(path).at(path)?,
    })
}

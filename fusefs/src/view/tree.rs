//! Directories of commits, answered from images.
//!
//! What an image says cannot be read is tried again each time it is asked for: once it can be read,
//! the image is out of date. So damage that is repaired is gone without a new mount.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use grove_engine::ObjectId;

use super::attr::{FileFacts, file_entry, root_entry, tree_entry};
use super::here::Here;
use super::{
    Entry, Item, Numbering, Result, Root, Source, View, ViewError, dots, join, live, object_error,
};
use crate::image::{BadImage, Child, FileRow, Image, Set, twin};
use crate::inode::{Inside, LiveDir, Place, ROOT, of_dir, of_path_file};

/// How often an image is made anew for one request.
const ATTEMPTS: usize = 3;

/// A directory of a commit.
#[derive(Debug)]
pub(super) struct TreeDir {
    pub(super) commit: ObjectId,
    pub(super) numbering: Numbering,
    pub(super) at: At,
}

/// A file at one path of a commit.
#[derive(Debug)]
pub(super) struct PathFile {
    pub(super) commit: ObjectId,
    pub(super) at: At,
}

/// Where in a commit.
#[derive(Debug)]
pub(super) enum At {
    /// By place in its image.
    Index(u32),
    /// By path, as places in an incomplete image are not for ever.
    Path(Arc<Inside>),
}

impl TreeDir {
    pub(super) fn root(commit: ObjectId, numbering: Numbering) -> Self {
        Self {
            commit,
            numbering,
            at: At::Index(0),
        }
    }

    fn is_root(&self) -> bool {
        matches!(self.at, At::Index(0))
    }
}

/// Why an image did not answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is damaged or out of date, and is to be made anew.
    Image,
    View(ViewError),
}

impl From<BadImage> for Trouble {
    fn from(_: BadImage) -> Self {
        Self::Image
    }
}

impl From<ViewError> for Trouble {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

pub(super) type Tried<T> = std::result::Result<T, Trouble>;

impl<S: Source> View<S> {
    /// Finds a name in a directory.
    pub(super) fn tree_child(&self, dir: &TreeDir, name: &str) -> Result<Option<Entry>> {
        self.in_dir(dir, |here| {
            here.listing()?;
            let found = match here.image.lookup(&here.dir, name)? {
                None => return Ok(None),
                Some(Child::File(index)) => here.file(index)?.1,
                Some(Child::Dir(index)) => here.subdir(index)?.1,
            };
            Ok(Some(found.map_err(|(_, damage)| damage)?))
        })
    }

    /// Attributes of a directory.
    pub(super) fn dir_attr(&self, number: u64, dir: &TreeDir) -> Result<Entry> {
        if dir.is_root() {
            let meta = self.root_meta(&dir.commit)?;
            let path = || self.below(&dir.commit, dir.numbering, "");
            return Ok(root_entry(number, &*self.dirmeta(&meta, path)?));
        }
        self.in_dir(dir, |here| Ok(dir_entry(number, &here.dir_set()?)))
    }

    /// The number of the directory that a directory is in.
    pub(super) fn tree_parent(&self, dir: &TreeDir) -> Result<u64> {
        self.in_dir(dir, |here| here.parent_number())
    }

    /// The dirmeta of a directory.
    pub(super) fn meta_of(&self, dir: &TreeDir) -> Result<ObjectId> {
        match dir.is_root() {
            true => self.root_meta(&dir.commit),
            false => self.in_dir(dir, |here| Ok(here.dir_set()?.meta)),
        }
    }

    fn root_meta(&self, commit: &ObjectId) -> Result<ObjectId> {
        if let Root::Commit { id, meta } = &self.root
            && id == commit
        {
            return Ok(*meta);
        }
        let found = self.source.commit(commit);
        let path = || self.below(commit, self.numbering, "");
        found
            .map(|commit| commit.meta)
            .map_err(|source| object_error(path(), "commit", *commit, source))
    }

    /// Lists files, then directories; the offset of an entry is its place and 2.
    pub(super) fn list_tree(
        &self,
        number: u64,
        dir: &TreeDir,
        offset: u64,
        full: &mut dyn FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        // Goes on where it was when the image was found to be damaged.
        let mut offset = offset;
        self.in_dir(dir, |here| {
            here.listing()?;
            if offset < 2 {
                if dots(number, here.parent_number()?, offset, full) {
                    return Ok(());
                }
                offset = 2;
            }
            let files = here.dir.files.len() as u64;
            let end = files + u64::from(here.dir.child_count());
            while offset - 2 < end {
                let at = offset - 2;
                let (name, found) = match at < files {
                    true => here.file(here.dir.files.start + at as u32)?,
                    false => {
                        let child = here.image.child(&here.dir, (at - files) as u32)?;
                        here.subdir(child)?
                    }
                };
                let (entry, damage) = match found {
                    Ok(entry) => (entry, None),
                    Err((placeholder, damage)) => (placeholder, Some(damage)),
                };
                let next = offset + 1;
                if full(&Item {
                    name,
                    next,
                    entry,
                    damage,
                }) {
                    break;
                }
                offset = next;
            }
            Ok(())
        })
    }

    /// Attributes of a file at a path.
    pub(super) fn path_file_attr(&self, number: u64, file: &PathFile) -> Result<Entry> {
        self.in_path_file(file, |image, index| {
            let row = image.file(index)?;
            match row.set {
                Some(set) => Ok(file_entry(number, facts(&row, &image.set(set)?))),
                None => Err(self.why_no_file(&file.commit, image, index)?.into()),
            }
        })
    }

    /// The number of the object of a file at a path.
    pub(super) fn path_file_number(&self, file: &PathFile) -> Result<u64> {
        self.in_path_file(file, |image, index| {
            let row = image.file(index)?;
            match row.set {
                Some(_) => Ok(row.number),
                None => Err(self.why_no_file(&file.commit, image, index)?.into()),
            }
        })
    }

    /// Path of a directory below the mount's root; `None` if nothing says it.
    pub(super) fn tree_path(&self, dir: &TreeDir) -> Option<String> {
        let path = match &dir.at {
            At::Index(0) => String::new(),
            At::Index(index) => {
                let image = self.images.existing(&dir.commit)?;
                image.dir_path(*index).ok()?
            }
            At::Path(inside) => inside.path.to_string(),
        };
        Some(self.below(&dir.commit, dir.numbering, &path))
    }

    /// Path of a file below the mount's root; `None` if nothing says it.
    pub(super) fn path_file_path(&self, file: &PathFile) -> Option<String> {
        let path = match &file.at {
            At::Index(index) => {
                let image = self.images.existing(&file.commit)?;
                file_path(&image, *index).ok()?
            }
            At::Path(inside) => inside.path.to_string(),
        };
        Some(self.below(&file.commit, Numbering::Unique, &path))
    }

    /// A path below the mount's root, from one below a commit's.
    pub(super) fn below(&self, commit: &ObjectId, numbering: Numbering, path: &str) -> String {
        match self.root {
            Root::Commit { .. } => path.to_owned(),
            Root::All => {
                let above = live::path(&self.above(numbering));
                join(&format!("{above}/{commit}"), path)
            }
        }
    }

    /// The directory that holds those of the commits.
    pub(super) fn above(&self, numbering: Numbering) -> LiveDir {
        match numbering == self.numbering {
            true => LiveDir::Commits,
            false => LiveDir::Unique,
        }
    }

    /// The number of a commit's root directory.
    pub(super) fn root_number(&self, commit: &ObjectId, numbering: Numbering) -> u64 {
        match &self.root {
            Root::Commit { id, .. } if id == commit => ROOT,
            _ => {
                if numbering != self.numbering {
                    self.both_numberings.store(true, Ordering::Relaxed);
                }
                of_dir(numbering, Place::new(commit, 0))
            }
        }
    }

    /// Runs something on the image of a commit, on another one if that is found to be damaged.
    fn in_image<T>(
        &self,
        commit: &ObjectId,
        mut work: impl FnMut(&Image) -> Tried<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let image = self.images.get(commit).map_err(|source| {
                let path = self.below(commit, self.numbering, "");
                object_error(path, "commit", *commit, source)
            })?;
            match work(&image) {
                Ok(value) => return Ok(value),
                Err(Trouble::View(error)) => return Err(error),
                Err(Trouble::Image) => self.images.discard(commit, &image),
            }
        }
        Err(ViewError::Incomplete { commit: *commit })
    }

    fn in_dir<T>(&self, of: &TreeDir, mut work: impl FnMut(&Here<'_, S>) -> Tried<T>) -> Result<T> {
        self.in_image(&of.commit, |image| {
            let index = match &of.at {
                At::Index(0) => 0,
                At::Index(index) if *index < image.dirs() => {
                    needs_all(&of.commit, image)?;
                    *index
                }
                At::Index(index) => {
                    let number = of_dir(of.numbering, Place::new(&of.commit, *index));
                    return Err(ViewError::Stale { number }.into());
                }
                At::Path(inside) => image.dir_at(&inside.path)?.ok_or(ViewError::NotFound)?,
            };
            work(&Here::new(self, image, of, index)?)
        })
    }

    fn in_path_file<T>(
        &self,
        file: &PathFile,
        mut work: impl FnMut(&Image, u32) -> Tried<T>,
    ) -> Result<T> {
        self.in_image(&file.commit, |image| {
            let index = match &file.at {
                At::Index(index) if *index < image.files() => {
                    needs_all(&file.commit, image)?;
                    *index
                }
                At::Index(index) => {
                    let number = of_path_file(Place::new(&file.commit, *index));
                    return Err(ViewError::Stale { number }.into());
                }
                At::Path(inside) => file_at(image, &inside.path)?.ok_or(ViewError::NotFound)?,
            };
            work(image, index)
        })
    }

    /// Why a file's object could not be read when the image was made.
    pub(super) fn why_no_file(
        &self,
        commit: &ObjectId,
        image: &Image,
        index: u32,
    ) -> Tried<ViewError> {
        let dir_index = image.dir_of_file(index)?;
        let first = image.dir(dir_index)?.files.start;
        let tree = image.tree(dir_index)?;
        let path = |below: &str| self.below(commit, self.numbering, below);
        let listing = match self.source.dirtree(&tree) {
            Ok(listing) => listing,
            Err(source) => {
                let path = path(&image.dir_path(dir_index)?);
                return Ok(object_error(path, "dirtree", tree, source));
            }
        };
        let entry = listing.files.get((index - first) as usize);
        let (_, id) = entry.ok_or(Trouble::Image)?;
        let path = path(&file_path(image, index)?);
        let what = "file";
        match self.source.file(id).and_then(|_| twin(&*self.source, id)) {
            Err(source) => Ok(object_error(path, what, *id, source)),
            Ok(Some(other)) => Ok(ViewError::Collision {
                path,
                what,
                id: *id,
                other,
            }),
            Ok(None) => Err(Trouble::Image),
        }
    }
}

/// A place that was numbered in a complete image means something else in an incomplete one.
fn needs_all(commit: &ObjectId, image: &Image) -> Tried<()> {
    match image.is_complete() {
        true => Ok(()),
        false => Err(ViewError::Incomplete { commit: *commit }.into()),
    }
}

pub(super) fn dir_entry(number: u64, set: &Set) -> Entry {
    tree_entry(number, set.mode, set.uid, set.gid)
}

pub(super) fn facts(row: &FileRow, set: &Set) -> FileFacts {
    FileFacts {
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        size: row.size,
    }
}

fn file_path(image: &Image, index: u32) -> std::result::Result<String, BadImage> {
    let dir = image.dir_path(image.dir_of_file(index)?)?;
    let row = image.file(index)?;
    Ok(join(&dir, image.file_name(&row)?))
}

fn file_at(image: &Image, path: &str) -> Tried<Option<u32>> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(dir) = image.dir_at(dir)? else {
        return Ok(None);
    };
    match image.lookup(&image.dir(dir)?, name)? {
        Some(Child::File(index)) => Ok(Some(index)),
        _ => Ok(None),
    }
}

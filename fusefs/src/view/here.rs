//! A directory of an image while something is done in it: its entries, their numbers, and why some
//! cannot be read.

use std::cell::OnceCell;
use std::sync::Arc;

use super::attr::{S_IFDIR, S_IFREG, file_entry, placeholder};
use super::tree::{TreeDir, Tried, Trouble, dir_entry, facts};
use super::{Entry, Numbering, Source, View, ViewError, join, object_error};
use crate::image::{Dir, Image, Set};
use crate::inode::{Inside, Named, Place, ROOT, of_dir, of_path_file};

/// A directory of an image while something is done in it.
pub(super) struct Here<'a, S> {
    view: &'a View<S>,
    pub(super) image: &'a Image,
    of: &'a TreeDir,
    index: u32,
    pub(super) dir: Dir,
    /// Below the commit's root.
    path: OnceCell<String>,
}

/// An entry, or what stands in for it in a listing and why.
pub(super) type Found = std::result::Result<Entry, (Entry, ViewError)>;

impl<'a, S: Source> Here<'a, S> {
    /// The directory that `of` is in the image.
    pub(super) fn new(
        view: &'a View<S>,
        image: &'a Image,
        of: &'a TreeDir,
        index: u32,
    ) -> Tried<Self> {
        Ok(Self {
            view,
            image,
            of,
            index,
            dir: image.dir(index)?,
            path: OnceCell::new(),
        })
    }

    fn path(&self) -> Tried<&str> {
        if let Some(path) = self.path.get() {
            return Ok(path);
        }
        let path = self.image.dir_path(self.index)?;
        Ok(self.path.get_or_init(|| path))
    }

    /// Fails if the listing could not be read.
    pub(super) fn listing(&self) -> Tried<()> {
        if self.dir.is_known() {
            return Ok(());
        }
        let id = self.image.tree(self.index)?;
        match self.view.source.dirtree(&id) {
            Ok(_) => Err(Trouble::Image),
            Err(source) => {
                let path = self.below(self.path()?);
                Err(object_error(path, "dirtree", id, source).into())
            }
        }
    }

    /// The directory's own attributes.
    pub(super) fn dir_set(&self) -> Tried<Set> {
        let set = self.image.set(self.dir.set)?;
        match set.mode {
            0 => Err(self.why_no_meta(&set, self.path()?)?.into()),
            _ => Ok(set),
        }
    }

    pub(super) fn file(&self, index: u32) -> Tried<(&'a str, Found)> {
        let row = self.image.file(index)?;
        let name = self.image.file_name(&row)?;
        let number = match self.of.numbering {
            Numbering::Shared => row.number,
            Numbering::Unique => self.number(index, name, false)?,
        };
        let found = match row.set {
            Some(set) => Ok(file_entry(number, facts(&row, &self.image.set(set)?))),
            None => {
                let damage = self.view.why_no_file(&self.of.commit, self.image, index)?;
                Err((placeholder(number, S_IFREG), damage))
            }
        };
        Ok((name, found))
    }

    pub(super) fn subdir(&self, index: u32) -> Tried<(&'a str, Found)> {
        let dir = self.image.dir(index)?;
        let name = self.image.dir_name(&dir)?;
        let number = self.number(index, name, true)?;
        let set = self.image.set(dir.set)?;
        let found = match set.mode {
            0 => {
                let damage = self.why_no_meta(&set, &join(self.path()?, name))?;
                Err((placeholder(number, S_IFDIR), damage))
            }
            _ => Ok(dir_entry(number, &set)),
        };
        Ok((name, found))
    }

    fn why_no_meta(&self, set: &Set, path: &str) -> Tried<ViewError> {
        match self.view.source.dirmeta(&set.meta) {
            Ok(_) => Err(Trouble::Image),
            Err(source) => Ok(object_error(self.below(path), "dirmeta", set.meta, source)),
        }
    }

    /// The number of something in this directory.
    fn number(&self, index: u32, name: &str, is_dir: bool) -> Tried<u64> {
        if self.image.is_complete() {
            let place = Place::new(&self.of.commit, index);
            return Ok(match is_dir {
                true => of_dir(self.of.numbering, place),
                false => of_path_file(place),
            });
        }
        Ok(self.named(join(self.path()?, name), is_dir))
    }

    pub(super) fn parent_number(&self) -> Tried<u64> {
        let TreeDir {
            commit, numbering, ..
        } = self.of;
        let root = self.view.root_number(commit, *numbering);
        if self.index == 0 {
            let above = || {
                let above = Named::Live(self.view.above(*numbering));
                self.view.names.number(&above)
            };
            return Ok(if root == ROOT { ROOT } else { above() });
        }
        match self.dir.parent {
            0 => Ok(root),
            parent if self.image.is_complete() => {
                Ok(of_dir(*numbering, Place::new(commit, parent)))
            }
            parent => Ok(self.named(self.image.dir_path(parent)?, true)),
        }
    }

    fn named(&self, path: String, is_dir: bool) -> u64 {
        self.view.names.number(&Named::Inside(Arc::new(Inside {
            commit: self.of.commit,
            numbering: self.of.numbering,
            path: path.into(),
            is_dir,
        })))
    }

    fn below(&self, path: &str) -> String {
        self.view.below(&self.of.commit, self.of.numbering, path)
    }
}

//! Making the image of a commit out of its objects.
//!
//! Directories are walked one after the other in the order of their numbers; file objects are loaded
//! in large batches, so that each block of the repository is decoded about once, on all processors.
//! What is held meanwhile is the image itself, one batch, and the listings on the way to the root.
//! Directories whose listings the image of a similar commit has, too, are copied from there.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grove_engine::fs::replace_cache_file;
use grove_engine::object::{Dirtree, FileObject};
use grove_engine::{
    Error as EngineError, ObjectId, ObjectKind, Repository, Result as EngineResult,
};

use super::format::{BlockSums, FLAG_INCOMPLETE, Header, MAX_ENTRIES};
use super::reuse::Base;
use super::rows::{NO_META, Rows};
use super::{BadImage, Image, beginning};
use crate::inode::{file_ids, of_file};
use crate::view::Source;

/// File objects that are loaded at once.
const BATCH: usize = 1 << 15;

/// Makes the image of a commit that was just made, so that its first mount need not, and removes the
/// images of commits that are neither the newest of a ref nor in use.
pub fn prepare(repo: &Repository, commit: &ObjectId) -> EngineResult<()> {
    let path = repo.image_path(commit);
    if Image::open(&path, commit).is_none() {
        let parent = repo.commit(commit)?.parent;
        let base = parent.and_then(|parent| Image::open(&repo.image_path(&parent), &parent));
        let built = Built::new(repo, commit, base.map(Arc::new), &AtomicBool::new(false))?;
        if built.is_complete() {
            // A cache that cannot be written is made when it is needed.
            drop(built.write(&path));
        }
    }
    repo.drop_unused_images()
}

/// An image that has been made, in parts.
#[derive(Debug)]
pub(super) struct Built {
    header: Header,
    body: [Vec<u8>; 8],
}

impl Built {
    /// Makes the image of a commit, with the help of the complete image of a similar one where there
    /// is one. Parts of the tree that cannot be read are left out and marked.
    pub(super) fn new<S: Source>(
        source: &S,
        commit: &ObjectId,
        base: Option<Arc<Image>>,
        cancel: &AtomicBool,
    ) -> EngineResult<Self> {
        let root = source.commit(commit)?;
        let mut builder = Builder {
            source,
            cancel,
            rows: Rows::default(),
            metas: HashMap::new(),
            pending: Vec::new(),
            // A damaged image is no help.
            base: base.and_then(|image| Base::new(image).ok()),
        };
        builder.walk(&root.tree, &root.meta)?;
        builder.check_room(0, 0)?;
        let (header, body) = builder.rows.finish(*commit);
        Ok(Self { header, body })
    }

    /// Whether everything could be read.
    pub(super) fn is_complete(&self) -> bool {
        self.header.flags & FLAG_INCOMPLETE == 0
    }

    /// Writes it where an image of its commit is looked for.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let head = self.head();
        replace_cache_file(path, |file| {
            file.write_all(&head)?;
            self.body.iter().try_for_each(|part| file.write_all(part))
        })
    }

    /// The image, in memory.
    pub(super) fn into_image(self) -> Result<Image, BadImage> {
        let mut bytes = self.head();
        let body: usize = self.body.iter().map(Vec::len).sum();
        bytes.reserve_exact(body);
        for part in self.body {
            bytes.extend_from_slice(&part);
        }
        Image::in_memory(bytes)
    }

    fn head(&self) -> Vec<u8> {
        let mut sums = BlockSums::default();
        self.body.iter().for_each(|part| sums.add(part));
        self.header.encode(&sums.finish())
    }
}

/// Another file object with the same number as this one.
pub(crate) fn twin<S: Source>(source: &S, id: &ObjectId) -> EngineResult<Option<ObjectId>> {
    let (first, last) = file_ids(of_file(id));
    let ids = source.objects_between(ObjectKind::File, &first, &last)?;
    Ok(ids.into_iter().find(|other| other != id))
}

/// A directory whose subdirectories are being entered.
struct Open {
    index: u32,
    first_child: u32,
    listing: Arc<Dirtree>,
    readable: bool,
    entered: usize,
}

struct Builder<'a, S> {
    source: &'a S,
    cancel: &'a AtomicBool,
    rows: Rows,
    /// The sets of the dirmetas that have been met.
    metas: HashMap<ObjectId, u32>,
    /// Files whose objects are still to be loaded.
    pending: Vec<(u32, ObjectId)>,
    base: Option<Base>,
}

impl<S: Source> Builder<'_, S> {
    /// Goes through all directories. Not recursive: a commit may be deeper than a thread's stack.
    fn walk(&mut self, tree: &ObjectId, meta: &ObjectId) -> EngineResult<()> {
        let mut way = Vec::from_iter(self.enter(0, "", tree, meta)?);
        while let Some(open) = way.last_mut() {
            let Some(entry) = open.listing.dirs.get(open.entered) else {
                if open.readable {
                    let below = self.rows.dirs() - open.index;
                    self.rows.set_below(open.index, below);
                }
                way.pop();
                continue;
            };
            let row = open.first_child as usize + open.entered;
            open.entered += 1;
            self.rows.set_child(row, self.rows.dirs());
            let (name, tree, meta) = (entry.name.clone(), entry.tree, entry.meta);
            let parent = open.index;
            way.extend(self.enter(parent, &name, &tree, &meta)?);
        }
        self.load_pending()
    }

    /// Adds a directory and its files; `None` if all that is below was added, too.
    fn enter(
        &mut self,
        parent: u32,
        name: &str,
        tree: &ObjectId,
        meta: &ObjectId,
    ) -> EngineResult<Option<Open>> {
        self.check_cancelled()?;
        let row = [parent, self.dir_set(meta)];
        if self.copy(row, name, tree)? {
            return Ok(None);
        }
        let listing = self.source.dirtree(tree);
        let readable = listing.is_ok();
        if !readable {
            self.rows.flags |= FLAG_INCOMPLETE;
        }
        let listing = listing.unwrap_or_default();
        self.check_room(1 + listing.dirs.len(), listing.files.len())?;
        let first_child = self.rows.children();
        let index = self.rows.add_dir(row, name, tree);
        self.rows.reserve_children(listing.dirs.len());
        for (name, id) in &listing.files {
            let file = self.rows.add_file(of_file(id), name);
            self.pending.push((file, *id));
            if self.pending.len() == BATCH {
                self.load_pending()?;
            }
        }
        Ok(Some(Open {
            index,
            first_child,
            listing,
            readable,
            entered: 0,
        }))
    }

    /// Adds a directory and all that is below it from the base; whether it is there.
    fn copy(&mut self, row: [u32; 2], name: &str, tree: &ObjectId) -> EngineResult<bool> {
        let Some(base) = &mut self.base else {
            return Ok(false);
        };
        let Some(from) = base.find(tree) else {
            return Ok(false);
        };
        let before = self.rows.mark();
        let (dirs, files) = base.size();
        let copied =
            self.rows.has_room(dirs, files) && base.copy(from, row, name, &mut self.rows).is_ok();
        if !copied {
            // A damaged base is no help.
            self.rows.truncate(before);
            self.base = None;
        }
        Ok(copied)
    }

    /// Loads the objects of the last files and completes their rows.
    fn load_pending(&mut self) -> EngineResult<()> {
        self.check_cancelled()?;
        let (files, ids): (Vec<u32>, Vec<ObjectId>) = self.pending.drain(..).unzip();
        let loaded = self.source.files(&ids);
        for ((file, id), object) in files.iter().zip(&ids).zip(loaded) {
            match object {
                Ok(object) if matches!(twin(self.source, id), Ok(None)) => {
                    self.complete(*file, &object);
                }
                _ => self.rows.flags |= FLAG_INCOMPLETE,
            }
        }
        Ok(())
    }

    fn complete(&mut self, file: u32, object: &FileObject) {
        let header = &object.header;
        let owned = [header.mode, header.uid, header.gid];
        let set = self.rows.set(owned, !header.xattrs.is_empty(), &NO_META);
        let size = match header.is_symlink() {
            true => header.symlink_target.len() as u64,
            false => object.size,
        };
        let payload = object.payload.as_ref().map(beginning);
        self.rows.complete(file, size, set, payload);
    }

    fn dir_set(&mut self, id: &ObjectId) -> u32 {
        if let Some(set) = self.metas.get(id) {
            return *set;
        }
        let set = match self.source.dirmeta(id) {
            Ok(meta) => {
                let owned = [meta.mode, meta.uid, meta.gid];
                self.rows.set(owned, !meta.xattrs.is_empty(), id)
            }
            Err(_) => {
                self.rows.flags |= FLAG_INCOMPLETE;
                self.rows.set([0; 3], false, id)
            }
        };
        self.metas.insert(*id, set);
        set
    }

    fn check_cancelled(&self) -> EngineResult<()> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(EngineError::Cancelled),
            false => Ok(()),
        }
    }

    fn check_room(&self, dirs: usize, files: usize) -> EngineResult<()> {
        if self.rows.has_room(dirs, files) {
            return Ok(());
        }
        Err(EngineError::UnsupportedInput {
            path: "/".to_owned(),
            reason: format!("more than {MAX_ENTRIES} files or directories cannot be mounted"),
        })
    }
}

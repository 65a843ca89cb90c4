//! Making the image of a commit out of its objects.
//!
//! Directories are walked one after the other in the order of their numbers; file objects are loaded
//! in large batches, so that each block of the repository is decoded about once, on all processors.
//! What is held meanwhile is the image itself, one batch, and the listings on the way to the root.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grove_engine::fs::replace_cache_file;
use grove_engine::object::{DirMeta, Dirtree, FileObject};
use grove_engine::{
    Error as EngineError, ObjectId, ObjectKind, Repository, Result as EngineResult,
};

use super::format::{
    BlockSums, CHILD_SIZE, DIR_SIZE, FILE_SIZE, FLAG_INCOMPLETE, FLAG_XATTRS, Header, MAX_ENTRIES,
    NO_SET, SET_SIZE,
};
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
        let built = Built::new(repo, commit, &AtomicBool::new(false))?;
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
    /// Makes the image of a commit. Parts of the tree that cannot be read are left out and marked.
    pub(super) fn new<S: Source>(
        source: &S,
        commit: &ObjectId,
        cancel: &AtomicBool,
    ) -> EngineResult<Self> {
        let root = source.commit(commit)?;
        let mut builder = Builder::new(source, cancel);
        builder.walk(&root.tree, &root.meta)?;
        builder.finish(*commit)
    }

    /// Whether everything could be read.
    pub(super) fn is_complete(&self) -> bool {
        self.header.flags & FLAG_INCOMPLETE == 0
    }

    /// Writes it where an image of its commit is looked for.
    pub(super) fn write(&self, path: &std::path::Path) -> std::io::Result<()> {
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
    flags: u32,
    dirs: Vec<u8>,
    children: Vec<u8>,
    files: Vec<u8>,
    sets: Vec<u8>,
    payloads: Vec<(u64, u32)>,
    trees: Vec<u8>,
    dir_names: Vec<u8>,
    file_names: Vec<u8>,
    known_sets: HashMap<[u8; SET_SIZE], u32>,
    known_metas: HashMap<ObjectId, u32>,
    /// Objects of the last files, which are still to be loaded.
    pending: Vec<ObjectId>,
}

impl<'a, S: Source> Builder<'a, S> {
    fn new(source: &'a S, cancel: &'a AtomicBool) -> Self {
        Self {
            source,
            cancel,
            flags: 0,
            dirs: Vec::new(),
            children: Vec::new(),
            files: Vec::new(),
            sets: Vec::new(),
            payloads: Vec::new(),
            trees: Vec::new(),
            dir_names: Vec::new(),
            file_names: Vec::new(),
            known_sets: HashMap::new(),
            known_metas: HashMap::new(),
            pending: Vec::new(),
        }
    }

    /// Goes through all directories. Not recursive: a commit may be deeper than a thread's stack.
    fn walk(&mut self, tree: &ObjectId, meta: &ObjectId) -> EngineResult<()> {
        let mut way = vec![self.enter(0, "", tree, meta)?];
        while let Some(open) = way.last_mut() {
            let Some(entry) = open.listing.dirs.get(open.entered) else {
                let below = match open.readable {
                    true => self.dir_count() - open.index,
                    false => 0,
                };
                patch(&mut self.dirs, open.index as usize * DIR_SIZE + 20, below);
                way.pop();
                continue;
            };
            let row = open.first_child as usize + open.entered;
            open.entered += 1;
            let (parent, child) = (open.index, self.dir_count());
            patch(&mut self.children, row * CHILD_SIZE, child);
            let (name, tree, meta) = (entry.name.clone(), entry.tree, entry.meta);
            let child = self.enter(parent, &name, &tree, &meta)?;
            way.push(child);
        }
        self.load_pending()
    }

    /// Adds a directory and its files.
    fn enter(
        &mut self,
        parent: u32,
        name: &str,
        tree: &ObjectId,
        meta: &ObjectId,
    ) -> EngineResult<Open> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        let index = self.dir_count();
        let set = self.dir_set(meta);
        let listing = self.source.dirtree(tree);
        let readable = listing.is_ok();
        let listing = listing.unwrap_or_default();
        let (files, children) = (self.file_count(), self.children.len() / CHILD_SIZE);
        let children_after = children + listing.dirs.len();
        self.check_room(files as usize + listing.files.len(), children_after + 1)?;
        let first_child = children as u32;
        let row = [parent, set, self.dir_names.len() as u32, files, first_child];
        push(&mut self.dirs, &row);
        push(&mut self.dirs, &[0]);
        self.dir_names.extend_from_slice(name.as_bytes());
        self.trees.extend_from_slice(tree.as_bytes());
        self.children.resize(children_after * CHILD_SIZE, 0);
        for (name, id) in &listing.files {
            self.add_file(name, id)?;
        }
        if !readable {
            self.flags |= FLAG_INCOMPLETE;
        }
        Ok(Open {
            index,
            first_child,
            listing,
            readable,
            entered: 0,
        })
    }

    fn add_file(&mut self, name: &str, id: &ObjectId) -> EngineResult<()> {
        self.files.extend_from_slice(&of_file(id).to_le_bytes());
        self.files.extend_from_slice(&[0; 8]);
        let name_at = self.file_names.len() as u32;
        push(&mut self.files, &[NO_SET, name_at]);
        self.file_names.extend_from_slice(name.as_bytes());
        self.pending.push(*id);
        if self.pending.len() == BATCH {
            self.load_pending()?;
        }
        Ok(())
    }

    /// Refuses what numbers and offsets have no room for.
    fn check_room(&self, files: usize, dirs: usize) -> EngineResult<()> {
        let names = self.dir_names.len().max(self.file_names.len());
        let max = MAX_ENTRIES as usize;
        // A listing is at most 128 MiB, so the next names cannot lead past the end either.
        if files <= max && dirs <= max && names <= (u32::MAX / 2) as usize {
            return Ok(());
        }
        Err(EngineError::UnsupportedInput {
            path: "/".to_owned(),
            reason: format!("more than {MAX_ENTRIES} files or directories cannot be mounted"),
        })
    }

    /// Loads the objects of the last files and completes their rows.
    fn load_pending(&mut self) -> EngineResult<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        let ids = std::mem::take(&mut self.pending);
        let first = self.file_count() - ids.len() as u32;
        let loaded = self.source.files(&ids);
        for ((index, id), file) in (first..).zip(&ids).zip(loaded) {
            match file {
                Ok(file) if matches!(twin(self.source, id), Ok(None)) => {
                    self.complete(index, &file);
                }
                _ => self.flags |= FLAG_INCOMPLETE,
            }
        }
        Ok(())
    }

    fn complete(&mut self, index: u32, file: &FileObject) {
        let header = &file.header;
        if !header.xattrs.is_empty() {
            self.flags |= FLAG_XATTRS;
        }
        let set = self.set([header.mode, header.uid, header.gid], None);
        let size = match header.is_symlink() {
            true => header.symlink_target.len() as u64,
            false => file.size,
        };
        let row = index as usize * FILE_SIZE;
        let (low, high) = (size as u32, (size >> 32) as u32);
        patch(&mut self.files, row + 8, low);
        patch(&mut self.files, row + 12, high);
        patch(&mut self.files, row + 16, set);
        if let Some(payload) = &file.payload {
            self.payloads.push((beginning(payload), index));
        }
    }

    fn dir_set(&mut self, id: &ObjectId) -> u32 {
        if let Some(set) = self.known_metas.get(id) {
            return *set;
        }
        let set = match self.source.dirmeta(id).as_deref() {
            Ok(DirMeta {
                uid,
                gid,
                mode,
                xattrs,
            }) => {
                if !xattrs.is_empty() {
                    self.flags |= FLAG_XATTRS;
                }
                self.set([*mode, *uid, *gid], Some(id))
            }
            Err(_) => {
                self.flags |= FLAG_INCOMPLETE;
                self.set([0; 3], Some(id))
            }
        };
        self.known_metas.insert(*id, set);
        set
    }

    fn set(&mut self, fields: [u32; 3], meta: Option<&ObjectId>) -> u32 {
        let mut row = Vec::with_capacity(SET_SIZE);
        push(&mut row, &fields);
        row.extend_from_slice(meta.map_or(&[0; ObjectId::LEN], |id| id.as_bytes()));
        let mut key = [0; SET_SIZE];
        key.copy_from_slice(&row);
        let next = self.known_sets.len() as u32;
        *self.known_sets.entry(key).or_insert_with(|| {
            self.sets.extend_from_slice(&row);
            next
        })
    }

    fn finish(mut self, commit: ObjectId) -> EngineResult<Built> {
        let (dirs, files) = (self.dir_count(), self.file_count());
        self.check_room(files as usize, dirs as usize)?;
        let (dir_names, file_names) = (self.dir_names.len() as u32, self.file_names.len() as u32);
        push(&mut self.dirs, &[0, 0, dir_names, files, dirs - 1, 0]);
        push(&mut self.files, &[0, 0, 0, 0, 0, file_names]);
        self.payloads.sort_unstable();
        let mut payloads = Vec::with_capacity(self.payloads.len() * super::PAYLOAD_SIZE);
        for (beginning, file) in &self.payloads {
            payloads.extend_from_slice(&beginning.to_le_bytes());
            push(&mut payloads, &[*file]);
        }
        let header = Header {
            commit,
            flags: self.flags,
            dirs,
            files,
            sets: self.known_sets.len() as u32,
            payloads: self.payloads.len() as u32,
            dir_names,
            file_names,
        };
        let body = [
            self.dirs,
            self.children,
            self.files,
            self.sets,
            payloads,
            self.trees,
            self.dir_names,
            self.file_names,
        ];
        Ok(Built { header, body })
    }

    fn dir_count(&self) -> u32 {
        (self.dirs.len() / DIR_SIZE) as u32
    }

    fn file_count(&self) -> u32 {
        (self.files.len() / FILE_SIZE) as u32
    }
}

fn push(out: &mut Vec<u8>, fields: &[u32]) {
    out.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
}

fn patch(out: &mut [u8], at: usize, field: u32) {
    if let Some(bytes) = out.get_mut(at..at + 4) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
}

//! The parts of an image while it is being made.

use std::collections::HashMap;

use grove_engine::ObjectId;

use super::format::{
    CHILD_SIZE, DIR_SIZE, FILE_SIZE, FLAG_XATTRS, Header, MAX_ENTRIES, MODE_XATTRS, NO_SET,
    PAYLOAD_SIZE, SET_SIZE,
};

/// In the place of a dirmeta in the sets of files.
pub(super) const NO_META: ObjectId = ObjectId::from_bytes([0; ObjectId::LEN]);

/// Rows of directories, files and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) flags: u32,
    dirs: Vec<u8>,
    children: Vec<u8>,
    files: Vec<u8>,
    sets: Vec<u8>,
    payloads: Vec<(u64, u32)>,
    trees: Vec<u8>,
    dir_names: Vec<u8>,
    file_names: Vec<u8>,
    known_sets: HashMap<[u8; SET_SIZE], u32>,
}

/// How much there was at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark([usize; 7]);

impl Rows {
    pub(super) fn dirs(&self) -> u32 {
        (self.dirs.len() / DIR_SIZE) as u32
    }

    pub(super) fn files(&self) -> u32 {
        (self.files.len() / FILE_SIZE) as u32
    }

    pub(super) fn children(&self) -> u32 {
        (self.children.len() / CHILD_SIZE) as u32
    }

    /// Whether numbers and offsets have room for this many more directories and files, whose names
    /// are not longer than a dirtree, or another image, can be.
    pub(super) fn has_room(&self, dirs: usize, files: usize) -> bool {
        let max = MAX_ENTRIES as usize;
        let names = self.dir_names.len().max(self.file_names.len());
        let dirs = dirs + (self.dirs() as usize).max(self.children() as usize + 1);
        dirs <= max && files + self.files() as usize <= max && names <= (u32::MAX / 2) as usize
    }

    /// Adds a directory. Its files and subdirectories are those added next.
    pub(super) fn add_dir(&mut self, [parent, set]: [u32; 2], name: &str, tree: &ObjectId) -> u32 {
        let index = self.dirs();
        let name_at = self.dir_names.len() as u32;
        let row = [parent, set, name_at, self.files(), self.children(), 0];
        push(&mut self.dirs, &row);
        self.dir_names.extend_from_slice(name.as_bytes());
        self.trees.extend_from_slice(tree.as_bytes());
        index
    }

    /// Says how many directories there are from one down, itself included.
    pub(super) fn set_below(&mut self, dir: u32, below: u32) {
        patch(&mut self.dirs, dir as usize * DIR_SIZE + 20, below);
    }

    /// Makes room for subdirectories that are not known yet.
    pub(super) fn reserve_children(&mut self, count: usize) {
        let len = self.children.len() + count * CHILD_SIZE;
        self.children.resize(len, 0);
    }

    pub(super) fn set_child(&mut self, row: usize, dir: u32) {
        patch(&mut self.children, row * CHILD_SIZE, dir);
    }

    pub(super) fn add_child(&mut self, dir: u32) {
        push(&mut self.children, &[dir]);
    }

    /// Adds a file without attributes.
    pub(super) fn add_file(&mut self, number: u64, name: &str) -> u32 {
        let index = self.files();
        self.files.extend_from_slice(&number.to_le_bytes());
        let name_at = self.file_names.len() as u32;
        push(&mut self.files, &[0, 0, NO_SET, name_at]);
        self.file_names.extend_from_slice(name.as_bytes());
        index
    }

    /// Gives a file its attributes.
    pub(super) fn complete(&mut self, file: u32, size: u64, set: u32, payload: Option<u64>) {
        let row = file as usize * FILE_SIZE;
        patch(&mut self.files, row + 8, size as u32);
        patch(&mut self.files, row + 12, (size >> 32) as u32);
        patch(&mut self.files, row + 16, set);
        self.payloads
            .extend(payload.map(|beginning| (beginning, file)));
    }

    /// The set with these attributes.
    pub(super) fn set(&mut self, owned: [u32; 3], xattrs: bool, meta: &ObjectId) -> u32 {
        let [mode, uid, gid] = owned;
        let mark = if xattrs { MODE_XATTRS } else { 0 };
        if xattrs {
            self.flags |= FLAG_XATTRS;
        }
        let mut row = Vec::with_capacity(SET_SIZE);
        push(&mut row, &[mode | mark, uid, gid]);
        row.extend_from_slice(meta.as_bytes());
        let mut key = [0; SET_SIZE];
        key.copy_from_slice(&row);
        let next = self.known_sets.len() as u32;
        *self.known_sets.entry(key).or_insert_with(|| {
            self.sets.extend_from_slice(&row);
            next
        })
    }

    pub(super) fn mark(&self) -> Mark {
        Mark([
            self.dirs.len(),
            self.children.len(),
            self.files.len(),
            self.trees.len(),
            self.dir_names.len(),
            self.file_names.len(),
            self.payloads.len(),
        ])
    }

    /// Takes back everything but sets that was added since.
    pub(super) fn truncate(&mut self, Mark(sizes): Mark) {
        let [
            dirs,
            children,
            files,
            trees,
            dir_names,
            file_names,
            payloads,
        ] = sizes;
        self.dirs.truncate(dirs);
        self.children.truncate(children);
        self.files.truncate(files);
        self.trees.truncate(trees);
        self.dir_names.truncate(dir_names);
        self.file_names.truncate(file_names);
        self.payloads.truncate(payloads);
    }

    /// The head, and the parts that follow it.
    pub(super) fn finish(mut self, commit: ObjectId) -> (Header, [Vec<u8>; 8]) {
        let header = Header {
            commit,
            flags: self.flags,
            dirs: self.dirs(),
            files: self.files(),
            sets: self.known_sets.len() as u32,
            payloads: self.payloads.len() as u32,
            dir_names: self.dir_names.len() as u32,
            file_names: self.file_names.len() as u32,
        };
        let last = [0, 0, header.dir_names, header.files, self.children(), 0];
        push(&mut self.dirs, &last);
        push(&mut self.files, &[0, 0, 0, 0, 0, header.file_names]);
        self.payloads.sort_unstable();
        let mut payloads = Vec::with_capacity(self.payloads.len() * PAYLOAD_SIZE);
        for (beginning, file) in &self.payloads {
            payloads.extend_from_slice(&beginning.to_le_bytes());
            push(&mut payloads, &[*file]);
        }
        let parts = [
            self.dirs,
            self.children,
            self.files,
            self.sets,
            payloads,
            self.trees,
            self.dir_names,
            self.file_names,
        ];
        (header, parts)
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

//! Layout of an image. Normative: docs/format.md, "Images of commits".

use std::ops::Range;

use grove_engine::ObjectId;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::BadImage;

pub(super) const MAGIC: [u8; 8] = *b"GROVEIM1";
/// Size of the fixed part of the head.
pub(super) const HEADER_SIZE: usize = 80;
/// Everything after the head has a checksum for each block of this size.
pub(super) const BLOCK_SIZE: usize = 16 << 10;
/// Size of a directory's row: parent, set, name, first file, first child, directories below.
pub(super) const DIR_SIZE: usize = 24;
/// Size of a child's row: a directory.
pub(super) const CHILD_SIZE: usize = 4;
/// Size of a file's row: number, size, set, name.
pub(super) const FILE_SIZE: usize = 24;
/// Size of an attribute set: mode, owner, group, dirmeta.
pub(super) const SET_SIZE: usize = 12 + ObjectId::LEN;
/// Size of a payload's row: first bytes of its name, file.
pub(super) const PAYLOAD_SIZE: usize = 12;
/// No more directories, and no more files, than this: a listing that names itself many times over
/// makes a small commit look endless.
pub(super) const MAX_ENTRIES: u32 = 1 << 26;

/// Some file or directory has extended attributes.
pub(super) const FLAG_XATTRS: u32 = 1;
/// Parts of the tree could not be read. Never in a file.
pub(super) const FLAG_INCOMPLETE: u32 = 2;
/// The set of a file whose object could not be read. Never in a file.
pub(super) const NO_SET: u32 = u32::MAX;

/// The head of an image, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) commit: ObjectId,
    pub(super) flags: u32,
    pub(super) dirs: u32,
    pub(super) files: u32,
    pub(super) sets: u32,
    pub(super) payloads: u32,
    /// Bytes of the names of directories.
    pub(super) dir_names: u32,
    /// Bytes of the names of files.
    pub(super) file_names: u32,
}

/// Where the parts of an image lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) sums: Range<usize>,
    pub(super) dirs: Range<usize>,
    pub(super) children: Range<usize>,
    pub(super) files: Range<usize>,
    pub(super) sets: Range<usize>,
    pub(super) payloads: Range<usize>,
    pub(super) trees: Range<usize>,
    pub(super) dir_names: Range<usize>,
    pub(super) file_names: Range<usize>,
}

impl Layout {
    /// Size of the whole image.
    pub(super) fn len(&self) -> usize {
        self.file_names.end
    }

    /// The first block's first byte.
    pub(super) fn body(&self) -> usize {
        self.sums.end
    }
}

impl Header {
    /// Where everything lies; `None` if the counts are out of range.
    pub(super) fn layout(&self) -> Option<Layout> {
        let (dirs, files) = (self.dirs as usize, self.files as usize);
        if self.dirs == 0 || self.dirs.max(self.files) > MAX_ENTRIES || self.payloads > self.files {
            return None;
        }
        // Directories and files are followed by one row that says where the last one ends.
        let sizes = [
            (dirs + 1).checked_mul(DIR_SIZE)?,
            (dirs - 1).checked_mul(CHILD_SIZE)?,
            (files + 1).checked_mul(FILE_SIZE)?,
            (self.sets as usize).checked_mul(SET_SIZE)?,
            (self.payloads as usize).checked_mul(PAYLOAD_SIZE)?,
            dirs.checked_mul(ObjectId::LEN)?,
            self.dir_names as usize,
            self.file_names as usize,
        ];
        let body = sizes
            .iter()
            .try_fold(0usize, |sum, n| sum.checked_add(*n))?;
        let sums = body.div_ceil(BLOCK_SIZE).checked_mul(8)?;
        let mut at = HEADER_SIZE.checked_add(sums)?;
        at.checked_add(body)?;
        let sums = HEADER_SIZE..at;
        let mut next = |size: usize| {
            let start = at;
            at += size;
            start..at
        };
        let [
            dirs,
            children,
            files,
            sets,
            payloads,
            trees,
            dir_names,
            file_names,
        ] = sizes.map(&mut next);
        Some(Layout {
            sums,
            dirs,
            children,
            files,
            sets,
            payloads,
            trees,
            dir_names,
            file_names,
        })
    }

    /// The head with the checksums of the blocks.
    pub(super) fn encode(&self, sums: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_SIZE + sums.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(self.commit.as_bytes());
        let counts = [
            self.flags,
            self.dirs,
            self.files,
            self.sets,
            self.payloads,
            self.dir_names,
            self.file_names,
            0,
        ];
        out.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        out.extend_from_slice(sums);
        let sum = out.get(16..).map_or(0, xxh3_64);
        if let Some(field) = out.get_mut(8..16) {
            field.copy_from_slice(&sum.to_le_bytes());
        }
        out
    }

    /// Decodes and checks the head of an image of `len` bytes; of the rest nothing is looked at.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, Layout), BadImage> {
        let fixed = bytes.get(..HEADER_SIZE).ok_or(BadImage("too short"))?;
        if !fixed.starts_with(&MAGIC) {
            return Err(BadImage("not an image"));
        }
        let commit = fixed.get(16..48).and_then(ObjectId::from_slice);
        let count = |n: usize| le32(fixed, 48 + 4 * n);
        let header = Self {
            commit: commit.ok_or(BadImage("too short"))?,
            flags: count(0)?,
            dirs: count(1)?,
            files: count(2)?,
            sets: count(3)?,
            payloads: count(4)?,
            dir_names: count(5)?,
            file_names: count(6)?,
        };
        let layout = header.layout().ok_or(BadImage("counts out of range"))?;
        if layout.len() != bytes.len() {
            return Err(BadImage("size differs from the head"));
        }
        let summed = bytes.get(16..layout.body()).unwrap_or_default();
        if xxh3_64(summed) != le64(fixed, 8)? {
            return Err(BadImage("checksum mismatch in the head"));
        }
        Ok((header, layout))
    }
}

/// The checksums of the blocks of a body that comes in pieces.
#[derive(Default)]
pub(super) struct BlockSums {
    sums: Vec<u8>,
    block: Box<Xxh3>,
    filled: usize,
}

impl BlockSums {
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_SIZE {
                self.end_block();
            }
            bytes = later;
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.end_block();
        }
        self.sums
    }

    fn end_block(&mut self) {
        self.sums
            .extend_from_slice(&self.block.digest().to_le_bytes());
        self.block.reset();
        self.filled = 0;
    }
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Result<u32, BadImage> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field
        .map(|field| u32::from_le_bytes(*field))
        .ok_or(BadImage("too short"))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> Result<u64, BadImage> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field
        .map(|field| u64::from_le_bytes(*field))
        .ok_or(BadImage("too short"))
}

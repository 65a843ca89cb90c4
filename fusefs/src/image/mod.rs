//! The image of a commit: its whole tree in one flat file that is used in place.
//!
//! An image is a cache: made from the objects, under `cache/images` in the repository, and made anew
//! when it is missing or damaged. Opening it looks at its head alone, whatever the size of the
//! commit; the blocks behind are checked when they are first touched. Every number that is read from
//! it is checked where it is used, so a wrong image is an error and nothing worse.
//!
//! This module knows what an image holds (`Image`), makes it (`build`), and keeps those that are
//! open (`set`). What inode numbers are given to its entries is the view's business.

mod build;
mod format;
mod reuse;
mod rows;
mod set;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use grove_engine::fs::mmap::{Map, map_immutable};
use grove_engine::{ObjectId, PayloadId};
use xxhash_rust::xxh3::xxh3_64;

pub use build::prepare;
pub(crate) use build::twin;
use format::{
    BLOCK_SIZE, CHILD_SIZE, DIR_SIZE, FILE_SIZE, FLAG_INCOMPLETE, FLAG_XATTRS, Header, Layout,
    MODE_XATTRS, NO_SET, PAYLOAD_SIZE, SET_SIZE, le32, le64,
};
pub(crate) use set::Images;

/// What is wrong with an image: it is to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadImage(pub(crate) &'static str);

type Result<T> = std::result::Result<T, BadImage>;

/// The tree of one commit.
#[derive(Debug)]
pub(crate) struct Image {
    bytes: Bytes,
    header: Header,
    layout: Layout,
    /// A bit for each block that has been found sound.
    sound: Box<[AtomicU64]>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Map),
    Memory(Vec<u8>),
}

/// A directory of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dir {
    /// The directory it is in; the root's is its own.
    pub(crate) parent: u32,
    /// Its set of attributes.
    pub(crate) set: u32,
    /// Its files, in the order of their names.
    pub(crate) files: Range<u32>,
    /// Where its subdirectories are named, in the order of their names.
    children: Range<u32>,
    /// Number of directories from here down, itself included; 0 if its listing cannot be read.
    pub(crate) below: u32,
    name: Range<usize>,
}

impl Dir {
    /// Whether its listing could be read.
    pub(crate) fn is_known(&self) -> bool {
        self.below > 0
    }

    /// Number of its subdirectories.
    pub(crate) fn child_count(&self) -> u32 {
        self.children.end - self.children.start
    }
}

/// A regular file or symbolic link of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRow {
    /// The number of its object.
    pub(crate) number: u64,
    /// Its size; of a link, the length of its target.
    pub(crate) size: u64,
    /// Its set of attributes; none if its object cannot be read.
    pub(crate) set: Option<u32>,
    name: Range<usize>,
}

/// Attributes that entries share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    /// Type and permissions; 0 for the set of a directory whose dirmeta cannot be read.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Of a directory: its dirmeta.
    pub(crate) meta: ObjectId,
    /// Whether the entries have extended attributes.
    pub(crate) xattrs: bool,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    /// A file, by index.
    File(u32),
    /// A directory, by index.
    Dir(u32),
}

impl Image {
    /// Opens the image of a commit; `None` if there is none that can be used.
    pub(crate) fn open(path: &Path, commit: &ObjectId) -> Option<Self> {
        let map = map_immutable(&File::open(path).ok()?).ok()?;
        let image = Self::parse(Bytes::Mapped(map)).ok()?;
        let complete = image.header.flags & !FLAG_XATTRS == 0;
        (image.header.commit == *commit && complete).then_some(image)
    }

    /// An image that is in no file.
    pub(crate) fn in_memory(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(Bytes::Memory(bytes))
    }

    fn parse(bytes: Bytes) -> Result<Self> {
        let all: &[u8] = match &bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        };
        let (header, layout) = Header::decode(all)?;
        let blocks = (layout.sums.end - layout.sums.start) / 8;
        let sound = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0));
        let sound = sound.collect();
        Ok(Self {
            bytes,
            header,
            layout,
            sound,
        })
    }

    /// Whether it holds all of the commit: if not, places in it change when the damage is repaired.
    pub(crate) fn is_complete(&self) -> bool {
        self.header.flags & FLAG_INCOMPLETE == 0
    }

    /// Whether some entry has extended attributes.
    pub(crate) fn has_xattrs(&self) -> bool {
        self.header.flags & FLAG_XATTRS != 0
    }

    /// Number of its directories.
    pub(crate) fn dirs(&self) -> u32 {
        self.header.dirs
    }

    /// Number of its files, each path counted.
    pub(crate) fn files(&self) -> u32 {
        self.header.files
    }

    /// Bytes that it takes beside the page cache.
    pub(crate) fn weight(&self) -> usize {
        let sound = self.sound.len() * 8;
        match &self.bytes {
            Bytes::Mapped(_) => sound,
            Bytes::Memory(bytes) => sound + bytes.capacity(),
        }
    }

    /// A directory.
    pub(crate) fn dir(&self, index: u32) -> Result<Dir> {
        let row = self.row(&self.layout.dirs, DIR_SIZE, index, 2)?;
        let span = |at: usize, end: u32| {
            let range = le32(row, at)?..le32(row, DIR_SIZE + at)?;
            let fits = index < self.header.dirs && range.start <= range.end && range.end <= end;
            fits.then_some(range).ok_or(BadImage("malformed directory"))
        };
        let name = span(8, self.header.dir_names)?;
        Ok(Dir {
            parent: le32(row, 0)?,
            set: le32(row, 4)?,
            files: span(12, self.header.files)?,
            children: span(16, self.header.dirs - 1)?,
            below: le32(row, 20)?,
            name: name.start as usize..name.end as usize,
        })
    }

    /// A file.
    pub(crate) fn file(&self, index: u32) -> Result<FileRow> {
        let row = self.row(&self.layout.files, FILE_SIZE, index, 2)?;
        let name = le32(row, 20)? as usize..le32(row, FILE_SIZE + 20)? as usize;
        if name.start > name.end || index >= self.header.files {
            return Err(BadImage("malformed file"));
        }
        Ok(FileRow {
            number: le64(row, 0)?,
            size: le64(row, 8)?,
            set: Some(le32(row, 16)?).filter(|set| *set != NO_SET),
            name,
        })
    }

    /// A set of attributes.
    pub(crate) fn set(&self, index: u32) -> Result<Set> {
        let row = self.row(&self.layout.sets, SET_SIZE, index, 1)?;
        let meta = row.get(12..).and_then(ObjectId::from_slice);
        let mode = le32(row, 0)?;
        Ok(Set {
            mode: mode & !MODE_XATTRS,
            xattrs: mode & MODE_XATTRS != 0,
            uid: le32(row, 4)?,
            gid: le32(row, 8)?,
            meta: meta.ok_or(BadImage("too short"))?,
        })
    }

    /// The dirtree of a directory.
    pub(crate) fn tree(&self, dir: u32) -> Result<ObjectId> {
        let row = self.row(&self.layout.trees, ObjectId::LEN, dir, 1)?;
        ObjectId::from_slice(row).ok_or(BadImage("too short"))
    }

    /// Name of a directory; the root has none.
    pub(crate) fn dir_name(&self, dir: &Dir) -> Result<&str> {
        self.text(&self.layout.dir_names, &dir.name)
    }

    /// Name of a file.
    pub(crate) fn file_name(&self, file: &FileRow) -> Result<&str> {
        self.text(&self.layout.file_names, &file.name)
    }

    /// A subdirectory, by its place among the others.
    pub(crate) fn child(&self, dir: &Dir, nth: u32) -> Result<u32> {
        let at = dir.children.start.saturating_add(nth);
        if at >= dir.children.end {
            return Err(BadImage("no such subdirectory"));
        }
        let child = le32(self.row(&self.layout.children, CHILD_SIZE, at, 1)?, 0)?;
        if child == 0 || child >= self.header.dirs {
            return Err(BadImage("malformed subdirectory"));
        }
        Ok(child)
    }

    /// Finds a name in a directory.
    pub(crate) fn lookup(&self, dir: &Dir, name: &str) -> Result<Option<Child>> {
        let file = search(dir.files.clone(), name, |at| {
            self.file_name(&self.file(at)?)
        })?;
        if let Some(file) = file {
            return Ok(Some(Child::File(file)));
        }
        let nth = search(0..dir.child_count(), name, |nth| {
            self.dir_name(&self.dir(self.child(dir, nth)?)?)
        })?;
        nth.map(|nth| self.child(dir, nth).map(Child::Dir))
            .transpose()
    }

    /// Finds a directory by its path, which is empty for the root.
    pub(crate) fn dir_at(&self, path: &str) -> Result<Option<u32>> {
        let mut index = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.lookup(&self.dir(index)?, name)? {
                Some(Child::Dir(child)) => index = child,
                _ => return Ok(None),
            }
        }
        Ok(Some(index))
    }

    /// The path of a directory below the commit's root.
    pub(crate) fn dir_path(&self, mut index: u32) -> Result<String> {
        let mut names = Vec::new();
        while index != 0 {
            let dir = self.dir(index)?;
            names.push(self.dir_name(&dir)?);
            // Directories come before those below them, so this ends.
            if dir.parent >= index {
                return Err(BadImage("a directory is inside itself"));
            }
            index = dir.parent;
        }
        names.reverse();
        Ok(names.join("/"))
    }

    /// The directory that a file is in.
    pub(crate) fn dir_of_file(&self, file: u32) -> Result<u32> {
        let (mut low, mut high) = (0, self.header.dirs);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.dir(middle)?.files.start <= file {
                low = middle;
            } else {
                high = middle;
            }
        }
        // Directories without files begin where the next one does.
        match self.dir(low)?.files.contains(&file) {
            true => Ok(low),
            false => Err(BadImage("a file is in no directory")),
        }
    }

    /// The first file that has a number. Looks at all of them.
    pub(crate) fn find(&self, number: u64) -> Result<Option<u32>> {
        for index in 0..self.header.files {
            if self.file(index)?.number == number {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Calls for each file whose payload's name begins as this one does.
    pub(crate) fn files_of(&self, payload: &PayloadId, mut call: impl FnMut(u32)) -> Result<()> {
        let wanted = beginning(payload);
        let row = |n: u32| self.row(&self.layout.payloads, PAYLOAD_SIZE, n, 1);
        let (mut low, mut high) = (0, self.header.payloads);
        while low < high {
            let middle = low + (high - low) / 2;
            if le64(row(middle)?, 0)? < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        while low < self.header.payloads {
            let row = row(low)?;
            if le64(row, 0)? != wanted {
                break;
            }
            call(le32(row, 8)?);
            low += 1;
        }
        Ok(())
    }

    /// Calls with the beginning of each payload's name, and the file that has it.
    pub(crate) fn for_each_payload(&self, mut call: impl FnMut(u64, u32)) -> Result<()> {
        for n in 0..self.header.payloads {
            let row = self.row(&self.layout.payloads, PAYLOAD_SIZE, n, 1)?;
            call(le64(row, 0)?, le32(row, 8)?);
        }
        Ok(())
    }

    /// Rows of a table.
    fn row(&self, table: &Range<usize>, size: usize, index: u32, rows: usize) -> Result<&[u8]> {
        let start = index as usize * size;
        self.within(table, &(start..start + rows * size))
    }

    fn text(&self, heap: &Range<usize>, at: &Range<usize>) -> Result<&str> {
        let bytes = self.within(heap, at)?;
        std::str::from_utf8(bytes).map_err(|_| BadImage("a name is not UTF-8"))
    }

    /// Bytes of a part of the image, once the blocks that hold them have been checked.
    fn within(&self, part: &Range<usize>, at: &Range<usize>) -> Result<&[u8]> {
        let outside = BadImage("leads outside");
        let start = part.start.checked_add(at.start).ok_or(outside)?;
        let end = part.start.checked_add(at.end).ok_or(outside)?;
        if start > end || end > part.end {
            return Err(outside);
        }
        let all = self.all();
        let body = self.layout.body();
        if start < end {
            for block in (start - body) / BLOCK_SIZE..=(end - 1 - body) / BLOCK_SIZE {
                self.check(block, all)?;
            }
        }
        all.get(start..end).ok_or(outside)
    }

    fn check(&self, block: usize, all: &[u8]) -> Result<()> {
        let bit = 1 << (block % 64);
        let word = self
            .sound
            .get(block / 64)
            .ok_or(BadImage("no such block"))?;
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let start = self.layout.body() + block * BLOCK_SIZE;
        let end = all.len().min(start + BLOCK_SIZE);
        let bytes = all.get(start..end).ok_or(BadImage("no such block"))?;
        if xxh3_64(bytes) != le64(all, self.layout.sums.start + 8 * block)? {
            return Err(BadImage("checksum mismatch"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    fn all(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

/// The first bytes of a payload's name.
fn beginning(payload: &PayloadId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *payload.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Finds a name among sorted ones.
fn search<'a>(
    range: Range<u32>,
    wanted: &str,
    name: impl Fn(u32) -> Result<&'a str>,
) -> Result<Option<u32>> {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start + (end - start) / 2;
        match name(middle)?.cmp(wanted) {
            std::cmp::Ordering::Equal => return Ok(Some(middle)),
            std::cmp::Ordering::Less => start = middle + 1,
            std::cmp::Ordering::Greater => end = middle,
        }
    }
    Ok(None)
}

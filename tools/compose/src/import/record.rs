//! What is remembered of an imported package: its facts and where its objects are.
//!
//! Owns the record's encoding. The store guards its bytes with checksums; the decoder still
//! trusts nothing, because keys of the store outlive programs.
//!
//! # Layout
//!
//! All numbers are unsigned LEB128 of at most ten bytes, without redundant zero groups (`uint`).
//! A `text` is a `uint` count of bytes and that many bytes of UTF-8. One sequence, no padding:
//!
//! | field | type | rule |
//! |---|---|---|
//! | version | `uint` | 1 |
//! | name | `text` | |
//! | epoch | `uint` | 0 = none, else the epoch plus one |
//! | version, release, arch | `text` x 3 | |
//! | installed size | `uint` | bytes, as the package says |
//! | build time | `uint` | seconds since 1970, 0 = unknown |
//! | ghosts, special, dropped, unowned | `uint` x 4 | entries left out or changed, see [`Skipped`] |
//! | directory kinds | `uint` | count D |
//! | ... each | `uint` x 3 | owner, group, mode without type bits; D distinct triples |
//! | entries | `uint` | count N |
//! | ... each: shared | `uint` | leading bytes of the path that equal the previous entry's |
//! | ... each: rest | `text` | the remaining bytes of the path; cuts may split a character |
//! | ... each: kind | `uint` | 0 = file, else directory kind number plus one |
//!
//! The file objects stand beside these bytes, in the store's own part of an import: as many as
//! there are entries of kind 0, in the same order.
//!
//! Paths are relative, `/`-separated, without empty, `.` or `..` components, strictly ascending
//! bytewise; the root directory is the empty path. `shared` is as long as possible. So there is
//! exactly one encoding of a record.

use grove_engine::ObjectId;

use crate::package::Facts;

const VERSION: u64 = 1;
const MODE_BITS: u32 = 0o7777;

/// The largest number of bytes that an entry's path may have.
const MAX_PATH: usize = 4096 + 256;

/// A record that does not follow the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("import record: {what} at byte {offset}")]
pub struct RecordError {
    what: &'static str,
    offset: usize,
}

/// Entries of a package that are not in the tree, or not as the package wants them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Entries that the package only announces.
    pub ghosts: u64,
    /// Devices, FIFOs, sockets, and names that are not UTF-8.
    pub special: u64,
    /// Entries that the path rules leave out, or turn into tmpfiles.d lines.
    pub dropped: u64,
    /// Entries given to root because nobody knows their owner.
    pub unowned: u64,
}

/// Metadata of a package's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirKind {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, without type bits.
    pub mode: u32,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Dir(DirKind),
    /// A regular file or symbolic link: the file object.
    File(ObjectId),
}

/// An imported package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What identifies the package.
    pub facts: Facts,
    /// What was left out.
    pub skipped: Skipped,
    /// Paths in bytewise order, without repetitions.
    pub entries: Vec<(String, Item)>,
}

impl Record {
    /// The file objects, in the order of the entries.
    pub fn files(&self) -> impl Iterator<Item = ObjectId> {
        self.entries.iter().filter_map(|(_, item)| match item {
            Item::File(id) => Some(*id),
            Item::Dir(_) => None,
        })
    }

    /// The paths of files, in order.
    pub fn file_paths(&self) -> impl Iterator<Item = &str> {
        let files = self.entries.iter();
        files.filter_map(|(path, item)| matches!(item, Item::File(_)).then_some(path.as_str()))
    }

    /// The record's bytes, without the file objects. The entries must be in order.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 20);
        uint(&mut out, VERSION);
        let facts = &self.facts;
        text(&mut out, facts.name.as_bytes());
        uint(
            &mut out,
            facts.epoch.map_or(0, |epoch| u64::from(epoch) + 1),
        );
        for field in [&facts.version, &facts.release, &facts.arch] {
            text(&mut out, field.as_bytes());
        }
        uint(&mut out, facts.installed_size);
        uint(&mut out, facts.build_time);
        let Skipped {
            ghosts,
            special,
            dropped,
            unowned,
        } = self.skipped;
        [ghosts, special, dropped, unowned]
            .iter()
            .for_each(|count| uint(&mut out, *count));
        let kinds = self.dir_kinds();
        uint(&mut out, kinds.len() as u64);
        for kind in &kinds {
            [kind.uid, kind.gid, kind.mode]
                .iter()
                .for_each(|n| uint(&mut out, u64::from(*n)));
        }
        uint(&mut out, self.entries.len() as u64);
        let mut previous: &[u8] = b"";
        for (path, item) in &self.entries {
            let shared = common(previous, path.as_bytes());
            uint(&mut out, shared as u64);
            text(&mut out, path.as_bytes().get(shared..).unwrap_or_default());
            match item {
                Item::File(_) => uint(&mut out, 0),
                Item::Dir(kind) => {
                    let at = kinds
                        .binary_search(kind)
                        .expect("because it was collected above");
                    uint(&mut out, at as u64 + 1);
                }
            }
            previous = path.as_bytes();
        }
        out
    }

    fn dir_kinds(&self) -> Vec<DirKind> {
        let mut kinds: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(_, item)| match item {
                Item::Dir(kind) => Some(*kind),
                Item::File(_) => None,
            })
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Reads a record; `files` are the file objects beside it.
    pub fn decode(bytes: &[u8], files: &[ObjectId]) -> Result<Self, RecordError> {
        let mut input = Input { bytes, offset: 0 };
        if input.uint()? != VERSION {
            return Err(input.error("unknown version"));
        }
        let name = input.string()?;
        let epoch = input.uint()?.checked_sub(1).map(u32::try_from).transpose();
        let epoch = epoch.map_err(|_| input.error("epoch out of range"))?;
        let (version, release, arch) = (input.string()?, input.string()?, input.string()?);
        let (installed_size, build_time) = (input.uint()?, input.uint()?);
        let facts = Facts {
            name,
            epoch,
            version,
            release,
            arch,
            installed_size,
            build_time,
        };
        let skipped = Skipped {
            ghosts: input.uint()?,
            special: input.uint()?,
            dropped: input.uint()?,
            unowned: input.uint()?,
        };
        let kinds = input.dir_kinds()?;
        let entries = input.entries(&kinds, files)?;
        if input.offset != bytes.len() {
            return Err(input.error("trailing bytes"));
        }
        let record = Self {
            facts,
            skipped,
            entries,
        };
        if record.dir_kinds() != kinds {
            return Err(input.error("directory kinds that are unused or out of order"));
        }
        Ok(record)
    }
}

fn uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    uint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

struct Input<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Input<'a> {
    fn error(&self, what: &'static str) -> RecordError {
        RecordError {
            what,
            offset: self.offset,
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let end = self.offset.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.offset..end));
        let taken = taken.ok_or_else(|| self.error("cut short"))?;
        self.offset += count;
        Ok(taken)
    }

    fn uint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else {
                return Err(self.error("cut short"));
            };
            let group = u64::from(byte & 0x7f);
            let shifted = group << shift;
            if shifted >> shift != group || (byte == 0 && shift > 0) {
                return Err(self.error("a number that is too long"));
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number that is too long"))
    }

    fn uint32(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.uint()?).map_err(|_| self.error("a number out of range"))
    }

    fn text(&mut self) -> Result<&'a [u8], RecordError> {
        let count = self.uint()?;
        self.take(usize::try_from(count).map_err(|_| self.error("cut short"))?)
    }

    fn string(&mut self) -> Result<String, RecordError> {
        let text = self.text()?;
        let text = std::str::from_utf8(text).map_err(|_| self.error("a text that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A count of things that have at least `size` bytes each.
    fn count(&mut self, size: usize) -> Result<usize, RecordError> {
        let count = usize::try_from(self.uint()?).unwrap_or(usize::MAX);
        if count > (self.bytes.len() - self.offset) / size {
            return Err(self.error("more entries than bytes"));
        }
        Ok(count)
    }

    fn dir_kinds(&mut self) -> Result<Vec<DirKind>, RecordError> {
        let count = self.count(3)?;
        let mut kinds = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = DirKind {
                uid: self.uint32()?,
                gid: self.uint32()?,
                mode: self.uint32()?,
            };
            if kind.mode & !MODE_BITS != 0 {
                return Err(self.error("a mode with type bits"));
            }
            kinds.push(kind);
        }
        Ok(kinds)
    }

    fn entries(
        &mut self,
        kinds: &[DirKind],
        files: &[ObjectId],
    ) -> Result<Vec<(String, Item)>, RecordError> {
        let mut files = files.iter();
        let count = self.count(3)?;
        let mut entries = Vec::with_capacity(count);
        let mut path = Vec::new();
        for at in 0..count {
            let shared = usize::try_from(self.uint()?).unwrap_or(usize::MAX);
            let rest = self.text()?;
            let next = path
                .get(shared..)
                .ok_or_else(|| self.error("a path that shares too much"))?;
            // With as much as possible shared, the first byte of the rest decides the order.
            let ascends = match (next.first(), rest.first()) {
                (None, Some(_)) => true,
                (Some(old), Some(new)) => old < new,
                (_, None) => at == 0,
            };
            if !ascends || shared + rest.len() > MAX_PATH {
                return Err(self.error("paths out of order or too long"));
            }
            path.truncate(shared);
            path.extend_from_slice(rest);
            let text = std::str::from_utf8(&path).map_err(|_| self.error("a path not in UTF-8"))?;
            check_path(text).map_err(|what| self.error(what))?;
            let text = text.to_owned();
            let item = match usize::try_from(self.uint()?)
                .unwrap_or(usize::MAX)
                .checked_sub(1)
            {
                None if text.is_empty() => return Err(self.error("a root that is a file")),
                None => {
                    let id = files.next().copied();
                    Item::File(id.ok_or_else(|| self.error("fewer file objects than files"))?)
                }
                Some(kind) => {
                    let kind = kinds.get(kind).copied();
                    Item::Dir(kind.ok_or_else(|| self.error("an unknown directory kind"))?)
                }
            };
            entries.push((text, item));
        }
        if files.next().is_some() {
            return Err(self.error("more file objects than files"));
        }
        Ok(entries)
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let bad = |component: &str| matches!(component, "" | "." | "..") || component.contains('\0');
    if !path.is_empty() && path.split('/').any(bad) {
        return Err("a path that is not plain");
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Sizes of file objects in an archive repository, remembered in the repository's cache: they take a
//! compression of the whole content to find out. Layout: docs/format.md, "Sizes of archived files".

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::export::{Pieces, sort_by_place};
use super::filez::{Counter, LEVEL, deflate};
use crate::error::{Error, Result};
use crate::fs::replace_cache_file;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::FileObject;
use crate::pack::le64;
use crate::repo::Repository;
use crate::store::lock;

const MAGIC: &[u8; 8] = b"GROVEFZ1";
const HEAD: usize = 24;
const ROW: usize = ObjectId::LEN + 8;
/// Files whose sizes are remembered together.
const GROUP: usize = 4096;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    known: BTreeMap<ObjectId, u64>,
    changed: bool,
}

impl Sizes {
    /// Loads what was remembered; nothing if that cannot be read.
    pub(super) fn load(repo: &Repository) -> Self {
        let bytes = std::fs::read(path(repo)).unwrap_or_default();
        Self {
            known: decode(&bytes).unwrap_or_default(),
            changed: false,
        }
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<u64> {
        self.known.get(id).copied()
    }

    pub(super) fn extend(&mut self, found: Vec<(ObjectId, u64)>) {
        self.changed |= !found.is_empty();
        self.known.extend(found);
    }

    /// Remembers what is known of files that the repository has.
    pub(super) fn store(&mut self, repo: &Repository) -> Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let mut kept = BTreeMap::new();
        for (id, size) in &self.known {
            if repo.contains(ObjectKind::File, id)? {
                kept.insert(*id, *size);
            }
        }
        self.known = kept;
        let bytes = encode(&self.known);
        let path = path(repo);
        replace_cache_file(&path, |file| file.write_all(&bytes))
            .map_err(|source| Error::Io { path, source })
    }

    /// Finds out the sizes of files of which they are not known; remembers them now and then.
    pub(super) fn complete(
        &mut self,
        repo: &Repository,
        files: &[FileObject],
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let unknown = |file: &&FileObject| self.get(&file.id).is_none();
        let mut files: Vec<FileObject> = files.iter().filter(unknown).cloned().collect();
        if files.is_empty() {
            return Ok(());
        }
        sort_by_place(repo, &mut files);
        let total = files.iter().map(|file| file.size).sum();
        monitor.begin(Phase::Compare, Some(total));
        for group in files.chunks(GROUP) {
            let found = Mutex::new(Vec::with_capacity(group.len()));
            let done = group.par_iter().with_max_len(64).try_for_each(|file| {
                if monitor.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let size = size_of(repo, file)?;
                monitor.advance(Phase::Compare, file.size);
                lock(&found).push((file.id, size));
                Ok(())
            });
            self.extend(std::mem::take(&mut *lock(&found)));
            if done.is_err() {
                // A cache that cannot be written is a slower one.
                drop(self.store(repo));
            }
            done?;
        }
        monitor.end(Phase::Compare);
        if let Err(error) = self.store(repo) {
            monitor.warn(&format!("sizes of objects are not remembered: {error}"));
        }
        Ok(())
    }
}

/// The size of an object in an archive repository that an export writes.
fn size_of(repo: &Repository, file: &FileObject) -> Result<u64> {
    let prefix = file.header.archive_prefix(file.size).len() as u64;
    if file.header.is_symlink() {
        return Ok(prefix);
    }
    let mut pieces = Pieces::new(repo, file);
    let size = deflate(|buf| pieces.next(buf), Counter::default());
    let size = size.map_err(|failure| failure.at(repo.path()))?;
    Ok(prefix + size.0)
}

fn path(repo: &Repository) -> PathBuf {
    repo.cache_dir().join(format!("filez-{LEVEL}"))
}

fn encode(known: &BTreeMap<ObjectId, u64>) -> Vec<u8> {
    let mut rows = Vec::with_capacity(known.len() * ROW);
    rows.extend_from_slice(&(known.len() as u64).to_le_bytes());
    for (id, size) in known {
        rows.extend_from_slice(id.as_bytes());
        rows.extend_from_slice(&size.to_le_bytes());
    }
    let sum = xxh3_64(&rows).to_le_bytes();
    [MAGIC.as_slice(), &sum, &rows].concat()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<ObjectId, u64>> {
    let (head, rows) = bytes.split_at_checked(HEAD)?;
    let count = usize::try_from(le64(head, 16)).ok()?;
    let sum = xxh3_64(bytes.get(16..)?);
    let sound = head.starts_with(MAGIC) && le64(head, 8) == sum;
    if !sound || count.checked_mul(ROW) != Some(rows.len()) {
        return None;
    }
    let row = |row: &[u8; ROW]| {
        let (id, size) = row.split_at(ObjectId::LEN);
        Some((ObjectId::from_slice(id)?, le64(size, 0)))
    };
    rows.as_chunks::<ROW>().0.iter().map(row).collect()
}

/// The example in docs/format.md.
#[cfg(test)]
pub(crate) fn example() -> Vec<u8> {
    encode(&[(ObjectId::from_bytes([0xaa; 32]), 42)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_damage_is_noticed() {
        let known: BTreeMap<ObjectId, u64> = (0..9)
            .map(|n: u64| (ObjectId::of(&n.to_le_bytes()), n << 40))
            .collect();
        let bytes = encode(&known);
        assert_eq!(decode(&bytes), Some(known));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {cut}");
        }
    }
}

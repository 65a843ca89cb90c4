//! Which package files are known by their digest, so that they need not be read again.
//!
//! A digest is trusted only while device, inode, size and both times of the file are the same. A
//! file that changed within [`SETTLED`] of being read is never remembered: a second change could
//! leave the same times behind.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grove_engine::fs::replace_cache_file;
use sha2::{Digest, Sha256};

/// Coarser than the clock of any file system in use.
const SETTLED: Duration = Duration::from_secs(2);
const MAGIC: &[u8; 8] = b"GROVERD1";
const SUM_SIZE: usize = 32;
const ROW_SIZE: usize = 5 * 8 + 32;
/// More rows than this are never kept: those of older runs go first.
const MAX_ROWS: usize = 100_000;

/// What identifies a version of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileStamp {
    dev: u64,
    ino: u64,
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i64,
    /// Nanoseconds since 1970; changes with every change of content or metadata.
    ctime: i64,
}

impl FileStamp {
    /// Of a file's status.
    pub fn new(status: &fs::Metadata) -> Self {
        let nanos =
            |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            dev: status.dev(),
            ino: status.ino(),
            size: status.size(),
            mtime: nanos(status.mtime(), status.mtime_nsec()),
            ctime: nanos(status.ctime(), status.ctime_nsec()),
        }
    }

    /// Whether a change after `now` would certainly give other times.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = u64::try_from(self.ctime.max(self.mtime)).unwrap_or(0);
        Duration::from_nanos(last) + SETTLED < now
    }
}

/// Remembers digests of package files.
pub trait DigestCache: Send + Sync + fmt::Debug {
    /// The digest of the file that has this stamp.
    fn get(&self, stamp: &FileStamp) -> Option<[u8; 32]>;
    /// Remembers a digest; `read_at` is when reading the file began.
    fn put(&self, stamp: FileStamp, digest: [u8; 32], read_at: SystemTime);
}

/// Digests in memory, which can be kept in a file that may be lost at any time.
#[derive(Debug, Default)]
pub struct DigestTable {
    path: Option<PathBuf>,
    known: HashMap<FileStamp, [u8; 32]>,
    fresh: Mutex<HashMap<FileStamp, [u8; 32]>>,
}

impl DigestTable {
    /// Loads what a directory's file remembers; nothing where it is missing or damaged.
    pub fn load(cache_dir: &Path) -> Self {
        let path = cache_dir.join("rpm-digests");
        let known = fs::read(&path)
            .ok()
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Self {
            path: Some(path),
            known,
            fresh: Mutex::default(),
        }
    }

    /// Writes the file anew if anything was learnt. A failure costs only time, later.
    pub fn store(&self) -> std::io::Result<()> {
        let fresh = self
            .fresh
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(path) = self.path.as_ref().filter(|_| !fresh.is_empty()) else {
            return Ok(());
        };
        let mut rows: Vec<_> = fresh
            .iter()
            .chain(&self.known)
            .map(|(s, d)| (*s, *d))
            .collect();
        rows.truncate(MAX_ROWS);
        rows.sort_unstable();
        rows.dedup_by_key(|(stamp, _)| *stamp);
        replace_cache_file(path, |file| file.write_all(&encode(&rows)))
    }
}

impl DigestCache for DigestTable {
    fn get(&self, stamp: &FileStamp) -> Option<[u8; 32]> {
        let fresh = self
            .fresh
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        fresh.get(stamp).or_else(|| self.known.get(stamp)).copied()
    }

    fn put(&self, stamp: FileStamp, digest: [u8; 32], read_at: SystemTime) {
        if stamp.is_settled(read_at) {
            let mut fresh = self
                .fresh
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            fresh.insert(stamp, digest);
        }
    }
}

/// Magic, SHA-256 of the rows, rows; numbers are little-endian.
fn encode(rows: &[(FileStamp, [u8; 32])]) -> Vec<u8> {
    let mut body = Vec::with_capacity(rows.len() * ROW_SIZE);
    for (stamp, digest) in rows {
        for field in [stamp.dev, stamp.ino, stamp.size] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        for field in [stamp.mtime, stamp.ctime] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        body.extend_from_slice(digest);
    }
    let sum: [u8; SUM_SIZE] = Sha256::digest(&body).into();
    [MAGIC.as_slice(), &sum, &body].concat()
}

fn decode(bytes: &[u8]) -> Option<HashMap<FileStamp, [u8; 32]>> {
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<SUM_SIZE>()?;
    let (rows, rest) = body.as_chunks::<ROW_SIZE>();
    let found: [u8; SUM_SIZE] = Sha256::digest(body).into();
    if found != *sum || !rest.is_empty() {
        return None;
    }
    rows.iter()
        .map(|row| {
            let (fields, digest) = row.split_last_chunk::<32>()?;
            let field = |at: usize| {
                let bytes = fields.get(at * 8..at * 8 + 8)?;
                Some(u64::from_le_bytes(bytes.try_into().ok()?))
            };
            let stamp = FileStamp {
                dev: field(0)?,
                ino: field(1)?,
                size: field(2)?,
                mtime: field(3)?.cast_signed(),
                ctime: field(4)?.cast_signed(),
            };
            Some((stamp, *digest))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64) -> FileStamp {
        FileStamp {
            dev: 1,
            ino,
            size: 3,
            mtime: -4,
            ctime: 1_000_000_000,
        }
    }

    #[test]
    fn digests_survive_in_the_file_and_damage_forgets_them() {
        let dir = tempfile::tempdir().unwrap();
        let table = DigestTable::load(dir.path());
        table.put(stamp(1), [7; 32], SystemTime::now());
        assert_eq!(table.get(&stamp(1)), Some([7; 32]));
        table.store().unwrap();
        let table = DigestTable::load(dir.path());
        assert_eq!(
            (table.get(&stamp(1)), table.get(&stamp(2))),
            (Some([7; 32]), None)
        );
        let path = dir.path().join("rpm-digests");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn files_changed_just_now_are_not_remembered() {
        let table = DigestTable::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = FileStamp::new(&file.as_file().metadata().unwrap());
        table.put(stamp, [7; 32], SystemTime::now());
        assert_eq!(table.get(&stamp), None);
        table.put(stamp, [7; 32], SystemTime::now() + SETTLED * 2);
        assert_eq!(table.get(&stamp), Some([7; 32]));
    }
}

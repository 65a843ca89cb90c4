//! Which files of a directory are known to be unchanged, so that they need not be read again.
//!
//! A row is trusted only if device, inode, size, modification time and change time are all the
//! same. A file that changed within [`SETTLED_NANOS`] of being read is never remembered: a second
//! change could leave the same times behind. Layout: docs/format.md, "Stat cache".

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::compress::LEVEL;
use crate::fs::replace_cache_file;
use crate::id::ObjectId;
use crate::pack::le64;

const MAGIC: [u8; 8] = *b"GROVEST2";
/// Magic, checksum, number of rows.
const HEAD_SIZE: usize = 24;
/// Of a [`Stamp`].
const FIELDS: usize = 5;
/// Coarser than the clock of any file system in use.
const SETTLED_NANOS: i64 = 2_000_000_000;

/// What identifies a version of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) mtime: i64,
    /// Nanoseconds since 1970; changes with every change of content or metadata.
    pub(super) ctime: i64,
}

impl Stamp {
    fn is_settled(&self, now: i64) -> bool {
        self.ctime.max(self.mtime).saturating_add(SETTLED_NANOS) < now
    }
}

/// The rows of one directory under one set of options.
#[derive(Debug)]
pub(super) struct StatCache {
    path: PathBuf,
    rows: HashMap<Stamp, ObjectId>,
    started: i64,
}

impl StatCache {
    /// Loads what is remembered of a directory; nothing where the file is missing or damaged.
    pub(super) fn load(cache_dir: &Path, source: &Path, fingerprint: &str) -> Self {
        let mut key = source.as_os_str().as_encoded_bytes().to_vec();
        key.extend_from_slice(b"\0");
        key.extend_from_slice(fingerprint.as_bytes());
        let path = cache_dir.join(format!("stat-{:032x}", xxh3_128(&key)));
        let rows = std::fs::read(&path)
            .ok()
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Self {
            path,
            rows,
            started: now(),
        }
    }

    pub(super) fn get(&self, stamp: &Stamp) -> Option<ObjectId> {
        self.rows.get(stamp).copied()
    }

    /// Remembers the files that are settled, and forgets all others. Failure costs only time.
    pub(super) fn store(
        &self,
        files: impl Iterator<Item = (Stamp, ObjectId)>,
    ) -> std::io::Result<()> {
        let mut rows: Vec<_> = files
            .filter(|(stamp, _)| stamp.is_settled(self.started))
            .collect();
        rows.sort_unstable_by_key(|(stamp, _)| (stamp.dev, stamp.ino));
        rows.dedup_by_key(|(stamp, _)| (stamp.dev, stamp.ino));
        if rows.len() == self.rows.len() && rows.iter().all(|(s, id)| self.rows.get(s) == Some(id))
        {
            return Ok(());
        }
        let bytes = encode(&rows)?;
        replace_cache_file(&self.path, |file| file.write_all(&bytes))
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn fields(stamp: &Stamp) -> [u64; FIELDS] {
    let (mtime, ctime) = (stamp.mtime.cast_unsigned(), stamp.ctime.cast_unsigned());
    [stamp.dev, stamp.ino, stamp.size, mtime, ctime]
}

fn encode(rows: &[(Stamp, ObjectId)]) -> std::io::Result<Vec<u8>> {
    let mut columns = Vec::with_capacity(rows.len() * FIELDS * 8);
    for field in 0..FIELDS {
        let mut before = 0;
        for (stamp, _) in rows {
            let value = fields(stamp)[field];
            columns.extend_from_slice(&value.wrapping_sub(before).to_le_bytes());
            before = value;
        }
    }
    let columns = zstd::bulk::compress(&columns, LEVEL)?;
    let mut out = Vec::with_capacity(HEAD_SIZE + rows.len() * ObjectId::LEN + columns.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    for (_, id) in rows {
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(&columns);
    let sum = xxh3_64(&out[16..]);
    out[8..16].copy_from_slice(&sum.to_le_bytes());
    Ok(out)
}

pub(super) fn decode(bytes: &[u8]) -> Option<HashMap<Stamp, ObjectId>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_SIZE>()?;
    if head[..8] != MAGIC || le64(head, 8) != xxh3_64(&bytes[16..]) {
        return None;
    }
    let rows = usize::try_from(le64(head, 16)).ok()?;
    // The names of the rows are there, so what the columns decode to is not much larger.
    let (ids, columns) = rest.split_at_checked(rows.checked_mul(ObjectId::LEN)?)?;
    let size = rows.checked_mul(FIELDS * 8)?;
    let columns = zstd::bulk::decompress(columns, size).ok()?;
    if columns.len() != size {
        return None;
    }
    let mut before = [0u64; FIELDS];
    let mut row = |(row, id): (usize, &[u8; ObjectId::LEN])| {
        for (field, value) in before.iter_mut().enumerate() {
            *value = value.wrapping_add(le64(&columns, 8 * (field * rows + row)));
        }
        let [dev, ino, size, mtime, ctime] = before;
        let stamp = Stamp {
            dev,
            ino,
            size,
            mtime: mtime.cast_signed(),
            ctime: ctime.cast_signed(),
        };
        (stamp, ObjectId::from_bytes(*id))
    };
    let ids = ids.as_chunks::<{ ObjectId::LEN }>().0.iter();
    Some(ids.enumerate().map(&mut row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ctime: i64) -> Stamp {
        Stamp {
            dev: 1,
            ino: 2,
            size: 3,
            mtime: -4,
            ctime,
        }
    }

    #[test]
    fn rows_round_trip_and_damage_is_noticed() {
        let rows = [
            (stamp(5), ObjectId::of(b"a")),
            (Stamp { ino: 9, ..stamp(6) }, ObjectId::of(b"b")),
        ];
        let good = encode(&rows).unwrap();
        assert_eq!(decode(&good).unwrap(), HashMap::from(rows));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_row_takes_little_more_than_the_name_of_its_object() {
        let row = |n: u64| {
            let stamp = Stamp {
                dev: 1,
                ino: 1000 + n,
                size: (n * n) % 100_000,
                mtime: 1_700_000_000_000_000_000,
                ctime: 1_700_000_000_000_000_000 + (n * n * 7919).cast_signed(),
            };
            (stamp, ObjectId::of(&n.to_le_bytes()))
        };
        let rows: Vec<_> = (0..10_000).map(row).collect();
        let bytes = encode(&rows).unwrap();
        assert!(bytes.len() < 42 * rows.len(), "{}", bytes.len());
        assert_eq!(decode(&bytes).unwrap(), HashMap::from_iter(rows));
        assert_eq!(decode(&encode(&[]).unwrap()).unwrap(), HashMap::new());
    }

    #[test]
    fn files_that_changed_just_now_are_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let load = || StatCache::load(dir.path(), Path::new("/x"), "");
        let cache = load();
        let id = ObjectId::of(b"");
        let (old, fresh) = (
            stamp(now() - 10 * SETTLED_NANOS),
            Stamp {
                ino: 7,
                ..stamp(now())
            },
        );
        cache.store([(old, id), (fresh, id)].into_iter()).unwrap();
        assert_eq!(load().get(&old), Some(id));
        assert_eq!(load().get(&fresh), None);
        assert_eq!(load().get(&Stamp { size: 4, ..old }), None);
        assert_eq!(
            StatCache::load(dir.path(), Path::new("/x"), "other").get(&old),
            None
        );
    }
}

//! The embedded database: rows of recent packs, added in small durable batches.
//!
//! sled 0.34 is used as a cache only: opened under the index lock by one process at a time, fed at
//! most [`BATCH`] rows at once (larger batches make it hold gigabytes), and thrown away on any
//! doubt. Its `meta/epoch` is written last and names the exact set of packs it covers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::{Location, ObjectIndex, Visit};
use crate::error::{Error, IoResultExt, Result};
use crate::id::PackId;
use crate::pack::writer::IndexRow;
use crate::pack::{Key, le32};

/// Rows per batch; measured: 500 keeps the database below 40 MiB, 20,000 takes 3.6 GiB.
const BATCH: usize = 500;
const CACHE_BYTES: u64 = 64 << 20;
const EPOCH: &[u8] = b"epoch";
const VALUE_SIZE: usize = PackId::LEN + 12;

/// The open database.
#[derive(Debug)]
pub(crate) struct SledIndex {
    path: PathBuf,
    db: sled::Db,
    objects: sled::Tree,
    packs: sled::Tree,
    meta: sled::Tree,
}

impl SledIndex {
    /// Opens or makes the database. One that will not open, or whose epoch does not fit its packs,
    /// is replaced by an empty one. The caller holds the index lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        remove_snapshots(path, |name| name.ends_with(".generating"));
        let opened = Self::try_open(path).or_else(|_| {
            // Without snapshots sled scans its log again, which mends a torn snapshot.
            remove_snapshots(path, |_| true);
            Self::try_open(path)
        });
        let sound = opened.and_then(|index| {
            let intact = index.epoch()? == Some(index.expected_epoch()?);
            let fresh = index.packs.is_empty() && index.objects.is_empty();
            if intact || fresh {
                Ok(index)
            } else {
                Err(index.failed("epoch mismatch"))
            }
        });
        sound.or_else(|_| {
            remove_database(path)?;
            Self::try_open(path)
        })
    }

    fn try_open(path: &Path) -> Result<Self> {
        let open = || -> sled::Result<Self> {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .use_compression(false)
                .open()?;
            Ok(Self {
                path: path.to_owned(),
                objects: db.open_tree("objects")?,
                packs: db.open_tree("packs")?,
                meta: db.open_tree("meta")?,
                db,
            })
        };
        let failed = |detail: String| Error::Corrupt {
            path: path.to_owned(),
            detail,
        };
        catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| failed("the index database panicked while opening".to_owned()))?
            .map_err(|e| failed(e.to_string()))
    }

    fn failed(&self, what: impl ToString) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            detail: what.to_string(),
        }
    }

    fn expected_epoch(&self) -> Result<Vec<u8>> {
        let ids: Vec<u8> = self.packs()?.iter().flat_map(|id| *id.as_bytes()).collect();
        Ok(xxh3_128(&ids).to_le_bytes().to_vec())
    }

    fn epoch(&self) -> Result<Option<Vec<u8>>> {
        let found = self.meta.get(EPOCH).map_err(|e| self.failed(e))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    /// Adds packs with all their rows, then flushes once.
    pub(crate) fn insert(&self, packs: &[(PackId, &[IndexRow])]) -> Result<()> {
        for (pack, rows) in packs {
            for rows in rows.chunks(BATCH) {
                let mut batch = sled::Batch::default();
                for row in rows {
                    batch.insert(
                        row.key.encode().as_slice(),
                        encode(&Location::new(*pack, row)).as_slice(),
                    );
                }
                self.objects
                    .apply_batch(batch)
                    .map_err(|e| self.failed(e))?;
            }
            self.packs
                .insert(pack.as_bytes(), &[])
                .map_err(|e| self.failed(e))?;
        }
        let epoch = self.expected_epoch()?;
        self.meta.insert(EPOCH, epoch).map_err(|e| self.failed(e))?;
        self.db.flush().map_err(|e| self.failed(e))?;
        // sled's flush does not reach the medium on Linux.
        let file = self.path.join("db");
        std::fs::File::open(&file)
            .and_then(|f| f.sync_all())
            .at(&file)
    }
}

impl ObjectIndex for SledIndex {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        let value = self.objects.get(key.encode()).map_err(|e| self.failed(e))?;
        value
            .map(|v| decode(&v).ok_or_else(|| self.failed("malformed value")))
            .transpose()
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        let ids = self.packs.iter().keys().map(|key| {
            let key = key.map_err(|e| self.failed(e))?;
            PackId::from_slice(&key).ok_or_else(|| self.failed("malformed pack id"))
        });
        ids.collect()
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        for item in &self.objects {
            let (key, value) = item.map_err(|e| self.failed(e))?;
            let key = key.as_ref().try_into().ok().and_then(Key::decode);
            match (key, decode(&value)) {
                (Some(key), Some(at)) => visit(&key, &at)?,
                _ => return Err(self.failed("malformed row")),
            }
        }
        Ok(())
    }
}

/// Deletes the database. The caller holds the index lock.
pub(crate) fn remove_database(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at(path),
        _ => Ok(()),
    }
}

/// A half-written `snap.*.generating` makes sled 0.34.7 refuse to open although nothing is lost.
fn remove_snapshots(path: &Path, which: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && which(&name) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

fn encode(at: &Location) -> [u8; VALUE_SIZE] {
    let mut out = [0; VALUE_SIZE];
    out[..16].copy_from_slice(at.pack.as_bytes());
    out[16..20].copy_from_slice(&at.offset.to_le_bytes());
    out[20..24].copy_from_slice(&at.block_len.to_le_bytes());
    out[24..].copy_from_slice(&at.entry.to_le_bytes());
    out
}

fn decode(value: &[u8]) -> Option<Location> {
    let value: &[u8; VALUE_SIZE] = value.try_into().ok()?;
    Some(Location {
        pack: PackId::from_slice(&value[..16])?,
        offset: le32(value, 16),
        block_len: le32(value, 20),
        entry: le32(value, 24),
    })
}

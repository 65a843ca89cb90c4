//! Entry points for measuring the index and sketches apart from everything else.
//!
//! Not part of the public interface.

use std::path::Path;

use crate::compress::LEVEL;
use crate::error::{IoResultExt, Result};
use crate::fs::DiskStorage;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::index::sled::SledIndex;
use crate::pack::writer::{BlockBuilder, IndexRow, PackWriter};
use crate::pack::{BlockClass, EntryKind, Key};
use crate::repo::Repository;
use crate::sketch::{FEATURES, Sketch};

/// Entries of a block: as many records as make a block of metadata.
const BLOCK_ENTRIES: u64 = 1500;

/// The features of a file by which it is compared with others.
pub fn sketch(bytes: &[u8]) -> Option<[u32; FEATURES]> {
    Sketch::of(bytes).map(|sketch| *sketch.features())
}

fn key(number: u64) -> Key {
    let id = ObjectId::of(&number.to_le_bytes());
    Key::new(EntryKind::Import, *id.as_bytes())
}

/// Publishes a pack with tiny entries, numbered; its rows are not put into the index.
pub fn add_pack(repo: &Repository, numbers: std::ops::Range<u64>) -> Result<()> {
    write_pack(repo, numbers).map(drop)
}

fn write_pack(repo: &Repository, numbers: std::ops::Range<u64>) -> Result<(PackId, Vec<IndexRow>)> {
    let path = repo.path().join("packs/new");
    let mut pack = PackWriter::create(&DiskStorage, &path)?;
    let mut start = numbers.start;
    while start < numbers.end {
        let end = numbers.end.min(start + BLOCK_ENTRIES);
        let mut block = BlockBuilder::new(BlockClass::Meta);
        for number in start..end {
            block.push(key(number), &number.to_le_bytes());
        }
        pack.append(&block.finish(LEVEL).at(&path)?)?;
        start = end;
    }
    let pack = pack.finish()?;
    let target = repo.store().paths().pack(&pack.id);
    std::fs::rename(&path, &target).at(&target)?;
    Ok((pack.id, pack.rows))
}

/// Publishes a pack with tiny entries and puts its rows into the index, as a commit does.
pub fn commit_pack(repo: &Repository, numbers: std::ops::Range<u64>) -> Result<()> {
    let (id, rows) = write_pack(repo, numbers)?;
    Index::add(repo.store().paths(), &[(id, &rows)])
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Probe(Key);

/// The entry with a number.
pub fn probe(number: u64) -> Probe {
    Probe(key(number))
}

/// Whether the index of an open repository has an entry.
pub fn has(repo: &Repository, probe: &Probe) -> Result<bool> {
    Ok(repo.store().index().get(&probe.0)?.is_some())
}

/// The embedded database, alone.
#[derive(Debug)]
pub struct Database(SledIndex);

impl Database {
    /// Opens or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        SledIndex::open(path).map(Self)
    }

    /// Adds the rows of a pack.
    pub fn insert(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        let id = ObjectId::of(&numbers.start.to_be_bytes());
        let pack = PackId::from_slice(&id.as_bytes()[..PackId::LEN])
            .expect("because names are long enough");
        let row = |number: u64| IndexRow {
            key: key(number),
            offset: number as u32,
            block_len: 1,
            entry: 0,
        };
        let rows: Vec<IndexRow> = numbers.map(row).collect();
        self.0.insert(&[(pack, &rows)])
    }

    /// Whether it has a row.
    pub fn has(&self, probe: &Probe) -> Result<bool> {
        Ok(self.0.get(&probe.0)?.is_some())
    }
}

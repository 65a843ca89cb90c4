//! Entry points for measuring the parts of the engine apart from each other.
//!
//! Not part of the public interface.

use std::io;
use std::path::Path;

use crate::bsdiff::{self, Aligner, Patch, Step};
use crate::compress::{self, Codec, LEVEL};
use crate::error::{IoResultExt, Result};
use crate::fs::DiskStorage;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::index::sled::SledIndex;
use crate::pack::writer::{Block, BlockBuilder, IndexRow, PackWriter};
use crate::pack::{BlockClass, EntryKind, Key};
use crate::repo::{Repository, split};
use crate::sketch::{FEATURES, Sketch};

/// Entries of a block: as many records as make a block of metadata.
const BLOCK_ENTRIES: u64 = 1500;

/// The features of a file by which it is compared with others.
pub fn sketch(bytes: &[u8]) -> Option<[u32; FEATURES]> {
    Sketch::of(bytes).map(|sketch| *sketch.features())
}

/// The lengths of the chunks that a payload is cut into by content; none if it is not.
pub fn chunks(bytes: &[u8]) -> Vec<usize> {
    let cuts = split::pieces(bytes, false).unwrap_or_default();
    cuts.into_iter().map(|cut| cut.range.len()).collect()
}

/// Bytes as a block stores them.
#[derive(Debug)]
pub struct Compressed {
    codec: Codec,
    stored: Vec<u8>,
    raw_len: usize,
}

/// Compresses as a commit does.
pub fn compress(raw: &[u8]) -> io::Result<Compressed> {
    let (codec, stored) = compress::compress(raw, LEVEL)?;
    let raw_len = raw.len();
    Ok(Compressed {
        codec,
        stored,
        raw_len,
    })
}

impl Compressed {
    /// The bytes again.
    pub fn decompress(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.raw_len);
        compress::decompress(self.codec, &self.stored, self.raw_len, &mut out)?;
        Ok(out)
    }
}

/// Compresses a version of a file as a delta against another one.
pub fn compress_against(base: &[u8], raw: &[u8]) -> io::Result<Vec<u8>> {
    compress::compress_with_prefix(raw, base, LEVEL)
}

/// The difference of two versions of a file, as static deltas hold it.
pub fn bsdiff(old: &[u8], new: &[u8]) -> Vec<u8> {
    let stretches = Aligner::default().align(old, new);
    bsdiff::encode(old, new, &stretches)
}

/// The new version of a file of which the difference is that of `bsdiff`.
pub fn bspatch(old: &[u8], difference: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut patch = Patch::new(difference, size as u64);
    let mut new = Vec::with_capacity(size);
    while let Some(step) = patch.next().ok()? {
        match step {
            Step::Take(bytes) => new.extend_from_slice(bytes),
            Step::Add(from, bytes) => {
                let base = old.get(usize::try_from(from).ok()?..)?.get(..bytes.len())?;
                let sums = base.iter().zip(bytes).map(|(a, b)| a.wrapping_add(*b));
                new.extend(sums);
            }
        }
    }
    Some(new)
}

/// Extents, compressed and ready to be appended to a pack.
#[derive(Debug)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// Compresses extents.
    pub fn new(extents: &[Vec<u8>]) -> io::Result<Self> {
        let block = |(number, bytes): (u64, &Vec<u8>)| {
            let key = Key::new(EntryKind::Payload, key(number).id);
            Block::single(BlockClass::Extent, key, bytes, LEVEL)
        };
        (0..)
            .zip(extents)
            .map(block)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Writes them to a file in the form of a pack that was not ended; gives its size.
    pub fn append_to(&self, path: &Path) -> Result<u64> {
        let mut pack = PackWriter::create(&DiskStorage, path)?;
        self.0.iter().try_for_each(|block| pack.append(block))?;
        Ok(pack.size())
    }
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

//! The merged index: one sorted file, mapped into memory. Layout: docs/format.md, "Index".

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Location, ObjectIndex, Visit};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::mmap::map_immutable;
use crate::id::PackId;
use crate::pack::{Key, le32, le64};

const MAGIC: [u8; 8] = *b"GROVEIX1";
const HEADER_SIZE: usize = 64;
const FANOUT_SIZE: usize = 256 * 8;
/// Size of one row: key, pack ordinal, block offset, block length, entry.
const ROW_SIZE: usize = Key::SIZE + 16;

/// An open index file.
#[derive(Debug)]
pub(crate) struct FlatIndex {
    path: PathBuf,
    map: Mmap,
    packs: Vec<PackId>,
    rows: usize,
}

impl FlatIndex {
    /// Opens the file; its header, pack table and fan-out are verified, its rows are not (each
    /// look-up is checked against the block it leads to, and [`FlatIndex::verify`] checks all).
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at(path),
        };
        let map = map_immutable(&file).at(path)?;
        Self::parse(path, map).map(Some)
    }

    fn parse(path: &Path, map: Mmap) -> Result<Self> {
        let bad = |detail: &str| Error::Corrupt {
            path: path.to_owned(),
            detail: detail.to_owned(),
        };
        if map.len() < HEADER_SIZE || map[..8] != MAGIC {
            return Err(bad("not an index file"));
        }
        let rows = usize::try_from(le64(&map, 8)).map_err(|_| bad("too many rows"))?;
        let packs_len = (le32(&map, 16) as usize).checked_mul(PackId::LEN);
        let size = packs_len.and_then(|packs| {
            rows.checked_mul(ROW_SIZE)?
                .checked_add(HEADER_SIZE + FANOUT_SIZE)?
                .checked_add(packs)
        });
        if size != Some(map.len()) {
            return Err(bad("size differs from the header"));
        }
        let rows_at = map.len() - rows * ROW_SIZE;
        if xxh3_64(&map[HEADER_SIZE..rows_at]) != le64(&map, 24) {
            return Err(bad("checksum mismatch in the pack table"));
        }
        let table = &map[HEADER_SIZE + FANOUT_SIZE..rows_at];
        let packs: Vec<PackId> = table
            .as_chunks::<16>()
            .0
            .iter()
            .map(|id| PackId::from_bytes(*id))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            map,
            packs,
            rows,
        })
    }

    /// Writes a new index file in place of the old one. `rows` must be in key order.
    ///
    /// No fsync: a lost or torn file is noticed at the next open and made anew.
    pub(crate) fn write(
        path: &Path,
        mut packs: Vec<PackId>,
        rows: &mut dyn Iterator<Item = Result<(Key, Location)>>,
    ) -> Result<()> {
        packs.sort_unstable();
        packs.dedup();
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut write = || -> Result<()> {
            let file = File::create(&temporary).at(&temporary)?;
            write_rows(
                BufWriter::with_capacity(1 << 20, file),
                &temporary,
                &packs,
                rows,
            )?;
            std::fs::rename(&temporary, path).at(path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }

    fn rows_at(&self) -> usize {
        self.map.len() - self.rows * ROW_SIZE
    }

    fn row_bytes(&self, n: usize) -> &[u8; ROW_SIZE] {
        let at = self.rows_at() + n * ROW_SIZE;
        self.map[at..]
            .first_chunk()
            .expect("because the file's size fits its row count")
    }

    fn location(&self, row: &[u8; ROW_SIZE]) -> Result<Location> {
        let pack = self
            .packs
            .get(le32(row, Key::SIZE) as usize)
            .ok_or_else(|| Error::Corrupt {
                path: self.path.clone(),
                detail: "row names a pack that is not in the pack table".to_owned(),
            })?;
        Ok(Location {
            pack: *pack,
            offset: le32(row, Key::SIZE + 4),
            block_len: le32(row, Key::SIZE + 8),
            entry: le32(row, Key::SIZE + 12),
        })
    }

    /// The row at a position in key order.
    pub(crate) fn row(&self, n: usize) -> Result<(Key, Location)> {
        let row = self.row_bytes(n);
        let key = row
            .first_chunk()
            .and_then(Key::decode)
            .ok_or_else(|| Error::Corrupt {
                path: self.path.clone(),
                detail: format!("malformed key in row {n}"),
            })?;
        Ok((key, self.location(row)?))
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Checks the rows against their checksum and their order.
    pub(crate) fn verify(&self) -> Result<()> {
        let rows = &self.map[self.rows_at()..];
        let sorted = rows
            .as_chunks::<ROW_SIZE>()
            .0
            .is_sorted_by_key(|row| &row[..Key::SIZE]);
        if xxh3_64(rows) == le64(&self.map, 32) && sorted {
            return Ok(());
        }
        Err(Error::Corrupt {
            path: self.path.clone(),
            detail: "checksum mismatch in the rows".into(),
        })
    }
}

fn write_rows(
    mut out: BufWriter<File>,
    path: &Path,
    packs: &[PackId],
    rows: &mut dyn Iterator<Item = Result<(Key, Location)>>,
) -> Result<()> {
    use std::io::{Seek, SeekFrom};
    let table: Vec<u8> = packs.iter().flat_map(|id| *id.as_bytes()).collect();
    out.write_all(&[0; HEADER_SIZE + FANOUT_SIZE])
        .and_then(|()| out.write_all(&table))
        .at(path)?;
    let mut fanout = [0u64; 256];
    let mut count = 0u64;
    let mut sum = Xxh3::new();
    for row in rows {
        let (key, at) = row?;
        let ordinal = packs
            .binary_search(&at.pack)
            .expect("because rows name listed packs");
        let mut bytes = [0; ROW_SIZE];
        bytes[..Key::SIZE].copy_from_slice(&key.encode());
        for (n, field) in [ordinal as u32, at.offset, at.block_len, at.entry]
            .iter()
            .enumerate()
        {
            bytes[Key::SIZE + 4 * n..Key::SIZE + 4 * n + 4].copy_from_slice(&field.to_le_bytes());
        }
        sum.update(&bytes);
        out.write_all(&bytes).at(path)?;
        count += 1;
        fanout[usize::from(key.id[0])] = count;
    }
    // Each slot counts the rows up to and including its first byte.
    let mut running = 0;
    for slot in &mut fanout {
        running = running.max(*slot);
        *slot = running;
    }
    let fanout: Vec<u8> = fanout.iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut head_sum = Xxh3::new();
    head_sum.update(&fanout);
    head_sum.update(&table);
    let mut header = [0; HEADER_SIZE];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&count.to_le_bytes());
    header[16..20].copy_from_slice(&(packs.len() as u32).to_le_bytes());
    header[24..32].copy_from_slice(&head_sum.digest().to_le_bytes());
    header[32..40].copy_from_slice(&sum.digest().to_le_bytes());
    out.seek(SeekFrom::Start(0)).at(path)?;
    out.write_all(&header)
        .and_then(|()| out.write_all(&fanout))
        .and_then(|()| out.flush())
        .at(path)
}

impl ObjectIndex for FlatIndex {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        let wanted = key.encode();
        let slot = |n: usize| le64(&self.map, HEADER_SIZE + 8 * n) as usize;
        let first = usize::from(key.id[0]);
        let mut low = if first == 0 { 0 } else { slot(first - 1) };
        let mut high = slot(first);
        if low > high || high > self.rows {
            return Err(Error::Corrupt {
                path: self.path.clone(),
                detail: "malformed fan-out".into(),
            });
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.row_bytes(middle);
            match row[..Key::SIZE].cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.location(row).map(Some),
            }
        }
        Ok(None)
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.packs.clone())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        (0..self.rows).try_for_each(|n| {
            let (key, at) = self.row(n)?;
            visit(&key, &at)
        })
    }
}

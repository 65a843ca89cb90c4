//! The merged index: one sorted file, mapped into memory. Layout: docs/format.md, "Index".

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Location, ObjectIndex, Visit};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::mmap::{Map, map_immutable};
use crate::id::PackId;
use crate::pack::{EntryKind, Key, le32, le64};

const MAGIC: [u8; 8] = *b"GROVEIX1";
const HEADER_SIZE: usize = 64;
const FANOUT_SIZE: usize = 256 * 8;
/// Size of one row: key, pack ordinal, block offset, block length, entry.
pub(super) const ROW_SIZE: usize = Key::SIZE + 16;
/// How far from where a key should be it is looked for first, in rows.
const STEP: usize = 32;
/// Rows that a [`RowReader`] reads at once.
const READ_ROWS: usize = 4096;

/// One row as it is stored.
pub(super) type RowBytes = [u8; ROW_SIZE];

/// An open index file.
#[derive(Debug)]
pub(crate) struct FlatIndex {
    path: PathBuf,
    file: File,
    map: Map,
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
        Self::parse(path, file, map).map(Some)
    }

    fn parse(path: &Path, file: File, map: Map) -> Result<Self> {
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
            file,
            map,
            packs,
            rows,
        })
    }

    /// Writes a new index file in place of the old one and makes it durable: of a file that was torn
    /// by a loss of power only the head would be noticed. `packs` are ascending; `rows` are in the
    /// order of [`row_order`] and count packs by their position in `packs`.
    ///
    /// The caller holds the index lock.
    pub(super) fn write(
        path: &Path,
        packs: &[PackId],
        rows: &mut dyn Iterator<Item = Result<RowBytes>>,
    ) -> Result<()> {
        let temporary = path.with_extension("tmp");
        let mut write = || -> Result<()> {
            let file = write_rows(&temporary, packs, rows)?;
            file.sync_data().at(&temporary)?;
            std::fs::rename(&temporary, path).at(path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }

    /// The same for a file that is used and removed at once: it is not made durable.
    pub(super) fn write_temporary(
        path: &Path,
        packs: &[PackId],
        rows: &mut dyn Iterator<Item = Result<RowBytes>>,
    ) -> Result<()> {
        write_rows(path, packs, rows).map(drop)
    }

    /// Where the file was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The packs covered, ascending.
    pub(super) fn pack_table(&self) -> &[PackId] {
        &self.packs
    }

    fn rows_at(&self) -> usize {
        self.map.len() - self.rows * ROW_SIZE
    }

    fn row_bytes(&self, n: usize) -> &RowBytes {
        let at = self.rows_at() + n * ROW_SIZE;
        self.map[at..]
            .first_chunk()
            .expect("because the file's size fits its row count")
    }

    /// The entry that a row stands for.
    fn decode(&self, row: &RowBytes) -> Result<(Key, Location)> {
        let bad = |detail: &str| Error::Corrupt {
            path: self.path.clone(),
            detail: detail.to_owned(),
        };
        let pack = self.packs.get(pack_of(row) as usize);
        let pack = pack.ok_or_else(|| bad("row names a pack that is not in the pack table"))?;
        decode_row(row, pack).ok_or_else(|| bad("malformed key"))
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

/// Encodes a row; `pack` is the position in the pack table.
pub(super) fn encode_row(key: &Key, pack: u32, at: &Location) -> RowBytes {
    let mut bytes = [0; ROW_SIZE];
    let (head, tail) = bytes.split_at_mut(Key::SIZE);
    head.copy_from_slice(&key.encode());
    let fields = [pack, at.offset, at.block_len, at.entry];
    for (field, value) in tail.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
        *field = value.to_le_bytes();
    }
    bytes
}

/// Decodes a row of an entry of `pack`; `None` if its key is malformed.
pub(super) fn decode_row(row: &RowBytes, pack: &PackId) -> Option<(Key, Location)> {
    let at = Location {
        pack: *pack,
        offset: le32(row, Key::SIZE + 4),
        block_len: le32(row, Key::SIZE + 8),
        entry: le32(row, Key::SIZE + 12),
    };
    Some((Key::decode(row.first_chunk()?)?, at))
}

/// The position in the pack table that a row names.
pub(super) fn pack_of(row: &RowBytes) -> u32 {
    le32(row, Key::SIZE)
}

/// The same row with another position in another pack table.
pub(super) fn with_pack(mut row: RowBytes, pack: u32) -> RowBytes {
    row[Key::SIZE..Key::SIZE + 4].copy_from_slice(&pack.to_le_bytes());
    row
}

/// Rows are ordered by key, then by pack and place in it: an entry may lie in several packs.
pub(super) fn row_order(a: &RowBytes, b: &RowBytes) -> std::cmp::Ordering {
    let place = |row: &RowBytes| (pack_of(row), le32(row, Key::SIZE + 4));
    a[..Key::SIZE]
        .cmp(&b[..Key::SIZE])
        .then_with(|| place(a).cmp(&place(b)))
}

fn write_rows(
    path: &Path,
    packs: &[PackId],
    rows: &mut dyn Iterator<Item = Result<RowBytes>>,
) -> Result<File> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).at(path)?);
    let table: Vec<u8> = packs.iter().flat_map(|id| *id.as_bytes()).collect();
    out.write_all(&[0; HEADER_SIZE + FANOUT_SIZE])
        .and_then(|()| out.write_all(&table))
        .at(path)?;
    let mut fanout = [0u64; 256];
    let mut count = 0u64;
    let mut sum = Xxh3::new();
    for row in rows {
        let bytes = row?;
        sum.update(&bytes);
        out.write_all(&bytes).at(path)?;
        count += 1;
        fanout[usize::from(bytes[0])] = count;
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
        .at(path)?;
    out.into_inner().map_err(|e| e.into_error()).at(path)
}

/// Reads all rows of a file one after the other, in little memory, and checks their checksum on the
/// way: the end of the rows is an error when it does not fit.
pub(super) struct RowReader<'f> {
    index: &'f FlatIndex,
    next: usize,
    buffer: Vec<u8>,
    at: usize,
    sum: Box<Xxh3>,
}

impl<'f> RowReader<'f> {
    pub(super) fn new(index: &'f FlatIndex) -> Self {
        Self {
            index,
            next: 0,
            buffer: Vec::new(),
            at: 0,
            sum: Box::default(),
        }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<RowBytes>> {
        if self.at == self.buffer.len() {
            self.fill()?;
        }
        let row = self.buffer[self.at..].first_chunk().copied();
        self.at += row.map_or(0, |row: RowBytes| row.len());
        Ok(row)
    }

    fn fill(&mut self) -> Result<()> {
        let rows = (self.index.rows - self.next).min(READ_ROWS);
        self.at = 0;
        self.buffer.resize(rows * ROW_SIZE, 0);
        if rows == 0 {
            return self.check();
        }
        let offset = self.index.rows_at() + self.next * ROW_SIZE;
        let file = &self.index.file;
        file.read_exact_at(&mut self.buffer, offset as u64)
            .at(&self.index.path)?;
        self.sum.update(&self.buffer);
        self.next += rows;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.sum.digest() == le64(&self.index.map, 32) {
            return Ok(());
        }
        Err(Error::Corrupt {
            path: self.index.path.clone(),
            detail: "checksum mismatch in the rows".into(),
        })
    }
}

impl FlatIndex {
    /// The rows among which a name with this first byte is.
    fn range(&self, first: u8) -> Result<(usize, usize)> {
        let slot = |n: usize| le64(&self.map, HEADER_SIZE + 8 * n) as usize;
        let first = usize::from(first);
        let low = if first == 0 { 0 } else { slot(first - 1) };
        let high = slot(first);
        if low > high || high > self.rows {
            return Err(Error::Corrupt {
                path: self.path.clone(),
                detail: "malformed fan-out".into(),
            });
        }
        Ok((low, high))
    }

    /// The first row that is not below a key. Names are evenly spread, so the search begins where
    /// the key should be and goes from there in growing steps: few pages are touched.
    fn lower_bound(&self, wanted: &[u8; Key::SIZE]) -> Result<usize> {
        let (mut low, mut high) = self.range(wanted[0])?;
        let below = |n: usize| self.row_bytes(n)[..Key::SIZE] < wanted[..];
        let fraction = wanted[1..9].iter().fold(0, |n, b| n << 8 | u128::from(*b));
        let guess = low + ((fraction * (high - low) as u128) >> 64) as usize;
        let mut step = STEP;
        if guess < high && below(guess) {
            low = guess + 1;
            while low + step < high {
                if !below(low + step) {
                    high = low + step;
                    break;
                }
                low += step + 1;
                step *= 2;
            }
        } else {
            high = guess.min(high);
            while high >= low + step {
                if below(high - step) {
                    low = high - step + 1;
                    break;
                }
                high -= step;
                step *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Keys of one kind whose names are not below `first` and not above `last`, of entries in one
    /// of the wanted packs.
    pub(super) fn ids_between(
        &self,
        kind: EntryKind,
        (first, last): (&[u8; 32], &[u8; 32]),
        wanted: impl Fn(&PackId) -> bool,
        found: &mut BTreeSet<[u8; 32]>,
    ) -> Result<()> {
        let mut begin = [0; Key::SIZE];
        begin[..32].copy_from_slice(first);
        for n in self.lower_bound(&begin)?..self.rows {
            let row = self.row_bytes(n);
            if row[..32] > last[..] {
                break;
            }
            if row[32] != kind as u8 {
                continue;
            }
            let (key, at) = self.decode(row)?;
            if wanted(&at.pack) {
                found.insert(key.id);
            }
        }
        Ok(())
    }

    /// Finds an entry in one of the wanted packs.
    pub(super) fn get_in(
        &self,
        key: &Key,
        wanted: impl Fn(&PackId) -> bool,
    ) -> Result<Option<Location>> {
        let bytes = key.encode();
        for n in self.lower_bound(&bytes)?..self.rows {
            let row = self.row_bytes(n);
            if row[..Key::SIZE] != bytes {
                break;
            }
            let (_, at) = self.decode(row)?;
            if wanted(&at.pack) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

impl ObjectIndex for FlatIndex {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        self.get_in(key, |_| true)
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.packs.clone())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        (0..self.rows).try_for_each(|n| {
            let (key, at) = self.decode(self.row_bytes(n))?;
            visit(&key, &at)
        })
    }
}

//! Reading packs: footers, single blocks, and scanning a pack whose footer is damaged.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::decoded::DecodedBlock;
use super::writer::{Block, IndexRow};
use super::{
    BLOCK_HEADER_SIZE, BLOCK_MAGIC, BlockClass, BlockHeader, ENTRY_SIZE, FOOTER_ROW_SIZE,
    FooterRow, Key, PACK_HEADER_SIZE, PACK_MAGIC, TAIL_SIZE, Tail, buffers, data_sum, decode_entry,
    head_sum,
};
use crate::compress::{decompress, decompress_into};
use crate::error::{Error, IoResultExt, Result};
use crate::id::PackId;

/// Larger blocks are read into a buffer of their own, which is given back.
const KEPT_BUFFER: usize = 2 << 20;

thread_local! {
    /// Stored bytes of the block that this thread looks at.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An open pack.
#[derive(Debug)]
pub(crate) struct PackReader {
    id: PackId,
    path: PathBuf,
    file: File,
    size: u64,
    /// What each block is, by offset; filled when first asked for.
    classes: OnceLock<HashMap<u32, BlockClass>>,
}

/// Where one entry's bytes lie inside the decoded block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// The head of a block and where its parts lie, verified.
#[derive(Debug)]
pub(crate) struct BlockHead {
    pub(crate) offset: u64,
    pub(crate) header: BlockHeader,
    pub(crate) entries: Vec<Entry>,
}

impl BlockHead {
    /// The index rows of the block's entries.
    pub(crate) fn rows(&self) -> impl Iterator<Item = IndexRow> {
        let offset = self.offset as u32;
        let block_len = self.header.block_len() as u32;
        self.entries
            .iter()
            .enumerate()
            .map(move |(n, entry)| IndexRow {
                key: entry.key,
                offset,
                block_len,
                entry: n as u32,
            })
    }
}

impl PackReader {
    pub(crate) fn open(path: &Path, id: PackId) -> Result<Self> {
        let pack = Self::open_damaged(path, id)?;
        let mut header = [0; PACK_HEADER_SIZE];
        pack.read_exact_at(&mut header, 0)?;
        if header[..8] != PACK_MAGIC {
            return Err(pack.corrupt(0, "not a pack"));
        }
        Ok(pack)
    }

    /// Opens a file that may be anything, to take from it what can be taken.
    pub(crate) fn open_damaged(path: &Path, id: PackId) -> Result<Self> {
        let file = File::open(path).at(path)?;
        let size = file.metadata().at(path)?.len();
        let pack = Self {
            id,
            path: path.to_owned(),
            file,
            size,
            classes: OnceLock::new(),
        };
        if size > u64::from(u32::MAX) {
            return Err(pack.corrupt(0, "larger than 4 GiB"));
        }
        Ok(pack)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file has no name any more.
    pub(crate) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            detail: format!("at byte {offset}: {what}"),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(self.corrupt(offset, "pack is truncated"));
        }
        self.file.read_exact_at(buf, offset).at(&self.path)
    }

    /// How many entries the pack has by what its end says; nothing is verified.
    pub(crate) fn entry_count(&self) -> Result<u32> {
        let end = self.size.checked_sub(TAIL_SIZE as u64);
        let tail_at = end.ok_or_else(|| self.corrupt(0, "pack is truncated"))?;
        let mut tail = [0; TAIL_SIZE];
        self.read_exact_at(&mut tail, tail_at)?;
        let tail = Tail::decode(&tail).ok_or_else(|| self.corrupt(tail_at, "no footer"))?;
        Ok(tail.entries)
    }

    /// The block table, verified against its checksum and the pack's name.
    pub(crate) fn footer(&self) -> Result<Vec<FooterRow>> {
        let end = self.size.checked_sub(TAIL_SIZE as u64);
        let tail_at = end.ok_or_else(|| self.corrupt(0, "pack is truncated"))?;
        let mut tail_bytes = [0; TAIL_SIZE];
        self.read_exact_at(&mut tail_bytes, tail_at)?;
        let tail = Tail::decode(&tail_bytes).ok_or_else(|| self.corrupt(tail_at, "no footer"))?;
        let rows_len = u64::from(tail.blocks) * FOOTER_ROW_SIZE as u64;
        if tail.footer_offset.checked_add(rows_len) != Some(tail_at) {
            return Err(self.corrupt(tail_at, "footer does not fit the pack"));
        }
        let mut rows = vec![0; rows_len as usize];
        self.read_exact_at(&mut rows, tail.footer_offset)?;
        let mut hasher = Sha256::new();
        hasher.update(&rows);
        hasher.update(tail_bytes);
        let digest: [u8; 32] = hasher.finalize().into();
        if Tail::sum(&rows, &tail_bytes) != tail.sum || !digest.starts_with(self.id.as_bytes()) {
            return Err(self.corrupt(tail.footer_offset, "footer checksum mismatch"));
        }
        let (rows, _) = rows.as_chunks::<FOOTER_ROW_SIZE>();
        rows.iter()
            .map(|row| FooterRow::decode(row).filter(|row| row.offset < tail.footer_offset))
            .collect::<Option<_>>()
            .ok_or_else(|| self.corrupt(tail.footer_offset, "malformed footer row"))
    }

    /// What the block at an offset is, from the footer; from its own header if there is none.
    pub(crate) fn class_at(&self, offset: u32) -> Result<BlockClass> {
        let classes = self.classes.get_or_init(|| {
            let rows = self.footer().unwrap_or_default();
            rows.iter()
                .map(|row| (row.offset as u32, row.class))
                .collect()
        });
        match classes.get(&offset) {
            Some(class) => Ok(*class),
            None => Ok(self.head(u64::from(offset))?.header.class),
        }
    }

    /// Header and entry table of the block at an offset, verified.
    pub(crate) fn head(&self, offset: u64) -> Result<BlockHead> {
        let mut fixed = [0; BLOCK_HEADER_SIZE];
        self.read_exact_at(&mut fixed, offset)?;
        let header = BlockHeader::decode(&fixed).map_err(|what| self.corrupt(offset, what))?;
        let mut rest = vec![0; header.head_len() - BLOCK_HEADER_SIZE];
        self.read_exact_at(&mut rest, offset + BLOCK_HEADER_SIZE as u64)?;
        self.parse_head(offset, &fixed, header, &rest)
    }

    fn parse_head(
        &self,
        offset: u64,
        fixed: &[u8; BLOCK_HEADER_SIZE],
        header: BlockHeader,
        rest: &[u8],
    ) -> Result<BlockHead> {
        if head_sum(fixed, rest) != header.head_sum {
            return Err(self.corrupt(offset, "block header checksum mismatch"));
        }
        let table = &rest[rest.len() - header.entries as usize * ENTRY_SIZE..];
        let mut entries = Vec::with_capacity(header.entries as usize);
        let mut start = 0u32;
        for row in table.as_chunks::<ENTRY_SIZE>().0 {
            let (key, len) =
                decode_entry(row).ok_or_else(|| self.corrupt(offset, "unknown entry kind"))?;
            entries.push(Entry { key, start, len });
            start = start
                .checked_add(len)
                .filter(|end| *end <= header.raw_len)
                .ok_or_else(|| self.corrupt(offset, "entries are longer than the block"))?;
        }
        if start != header.raw_len {
            return Err(self.corrupt(offset, "entries are shorter than the block"));
        }
        Ok(BlockHead {
            offset,
            header,
            entries,
        })
    }

    /// Reads and decodes the block at an offset; `block_len` is a hint from the index.
    pub(crate) fn block(&self, offset: u64, block_len: u32) -> Result<DecodedBlock> {
        self.with_sound(offset, block_len, |head, stored| self.decode(head, stored))
    }

    /// Decodes the block at an offset into `out`, if it is one extent: that of `key`, and as long as
    /// `out`. Gives any other block as it is; then, and after an error, `out` may hold anything.
    pub(crate) fn extent_into(
        &self,
        (offset, block_len): (u64, u32),
        key: &Key,
        out: &mut [u8],
    ) -> Result<Option<DecodedBlock>> {
        self.with_sound(offset, block_len, |head, stored| {
            let is_it = |entry: &Entry| entry.key == *key && entry.len as usize == out.len();
            let is_extent = head.header.class == BlockClass::Extent && head.entries.len() == 1;
            if !is_extent || !head.entries.iter().all(is_it) {
                return self.decode(head, stored).map(Some);
            }
            decompress_into(head.header.codec, stored, out)
                .map_err(|e| self.corrupt(offset, &e.to_string()))?;
            Ok(None)
        })
    }

    fn decode(&self, head: BlockHead, stored: &[u8]) -> Result<DecodedBlock> {
        let raw_len = head.header.raw_len as usize;
        let mut raw = buffers::take(raw_len);
        decompress(head.header.codec, stored, raw_len, &mut raw)
            .map_err(|e| self.corrupt(head.offset, &e.to_string()))?;
        Ok(DecodedBlock::new(head.header.class, head.entries, raw))
    }

    /// Reads a block and verifies its head and its data.
    fn with_sound<T>(
        &self,
        offset: u64,
        block_len: u32,
        then: impl FnOnce(BlockHead, &[u8]) -> Result<T>,
    ) -> Result<T> {
        self.with_stored(offset, block_len, |head, stored| {
            if data_sum(stored) != head.header.data_sum {
                return Err(self.corrupt(offset, "block checksum mismatch"));
            }
            then(head, stored)
        })
    }

    /// Reads a block in one system call into this thread's buffer and splits it; the data is not
    /// verified yet. `then` must not read another block.
    fn with_stored<T>(
        &self,
        offset: u64,
        block_len: u32,
        then: impl FnOnce(BlockHead, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let fits = u64::from(block_len) <= self.size.saturating_sub(offset);
        let len = block_len as usize;
        if !fits || len < BLOCK_HEADER_SIZE {
            return Err(self.corrupt(offset, "block lies outside the pack"));
        }
        STORED.with_borrow_mut(|kept| {
            let mut own = Vec::new();
            let buffer = if len <= KEPT_BUFFER { kept } else { &mut own };
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let bytes = &mut buffer[..len];
            self.read_exact_at(bytes, offset)?;
            let (head, stored) = self.split(offset, bytes)?;
            then(head, stored)
        })
    }

    fn split<'b>(&self, offset: u64, bytes: &'b [u8]) -> Result<(BlockHead, &'b [u8])> {
        let (fixed, rest) = bytes
            .split_first_chunk::<BLOCK_HEADER_SIZE>()
            .expect("because the length was checked");
        let header = BlockHeader::decode(fixed).map_err(|what| self.corrupt(offset, what))?;
        if header.block_len() != bytes.len() {
            return Err(self.corrupt(offset, "block length differs from the index"));
        }
        let (table, stored) = rest.split_at(header.head_len() - BLOCK_HEADER_SIZE);
        Ok((self.parse_head(offset, fixed, header, table)?, stored))
    }

    /// A block as it is stored, to be copied verbatim into another pack; its data is verified.
    pub(crate) fn verbatim(&self, offset: u64, block_len: u32) -> Result<Block> {
        self.with_sound(offset, block_len, |head, stored| {
            let keys: Vec<Key> = head.entries.iter().map(|e| e.key).collect();
            let mut table = Vec::with_capacity(keys.len() * ENTRY_SIZE);
            for entry in &head.entries {
                table.extend_from_slice(&super::encode_entry(&entry.key, entry.len));
            }
            let BlockHeader {
                class,
                codec,
                raw_len,
                ..
            } = head.header;
            let raw_len = raw_len as usize;
            Ok(Block::new(
                class,
                codec,
                keys,
                &table,
                raw_len,
                stored.to_vec(),
            ))
        })
    }

    /// Compares a block with its own checksums and with the footer's.
    pub(crate) fn check_stored(&self, row: &FooterRow) -> Result<()> {
        self.with_sound(row.offset, row.block_len, |head, _| {
            let header = head.header;
            match (header.data_sum, header.head_sum) == (row.data_sum, row.head_sum) {
                true => Ok(()),
                false => Err(self.corrupt(row.offset, "block checksum mismatch")),
            }
        })
    }

    /// Index rows of every entry, by way of the footer.
    pub(crate) fn index_rows(&self) -> Result<Vec<IndexRow>> {
        let mut rows = Vec::new();
        for block in self.footer()? {
            let head = self.head(block.offset)?;
            if head.header.head_sum != block.head_sum || head.header.data_sum != block.data_sum {
                return Err(self.corrupt(block.offset, "block differs from the footer"));
            }
            rows.extend(head.rows());
        }
        Ok(rows)
    }

    /// Finds blocks without the footer: forward from the start, by magic and header checksum,
    /// going on after damage. Gives the heads and whether anything had to be passed over.
    pub(crate) fn scan(&self) -> Result<(Vec<BlockHead>, bool)> {
        let mut heads = Vec::new();
        let mut offset = PACK_HEADER_SIZE as u64;
        let mut damaged = false;
        while offset + BLOCK_HEADER_SIZE as u64 <= self.size {
            match self.head(offset) {
                Ok(head) if offset + head.header.block_len() as u64 <= self.size => {
                    offset += head.header.block_len() as u64;
                    heads.push(head);
                }
                Err(e @ Error::Io { .. }) => return Err(e),
                _ if self.footer_begins_at(offset) => break,
                _ => {
                    damaged = true;
                    match self.next_magic(offset + 1)? {
                        Some(next) => offset = next,
                        None => break,
                    }
                }
            }
        }
        Ok((heads, damaged))
    }

    fn footer_begins_at(&self, offset: u64) -> bool {
        let mut tail = [0; TAIL_SIZE];
        self.size.checked_sub(TAIL_SIZE as u64).is_some_and(|at| {
            self.read_exact_at(&mut tail, at).is_ok()
                && Tail::decode(&tail).is_some_and(|tail| tail.footer_offset == offset)
        })
    }

    fn next_magic(&self, from: u64) -> Result<Option<u64>> {
        const STEP: usize = 1 << 20;
        let mut at = from;
        while at < self.size {
            let len = STEP.min((self.size - at) as usize);
            let mut buf = vec![0; len];
            self.read_exact_at(&mut buf, at)?;
            if let Some(found) = buf.windows(4).position(|w| w == BLOCK_MAGIC) {
                return Ok(Some(at + found as u64));
            }
            // Step back a little, so that a magic across the border is seen.
            at += (len.saturating_sub(3)).max(1) as u64;
            if len < STEP {
                break;
            }
        }
        Ok(None)
    }
}

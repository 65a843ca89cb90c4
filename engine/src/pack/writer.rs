//! Building blocks and writing them to a pack in the staging directory.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    BlockClass, BlockHeader, FooterRow, Key, MAX_ENTRIES, PACK_HEADER_SIZE, Tail, data_sum,
    encode_entry, pack_header,
};
use crate::compress::{Codec, compress};
use crate::error::{IoResultExt, Result};
use crate::fs::{Storage, StorageFile};
use crate::id::PackId;

/// Entries gathered for one block, before compression.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    class: BlockClass,
    table: Vec<u8>,
    keys: Vec<Key>,
    raw: Vec<u8>,
}

impl BlockBuilder {
    pub(crate) fn new(class: BlockClass) -> Self {
        Self {
            class,
            table: Vec::new(),
            keys: Vec::new(),
            raw: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, key: Key, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("because entries fit a block");
        self.table.extend_from_slice(&encode_entry(&key, len));
        self.keys.push(key);
        self.raw.extend_from_slice(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the block should be closed before `more` bytes are added.
    pub(crate) fn is_full(&self, target: usize, more: usize) -> bool {
        !self.is_empty() && (self.raw.len() + more > target || self.keys.len() >= MAX_ENTRIES)
    }

    /// Closes the block without compression: its entries are compressed already.
    pub(crate) fn finish_raw(self) -> Block {
        let raw_len = self.raw.len();
        Block::new(
            self.class,
            Codec::Raw,
            self.keys,
            &self.table,
            raw_len,
            self.raw,
        )
    }

    /// Compresses. Pure work, meant to be called in parallel.
    pub(crate) fn finish(self, level: i32) -> io::Result<Block> {
        let (codec, stored) = compress(&self.raw, level)?;
        Ok(Block::new(
            self.class,
            codec,
            self.keys,
            &self.table,
            self.raw.len(),
            stored,
        ))
    }
}

/// A compressed block, ready to be appended.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) keys: Vec<Key>,
    header: BlockHeader,
    head: Vec<u8>,
    stored: Vec<u8>,
}

impl Block {
    /// Compresses a block of one entry, without gathering it first.
    pub(crate) fn single(
        class: BlockClass,
        key: Key,
        bytes: &[u8],
        level: i32,
    ) -> io::Result<Self> {
        let len = u32::try_from(bytes.len()).expect("because entries fit a block");
        let (codec, stored) = compress(bytes, level)?;
        let table = encode_entry(&key, len);
        Ok(Self::new(
            class,
            codec,
            vec![key],
            &table,
            bytes.len(),
            stored,
        ))
    }

    /// Bytes that the block's entries take, compressed.
    pub(crate) fn stored_len(&self) -> usize {
        self.stored.len()
    }

    pub(crate) fn new(
        class: BlockClass,
        codec: Codec,
        keys: Vec<Key>,
        table: &[u8],
        raw_len: usize,
        stored: Vec<u8>,
    ) -> Self {
        let fit = |n: usize| u32::try_from(n).expect("because block sizes are limited");
        let mut header = BlockHeader {
            codec,
            class,
            entries: fit(keys.len()),
            raw_len: fit(raw_len),
            stored_len: fit(stored.len()),
            data_sum: data_sum(&stored),
            head_sum: 0,
        };
        let head = header.encode(table);
        Self {
            keys,
            header,
            head,
            stored,
        }
    }
}

impl Block {
    pub(crate) fn class(&self) -> BlockClass {
        self.header.class
    }

    /// Whether this is the block that a footer's row tells of.
    pub(crate) fn is_at(&self, row: &FooterRow) -> bool {
        self.header.data_sum == row.data_sum && self.header.head_sum == row.head_sum
    }
}

/// A finished pack that still lies in the staging directory, durable under its temporary name.
#[derive(Debug)]
pub(crate) struct StagedPack {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    /// Size of the file in bytes.
    pub(crate) size: u64,
    pub(crate) rows: Vec<IndexRow>,
}

/// Where one entry lies inside its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexRow {
    pub(crate) key: Key,
    /// Offset of the block in the pack.
    pub(crate) offset: u32,
    /// Length of the whole block.
    pub(crate) block_len: u32,
    /// Position in the block's entry table.
    pub(crate) entry: u32,
}

/// Appends blocks to one pack.
#[derive(Debug)]
pub(crate) struct PackWriter {
    path: PathBuf,
    file: Box<dyn StorageFile>,
    size: u64,
    footer: Vec<u8>,
    rows: Vec<IndexRow>,
}

impl PackWriter {
    pub(crate) fn create(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let mut file = storage.create(path).at(path)?;
        file.write_all(&pack_header()).at(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size: PACK_HEADER_SIZE as u64,
            footer: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn append(&mut self, block: &Block) -> Result<()> {
        self.file.write_all(&block.head).at(&self.path)?;
        self.file.write_all(&block.stored).at(&self.path)?;
        let block_len = u32::try_from(block.head.len() + block.stored.len())
            .expect("because block sizes are limited");
        let row = FooterRow {
            offset: self.size,
            block_len,
            entries: block.header.entries,
            raw_len: block.header.raw_len,
            class: block.header.class,
            codec: block.header.codec,
            data_sum: block.header.data_sum,
            head_sum: block.header.head_sum,
        };
        self.footer.extend_from_slice(&row.encode());
        let offset = u32::try_from(self.size).expect("because packs are closed at 64 MiB");
        self.rows
            .extend(block.keys.iter().enumerate().map(|(entry, key)| IndexRow {
                key: *key,
                offset,
                block_len,
                entry: entry as u32,
            }));
        self.size += u64::from(block_len);
        Ok(())
    }

    /// Writes the footer and makes the pack durable under its staging name.
    pub(crate) fn finish(mut self) -> Result<StagedPack> {
        let entries = u32::try_from(self.rows.len()).expect("because packs are small");
        let tail = Tail::encode(&self.footer, entries, self.size);
        let mut hasher = Sha256::new();
        hasher.update(&self.footer);
        hasher.update(tail);
        let digest: [u8; 32] = hasher.finalize().into();
        let id = PackId::from_slice(&digest[..PackId::LEN]).expect("because it is long enough");
        self.file.write_all(&self.footer).at(&self.path)?;
        self.file.write_all(&tail).at(&self.path)?;
        self.file.sync().at(&self.path)?;
        let size = self.size + (self.footer.len() + tail.len()) as u64;
        Ok(StagedPack {
            id,
            path: self.path,
            size,
            rows: self.rows,
        })
    }
}

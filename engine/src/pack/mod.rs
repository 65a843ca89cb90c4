//! Packs: write-once files of checksummed blocks. Layout: docs/format.md, "Packs".
//!
//! This module owns the bytes; [`writer`] makes packs, [`reader`] reads and verifies them,
//! [`doomed`] deletes them. It knows nothing of objects beyond their keys.

pub(crate) mod buffers;
pub(crate) mod decoded;
pub(crate) mod delta;
pub(crate) mod doomed;
pub(crate) mod parity;
pub(crate) mod reader;
pub(crate) mod recipe;
pub(crate) mod writer;

use xxhash_rust::xxh3::xxh3_64;

use crate::compress::Codec;
use crate::id::PayloadId;

/// First bytes of a pack.
pub(crate) const PACK_MAGIC: [u8; 8] = *b"GROVEPK1";
/// First bytes of a block.
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"GBLK";
/// Last bytes of a pack.
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"GROVEFT1";

/// Size of the header of a pack.
pub(crate) const PACK_HEADER_SIZE: usize = 16;
/// Size of the fixed part of a block header.
pub(crate) const BLOCK_HEADER_SIZE: usize = 40;
/// Size of one row of a block's entry table.
pub(crate) const ENTRY_SIZE: usize = 40;
/// Size of one row of the footer's block table.
pub(crate) const FOOTER_ROW_SIZE: usize = 40;
/// Size of the tail that ends a pack.
pub(crate) const TAIL_SIZE: usize = 32;

/// A pack is closed when its blocks reach this size.
pub(crate) const PACK_TARGET: u64 = 64 << 20;
/// No block decodes to more than this: OSTree's limit for a metadata object.
pub(crate) const MAX_RAW: usize = 128 << 20;
/// Raw size at which a block of grouped small payloads is closed.
pub(crate) const GROUP_TARGET: usize = 1 << 20;
/// Raw size at which a block of metadata is closed.
pub(crate) const META_TARGET: usize = 256 << 10;
/// Payloads up to this size are grouped; larger ones are cut into extents.
pub(crate) const GROUPED_MAX: u64 = 128 << 10;
/// No block has more entries than this.
pub(crate) const MAX_ENTRIES: usize = 1 << 15;

/// What an entry of a block is. The numbers are part of the format; 1 to 4 are OSTree's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// A file record: header, size and payload id.
    File = 1,
    /// A dirtree object, verbatim.
    Dirtree = 2,
    /// A dirmeta object, verbatim.
    Dirmeta = 3,
    /// A commit object, verbatim.
    Commit = 4,
    /// A payload, or one extent of it.
    Payload = 16,
    /// How a payload is made from others; in place of its parts.
    Recipe = 17,
    /// The record of a package import.
    Import = 32,
}

impl EntryKind {
    pub(crate) const ALL: [Self; 7] = [
        Self::File,
        Self::Dirtree,
        Self::Dirmeta,
        Self::Commit,
        Self::Payload,
        Self::Recipe,
        Self::Import,
    ];

    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u8 == tag)
    }
}

/// What a block holds, as a hint to readers. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockClass {
    /// Records and metadata objects.
    Meta = 0,
    /// Many small payloads.
    Group = 1,
    /// One extent of a large payload.
    Extent = 2,
    /// Delta records.
    Delta = 3,
}

impl BlockClass {
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [Self::Meta, Self::Group, Self::Extent, Self::Delta]
            .into_iter()
            .find(|c| *c as u8 == tag)
    }
}

/// Names one entry: what it is, whose bytes, and which extent (0 for everything but extents).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) id: [u8; 32],
    pub(crate) kind: EntryKind,
    pub(crate) part: u32,
}

impl Key {
    /// Parts are stored in 24 bits.
    pub(crate) const MAX_PART: u32 = (1 << 24) - 1;
    /// Size of the encoded key.
    pub(crate) const SIZE: usize = 36;

    pub(crate) fn new(kind: EntryKind, id: [u8; 32]) -> Self {
        Self { id, kind, part: 0 }
    }

    /// The payload that a part or a recipe belongs to.
    pub(crate) fn payload(&self) -> PayloadId {
        PayloadId::from_bytes(self.id)
    }

    /// Encodes so that bytewise order is the order of (id, kind, part).
    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..32].copy_from_slice(&self.id);
        out[32] = self.kind as u8;
        let part = self.part;
        out[33] = (part >> 16) as u8;
        out[34] = (part >> 8) as u8;
        out[35] = part as u8;
        out
    }

    pub(crate) fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let [id @ .., kind, a, b, c] = *bytes;
        let part = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
        Some(Self {
            id,
            kind: EntryKind::from_tag(kind)?,
            part,
        })
    }
}

/// Size of each extent (but the last) of a payload of `size` bytes.
///
/// Large files get larger extents, so that their number stays below 2^24 and the index small.
pub(crate) const fn extent_size(size: u64) -> u64 {
    if size <= 4 << 30 {
        256 << 10
    } else if size <= 64 << 30 {
        1 << 20
    } else {
        4 << 20
    }
}

/// How many entries a payload of `size` bytes is stored as.
pub(crate) const fn part_count(size: u64) -> u64 {
    if size <= GROUPED_MAX {
        1
    } else {
        size.div_ceil(extent_size(size))
    }
}

/// The header of a block, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) codec: Codec,
    pub(crate) class: BlockClass,
    pub(crate) entries: u32,
    pub(crate) raw_len: u32,
    pub(crate) stored_len: u32,
    /// xxh3-64 of the stored bytes.
    pub(crate) data_sum: u64,
    /// xxh3-64 of the header before this field and of everything between header and data.
    pub(crate) head_sum: u64,
}

impl BlockHeader {
    /// Bytes from the start of the block to its data.
    pub(crate) fn head_len(&self) -> usize {
        BLOCK_HEADER_SIZE + self.entries as usize * ENTRY_SIZE
    }

    /// Bytes of the whole block.
    pub(crate) fn block_len(&self) -> usize {
        self.head_len() + self.stored_len as usize
    }

    /// Encodes header and entry table, and fills in the checksum over both.
    pub(crate) fn encode(&mut self, table: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_HEADER_SIZE + table.len());
        out.extend_from_slice(&BLOCK_MAGIC);
        out.extend_from_slice(&[self.codec as u8, self.class as u8, 0, 0]);
        for field in [self.entries, self.raw_len, self.stored_len, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.data_sum.to_le_bytes());
        self.head_sum = head_sum(&out, table);
        out.extend_from_slice(&self.head_sum.to_le_bytes());
        out.extend_from_slice(table);
        out
    }

    /// Decodes the fixed part; the checksum is verified when the table is at hand.
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_SIZE]) -> Result<Self, &'static str> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err("no block here");
        }
        let header = Self {
            codec: Codec::from_tag(bytes[4]).ok_or("unknown codec")?,
            class: BlockClass::from_tag(bytes[5]).ok_or("unknown block class")?,
            entries: le32(bytes, 8),
            raw_len: le32(bytes, 12),
            stored_len: le32(bytes, 16),
            data_sum: le64(bytes, 24),
            head_sum: le64(bytes, 32),
        };
        let sizes_fit = header.entries as usize <= MAX_ENTRIES
            && header.raw_len as usize <= MAX_RAW
            && header.stored_len as usize <= MAX_RAW;
        if sizes_fit {
            Ok(header)
        } else {
            Err("block sizes are out of range")
        }
    }
}

/// The checksum that protects a block's header and entry table.
pub(crate) fn head_sum(fixed: &[u8], table: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&fixed[..BLOCK_HEADER_SIZE - 8]);
    hasher.update(table);
    hasher.digest()
}

/// One row of a block's entry table: a key and the length of its bytes.
pub(crate) fn encode_entry(key: &Key, len: u32) -> [u8; ENTRY_SIZE] {
    let mut out = [0; ENTRY_SIZE];
    out[..Key::SIZE].copy_from_slice(&key.encode());
    out[Key::SIZE..].copy_from_slice(&len.to_le_bytes());
    out
}

/// Decodes one row of an entry table.
pub(crate) fn decode_entry(row: &[u8; ENTRY_SIZE]) -> Option<(Key, u32)> {
    let key = Key::decode(row.first_chunk()?)?;
    Some((key, u32::from_le_bytes(*row.last_chunk()?)))
}

/// One row of the footer: where a block lies and what is needed to check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FooterRow {
    pub(crate) offset: u64,
    pub(crate) block_len: u32,
    pub(crate) entries: u32,
    pub(crate) raw_len: u32,
    pub(crate) class: BlockClass,
    pub(crate) codec: Codec,
    pub(crate) data_sum: u64,
    pub(crate) head_sum: u64,
}

impl FooterRow {
    pub(crate) fn encode(&self) -> [u8; FOOTER_ROW_SIZE] {
        let mut out = [0; FOOTER_ROW_SIZE];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.block_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.entries.to_le_bytes());
        out[16..20].copy_from_slice(&self.raw_len.to_le_bytes());
        out[20] = self.class as u8;
        out[21] = self.codec as u8;
        out[24..32].copy_from_slice(&self.data_sum.to_le_bytes());
        out[32..].copy_from_slice(&self.head_sum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; FOOTER_ROW_SIZE]) -> Option<Self> {
        Some(Self {
            offset: le64(bytes, 0),
            block_len: le32(bytes, 8),
            entries: le32(bytes, 12),
            raw_len: le32(bytes, 16),
            class: BlockClass::from_tag(bytes[20])?,
            codec: Codec::from_tag(bytes[21])?,
            data_sum: le64(bytes, 24),
            head_sum: le64(bytes, 32),
        })
    }
}

/// The fixed-size end of a pack: finds and protects the footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Number of blocks, that is of footer rows.
    pub(crate) blocks: u32,
    /// Number of entries of all blocks.
    pub(crate) entries: u32,
    /// Where the footer begins, that is where the last block ends.
    pub(crate) footer_offset: u64,
    /// xxh3-64 of the footer rows and of the fields above.
    pub(crate) sum: u64,
}

impl Tail {
    /// Encodes the tail of a footer with these rows.
    pub(crate) fn encode(rows: &[u8], entries: u32, footer_offset: u64) -> [u8; TAIL_SIZE] {
        let mut out = [0; TAIL_SIZE];
        let blocks = u32::try_from(rows.len() / FOOTER_ROW_SIZE).expect("because packs are small");
        out[..4].copy_from_slice(&blocks.to_le_bytes());
        out[4..8].copy_from_slice(&entries.to_le_bytes());
        out[8..16].copy_from_slice(&footer_offset.to_le_bytes());
        let sum = Self::sum(rows, &out);
        out[16..24].copy_from_slice(&sum.to_le_bytes());
        out[24..].copy_from_slice(&FOOTER_MAGIC);
        out
    }

    pub(crate) fn decode(bytes: &[u8; TAIL_SIZE]) -> Option<Self> {
        (bytes[24..] == FOOTER_MAGIC).then(|| Self {
            blocks: le32(bytes, 0),
            entries: le32(bytes, 4),
            footer_offset: le64(bytes, 8),
            sum: le64(bytes, 16),
        })
    }

    /// What [`Tail::sum`] must be for these rows.
    pub(crate) fn sum(rows: &[u8], tail: &[u8; TAIL_SIZE]) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(rows);
        hasher.update(&tail[..16]);
        hasher.digest()
    }
}

/// The header that begins every pack.
pub(crate) fn pack_header() -> [u8; PACK_HEADER_SIZE] {
    let mut out = [0; PACK_HEADER_SIZE];
    out[..8].copy_from_slice(&PACK_MAGIC);
    out
}

/// The checksum of a block's stored bytes.
pub(crate) fn data_sum(stored: &[u8]) -> u64 {
    xxh3_64(stored)
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

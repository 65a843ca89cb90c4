//! Taking out of a damaged pack everything in it that is still sound.
//!
//! Sound blocks are kept as they are. From a damaged block those entries are kept whose bytes have
//! the SHA-256 that their name says, or, where only the head is damaged and the data is not, whose
//! place the index confirms.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

use crate::compress::{Codec, LEVEL};
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, PackId, PayloadId};
use crate::pack::reader::PackReader;
use crate::pack::writer::{Block, BlockBuilder};
use crate::pack::{
    BLOCK_HEADER_SIZE, BlockClass, BlockHeader, ENTRY_SIZE, EntryKind, FooterRow, Key, data_sum,
    decode_entry, le32,
};
use crate::repo::{Repository, decode_record};

/// What the index knows to lie in a pack: by offset of the block its length, and the keys by their
/// position.
pub(super) type Known = BTreeMap<u64, (u32, BTreeMap<u32, Key>)>;

/// What could be taken out of a pack.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Blocks to write, in their old order.
    pub(super) blocks: Vec<Kept>,
    /// Whether metadata is among them; a pack has either metadata or payloads.
    pub(super) meta: bool,
    /// Entries that are known to have been there and are not among them.
    pub(super) lost: Vec<Key>,
    /// Whether there may have been entries that nothing is known of.
    pub(super) unknown: bool,
    /// Entries that were taken from damaged blocks.
    pub(super) entries: u64,
}

/// A block that goes on.
#[derive(Debug)]
pub(super) enum Kept {
    /// As it is, at this offset with this length.
    Verbatim(u64, u32),
    /// Only some of its entries.
    Some(BlockClass, Vec<(Key, Vec<u8>)>),
}

impl Kept {
    /// The block to write.
    pub(super) fn block(self, pack: &PackReader, path: &Path) -> Result<Block> {
        match self {
            Self::Verbatim(offset, len) => pack.verbatim(offset, len),
            Self::Some(class, entries) => {
                let mut builder = BlockBuilder::new(class);
                for (key, bytes) in &entries {
                    builder.push(*key, bytes);
                }
                if class == BlockClass::Delta {
                    return Ok(builder.finish_raw());
                }
                builder.finish(LEVEL).at(path)
            }
        }
    }
}

/// Where a block lies, and what the footer says of it.
struct Place {
    offset: u64,
    len: u32,
    row: Option<FooterRow>,
}

/// Looks for everything that is sound in a pack, but for `bad` entries.
pub(super) fn salvage(
    repo: &Repository,
    path: &Path,
    id: PackId,
    known: &Known,
    bad: &HashSet<Key>,
) -> Result<Salvage> {
    let pack = PackReader::open_damaged(path, id)?;
    let mut salvage = Salvage::default();
    let places = places(&pack, known, &mut salvage)?;
    for place in &places {
        let keys = known.get(&place.offset).map(|(_, keys)| keys);
        let block = pack.verbatim(place.offset, place.len).ok();
        let sound = block.filter(|block| place.row.is_none_or(|row| block.is_at(&row)));
        if let Some(block) = sound {
            salvage.meta |= block.class() == BlockClass::Meta;
            if block.keys.iter().any(|key| bad.contains(key)) {
                without_bad(&pack, place, bad, &mut salvage);
            } else {
                salvage.blocks.push(Kept::Verbatim(place.offset, place.len));
            }
            continue;
        }
        let bytes = read(path, place)?;
        let trusted = pack.head(place.offset).is_ok();
        from_damaged(repo, &bytes, (place, trusted), keys, bad, &mut salvage);
    }
    Ok(salvage)
}

/// The blocks of a pack: by its footer, else by a scan and by what the index knows.
fn places(pack: &PackReader, known: &Known, salvage: &mut Salvage) -> Result<Vec<Place>> {
    if let Ok(rows) = pack.footer() {
        let place = |row: FooterRow| Place {
            offset: row.offset,
            len: row.block_len,
            row: Some(row),
        };
        return Ok(rows.into_iter().map(place).collect());
    }
    let (heads, passed_over) = pack.scan()?;
    let scanned = heads
        .iter()
        .map(|head| (head.offset, head.header.block_len() as u32));
    let mut places: BTreeMap<u64, u32> = scanned.collect();
    salvage.unknown = passed_over;
    for (offset, (len, _)) in known {
        places.entry(*offset).or_insert(*len);
    }
    let place = |(offset, len)| Place {
        offset,
        len,
        row: None,
    };
    Ok(places.into_iter().map(place).collect())
}

fn read(path: &Path, place: &Place) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let len = u64::from(place.len).min(size.saturating_sub(place.offset));
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, place.offset).at(path)?;
    Ok(bytes)
}

/// A block that is sound, but for entries whose bytes are not what their name says.
fn without_bad(pack: &PackReader, place: &Place, bad: &HashSet<Key>, salvage: &mut Salvage) {
    let Ok(block) = pack.block(place.offset, place.len) else {
        salvage.unknown = true;
        return;
    };
    let mut kept = Vec::new();
    for entry in &block.entries {
        if bad.contains(&entry.key) {
            salvage.lost.push(entry.key);
        } else {
            kept.push((entry.key, block.bytes(entry).to_vec()));
        }
    }
    salvage.entries += kept.len() as u64;
    if !kept.is_empty() {
        salvage.blocks.push(Kept::Some(block.class, kept));
    }
}

/// The layout of a block whose head may be damaged.
struct Layout {
    class: BlockClass,
    codec: Codec,
    raw_len: usize,
    /// Key and length of each entry as the table has them.
    table: Vec<(Option<Key>, u32)>,
    stored_at: usize,
    data_sum: u64,
}

fn layout(bytes: &[u8], row: Option<&FooterRow>) -> Option<Layout> {
    let header = bytes.first_chunk::<BLOCK_HEADER_SIZE>();
    let header = header.and_then(|fixed| BlockHeader::decode(fixed).ok());
    let (class, codec, raw_len, entries, sum) = match (row, header) {
        (Some(row), _) => (row.class, row.codec, row.raw_len, row.entries, row.data_sum),
        (None, Some(h)) => (h.class, h.codec, h.raw_len, h.entries, h.data_sum),
        (None, None) => return None,
    };
    if entries as usize > crate::pack::MAX_ENTRIES {
        return None;
    }
    let table_len = entries as usize * ENTRY_SIZE;
    let table = bytes.get(BLOCK_HEADER_SIZE..)?.get(..table_len)?;
    let rows = table.as_chunks::<ENTRY_SIZE>().0.iter();
    let table = rows.map(|row| match decode_entry(row) {
        Some((key, len)) => (Some(key), len),
        None => (None, le32(row, Key::SIZE)),
    });
    Some(Layout {
        class,
        codec,
        raw_len: (raw_len as usize).min(crate::pack::MAX_RAW),
        table: table.collect(),
        stored_at: BLOCK_HEADER_SIZE + table_len,
        data_sum: sum,
    })
}

fn from_damaged(
    repo: &Repository,
    bytes: &[u8],
    (place, trusted): (&Place, bool),
    known: Option<&BTreeMap<u32, Key>>,
    bad: &HashSet<Key>,
    salvage: &mut Salvage,
) {
    let Some(layout) = layout(bytes, place.row.as_ref()) else {
        salvage
            .lost
            .extend(known.into_iter().flatten().map(|(_, key)| *key));
        salvage.unknown |= known.is_none();
        return;
    };
    salvage.meta |= layout.class == BlockClass::Meta;
    let stored = bytes.get(layout.stored_at..).unwrap_or_default();
    let data_is_sound = data_sum(stored) == layout.data_sum;
    let raw = decode_what_can_be(layout.codec, stored, layout.raw_len);
    // Where an entry begins and ends is only known if no length is damaged, or there is only one
    // entry.
    let lengths: u64 = layout.table.iter().map(|(_, len)| u64::from(*len)).sum();
    let places_are_sound = raw.len() == layout.raw_len
        && (lengths == layout.raw_len as u64 || layout.table.len() == 1);
    let mut kept = Vec::new();
    let mut saved = HashSet::new();
    let mut named = HashSet::new();
    for (n, ranges) in candidates(&layout).into_iter().enumerate() {
        let here = known.and_then(|known| known.get(&(n as u32)).copied());
        let table = layout.table.get(n).and_then(|(key, _)| *key);
        named.extend(here.or(table));
        let found = ranges.into_iter().find_map(|range| {
            let bytes = raw.get(range)?;
            let keys = [here, table].into_iter().flatten();
            let confirmed = keys.into_iter().find(|key| {
                let placed = data_is_sound && places_are_sound && here == Some(*key);
                if layout.class == BlockClass::Delta {
                    let trusted = trusted || here == Some(*key);
                    return placed || is_delta(repo, key, bytes, trusted);
                }
                is_named(repo, key, bytes, placed)
            });
            let key = confirmed.or_else(|| rename(&layout, table, bytes))?;
            Some((key, bytes.to_vec()))
        });
        if let Some((key, bytes)) = found.filter(|(key, _)| !bad.contains(key)) {
            saved.insert(key);
            kept.push((key, bytes));
        }
    }
    salvage.lost.extend(named.difference(&saved));
    salvage.entries += kept.len() as u64;
    if !kept.is_empty() {
        salvage.blocks.push(Kept::Some(layout.class, kept));
    }
}

/// Where each entry may lie: as counted from the front, and from the back. One damaged length
/// spoils the one for what follows it and the other for what goes before; its own entry fills the
/// gap between them.
fn candidates(layout: &Layout) -> Vec<Vec<std::ops::Range<usize>>> {
    if layout.table.len() == 1 {
        let whole = Some(0..layout.raw_len);
        return vec![whole.into_iter().collect()];
    }
    let lens = layout.table.iter().map(|(_, len)| *len as usize);
    let mut front = Vec::with_capacity(layout.table.len() + 1);
    let mut at = 0usize;
    front.push(at);
    for len in lens.clone() {
        at = at.saturating_add(len);
        front.push(at);
    }
    let mut back = Vec::with_capacity(front.len());
    let mut at = Some(layout.raw_len);
    back.push(at);
    for len in lens.rev() {
        at = at.and_then(|at| at.checked_sub(len));
        back.push(at);
    }
    back.reverse();
    (0..layout.table.len())
        .map(|n| {
            let from_back = back[n].zip(back[n + 1]).map(|(start, end)| start..end);
            let gap = back[n + 1].map(|end| front[n]..end);
            let from_front = Some(front[n]..front[n + 1]);
            let ranges = [from_front, from_back, gap].into_iter().flatten();
            let mut ranges: Vec<std::ops::Range<usize>> = ranges.collect();
            ranges.retain(|range| range.start <= range.end && range.end <= layout.raw_len);
            ranges.dedup();
            ranges
        })
        .collect()
}

/// Decodes as far as it goes.
fn decode_what_can_be(codec: Codec, stored: &[u8], raw_len: usize) -> Vec<u8> {
    if codec == Codec::Raw {
        return stored.to_vec();
    }
    let mut raw = Vec::new();
    let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(stored) else {
        return raw;
    };
    // In small steps, so that what comes before the damage is kept.
    let mut decoder = decoder.take(raw_len as u64);
    let mut buf = [0; 4096];
    while let Ok(n) = decoder.read(&mut buf) {
        if n == 0 {
            break;
        }
        raw.extend_from_slice(&buf[..n]);
    }
    raw
}

/// Whether bytes are what a key names. `placed`: they come from sound data, and the index says
/// that this is the place of the key.
fn is_named(repo: &Repository, key: &Key, bytes: &[u8], placed: bool) -> bool {
    match key.kind {
        EntryKind::Commit | EntryKind::Dirtree | EntryKind::Dirmeta => {
            ObjectId::of(bytes).as_bytes() == &key.id
        }
        EntryKind::Payload if key.part == 0 => placed || PayloadId::of(bytes).as_bytes() == &key.id,
        EntryKind::Payload | EntryKind::Recipe | EntryKind::Import => placed,
        EntryKind::File => placed || is_record(repo, &ObjectId::from_bytes(key.id), bytes),
    }
}

/// Whether a delta record is what a key names: its frame has a checksum of what it decodes to.
/// `trusted`: that this is the place of the key is known.
fn is_delta(repo: &Repository, key: &Key, record: &[u8], trusted: bool) -> bool {
    key.kind == EntryKind::Payload
        && repo
            .store()
            .decode_delta(key, record)
            .is_ok_and(|bytes| trusted || key.part == 0 && PayloadId::of(&bytes) == key.payload())
}

/// Whether a record is that of a file, which takes the whole payload to tell.
fn is_record(repo: &Repository, id: &ObjectId, bytes: &[u8]) -> bool {
    let Ok(file) = decode_record(id, bytes) else {
        return false;
    };
    let payload = super::source::PayloadReader::new(repo, &file);
    file.header.is_named(id, payload).unwrap_or(false)
}

/// The right name of a small payload whose key is damaged.
fn rename(layout: &Layout, table: Option<Key>, bytes: &[u8]) -> Option<Key> {
    let unreadable = table.is_none_or(|key| key.kind == EntryKind::Payload);
    (layout.class == BlockClass::Group && unreadable && !bytes.is_empty() && layout.table.len() > 1)
        .then(|| Key::new(EntryKind::Payload, *PayloadId::of(bytes).as_bytes()))
        .filter(|key| table.is_none_or(|table| differs_little(&table, key)))
}

/// Whether a name became another one by damage to a few of its bytes: bytes with quite another
/// name are damaged themselves.
fn differs_little(a: &Key, b: &Key) -> bool {
    let pairs = a.encode().into_iter().zip(b.encode());
    let differing = pairs.filter(|(a, b)| a != b);
    differing.count() <= 16
}

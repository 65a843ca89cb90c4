//! One pass over what the packs hold: how each payload is stored, and what that takes.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use roaring::RoaringBitmap;

use crate::compress::{LEVEL, compress};
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, PackId, PayloadId};
use crate::ops::reach::{EntrySet, PackMap, Span, is_plain};
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::{Piece, Recipe};
use crate::pack::{BlockClass, ENTRY_SIZE, EntryKind, Key};
use crate::repo::decode_record;

/// Raw bytes of grouped payloads that are compressed one by one, to know what grouping saves.
const SAMPLE_BYTES: u64 = 32 << 20;

/// Entries stored in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Number of entries.
    pub entries: u64,
    /// Bytes that they stand for.
    pub raw_bytes: u64,
    /// What they take, with their rows of the entry table.
    pub stored_bytes: u64,
}

impl Bulk {
    fn add(&mut self, raw_bytes: u64, stored_bytes: u64) {
        self.join(Self {
            entries: 1,
            raw_bytes,
            stored_bytes,
        });
    }

    pub(super) fn join(&mut self, other: Self) {
        self.entries += other.entries;
        self.raw_bytes += other.raw_bytes;
        self.stored_bytes += other.stored_bytes;
    }
}

/// A file record.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRow {
    pub(super) id: ObjectId,
    pub(super) payload: Option<PayloadId>,
    pub(super) size: u64,
}

/// A recipe: of what a payload is made, and how.
#[derive(Debug, Clone)]
pub(super) struct RecipeRow {
    pub(super) pieces: Vec<Piece>,
    /// By compressing the one piece again; else by concatenation.
    pub(super) recoded: bool,
    pub(super) stored: u64,
}

/// How a payload is stored.
#[derive(Debug, Clone, Default)]
pub(super) struct PayloadRow {
    /// Where its first part or its recipe is.
    pub(super) first: Option<(PackId, u32)>,
    pub(super) grouped: Bulk,
    pub(super) extents: Bulk,
    pub(super) deltas: Bulk,
    pub(super) recipe: Option<Box<RecipeRow>>,
}

impl PayloadRow {
    /// What its entries take; of a payload with a recipe, the recipe alone.
    pub(super) fn stored(&self) -> u64 {
        let recipe = self.recipe.as_ref().map_or(0, |recipe| recipe.stored);
        let parts = [self.grouped, self.extents, self.deltas];
        recipe + parts.iter().map(|bulk| bulk.stored_bytes).sum::<u64>()
    }

    fn join(&mut self, other: Self) {
        self.first = self.first.or(other.first);
        self.grouped.join(other.grouped);
        self.extents.join(other.extents);
        self.deltas.join(other.deltas);
        self.recipe = self.recipe.take().or(other.recipe);
    }
}

/// What was counted, of entries that commits need.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) files: Vec<FileRow>,
    pub(super) dirtrees: u64,
    pub(super) payloads: HashMap<PayloadId, PayloadRow>,
    pub(super) meta: Bulk,
    /// Blocks of grouped payloads.
    groups: Vec<(Arc<PackMap>, Span)>,
}

impl Survey {
    pub(super) fn of(maps: &[Arc<PackMap>], live: &EntrySet) -> Result<Self> {
        let parts: Vec<Self> = maps
            .par_iter()
            .map(|map| Self::of_pack(map, live))
            .collect::<Result<_>>()?;
        let mut all = Self::default();
        for part in parts {
            all.join(part);
        }
        // In an order that does not depend on the packs' names.
        all.files.sort_unstable_by_key(|file| file.id);
        Ok(all)
    }

    fn join(&mut self, other: Self) {
        self.files.extend(other.files);
        self.dirtrees += other.dirtrees;
        for (id, row) in other.payloads {
            self.payloads.entry(id).or_default().join(row);
        }
        self.meta.join(other.meta);
        self.groups.extend(other.groups);
    }

    fn of_pack(map: &Arc<PackMap>, live: &EntrySet) -> Result<Self> {
        let mut survey = Self::default();
        let Some(live) = live.of_pack(&map.id) else {
            return Ok(survey);
        };
        for (span, _) in map.touched(live) {
            if span.class == BlockClass::Meta || !is_plain(span.class) {
                survey.decoded(map, span, live)?;
            } else {
                survey.plain(map, span, live)?;
            }
        }
        Ok(survey)
    }

    /// A block that has to be read, as its entries tell more than their lengths.
    fn decoded(&mut self, map: &PackMap, span: &Span, live: &RoaringBitmap) -> Result<()> {
        let block = map.reader().block(u64::from(span.offset), span.block_len)?;
        let weights = span.weights(&block.entries);
        for ((ordinal, entry), weight) in span.ordinals().zip(&block.entries).zip(weights) {
            if live.contains(ordinal) {
                self.entry((map.id, ordinal), &entry.key, block.bytes(entry), weight);
            }
        }
        Ok(())
    }

    /// Counts an entry. What is malformed is a matter for fsck.
    fn entry(&mut self, at: (PackId, u32), key: &Key, bytes: &[u8], weight: u64) {
        match key.kind {
            EntryKind::Payload => {
                let row = self.payload(at, key);
                if let Ok((head, _)) = DeltaHead::decode(bytes) {
                    row.deltas.add(u64::from(head.raw_len), weight);
                }
                return;
            }
            EntryKind::Recipe => {
                if let Ok(recipe) = Recipe::decode(bytes) {
                    self.payload(at, key).recipe = Some(Box::new(RecipeRow {
                        pieces: recipe.pieces(),
                        recoded: matches!(recipe, Recipe::Recode { .. }),
                        stored: weight,
                    }));
                }
                return;
            }
            EntryKind::Dirtree => self.dirtrees += 1,
            EntryKind::File => {
                let id = ObjectId::from_bytes(key.id);
                if let Ok(file) = decode_record(&id, bytes) {
                    let (payload, size) = (file.payload, file.size);
                    self.files.push(FileRow { id, payload, size });
                }
            }
            EntryKind::Dirmeta | EntryKind::Commit | EntryKind::Import => {}
        }
        self.meta.add(bytes.len() as u64, weight);
    }

    /// A block of payloads as they are.
    fn plain(&mut self, map: &Arc<PackMap>, span: &Span, live: &RoaringBitmap) -> Result<()> {
        let head = map.reader().head(u64::from(span.offset))?;
        let weights = span.weights(&head.entries);
        for ((ordinal, entry), weight) in span.ordinals().zip(&head.entries).zip(weights) {
            if live.contains(ordinal) {
                let row = self.payload((map.id, ordinal), &entry.key);
                let bulk = match span.class {
                    BlockClass::Group => &mut row.grouped,
                    _ => &mut row.extents,
                };
                bulk.add(u64::from(entry.len), weight);
            }
        }
        if span.class == BlockClass::Group {
            self.groups.push((Arc::clone(map), *span));
        }
        Ok(())
    }

    fn payload(&mut self, at: (PackId, u32), key: &Key) -> &mut PayloadRow {
        let row = self.payloads.entry(key.payload()).or_default();
        if key.part == 0 {
            row.first = Some(at);
        }
        row
    }

    /// The payload of a file, and its size; of a symbolic link, no payload.
    pub(super) fn file(&self, id: &ObjectId) -> Option<(Option<PayloadId>, u64)> {
        let at = self.files.binary_search_by_key(id, |file| file.id).ok()?;
        self.files.get(at).map(|file| (file.payload, file.size))
    }

    /// Compresses some of the grouped payloads one by one. Gives how many payloads these are,
    /// with what they take in their groups, and what they would take alone.
    pub(super) fn sample_groups(&self) -> Result<(Bulk, u64)> {
        let lengths = self
            .groups
            .iter()
            .map(|(_, span)| u64::from(span.block_len));
        let total: u64 = lengths.sum();
        let mean = total / (self.groups.len() as u64).max(1);
        // Stored, these are about a third; a sample a little larger does no harm.
        let wanted = (SAMPLE_BYTES / 3 / mean.max(1)).max(1) as usize;
        let step = self.groups.len().div_ceil(wanted).max(1);
        let sampled: Vec<_> = self.groups.iter().step_by(step).collect();
        let parts: Vec<(Bulk, u64)> = sampled
            .par_iter()
            .map(|(map, span)| sample(map, span))
            .collect::<Result<_>>()?;
        let mut sum = (Bulk::default(), 0);
        for (bulk, alone) in parts {
            sum.0.join(bulk);
            sum.1 += alone;
        }
        Ok(sum)
    }
}

fn sample(map: &PackMap, span: &Span) -> Result<(Bulk, u64)> {
    let block = map.reader().block(u64::from(span.offset), span.block_len)?;
    let weights = span.weights(&block.entries);
    let mut bulk = Bulk::default();
    let mut alone = 0;
    for (entry, weight) in block.entries.iter().zip(weights) {
        let bytes = block.bytes(entry);
        let (_, stored) = compress(bytes, LEVEL).at("a sample of grouped payloads")?;
        bulk.add(bytes.len() as u64, weight);
        alone += (stored.len() + ENTRY_SIZE) as u64;
    }
    Ok((bulk, alone))
}

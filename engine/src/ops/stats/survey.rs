//! One pass over what the packs hold: how many bytes each way of storing takes.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::compress::compress;
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, PackId, PayloadId};
use crate::ops::reach::{EntrySet, Form, PackMap, Span, form, needs, raw_len};
use crate::pack::{BlockClass, EntryKind, Key};
use crate::repo::{Repository, decode_record};

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

/// A payload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PayloadRow {
    pub(super) stored: u64,
    /// Where its first part is.
    pub(super) first: Option<(PackId, u32)>,
}

/// What was counted, of entries that commits need.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) files: Vec<FileRow>,
    pub(super) dirtrees: u64,
    pub(super) payloads: HashMap<PayloadId, PayloadRow>,
    pub(super) meta: Bulk,
    pub(super) grouped: Bulk,
    pub(super) extents: Bulk,
    pub(super) deltas: Bulk,
    pub(super) recoded: Bulk,
    /// Keys of recoded entries.
    recoded_keys: Vec<Key>,
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
            let mine = self.payloads.entry(id).or_default();
            mine.stored += row.stored;
            mine.first = mine.first.or(row.first);
        }
        self.meta.join(other.meta);
        self.grouped.join(other.grouped);
        self.extents.join(other.extents);
        self.deltas.join(other.deltas);
        self.recoded.join(other.recoded);
        self.recoded_keys.extend(other.recoded_keys);
        self.groups.extend(other.groups);
    }

    fn of_pack(map: &Arc<PackMap>, live: &EntrySet) -> Result<Self> {
        let mut survey = Self::default();
        let Some(live) = live.of_pack(&map.id) else {
            return Ok(survey);
        };
        for (span, _) in map.touched(live) {
            let decoded = span.class == BlockClass::Meta || form(span.class) != Form::Plain;
            if decoded {
                survey.decoded(map, span, live)?;
            } else {
                survey.plain(map, span, live)?;
            }
        }
        Ok(survey)
    }

    /// A block whose entries say themselves what they stand for.
    fn decoded(&mut self, map: &PackMap, span: &Span, live: &roaring::RoaringBitmap) -> Result<()> {
        let block = map.reader().block(u64::from(span.offset), span.block_len)?;
        let weights = span.weights(&block.entries);
        for ((ordinal, entry), weight) in span.ordinals().zip(&block.entries).zip(weights) {
            if !live.contains(ordinal) {
                continue;
            }
            let bulk = match (entry.key.kind, form(span.class)) {
                (EntryKind::Payload, Form::Delta) => &mut self.deltas,
                (EntryKind::Payload, Form::Recoded) => {
                    self.recoded_keys.push(entry.key);
                    &mut self.recoded
                }
                (EntryKind::Payload, Form::Plain) => &mut self.grouped,
                _ => &mut self.meta,
            };
            bulk.add(raw_len(&block, entry), weight);
            let id = ObjectId::from_bytes(entry.key.id);
            match entry.key.kind {
                EntryKind::Payload => self.payload(map, ordinal, &entry.key, weight),
                EntryKind::Dirtree => self.dirtrees += 1,
                EntryKind::File => {
                    // What is malformed is a matter for fsck.
                    if let Ok(file) = decode_record(&id, block.bytes(entry)) {
                        let (payload, size) = (file.payload, file.size);
                        self.files.push(FileRow { id, payload, size });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A block of payloads as they are.
    fn plain(
        &mut self,
        map: &Arc<PackMap>,
        span: &Span,
        live: &roaring::RoaringBitmap,
    ) -> Result<()> {
        let head = map.reader().head(u64::from(span.offset))?;
        let weights = span.weights(&head.entries);
        for ((ordinal, entry), weight) in span.ordinals().zip(&head.entries).zip(weights) {
            if !live.contains(ordinal) {
                continue;
            }
            let bulk = match span.class {
                BlockClass::Group => &mut self.grouped,
                _ => &mut self.extents,
            };
            bulk.add(u64::from(entry.len), weight);
            self.payload(map, ordinal, &entry.key, weight);
        }
        if span.class == BlockClass::Group {
            self.groups.push((Arc::clone(map), *span));
        }
        Ok(())
    }

    fn payload(&mut self, map: &PackMap, ordinal: u32, key: &Key, weight: u64) {
        let row = self
            .payloads
            .entry(PayloadId::from_bytes(key.id))
            .or_default();
        row.stored += weight;
        if key.part == 0 {
            row.first = Some((map.id, ordinal));
        }
    }

    /// Compresses some of the grouped payloads one by one. Gives how many payloads these are,
    /// with what they take in their groups, and what they would take alone.
    pub(super) fn sample_groups(&self) -> Result<(Bulk, u64)> {
        let total: u64 = self
            .groups
            .iter()
            .map(|(_, span)| u64::from(span.block_len))
            .sum();
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

    /// The payloads from which recoded ones are made and that no file record names.
    pub(super) fn inner_payloads(
        &self,
        repo: &Repository,
        named: &HashMap<PayloadId, u64>,
    ) -> Result<Vec<PayloadId>> {
        let mut inner = Vec::new();
        for key in &self.recoded_keys {
            for key in needs(repo, key)? {
                let id = PayloadId::from_bytes(key.id);
                if !named.contains_key(&id) {
                    inner.push(id);
                }
            }
        }
        inner.sort_unstable();
        inner.dedup();
        Ok(inner)
    }
}

fn sample(map: &PackMap, span: &Span) -> Result<(Bulk, u64)> {
    let block = map.reader().block(u64::from(span.offset), span.block_len)?;
    let weights = span.weights(&block.entries);
    let mut bulk = Bulk::default();
    let mut alone = 0;
    for (entry, weight) in block.entries.iter().zip(weights) {
        let bytes = block.bytes(entry);
        let (_, stored) = compress(bytes).at("a sample of grouped payloads")?;
        bulk.add(bytes.len() as u64, weight);
        alone += stored.len() as u64 + crate::pack::ENTRY_SIZE as u64;
    }
    Ok((bulk, alone))
}

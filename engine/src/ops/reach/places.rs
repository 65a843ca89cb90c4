//! From places in packs to ordinals of entries, and what entries take on disk.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::id::PackId;
use crate::index::Location;
use crate::pack::reader::{Entry, PackReader};
use crate::pack::{BLOCK_HEADER_SIZE, BlockClass, ENTRY_SIZE};
use crate::repo::Repository;

/// One block of a pack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) offset: u32,
    pub(crate) block_len: u32,
    /// Ordinal of the block's first entry.
    pub(crate) first: u32,
    pub(crate) entries: u32,
    pub(crate) class: BlockClass,
}

impl Span {
    /// Ordinals of the block's entries.
    pub(crate) fn ordinals(&self) -> Range<u32> {
        self.first..self.first + self.entries
    }

    /// Length of the block's stored bytes.
    pub(crate) fn stored_len(&self) -> u64 {
        let head = BLOCK_HEADER_SIZE as u64 + u64::from(self.entries) * ENTRY_SIZE as u64;
        u64::from(self.block_len).saturating_sub(head)
    }

    /// What each of the block's entries takes on disk: of the stored bytes the share that its raw
    /// length has, and its row of the entry table.
    pub(crate) fn weights(&self, entries: &[Entry]) -> Vec<u64> {
        let raw: u64 = entries.iter().map(|entry| u64::from(entry.len)).sum();
        let share = |at: u64| self.stored_len() * at / raw.max(1);
        let weight = |entry: &Entry| {
            let start = u64::from(entry.start);
            share(start + u64::from(entry.len)) - share(start) + ENTRY_SIZE as u64
        };
        entries.iter().map(weight).collect()
    }

    /// How many of the block's entries are in a set.
    pub(crate) fn count(&self, set: &RoaringBitmap) -> u64 {
        set.range_cardinality(self.ordinals())
    }
}

/// The blocks of a pack in order, from its footer.
#[derive(Debug)]
pub(crate) struct PackMap {
    pub(crate) id: PackId,
    /// Size of the file in bytes.
    pub(crate) size: u64,
    /// Number of entries.
    pub(crate) entries: u32,
    pub(crate) spans: Vec<Span>,
    reader: Arc<PackReader>,
}

impl PackMap {
    pub(crate) fn load(repo: &Repository, id: &PackId) -> Result<Self> {
        let reader = repo.store().pack(id)?;
        let mut first = 0u32;
        let mut spans = Vec::new();
        let broken = |detail: &str| Error::Corrupt {
            path: repo.store().paths().pack(id),
            detail: detail.to_owned(),
        };
        for row in reader.footer()? {
            let offset = u32::try_from(row.offset);
            spans.push(Span {
                offset: offset.map_err(|_| broken("block beyond 4 GiB"))?,
                block_len: row.block_len,
                first,
                entries: row.entries,
                class: row.class,
            });
            let next = first.checked_add(row.entries);
            first = next.ok_or_else(|| broken("too many entries"))?;
        }
        Ok(Self {
            id: *id,
            size: reader.size(),
            entries: first,
            spans,
            reader,
        })
    }

    pub(crate) fn reader(&self) -> &PackReader {
        &self.reader
    }

    /// The block at an offset.
    pub(crate) fn span_at(&self, offset: u32) -> Option<&Span> {
        let at = self.spans.binary_search_by_key(&offset, |span| span.offset);
        self.spans.get(at.ok()?)
    }

    /// Blocks that have entries of a set, with how many.
    pub(crate) fn touched<'a>(
        &'a self,
        set: &'a RoaringBitmap,
    ) -> impl Iterator<Item = (&'a Span, u64)> {
        let counted = self.spans.iter().map(|span| (span, span.count(set)));
        counted.filter(|(_, count)| *count > 0)
    }

    /// What entries take on disk: of each block's stored bytes the share that their raw lengths
    /// have, and a row of the entry table each.
    pub(crate) fn weigh(&self, set: &RoaringBitmap) -> Result<u64> {
        let mut sum = 0;
        for (span, count) in self.touched(set) {
            sum += if count == u64::from(span.entries) {
                u64::from(span.block_len).saturating_sub(BLOCK_HEADER_SIZE as u64)
            } else {
                let weights = self.weights(span)?;
                let mut share = 0;
                for (ordinal, weight) in span.ordinals().zip(weights) {
                    share += if set.contains(ordinal) { weight } else { 0 };
                }
                share
            };
        }
        Ok(sum)
    }

    /// What each entry of a block takes on disk; together all that the block takes but its header.
    pub(crate) fn weights(&self, span: &Span) -> Result<Vec<u64>> {
        let head = self.reader.head(u64::from(span.offset))?;
        Ok(span.weights(&head.entries))
    }
}

/// An entry: number of its pack among those of a [`Places`], and ordinal.
pub(crate) type Spot = (u32, u32);

/// Maps of the packs that were asked for so far.
#[derive(Debug, Default)]
pub(crate) struct Places {
    numbers: HashMap<PackId, u32>,
    maps: Vec<Arc<PackMap>>,
}

impl Places {
    fn number(&mut self, repo: &Repository, id: &PackId) -> Result<u32> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        let number = self.maps.len() as u32;
        self.maps.push(Arc::new(PackMap::load(repo, id)?));
        self.numbers.insert(*id, number);
        Ok(number)
    }

    /// The map of a pack.
    pub(crate) fn map(&mut self, repo: &Repository, id: &PackId) -> Result<Arc<PackMap>> {
        let number = self.number(repo, id)?;
        Ok(Arc::clone(&self.maps[number as usize]))
    }

    /// The map of the pack of a spot.
    pub(crate) fn map_of(&self, spot: Spot) -> &PackMap {
        &self.maps[spot.0 as usize]
    }

    /// The entry at a place that the index knows, and the class of its block.
    pub(crate) fn spot(&mut self, repo: &Repository, at: &Location) -> Result<(Spot, BlockClass)> {
        let number = self.number(repo, &at.pack)?;
        let span = self.maps[number as usize].span_at(at.offset);
        let span = span.filter(|span| at.entry < span.entries);
        let span = span.ok_or_else(|| Error::Corrupt {
            path: repo.store().paths().flat(),
            detail: format!("leads to the wrong place in pack {}", at.pack),
        })?;
        Ok(((number, span.first + at.entry), span.class))
    }
}

//! What each way of storing saves, in the order in which they are applied.

use std::collections::{HashMap, HashSet};

use super::survey::{Bulk, PayloadRow, Survey};
use crate::error::Result;
use crate::id::PayloadId;

/// What grouping was estimated from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// The grouped payloads that were compressed one by one.
    pub sampled: Bulk,
    /// What these take when each is compressed by itself.
    pub alone_bytes: u64,
}

/// Bytes saved. Each is what is left by those before it less what is left after it; what is left
/// in the end is what all entries of payloads take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Savings {
    /// The same file object under several paths or in several commits: all but one of each.
    pub file_dedup: u64,
    /// The same contents under several headers (owner, mode, labels): all but one of each.
    pub header_split: u64,
    /// The same piece in several contents (members of archives, chunks of large data): all but one
    /// of each, less what the lists of pieces take.
    pub chunking: u64,
    /// Compressing each content by itself: for grouped ones an estimate from `sample`, for those
    /// that are stored as differences one from the mean ratio of the others.
    pub compression: u64,
    /// Compressing small contents together with others of their kind: an estimate from `sample`.
    pub grouping: u64,
    /// Storing contents as differences to others: what they would take at the mean ratio of those
    /// that are not, less what they do take.
    pub deltas: u64,
    /// Storing compressed files by their uncompressed contents: their size, as they would not
    /// compress any further, less what these contents and the way to compress them take. What
    /// differences between these contents save is in here.
    pub recoding: u64,
    /// What grouping was estimated from.
    pub sample: GroupSample,
}

/// Scales a number by a ratio of two others.
fn scaled(n: u64, by: u64, of: u64) -> u64 {
    let product = u128::from(n) * u128::from(by) / u128::from(of.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// Payloads by what they are there for.
#[derive(Debug, Default)]
struct Sorted {
    /// Bytes of what is not made of pieces: these are left when each piece is stored once.
    pieces: u64,
    grouped: Bulk,
    extents: Bulk,
    deltas: Bulk,
    /// Sizes of what is compressed again from its plain form.
    recoded: u64,
    /// What lists of pieces take.
    lists: u64,
    /// What plain forms and the ways to compress them take.
    plain_forms: u64,
}

impl Sorted {
    fn new(survey: &Survey, payloads: &HashMap<PayloadId, u64>) -> Self {
        let mut sorted = Self::default();
        let mut seen = HashSet::new();
        let mut inner = Vec::new();
        let mut todo: Vec<(PayloadId, u64)> = payloads.iter().map(|(id, n)| (*id, *n)).collect();
        while let Some((id, size)) = todo.pop() {
            let Some(row) = survey.payloads.get(&id).filter(|_| seen.insert(id)) else {
                continue;
            };
            let pieces = sorted.file(row, size);
            if row.recipe.as_ref().is_some_and(|recipe| recipe.recoded) {
                inner.extend(pieces);
            } else {
                todo.extend(pieces);
            }
        }
        // What is only there for the sake of something that is compressed again.
        while let Some((id, _)) = inner.pop() {
            if let Some(row) = survey.payloads.get(&id).filter(|_| seen.insert(id)) {
                sorted.plain_forms += row.stored();
                inner.extend(pieces_of(row));
            }
        }
        sorted
    }

    /// Counts a payload of a file, or a piece of one; gives of what it is made.
    fn file(&mut self, row: &PayloadRow, size: u64) -> Vec<(PayloadId, u64)> {
        match &row.recipe {
            Some(recipe) if recipe.recoded => {
                self.pieces += size;
                self.recoded += size;
                self.plain_forms += recipe.stored;
            }
            Some(recipe) => self.lists += recipe.stored,
            None => {
                for (mine, its) in [
                    (&mut self.grouped, row.grouped),
                    (&mut self.extents, row.extents),
                    (&mut self.deltas, row.deltas),
                ] {
                    self.pieces += its.raw_bytes;
                    mine.join(its);
                }
            }
        }
        pieces_of(row)
    }
}

fn pieces_of(row: &PayloadRow) -> Vec<(PayloadId, u64)> {
    let pieces = row.recipe.iter().flat_map(|recipe| &recipe.pieces);
    pieces.map(|piece| (piece.id, piece.size)).collect()
}

pub(super) fn savings(
    survey: &Survey,
    payloads: &HashMap<PayloadId, u64>,
    logical: u64,
) -> Result<Savings> {
    let objects: u64 = survey.files.iter().map(|file| file.size).sum();
    let unique: u64 = payloads.values().sum();
    let sorted = Sorted::new(survey, payloads);
    let mut plain = sorted.grouped;
    plain.join(sorted.extents);
    let (sampled, alone_bytes) = survey.sample_groups()?;
    let grouped = sorted.grouped.stored_bytes;
    let grouping = scaled(grouped, alone_bytes, sampled.stored_bytes).saturating_sub(grouped);
    let deltas = sorted.deltas;
    let without_deltas = scaled(deltas.raw_bytes, plain.stored_bytes, plain.raw_bytes);
    let compressed = plain.stored_bytes + grouping + without_deltas;
    Ok(Savings {
        file_dedup: logical.saturating_sub(objects),
        header_split: objects.saturating_sub(unique),
        chunking: unique.saturating_sub(sorted.pieces + sorted.lists),
        compression: (plain.raw_bytes + deltas.raw_bytes).saturating_sub(compressed),
        grouping,
        deltas: without_deltas.saturating_sub(deltas.stored_bytes),
        recoding: sorted.recoded.saturating_sub(sorted.plain_forms),
        sample: GroupSample {
            sampled,
            alone_bytes,
        },
    })
}

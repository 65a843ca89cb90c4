//! What each way of storing saves, in the order in which they are applied.

use std::collections::HashMap;

use super::survey::{Bulk, Survey};
use crate::error::Result;
use crate::id::PayloadId;
use crate::repo::Repository;

/// What grouping was estimated from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// The grouped payloads that were compressed one by one.
    pub sampled: Bulk,
    /// What these take when each is compressed by itself.
    pub alone_bytes: u64,
}

/// Bytes saved. Each is what is left by those before it less what is left after it, so that all of
/// them together lead from the logical bytes to the stored ones, but for metadata, which comes on
/// top.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Savings {
    /// The same file object under several paths or in several commits: all but one of each.
    pub file_dedup: u64,
    /// The same contents under several headers (owner, mode, labels): all but one of each.
    pub header_split: u64,
    /// The same chunk in several payloads: all but one of each.
    pub chunking: u64,
    /// Compression: what contents that are stored neither as differences nor recoded would save
    /// if each was compressed by itself.
    pub compression: u64,
    /// Compressing small contents together with others of their kind: an estimate from `sample`.
    pub grouping: u64,
    /// Storing contents as differences to others: an estimate from the mean ratio of those that
    /// are stored plainly.
    pub deltas: u64,
    /// Storing compressed files by their uncompressed contents: an estimate that takes it that
    /// they would not have compressed any further.
    pub recoding: u64,
    /// What grouping was estimated from.
    pub sample: GroupSample,
}

/// Scales a number by a ratio of two others.
fn scaled(n: u64, by: u64, of: u64) -> u64 {
    let product = u128::from(n) * u128::from(by) / u128::from(of.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

pub(super) fn savings(
    repo: &Repository,
    survey: &Survey,
    payloads: &HashMap<PayloadId, u64>,
    logical: u64,
) -> Result<Savings> {
    let objects: u64 = survey.files.iter().map(|file| file.size).sum();
    let unique: u64 = payloads.values().sum();
    let inner = survey.inner_payloads(repo, payloads)?;
    let stored_of = |id: &PayloadId| survey.payloads.get(id).map_or(0, |row| row.stored);
    let inner_stored: u64 = inner.iter().map(stored_of).sum();

    let mut plain = survey.grouped;
    plain.join(survey.extents);
    let ratio = |raw: u64| scaled(raw, plain.stored_bytes, plain.raw_bytes);
    let mut raw = plain;
    raw.join(survey.deltas);
    raw.join(survey.recoded);
    let (sampled, alone_bytes) = survey.sample_groups()?;
    let alone = scaled(
        survey.grouped.stored_bytes,
        alone_bytes,
        sampled.stored_bytes,
    );
    let grouping = alone.saturating_sub(survey.grouped.stored_bytes);
    let recoding = (survey.recoded.raw_bytes)
        .saturating_sub(survey.recoded.stored_bytes)
        .saturating_sub(inner_stored);
    Ok(Savings {
        file_dedup: logical.saturating_sub(objects),
        header_split: objects.saturating_sub(unique),
        chunking: if inner.is_empty() {
            unique.saturating_sub(raw.raw_bytes)
        } else {
            0
        },
        compression: plain
            .raw_bytes
            .saturating_sub(plain.stored_bytes + grouping),
        grouping,
        deltas: ratio(survey.deltas.raw_bytes).saturating_sub(survey.deltas.stored_bytes),
        recoding,
        sample: GroupSample {
            sampled,
            alone_bytes,
        },
    })
}

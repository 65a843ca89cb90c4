//! Which small files the kernel was told of, by payload: what may be pushed to it.
//!
//! Grows with the number of small files that were ever looked at, up to a bound; by 16 bytes and the
//! tree's overhead for each.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use grove_engine::PayloadId;

/// No more files are remembered: later ones are read when they are asked for.
const MAX_FILES: usize = 1 << 20;
const SHARDS: usize = 16;

/// Pairs of 8 bytes of a payload's name and an inode number. Different payloads may share such a pair,
/// so whoever asks compares.
#[derive(Debug, Default)]
pub(crate) struct Known {
    shards: [Mutex<BTreeSet<(u64, u64)>>; SHARDS],
}

impl Known {
    /// Notes that the kernel was told of a file.
    pub(crate) fn note(&self, payload: &PayloadId, number: u64) {
        let prefix = prefix(payload);
        let mut pairs = self.shard(prefix);
        if pairs.len() < MAX_FILES / SHARDS {
            pairs.insert((prefix, number));
        }
    }

    /// Files that may be of this payload.
    pub(crate) fn candidates(&self, payload: &PayloadId) -> Vec<u64> {
        let prefix = prefix(payload);
        let pairs = self.shard(prefix);
        let found = pairs.range((prefix, 0)..=(prefix, u64::MAX));
        found.map(|(_, number)| *number).collect()
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, prefix: u64) -> std::sync::MutexGuard<'_, BTreeSet<(u64, u64)>> {
        let shard = &self.shards[prefix as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prefix(payload: &PayloadId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *payload.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_all_the_files_that_were_noted_for_it() {
        let known = Known::default();
        let (a, b) = (PayloadId::of(b"a"), PayloadId::of(b"b"));
        for (payload, number) in [(a, 7), (a, 9), (b, 8), (a, 7)] {
            known.note(&payload, number);
        }
        assert_eq!(known.candidates(&a), [7, 9]);
        assert_eq!(known.candidates(&b), [8]);
        assert!(known.candidates(&PayloadId::of(b"c")).is_empty());
    }
}

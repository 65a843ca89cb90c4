//! What sets of entries take on disk, many of them.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::{EntrySet, PackMap};
use crate::error::Result;
use crate::id::PackId;

/// For each pack, what the entries before an ordinal take together.
#[derive(Debug)]
pub(crate) struct Scales {
    packs: HashMap<PackId, Vec<u64>>,
}

impl Scales {
    /// Reads the entry tables of packs.
    pub(crate) fn load(maps: &[Arc<PackMap>]) -> Result<Self> {
        let packs = maps.par_iter().map(|map| {
            let mut sums = Vec::with_capacity(map.entries as usize + 1);
            let mut sum = 0;
            sums.push(0);
            for span in &map.spans {
                for weight in map.weights(span)? {
                    sum += weight;
                    sums.push(sum);
                }
            }
            Ok((map.id, sums))
        });
        Ok(Self {
            packs: packs.collect::<Result<_>>()?,
        })
    }

    /// What the entries of a set take; see [`PackMap::weigh`].
    pub(crate) fn weigh(&self, set: &EntrySet) -> u64 {
        let mut sum = 0;
        for (pack, entries) in set.packs() {
            let Some(sums) = self.packs.get(pack) else {
                continue;
            };
            let at = |ordinal: usize| sums.get(ordinal).copied().unwrap_or_default();
            let mut ranges = entries.iter();
            while let Some(range) = ranges.next_range() {
                sum += at(*range.end() as usize + 1).saturating_sub(at(*range.start() as usize));
            }
        }
        sum
    }

    /// What all entries of the packs take.
    pub(crate) fn all(&self) -> u64 {
        self.packs.values().filter_map(|sums| sums.last()).sum()
    }
}

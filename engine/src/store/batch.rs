//! Many entries at once, and entries by the beginnings of their names.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{ATTEMPTS, Found, Store};
use crate::error::Result;
use crate::index::{Location, ObjectIndex};
use crate::pack::{EntryKind, Key};

impl Store {
    /// Finds and decodes metadata entries, in parallel, each block once and past the cache. `None`
    /// for what is not found at the first look: [`Store::get`] looks again and says why.
    pub(crate) fn get_many<T: Send>(
        &self,
        keys: &[Key],
        decode: impl Fn(usize, &Found) -> T + Sync,
    ) -> Vec<Option<T>> {
        let index = self.index();
        let mut places: Vec<(Location, usize)> = keys
            .par_iter()
            .enumerate()
            .filter_map(|(n, key)| Some((index.get(key).ok()??, n)))
            .collect();
        places.par_sort_unstable_by_key(|(at, n)| (at.pack, at.offset, *n));
        let decode = &decode;
        let decoded: Vec<(usize, T)> = places
            .par_chunk_by(|(a, _), (b, _)| (a.pack, a.offset) == (b.pack, b.offset))
            .filter_map(|group| Some((group, self.block_uncached(&group.first()?.0).ok()?)))
            .flat_map_iter(|(group, block)| {
                group.iter().filter_map(move |(at, n)| {
                    let found = self.entry(&keys[*n], at, Ok(block.clone())).ok()?;
                    Some((*n, decode(*n, &found)))
                })
            })
            .collect();
        let mut all: Vec<Option<T>> = keys.iter().map(|_| None).collect();
        for (n, value) in decoded {
            all[n] = Some(value);
        }
        all
    }

    /// Names of the entries of one kind that are not below `first` and not above `last`, looking
    /// again at the directory of packs before saying that there are none.
    pub(crate) fn ids_between(
        &self,
        kind: EntryKind,
        range: (&[u8; 32], &[u8; 32]),
    ) -> Result<BTreeSet<[u8; 32]>> {
        for _ in 1..ATTEMPTS {
            match self.index().ids_between(kind, range) {
                Ok(found) if found.is_empty() && self.refresh()? => {}
                Err(error) if self.may_be_stale(&error)? => {}
                other => return other,
            }
        }
        self.index().ids_between(kind, range)
    }
}

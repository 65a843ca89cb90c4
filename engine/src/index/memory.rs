//! The rows of a few packs, sorted in memory.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Location, ObjectIndex, Visit};
use crate::error::Result;
use crate::id::PackId;
use crate::pack::writer::IndexRow;
use crate::pack::{EntryKind, Key};

/// An index without a file.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    packs: Vec<PackId>,
    rows: Vec<(Key, Location)>,
}

impl MemoryIndex {
    /// Adds the rows of a pack; call [`MemoryIndex::sort`] when all are in.
    pub(crate) fn add_pack(&mut self, pack: PackId, rows: &[IndexRow]) {
        self.packs.push(pack);
        self.rows
            .extend(rows.iter().map(|row| (row.key, Location::new(pack, row))));
    }

    /// Adds rows read back from another index.
    pub(crate) fn add_rows(&mut self, packs: &[PackId], rows: Vec<(Key, Location)>) {
        self.packs.extend_from_slice(packs);
        self.rows.extend(rows);
    }

    /// All rows, in the order of keys once they are sorted.
    pub(super) fn rows(&self) -> &[(Key, Location)] {
        &self.rows
    }

    /// The packs covered.
    pub(super) fn pack_ids(&self) -> &[PackId] {
        &self.packs
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Brings the rows into the order of keys, then of packs. An entry may lie in several packs.
    pub(crate) fn sort(mut self) -> Self {
        self.packs.sort_unstable();
        self.packs.dedup();
        self.rows
            .par_sort_unstable_by_key(|(key, at)| (*key, at.pack, at.offset));
        self.rows.dedup();
        self
    }

    /// As [`FlatIndex::ids_between`](super::flat::FlatIndex::ids_between).
    pub(super) fn ids_between(
        &self,
        kind: EntryKind,
        (first, last): (&[u8; 32], &[u8; 32]),
        wanted: impl Fn(&PackId) -> bool,
        found: &mut BTreeSet<[u8; 32]>,
    ) {
        let begin = self.rows.partition_point(|(key, _)| key.id < *first);
        let inside = self.rows[begin..]
            .iter()
            .take_while(|(key, _)| key.id <= *last);
        let of_kind = inside.filter(|(key, at)| key.kind == kind && wanted(&at.pack));
        found.extend(of_kind.map(|(key, _)| key.id));
    }

    /// Finds an entry in one of the wanted packs.
    pub(super) fn get_in(&self, key: &Key, wanted: impl Fn(&PackId) -> bool) -> Option<Location> {
        let first = self.rows.partition_point(|(k, _)| k < key);
        let same = self.rows[first..].iter().take_while(|(k, _)| k == key);
        same.map(|(_, at)| *at).find(|at| wanted(&at.pack))
    }
}

impl ObjectIndex for MemoryIndex {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        Ok(self.get_in(key, |_| true))
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.packs.clone())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.rows.iter().try_for_each(|(key, at)| visit(key, at))
    }
}

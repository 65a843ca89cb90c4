//! The rows of a few packs, sorted in memory.

use super::{Location, ObjectIndex, Visit};
use crate::error::Result;
use crate::id::PackId;
use crate::pack::Key;
use crate::pack::writer::IndexRow;

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

    /// The row at a position in key order.
    pub(crate) fn row(&self, n: usize) -> Option<(Key, Location)> {
        self.rows.get(n).copied()
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Brings the rows into key order and drops duplicates (the first pack wins, so that the result
    /// does not depend on the order of adding).
    pub(crate) fn sort(mut self) -> Self {
        self.packs.sort_unstable();
        self.packs.dedup();
        self.rows
            .sort_unstable_by_key(|(key, at)| (*key, at.pack, at.offset));
        self.rows.dedup_by_key(|(key, _)| *key);
        self
    }
}

impl ObjectIndex for MemoryIndex {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        let found = self.rows.binary_search_by_key(key, |(key, _)| *key).ok();
        Ok(found.map(|at| self.rows[at].1))
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.packs.clone())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.rows.iter().try_for_each(|(key, at)| visit(key, at))
    }
}

//! Where each entry lies. A cache of the packs: deleting it loses nothing.
//!
//! Two indexes stand behind [`ObjectIndex`]: the embedded database ([`sled`]) takes the rows of
//! recent packs in small durable batches, sorted files ([`flat`]) serve everything that has been
//! merged. [`set`] puts them together, [`files`] decides which files are merged.

mod files;
pub(crate) mod flat;
pub(crate) mod memory;
mod merge;
pub(crate) mod set;
pub(crate) mod sled;

use crate::error::Result;
use crate::id::PackId;
use crate::pack::Key;
use crate::pack::writer::IndexRow;

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    pub(crate) offset: u32,
    pub(crate) block_len: u32,
    pub(crate) entry: u32,
}

impl Location {
    pub(crate) fn new(pack: PackId, row: &IndexRow) -> Self {
        Self {
            pack,
            offset: row.offset,
            block_len: row.block_len,
            entry: row.entry,
        }
    }
}

/// Called with every row of an index, in key order.
pub(crate) type Visit<'a> = dyn FnMut(&Key, &Location) -> Result<()> + 'a;

/// A map from keys to locations that covers a known set of packs.
pub(crate) trait ObjectIndex: Send + Sync + std::fmt::Debug {
    /// Finds an entry.
    fn get(&self, key: &Key) -> Result<Option<Location>>;
    /// The packs whose every entry is in the index, sorted.
    fn packs(&self) -> Result<Vec<PackId>>;
    /// Visits all rows in key order.
    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()>;
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod growth;

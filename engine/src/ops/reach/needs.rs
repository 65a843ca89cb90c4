//! What the decoding of an entry needs besides the entry.

use crate::error::Result;
use crate::pack::reader::{DecodedBlock, Entry};
use crate::pack::{BlockClass, Key};
use crate::repo::Repository;

/// Whether entries in blocks of this class are decoded without any other entry, and are stored as
/// the bytes that they stand for.
pub(crate) fn is_plain(class: BlockClass) -> bool {
    match class {
        BlockClass::Meta | BlockClass::Group | BlockClass::Extent => true,
    }
}

/// The entries that the decoding of this one needs. Asked only for blocks that are not plain.
pub(crate) fn needs(_repo: &Repository, _key: &Key) -> Result<Vec<Key>> {
    Ok(Vec::new())
}

/// Length of the bytes that an entry stands for.
pub(crate) fn raw_len(_block: &DecodedBlock, entry: &Entry) -> u64 {
    u64::from(entry.len)
}

//! What the decoding of an entry needs besides the entry.

use crate::error::Result;
use crate::pack::reader::{DecodedBlock, Entry};
use crate::pack::{BlockClass, Key};
use crate::repo::Repository;

/// How the entries of a block stand for their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are these bytes: nothing else is needed.
    Plain,
    /// As differences to another payload.
    #[allow(dead_code)]
    Delta,
    /// As what it takes to make them from another payload.
    #[allow(dead_code)]
    Recoded,
}

/// The form of the entries in blocks of this class.
pub(crate) fn form(class: BlockClass) -> Form {
    match class {
        BlockClass::Meta | BlockClass::Group | BlockClass::Extent => Form::Plain,
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

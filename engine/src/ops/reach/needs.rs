//! What an entry is stored as.

use crate::pack::BlockClass;

/// Whether entries in blocks of this class are the bytes that they stand for. Others may need
/// entries elsewhere to be decoded.
pub(crate) fn is_plain(class: BlockClass) -> bool {
    match class {
        BlockClass::Meta | BlockClass::Group | BlockClass::Extent => true,
        BlockClass::Delta => false,
    }
}

//! What writers of deltas keep to, and readers insist on.

/// Streams of contents together are no longer.
pub(crate) const MAX_CONTENTS_RAW: u64 = 256 << 20;
/// Streams of the tree or of the files are together no longer.
pub(crate) const MAX_TREE_RAW: u64 = 256 << 20;
/// Contents that are needed again.
pub(crate) const MAX_KEPT: usize = 1 << 22;
/// A content that is not put together from others is no larger.
pub(crate) const MAX_CONTENT: u64 = 64 << 20;
/// The sources of one content are together no larger.
pub(crate) const MAX_SOURCES_BYTES: u64 = 256 << 20;
/// Sources of one content.
pub(crate) const MAX_SOURCES: usize = 8;
/// Pieces of one content.
pub(crate) const MAX_PIECES: usize = crate::pack::recipe::MAX_PIECES;
/// Listings of the base commit that those of the new one are compressed against.
pub(crate) const MAX_PREFIX: usize = 32 << 20;
/// The largest metadata object (ostree-core.h, OSTREE_MAX_METADATA_SIZE).
pub(crate) const MAX_METADATA: u64 = 128 << 20;

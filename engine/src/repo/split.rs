//! Cutting payloads into pieces that other payloads share: members of archives, and chunks.

use std::ops::Range;

/// A piece of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut<'a> {
    pub(super) range: Range<usize>,
    /// The name of the archive's member that it holds.
    pub(super) name: Option<&'a [u8]>,
}

/// Where to cut a payload, if at all: archives at their members, other large payloads without an
/// older version (`has_base`) by content.
pub(super) fn pieces(bytes: &[u8], has_base: bool) -> Option<Vec<Cut<'_>>> {
    let _ = (bytes, has_base);
    None
}

/// A path without the extension that says how the file is compressed.
pub(super) fn stem(path: &[u8]) -> &[u8] {
    [b".gz".as_slice(), b".xz", b".zst", b".bz2"]
        .iter()
        .find_map(|ext| path.strip_suffix(*ext))
        .unwrap_or(path)
}

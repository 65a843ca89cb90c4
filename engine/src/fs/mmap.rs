//! Read-only memory maps: the only `unsafe` of the engine.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps a whole file.
///
/// Only for files that are written once under a temporary name, renamed into place and never
/// changed afterwards (index files): their bytes cannot change under the map.
#[allow(unsafe_code)]
pub(crate) fn map_immutable(file: &File) -> io::Result<Mmap> {
    // SAFETY: by the contract above nobody writes to or truncates the file while it is mapped; a
    // replaced index keeps its inode until the last map of it is gone.
    unsafe { Mmap::map(file) }
}

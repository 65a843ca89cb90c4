//! Read-only memory maps: the only `unsafe` of the engine.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::Mmap;

/// The bytes of a whole file, mapped.
#[derive(Debug)]
pub struct Map(Mmap);

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps a whole file.
///
/// Only for files that are written once under a temporary name, renamed into place and never
/// changed afterwards (index files, images of commits): their bytes cannot change under the map.
#[allow(unsafe_code)]
pub fn map_immutable(file: &File) -> io::Result<Map> {
    // SAFETY: by the contract above nobody writes to or truncates the file while it is mapped; a
    // replaced file keeps its inode until the last map of it is gone.
    unsafe { Mmap::map(file) }.map(Map)
}

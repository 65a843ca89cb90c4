//! Maps files into memory.

#![expect(
    unsafe_code,
    reason = "memory that a file lies behind is unsafe by nature"
)]

use std::fs::File;
use std::hint::black_box;

use memmap2::Mmap;

/// Maps a file and reads a byte of each of its pages; gives their number.
pub(super) fn touch(file: &File, page: usize) -> std::io::Result<u64> {
    // SAFETY: the file is in a mount or tree that nobody writes to while it is measured; if somebody
    // cut it short all the same, the process would end with a signal, and so would the measurement.
    let map = unsafe { Mmap::map(file)? };
    let mut pages = 0;
    for byte in map.iter().step_by(page) {
        black_box(*byte);
        pages += 1;
    }
    Ok(pages)
}

//! Entry points for fuzzing what is read of OSTree repositories: any bytes, no panic.

use std::io;

use super::filez::Inflate;
use super::keyfile::KeyFile;
use super::object::read_archive_head;

/// Objects of archives: a header, and as much content as it declares.
pub(crate) fn try_filez(data: &[u8]) {
    let Ok(Ok(head)) = read_archive_head(&mut &*data, data.len() as u64) else {
        return;
    };
    let (header, rest) = data.split_at(head.offset as usize);
    // What is between the length and the header is padding.
    let again = head.header.archive_prefix(head.size);
    assert_eq!((&again[..4], &again[8..]), (&header[..4], &header[8..]));
    if !head.header.is_symlink()
        && let Ok(size) = io::copy(&mut Inflate::new(rest, head.size), &mut io::sink())
    {
        assert_eq!(size, head.size);
    }
}

/// Key files: what is read is written as it was, but for comments.
pub(crate) fn try_key_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(file) = KeyFile::parse(text) {
        assert_eq!(KeyFile::parse(&file.to_string()), Ok(file));
    }
}

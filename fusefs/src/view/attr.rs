//! Attributes as objects determine them.

use std::time::SystemTime;

use grove_engine::object::FileObject;

use super::{Attr, Entry, Lifetime};

pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;

pub(super) fn file_entry(number: u64, file: &FileObject) -> Entry {
    let header = &file.header;
    let (size, blocks) = match header.is_symlink() {
        true => (header.symlink_target.len() as u64, 0),
        false => (file.size, file.size.div_ceil(512)),
    };
    let attr = Attr {
        number,
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        size,
        blocks,
        mtime: SystemTime::UNIX_EPOCH,
    };
    Entry {
        attr,
        lifetime: Lifetime::Forever,
    }
}

pub(super) fn link_entry(number: u64, target: &str, lifetime: Lifetime) -> Entry {
    let attr = Attr {
        mode: S_IFLNK | 0o777,
        size: target.len() as u64,
        blocks: 0,
        ..dir_attr(number, 0)
    };
    Entry { attr, lifetime }
}

/// Attributes of a directory; the size is what most file systems state for a small one.
pub(super) fn dir_attr(number: u64, mode: u32) -> Attr {
    let mtime = SystemTime::UNIX_EPOCH;
    Attr {
        number,
        mode,
        uid: 0,
        gid: 0,
        size: 4096,
        blocks: 8,
        mtime,
    }
}

pub(super) fn placeholder(number: u64, mode: u32) -> Entry {
    let attr = Attr {
        size: 0,
        blocks: 0,
        ..dir_attr(number, mode)
    };
    Entry {
        attr,
        lifetime: Lifetime::None,
    }
}

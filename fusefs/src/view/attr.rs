//! Attributes as objects and images determine them.

use std::time::SystemTime;

use grove_engine::object::{DirMeta, FileObject};

use super::{Attr, Entry, Lifetime};

pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;

/// What the attributes of a file depend on; the same whether they come from its object or from an
/// image.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileFacts {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a link, the length of its target.
    pub(super) size: u64,
}

impl From<&FileObject> for FileFacts {
    fn from(file: &FileObject) -> Self {
        let header = &file.header;
        Self {
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            size: match header.is_symlink() {
                true => header.symlink_target.len() as u64,
                false => file.size,
            },
        }
    }
}

pub(super) fn file_entry(number: u64, file: impl Into<FileFacts>) -> Entry {
    let FileFacts {
        mode,
        uid,
        gid,
        size,
    } = file.into();
    let blocks = match mode & S_IFMT {
        S_IFLNK => 0,
        _ => size.div_ceil(512),
    };
    let attr = Attr {
        number,
        mode,
        uid,
        gid,
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

/// A directory of a commit.
pub(super) fn tree_entry(number: u64, mode: u32, uid: u32, gid: u32) -> Entry {
    let attr = Attr {
        uid,
        gid,
        ..dir_attr(number, S_IFDIR | (mode & !S_IFMT))
    };
    Entry {
        attr,
        lifetime: Lifetime::Forever,
    }
}

/// A commit's root directory, which has no image yet, perhaps.
pub(super) fn root_entry(number: u64, meta: &DirMeta) -> Entry {
    tree_entry(number, meta.mode, meta.uid, meta.gid)
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

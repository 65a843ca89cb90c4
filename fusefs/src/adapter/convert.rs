//! Words of the view in terms of the protocol.

use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo, ReplyXattr};

use crate::view::{Attr, BLOCK_SIZE, Lifetime, ViewError};

/// "For ever": the kernel counts seconds in 64 bits, others use the same number.
const FOREVER: Duration = Duration::from_secs(1 << 32);
const SHORT: Duration = Duration::from_secs(1);

pub(super) fn errno(error: &ViewError) -> Errno {
    match error {
        ViewError::NotFound => Errno::ENOENT,
        ViewError::NameTooLong => Errno::ENAMETOOLONG,
        ViewError::NotADirectory => Errno::ENOTDIR,
        ViewError::IsADirectory => Errno::EISDIR,
        ViewError::WrongType => Errno::EINVAL,
        ViewError::NoAttribute => Errno::ENODATA,
        ViewError::Stale { .. } => Errno::ESTALE,
        _ => Errno::EIO,
    }
}

pub(super) fn ttl(lifetime: Lifetime) -> Duration {
    match lifetime {
        Lifetime::Forever => FOREVER,
        Lifetime::Short => SHORT,
        Lifetime::None => Duration::ZERO,
    }
}

pub(super) fn file_type(mode: u32) -> FileType {
    match mode & 0o170_000 {
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        _ => FileType::RegularFile,
    }
}

pub(super) fn is_regular(attr: &Attr) -> bool {
    file_type(attr.mode) == FileType::RegularFile
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.number),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: attr.mtime,
        kind: file_type(attr.mode),
        perm: (attr.mode & 0o7777) as u16,
        nlink: 1,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The answer that lets the kernel remember that a name does not exist.
pub(super) fn absent() -> FileAttr {
    let mtime = SystemTime::UNIX_EPOCH;
    let attr = Attr {
        number: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        mtime,
    };
    file_attr(&attr)
}

pub(super) fn reply_xattr(size: u32, value: Result<Vec<u8>, Errno>, reply: ReplyXattr) {
    match value {
        Err(errno) => reply.error(errno),
        Ok(value) => match u32::try_from(value.len()) {
            Err(_) => reply.error(Errno::E2BIG),
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len > size => reply.error(Errno::ERANGE),
            Ok(_) => reply.data(&value),
        },
    }
}

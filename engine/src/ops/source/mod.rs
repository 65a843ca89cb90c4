//! Inputs of a commit: each lays its entries over a [`MutableTree`](crate::tree::MutableTree) and
//! puts payloads into the transaction.

mod dir;
mod overlay;
mod stat_cache;
mod tar;

pub use self::dir::add_dir;
pub use self::overlay::add_ref;
pub use self::tar::add_tar;

use crate::object::{DirMeta, FileHeader, Xattrs};

/// For fuzzing.
pub(crate) fn decode_stat_cache(bytes: &[u8]) {
    drop(stat_cache::decode(bytes));
}

/// Type bits of `st_mode`.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
/// Symbolic links always carry this mode.
const SYMLINK_MODE: u32 = 0o120_777;

/// How input is turned into objects; the names are those of `ostree commit`'s options.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Owner of everything, instead of the input's.
    pub owner_uid: Option<u32>,
    /// Group of everything, instead of the input's.
    pub owner_gid: Option<u32>,
    /// Owner and group 0, modes masked with 0755, no extended attributes.
    pub canonical_permissions: bool,
    /// Leave out extended attributes.
    pub no_xattrs: bool,
    /// Skip what a commit cannot hold (devices, FIFOs, sockets, names that are not UTF-8), with a
    /// count, instead of failing.
    pub skip_special: bool,
    /// Do not use the stat cache: read every file.
    pub no_stat_cache: bool,
    /// Make directories that a tar archive does not list (mode 0755, owner 0).
    pub tar_autocreate_parents: bool,
}

/// What an input brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Regular files and symbolic links.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Files that the stat cache knew, and that were not read.
    pub unread_files: u64,
    /// Entries left out because a commit cannot hold them.
    pub skipped: u64,
}

impl SourceOptions {
    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        if self.canonical_permissions {
            return (0, 0);
        }
        (self.owner_uid.unwrap_or(uid), self.owner_gid.unwrap_or(gid))
    }

    fn mode(&self, mode: u32) -> u32 {
        let mode = mode & (S_IFMT | 0o7777);
        if self.canonical_permissions {
            mode & (S_IFMT | 0o755)
        } else {
            mode
        }
    }

    fn keeps_xattrs(&self) -> bool {
        !self.no_xattrs && !self.canonical_permissions
    }

    fn xattrs(&self, xattrs: Xattrs) -> Xattrs {
        if self.keeps_xattrs() {
            xattrs
        } else {
            Xattrs::default()
        }
    }

    fn regular(&self, uid: u32, gid: u32, mode: u32, xattrs: Xattrs) -> FileHeader {
        let (uid, gid) = self.owner(uid, gid);
        let mode = self.mode(S_IFREG | mode & 0o7777);
        FileHeader {
            uid,
            gid,
            mode,
            symlink_target: Vec::new(),
            xattrs: self.xattrs(xattrs),
        }
    }

    fn symlink(&self, uid: u32, gid: u32, target: Vec<u8>, xattrs: Xattrs) -> FileHeader {
        let (uid, gid) = self.owner(uid, gid);
        let xattrs = self.xattrs(xattrs);
        FileHeader {
            uid,
            gid,
            mode: SYMLINK_MODE,
            symlink_target: target,
            xattrs,
        }
    }

    fn directory(&self, uid: u32, gid: u32, mode: u32, xattrs: Xattrs) -> DirMeta {
        let (uid, gid) = self.owner(uid, gid);
        DirMeta {
            uid,
            gid,
            mode: self.mode(S_IFDIR | mode & 0o7777),
            xattrs: self.xattrs(xattrs),
        }
    }

    /// What of the options decides the names of objects.
    fn fingerprint(&self) -> String {
        let Self {
            owner_uid,
            owner_gid,
            canonical_permissions,
            no_xattrs,
            ..
        } = self;
        format!("{owner_uid:?} {owner_gid:?} {canonical_permissions} {no_xattrs}")
    }
}

//! What a comparison is asked for and what it finds.

use crate::id::PayloadId;
use crate::object::Xattrs;

/// How to compare.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// Load metadata of everything that changed; otherwise [`Change::a`] and [`Change::b`] may
    /// be empty.
    pub details: bool,
    /// Leave extended attributes out of the comparison.
    pub no_xattrs: bool,
    /// Take local files as owned by this user.
    pub owner_uid: Option<u32>,
    /// Take local files as owned by this group.
    pub owner_gid: Option<u32>,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Directory.
    Directory,
}

/// Metadata of one side of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Type.
    pub kind: FileKind,
    /// Full `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file, else 0.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Target of a symbolic link.
    pub symlink_target: Vec<u8>,
    /// Name of a regular file's payload, where it was needed to tell two files apart.
    pub payload: Option<PayloadId>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Only in the second tree.
    Added,
    /// Only in the first tree.
    Removed,
    /// In both, and different.
    Modified,
}

/// One path that differs.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Path from the root of the trees, beginning with `/`.
    pub path: String,
    /// Type on the side where it is now (the first side for removals).
    pub file_kind: FileKind,
    /// Whether the change follows from one above it: below a removed directory, or below a path
    /// that changed its type. `ostree diff` does not list these.
    pub implied: bool,
    /// The first side's metadata.
    pub a: Option<Info>,
    /// The second side's metadata.
    pub b: Option<Info>,
}

/// Everything that differs, in the order of `ostree diff`.
#[derive(Debug, Clone, Default)]
pub struct DiffReport {
    /// In both and different.
    pub modified: Vec<Change>,
    /// Only in the first tree.
    pub removed: Vec<Change>,
    /// Only in the second tree.
    pub added: Vec<Change>,
}

impl DiffReport {
    /// All changes: modified, removed, added.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.modified.iter().chain(&self.removed).chain(&self.added)
    }
}

/// Which metadata of a path changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aspects {
    /// File, link or directory.
    pub kind: bool,
    /// Bytes or link target.
    pub content: bool,
    /// Permission bits.
    pub mode: bool,
    /// Owner or group.
    pub owner: bool,
    /// Extended attributes.
    pub xattrs: bool,
}

impl Change {
    /// What changed, from the metadata of both sides; `None` unless both were loaded.
    pub fn aspects(&self) -> Option<Aspects> {
        let (a, b) = (self.a.as_ref()?, self.b.as_ref()?);
        let owner = (a.uid, a.gid) != (b.uid, b.gid);
        let mode = a.mode & 0o7777 != b.mode & 0o7777;
        let xattrs = a.xattrs != b.xattrs;
        let kind = a.kind != b.kind;
        let content =
            (a.size, a.payload, &a.symlink_target) != (b.size, b.payload, &b.symlink_target);
        Some(Aspects {
            kind,
            content: content && !kind,
            mode,
            owner,
            xattrs,
        })
    }
}

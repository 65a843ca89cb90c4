//! What a comparison is asked for and what it finds.

use std::path::PathBuf;

use super::moves::Move;
use crate::id::{ObjectId, PayloadId};
use crate::object::Xattrs;

/// The attribute that holds a security label.
pub const LABEL: &[u8] = b"security.selinux";

/// How to compare.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// Load metadata of everything that changed; otherwise [`Change::a`] and [`Change::b`] may
    /// be empty.
    pub details: bool,
    /// Find what was moved; needs `details`.
    pub moves: bool,
    /// Only what is at this path of both trees; empty for everything.
    pub subpath: String,
    /// Leave extended attributes out of the comparison.
    pub no_xattrs: bool,
    /// Take local files as owned by this user.
    pub owner_uid: Option<u32>,
    /// Take local files as owned by this group.
    pub owner_gid: Option<u32>,
    /// Leave out what a commit cannot hold (devices, sockets, FIFOs, names that are not UTF-8)
    /// instead of failing.
    pub skip_special: bool,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Directory.
    Directory,
}

/// Where metadata and content come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An object: a file, or the metadata of a directory.
    Stored(ObjectId),
    /// A path of the file system.
    Local(PathBuf),
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
    /// Name of a regular file's payload; of a local file only where it was needed.
    pub payload: Option<PayloadId>,
    /// Where all this was found.
    pub source: Source,
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
    /// Which of the added are removed ones at another path.
    pub moves: Vec<Move>,
    /// Entries of directories that were left out.
    pub skipped: u64,
}

/// What happened to one entry, where a move is one event and not two.
#[derive(Debug, Clone, Copy)]
pub struct Event<'r> {
    /// The change that has the first side; none for additions.
    pub from: Option<&'r Change>,
    /// The change that has the second side; none for removals.
    pub to: Option<&'r Change>,
    /// How it was found, for moves.
    pub moved: Option<&'r Move>,
}

impl DiffReport {
    /// All changes: modified, removed, added.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.modified.iter().chain(&self.removed).chain(&self.added)
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All changes, with moves as one event: modified, removed, added, moved.
    pub fn events(&self) -> Vec<Event<'_>> {
        let (mut gone, mut came) = (
            vec![false; self.removed.len()],
            vec![false; self.added.len()],
        );
        for step in &self.moves {
            gone[step.removed] = true;
            came[step.added] = true;
        }
        let rest = |list: &'_ [bool]| {
            let rest = list.iter().enumerate().filter(|(_, moved)| !**moved);
            rest.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let event = |from, to, moved| Event { from, to, moved };
        let modified = self.modified.iter().map(|c| event(Some(c), Some(c), None));
        let removed = rest(&gone).into_iter();
        let removed = removed.map(|at| event(Some(&self.removed[at]), None, None));
        let added = rest(&came).into_iter();
        let added = added.map(|at| event(None, Some(&self.added[at]), None));
        let moved = self.moves.iter().map(|step| {
            let (from, to) = (&self.removed[step.removed], &self.added[step.added]);
            event(Some(from), Some(to), Some(step))
        });
        modified.chain(removed).chain(added).chain(moved).collect()
    }
}

impl<'r> Event<'r> {
    /// Where the entry is now, or was last.
    pub fn path(&self) -> &'r str {
        self.to.or(self.from).map_or("", |change| &change.path)
    }

    /// The first side's metadata.
    pub fn before(&self) -> Option<&'r Info> {
        self.from?.a.as_ref()
    }

    /// The second side's metadata.
    pub fn after(&self) -> Option<&'r Info> {
        self.to?.b.as_ref()
    }

    /// What changed, from the metadata of both sides; `None` unless both were loaded.
    pub fn aspects(&self) -> Option<Aspects> {
        Some(Aspects::between(self.before()?, self.after()?))
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
    /// The security label.
    pub label: bool,
    /// Other extended attributes.
    pub xattrs: bool,
}

impl Aspects {
    /// What differs between two entries.
    pub fn between(a: &Info, b: &Info) -> Self {
        let kind = a.kind != b.kind;
        let content =
            (a.size, a.payload, &a.symlink_target) != (b.size, b.payload, &b.symlink_target);
        let names = xattr_names(a).chain(xattr_names(b));
        let differ = |name: &[u8]| a.xattrs.get(name) != b.xattrs.get(name);
        let xattrs = names.filter(|name| *name != LABEL).any(differ);
        let label = differ(LABEL);
        // The order counts, too, as it is part of an object's name.
        let order = !label && a.xattrs != b.xattrs;
        Self {
            kind,
            content: content && !kind,
            mode: a.mode & 0o7777 != b.mode & 0o7777,
            owner: (a.uid, a.gid) != (b.uid, b.gid),
            label,
            xattrs: xattrs || order,
        }
    }
}

fn xattr_names(info: &Info) -> impl Iterator<Item = &[u8]> {
    info.xattrs.iter().map(|(name, _)| name)
}

impl Change {
    /// Whether `ostree diff` lists it: neither what is implied nor the root's own metadata.
    pub fn is_listed(&self) -> bool {
        !self.implied && self.path != super::ROOT
    }

    /// What changed, from the metadata of both sides; `None` unless both were loaded.
    pub fn aspects(&self) -> Option<Aspects> {
        Some(Aspects::between(self.a.as_ref()?, self.b.as_ref()?))
    }
}

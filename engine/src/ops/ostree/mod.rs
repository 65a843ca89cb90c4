//! OSTree repositories on disk: import from them, export to them, and what a client transfers from
//! an exported one. What OSTree wrote is read as input of strangers: verified before it is used.

mod export;
mod filez;
mod fuzz;
mod import;
mod keyfile;
mod loose;
mod object;
mod pull;
mod sizes;
mod walk;

use std::fmt;

pub use self::export::{ExportOptions, ExportReport, export};
pub(crate) use self::filez::{Counter, deflate};
pub(crate) use self::fuzz::{try_filez, try_key_file};
pub use self::import::{ImportOptions, ImportReport, import};
use self::keyfile::KeyFile;
pub use self::pull::{Planner, Pull, Transfer};
#[cfg(test)]
pub(crate) use self::sizes::example;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::repo::Repository;

/// How an OSTree repository stores file objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoMode {
    /// Each with its real owner, mode and extended attributes.
    Bare,
    /// As the user's own, with the metadata in an extended attribute.
    BareUser,
    /// As the user's own; only objects of owner 0 with plain modes.
    BareUserOnly,
    /// As `Bare`, with extended attributes in objects of their own; only read.
    BareSplitXattrs,
    /// Compressed, to be served over HTTP.
    Archive,
}

impl RepoMode {
    const ALL: [(&'static str, Self); 6] = [
        ("bare", Self::Bare),
        ("bare-user", Self::BareUser),
        ("bare-user-only", Self::BareUserOnly),
        ("bare-split-xattrs", Self::BareSplitXattrs),
        ("archive-z2", Self::Archive),
        ("archive", Self::Archive),
    ];

    /// The mode that a configuration names.
    fn from_config(text: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| mode)
    }

    /// As OSTree's configuration has it.
    const fn as_config(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareUser => "bare-user",
            Self::BareUserOnly => "bare-user-only",
            Self::BareSplitXattrs => "bare-split-xattrs",
            Self::Archive => "archive-z2",
        }
    }
}

impl fmt::Display for RepoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive => "archive",
            other => other.as_config(),
        })
    }
}

/// Where an object lies below the directory of a repository.
fn object_path(mode: RepoMode, kind: ObjectKind, id: &ObjectId) -> String {
    let z = match (mode, kind) {
        (RepoMode::Archive, ObjectKind::File) => "z",
        _ => "",
    };
    loose_path(id, &format!("{kind}{z}"))
}

fn loose_path(id: &ObjectId, extension: &str) -> String {
    let text = id.to_string();
    let (first, rest) = text.split_at(2);
    format!("objects/{first}/{rest}.{extension}")
}

/// Beginning of the names of refs that belong to a collection: `refs/mirrors/<collection>/<ref>`.
const MIRRORS: &str = "refs/mirrors/";

/// A configuration is smaller than this.
const MAX_CONFIG: u64 = 1 << 20;

/// What a repository of ours remembers of remotes and its collection.
fn config_of(repo: &Repository) -> Result<KeyFile> {
    let path = repo.ostree_config_path();
    let bytes = loose::read_limited(&path, MAX_CONFIG)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    KeyFile::parse(&text).map_err(|line| Error::Corrupt {
        path,
        detail: format!("line {line} is malformed"),
    })
}

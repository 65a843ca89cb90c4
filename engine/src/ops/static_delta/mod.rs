//! OSTree's static deltas: what stock clients fetch in place of objects.
//!
//! Owns the format (superblock, parts, operations), the making of deltas from two commits of a
//! repository, and their application to one. Deltas lie below `deltas/` of the repository under
//! OSTree's names. What is made is applied and compared before it is kept; what comes from elsewhere
//! is not believed. How the format is used: docs/ostree.md, "Static deltas".

mod apply;
mod files;
mod generate;
mod machine;
mod name;
mod part;
mod superblock;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;

pub use self::apply::{ApplyReport, apply_offline};
pub(in crate::ops) use self::files::size;
pub use self::files::{
    DeltaAt, DeltaInfo, PartInfo, VerifyReport, delete, exists, list, show, verify,
};
pub use self::generate::{GenerateOptions, GenerateReport, generate};
pub use self::name::DeltaName;
pub use self::part::Effort;

use crate::error::Error;
use crate::id::{ObjectId, ObjectKind};
use crate::object::DecodeError;

/// What went wrong inside of a delta, before its file is known.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// It is no delta's fault.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The delta is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl Fault {
    fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid(detail.into())
    }

    fn other_object(kind: ObjectKind, id: &ObjectId) -> Self {
        Self::Invalid(format!("what it makes is not {kind} object {id}"))
    }

    /// The error, given the file that the delta is in.
    fn of(self, path: &Path) -> Error {
        match self {
            Self::Engine(error) => error,
            Self::Invalid(detail) => Error::InvalidDelta {
                path: path.to_owned(),
                detail,
            },
        }
    }
}

//! What is wrong inside of a delta, before its file is known.

use std::path::Path;

use super::receive::Refused;
use crate::error::Error;
use crate::id::{ObjectId, ObjectKind};
use crate::object::DecodeError;

/// What went wrong inside of a delta, before its file is known.
#[derive(Debug, thiserror::Error)]
pub(in crate::ops) enum Fault {
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

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Engine(error) => error.into(),
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl Fault {
    pub(in crate::ops) fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid(detail.into())
    }

    pub(in crate::ops) fn other_object(kind: ObjectKind, id: &ObjectId) -> Self {
        Self::Invalid(format!("what it makes is not {kind} object {id}"))
    }

    /// An error of looking at a new tree: what is missing or malformed in it, the delta is to blame for.
    pub(in crate::ops) fn of_tree(error: Error) -> Self {
        match error {
            Error::MissingObject { kind, id } => Self::Invalid(format!(
                "{kind} object {id} is in neither the delta nor the repository"
            )),
            Error::MalformedObject { kind, id, source } => {
                Self::Invalid(format!("{kind} object {id} is malformed: {source}"))
            }
            other => other.into(),
        }
    }

    /// The error, given the file that the delta is in.
    pub(in crate::ops) fn of(self, path: &Path) -> Error {
        match self {
            Self::Engine(error) => error,
            Self::Invalid(detail) => Error::InvalidDelta {
                path: path.to_owned(),
                detail,
            },
        }
    }
}

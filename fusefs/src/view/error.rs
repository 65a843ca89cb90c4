//! Why the view cannot answer.

use grove_engine::{Error as EngineError, ObjectId};

/// Why the view cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// No entry of this name.
    #[error("no such entry")]
    NotFound,
    /// The name is longer than any that a file system takes (255 bytes).
    #[error("name too long")]
    NameTooLong,
    /// A directory operation on something else.
    #[error("not a directory")]
    NotADirectory,
    /// A file operation on a directory.
    #[error("is a directory")]
    IsADirectory,
    /// The operation does not suit the type of file: `readlink` on a regular file, say.
    #[error("wrong type of file")]
    WrongType,
    /// No extended attribute of this name.
    #[error("no such attribute")]
    NoAttribute,
    /// An inode number that stands for nothing.
    #[error("stale inode number {number}")]
    Stale {
        /// As given.
        number: u64,
    },
    /// An object could not be read.
    #[error("cannot read {path:?} ({what} {id})")]
    Object {
        /// Path in the mount.
        path: String,
        /// Kind of object.
        what: &'static str,
        /// Name of the object.
        id: ObjectId,
        /// What the engine said.
        #[source]
        source: Box<EngineError>,
    },
    /// Two objects whose names begin alike, so that they would have the same inode numbers.
    #[error("cannot number {path:?}: {what}s {id} and {other} begin alike")]
    Collision {
        /// Path in the mount.
        path: String,
        /// Kind of object.
        what: &'static str,
        /// Name of the object.
        id: ObjectId,
        /// Name of the other one.
        other: ObjectId,
    },
    /// A directory was numbered when all of its commit could be read, and now parts cannot.
    #[error("cannot tell the directories of commit {commit} apart: parts of it cannot be read")]
    Incomplete {
        /// The commit.
        commit: ObjectId,
    },
    /// A payload ended before the size that its object states.
    #[error("cannot read {path:?} (file {id}): payload ends at byte {end}")]
    ShortPayload {
        /// Path in the mount.
        path: String,
        /// Name of the object.
        id: ObjectId,
        /// Where it ended.
        end: u64,
    },
    /// Something about the repository as a whole could not be read.
    #[error("cannot read the repository's {what}")]
    Repository {
        /// What was to be read.
        what: &'static str,
        /// What the engine said.
        #[source]
        source: Box<EngineError>,
    },
}

impl ViewError {
    /// Whether someone should be told: damage, not an ordinary answer.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Object { .. }
                | Self::Collision { .. }
                | Self::Incomplete { .. }
                | Self::ShortPayload { .. }
                | Self::Repository { .. }
        )
    }
}

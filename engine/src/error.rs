//! The engine's errors, in three families: corruption, environment, misuse.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::{ObjectId, ObjectKind};

/// Result of engine operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory is not a Grove repository.
    #[error("{} is not a Grove repository", path.display())]
    NotARepository {
        /// The directory given.
        path: PathBuf,
    },
    /// `init` found something in the way.
    #[error("{} already exists and is not empty", path.display())]
    NotEmpty {
        /// The directory given.
        path: PathBuf,
    },
    /// The repository, or a delta, was written by a newer program.
    #[error("{}: unsupported format: {detail}", path.display())]
    UnsupportedFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version or the feature flags that are unknown.
        detail: String,
    },
    /// Another process holds a lock that this operation needs.
    #[error("{} is locked by another process ({holder})", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What is known of the holder.
        holder: String,
    },
    /// Data on disk is not what it must be.
    #[error("{}: corrupt: {detail}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file and what is wrong.
        detail: String,
    },
    /// An object's bytes are malformed.
    #[error("{kind} object {id} is malformed")]
    MalformedObject {
        /// The kind of object.
        kind: ObjectKind,
        /// Its name.
        id: ObjectId,
        /// What is wrong with it.
        #[source]
        source: crate::object::DecodeError,
    },
    /// An object that is referred to is not in the repository.
    #[error("{kind} object {id} is missing")]
    MissingObject {
        /// The kind of object.
        kind: ObjectKind,
        /// Its name.
        id: ObjectId,
    },
    /// The payload of a file, or a part of it, is not in the repository.
    #[error("payload {id} is missing")]
    MissingPayload {
        /// Its name.
        id: crate::id::PayloadId,
    },
    /// Something at a path of a commit cannot be read because the repository is damaged.
    #[error("{path}: {kind} object {id} cannot be read")]
    Damaged {
        /// The path in the commit.
        path: String,
        /// The kind of the object there.
        kind: ObjectKind,
        /// Its name.
        id: ObjectId,
        /// What is wrong.
        #[source]
        source: Box<Self>,
    },
    /// No commit or ref of this name.
    #[error("no such rev {rev:?}")]
    RevNotFound {
        /// As given.
        rev: String,
    },
    /// An abbreviated checksum that several commits share.
    #[error("rev {rev:?} is ambiguous: {} commits begin so", candidates.len())]
    RevAmbiguous {
        /// As given.
        rev: String,
        /// The commits it could mean.
        candidates: Vec<ObjectId>,
    },
    /// A ref name that OSTree would not accept.
    #[error("invalid ref name {name:?}")]
    InvalidRefName {
        /// As given.
        name: String,
    },
    /// A ref name that is a directory of another one, or below one.
    #[error("ref {name} conflicts with existing ref {other}")]
    RefConflict {
        /// The ref to be set.
        name: String,
        /// The ref in its way.
        other: String,
    },
    /// A ref is no longer what the caller expected.
    #[error(
        "ref {name} changed meanwhile: expected {}, found {}",
        or_none(expected),
        or_none(found)
    )]
    RefChanged {
        /// The ref.
        name: String,
        /// The value that the caller saw.
        expected: Option<ObjectId>,
        /// The value it has now.
        found: Option<ObjectId>,
    },
    /// A commit that was to be deleted is needed.
    #[error("commit {id} is in use by {by}")]
    CommitInUse {
        /// The commit.
        id: ObjectId,
        /// The ref that points to it, or the processes that have mounted or are reading it.
        by: String,
    },
    /// An object of an OSTree repository that is read is not what it must be.
    #[error("{kind} object {id} in {}", path.display())]
    BadObject {
        /// The kind of object.
        kind: ObjectKind,
        /// Its name.
        id: ObjectId,
        /// The file that it was looked for in.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<ObjectFault>,
    },
    /// A path that does not exist in a commit.
    #[error("no such path in commit: {path}")]
    PathNotFound {
        /// The path, lossily decoded.
        path: String,
    },
    /// A directory that is to be updated, of which nobody knows what it holds.
    #[error("{} is not known as a whole checkout of this repository", path.display())]
    UnknownCheckout {
        /// The directory.
        path: PathBuf,
    },
    /// Input that cannot be represented in a commit.
    #[error("{path}: {reason}")]
    UnsupportedInput {
        /// The path concerned, lossily decoded.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Two trees of one commit disagree about a path.
    #[error("conflict at {path}: {first} and {second} differ")]
    Conflict {
        /// The path concerned, lossily decoded.
        path: String,
        /// Who brought the first version.
        first: String,
        /// Who brought the second version.
        second: String,
    },
    /// A delta file is malformed, damaged, or does not hold what it says.
    #[error("{}: invalid delta: {detail}", path.display())]
    InvalidDelta {
        /// The delta, or the file of it.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A delta begins at a commit that the repository does not have.
    #[error("{}: the delta begins at commit {from}, which is not in the repository", path.display())]
    WrongBase {
        /// The delta.
        path: PathBuf,
        /// Where it begins.
        from: ObjectId,
    },
    /// A delta begins at a commit that the repository does not have all of.
    #[error(
        "{}: the delta begins at commit {from}, of which the repository has only a part",
        path.display()
    )]
    PartialBase {
        /// The delta.
        path: PathBuf,
        /// Where it begins.
        from: ObjectId,
    },
    /// No delta of this name.
    #[error("no such delta {name}")]
    DeltaNotFound {
        /// Which one.
        name: String,
    },
    /// Input changed while it was being read.
    #[error("{} changed while it was read", path.display())]
    InputChanged {
        /// The file concerned.
        path: PathBuf,
    },
    /// The caller asked for the operation to stop.
    #[error("interrupted")]
    Cancelled,
}

/// What is wrong with an object that is read from elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectFault {
    /// There is no such file.
    #[error("the object is missing")]
    Missing,
    /// The bytes have another name.
    #[error("checksum mismatch: the content is that of {found}")]
    Checksum {
        /// What the bytes would have to be called.
        found: ObjectId,
    },
    /// The bytes are not those of such an object.
    #[error(transparent)]
    Malformed(#[from] crate::object::DecodeError),
    /// More bytes than any such object has.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// How many there are.
        size: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The header declares more than the compressed bytes can hold.
    #[error("{packed} compressed bytes cannot hold the declared {size} bytes")]
    Impossible {
        /// Size of the file.
        packed: u64,
        /// What the header says.
        size: u64,
    },
    /// The content cannot be decompressed to what the header declares.
    #[error("the content does not decompress")]
    Content(#[source] io::Error),
    /// The file's metadata is not there, or not readable as such.
    #[error("{0}")]
    Metadata(&'static str),
}

impl Error {
    /// Whether data on disk is missing or not what it must be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::MalformedObject { .. }
                | Self::MissingObject { .. }
                | Self::MissingPayload { .. }
                | Self::Damaged { .. }
        )
    }

    /// Says which path of a commit damage hits; other errors stay as they are.
    pub fn hitting(self, path: &str, kind: ObjectKind, id: &ObjectId) -> Self {
        if !self.is_damage() || matches!(self, Self::Damaged { .. }) {
            return self;
        }
        let path = if path.is_empty() { "/" } else { path };
        Self::Damaged {
            path: path.to_owned(),
            kind,
            id: *id,
            source: Box::new(self),
        }
    }
}

fn or_none(id: &Option<ObjectId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// Gives an [`io::Error`] the path it is about.
pub trait IoResultExt<T> {
    /// Names the file or directory that the failed call was about.
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoResultExt<T> for std::result::Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io {
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}

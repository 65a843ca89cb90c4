//! Why mounting or unmounting failed.

use std::io;
use std::path::PathBuf;

/// Result of mounting and unmounting.
pub type Result<T, E = MountError> = std::result::Result<T, E>;

/// Why mounting or unmounting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// What is to be mounted cannot be read.
    #[error(transparent)]
    Engine(Box<grove_engine::Error>),
    /// The system has no FUSE.
    #[error("cannot open /dev/fuse: the kernel's FUSE support is missing or not permitted here")]
    NoDevice {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Users mount through a helper that is not installed.
    #[error("mounting as a user needs fusermount3 (package fuse3)")]
    NoHelper {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The helper refused.
    #[error("{}: {message}", path.display())]
    Helper {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The mount point is no directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// A commit is mounted there already.
    #[error("{} is a Grove mount already", path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
    },
    /// A mount whose server died is still there.
    #[error("{} is a mount whose server has died: unmount it first", path.display())]
    Stale {
        /// The mount point.
        path: PathBuf,
    },
    /// Nothing of ours is mounted there.
    #[error("{} is not a Grove mount", path.display())]
    NotMounted {
        /// As given.
        path: PathBuf,
    },
    /// Something under the mount point is in use.
    #[error("{} is in use", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<grove_engine::Error> for MountError {
    fn from(error: grove_engine::Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl MountError {
    /// For `map_err`: names what was tried and with what.
    pub(crate) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source: source.into(),
        }
    }
}

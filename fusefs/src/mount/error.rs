//! Why mounting or unmounting failed.

use std::io;
use std::path::PathBuf;

use super::users::MountUser;

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
    /// Someone else's mount, whose server has died, is there.
    #[error("{} is a dead mount of type {kind}: unmount it first", path.display())]
    OtherStale {
        /// The mount point.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
    },
    /// Nothing of ours is mounted there.
    #[error("{} is not a Grove mount", path.display())]
    NotMounted {
        /// As given.
        path: PathBuf,
    },
    /// Something under the mount point is in use.
    #[error("{} is in use{}", path.display(), by(users))]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// Who uses it, as far as can be seen.
        users: Vec<MountUser>,
    },
    /// The layers of a writable view hold changes of another commit.
    #[error("{} holds changes made to commit {commit}: name another directory", path.display())]
    OtherCommit {
        /// The directory of the layers.
        path: PathBuf,
        /// The commit they belong to.
        commit: String,
    },
    /// The server of the repository's mounts refused.
    #[error("the server of {} refused: {message}", repository.display())]
    Refused {
        /// The repository.
        repository: PathBuf,
        /// What it said.
        message: String,
    },
    /// The server of the repository's mounts does not see the mounts of the one who asks.
    #[error("the server of the repository's mounts is in another mount namespace")]
    OtherNamespace,
    /// There is a server of the repository's mounts already.
    #[error("the mounts of {} have a server already", repository.display())]
    Served {
        /// The repository.
        repository: PathBuf,
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

/// ` by a (1), b (2) and 3 more`, or nothing.
fn by(users: &[MountUser]) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = users.iter().take(SHOWN).map(ToString::to_string).collect();
    match users.len().saturating_sub(SHOWN) {
        _ if names.is_empty() => String::new(),
        0 => format!(" by {}", names.join(", ")),
        more => format!(" by {} and {more} more", names.join(", ")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_users_are_named_and_the_others_counted() {
        let users = |n: u32| {
            let user = |pid| MountUser {
                pid,
                command: "sh".to_owned(),
            };
            (1..=n).map(user).collect::<Vec<_>>()
        };
        assert_eq!(by(&users(0)), "");
        assert_eq!(by(&users(2)), " by sh (1), sh (2)");
        let many = by(&users(7));
        assert_eq!(
            many,
            " by sh (1), sh (2), sh (3), sh (4), sh (5) and 2 more"
        );
    }
}

//! Errors of composing: each names the package, the path in it, and what is wrong.

use std::path::{Path, PathBuf};

use crate::package::PackageError;

/// Why composing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A package file is not usable.
    #[error("{}", path.display())]
    Package {
        /// The package file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PackageError,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] grove_engine::Error),
}

impl Error {
    pub(crate) fn package(path: &Path, source: PackageError) -> Self {
        Self::Package {
            path: path.to_owned(),
            source,
        }
    }
}

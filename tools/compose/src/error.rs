//! Errors of composing: each names the package, the path in it, and what is wrong.

use std::path::{Path, PathBuf};

use crate::merge::Conflict;
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
    /// Packages that cannot be in one tree.
    #[error("packages conflict at {count} paths:{}", listed(conflicts, *count))]
    Conflicts {
        /// The conflicts by path; not all of them when there are very many.
        conflicts: Vec<Conflict>,
        /// How many there are.
        count: usize,
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

fn listed(conflicts: &[Conflict], count: usize) -> String {
    let mut text: String = conflicts
        .iter()
        .map(|conflict| format!("\n  {conflict}"))
        .collect();
    if count > conflicts.len() {
        text.push_str(&format!("\n  and {} more", count - conflicts.len()));
    }
    text
}

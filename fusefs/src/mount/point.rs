//! The directory that a mount covers.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::error::{MountError, Result};
use super::{KIND, is_overlay, is_stale, table};

/// The directory to mount at, checked.
pub(crate) fn check(at: &Path) -> Result<PathBuf> {
    let point = resolve(at)?;
    if let Some(row) = table::at(&point)?
        && (row.kind == KIND || is_overlay(&row))
    {
        return Err(match is_stale(&point) {
            true => MountError::Stale { path: point },
            false => MountError::AlreadyMounted { path: point },
        });
    }
    let meta = fs::metadata(&point).map_err(MountError::io("look at", &point))?;
    match meta.is_dir() {
        true => Ok(point),
        false => Err(MountError::NotADirectory { path: point }),
    }
}

/// The absolute path without symbolic links, also of a mount whose server has died.
pub(crate) fn resolve(at: &Path) -> Result<PathBuf> {
    let error = match at.canonicalize() {
        Ok(point) => return Ok(point),
        Err(error) => error,
    };
    let dead = error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error());
    let (Some(parent), Some(name), true) = (at.parent(), at.file_name(), dead) else {
        return Err(MountError::io("find", at)(error));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    parent
        .canonicalize()
        .map(|dir| dir.join(name))
        .map_err(MountError::io("find", at))
}

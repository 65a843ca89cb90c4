//! What is known of commits beside their objects: detached metadata, and which of them are
//! incomplete. Knows nothing of what the metadata says. Layout: docs/format.md, "State of commits".

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::Repository;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::replace_file;
use crate::id::ObjectId;
use crate::object::Metadata;

const DETACHED: &str = "commitmeta";
const PARTIAL: &str = "commitpartial";
/// Larger detached metadata is refused, as OSTree does.
pub(crate) const MAX_DETACHED: u64 = 128 << 20;

impl Repository {
    fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The key file in which remotes and the collection of an OSTree repository are remembered.
    pub(crate) fn ostree_config_path(&self) -> PathBuf {
        self.path.join("config")
    }

    fn state_path(&self, commit: &ObjectId, extension: &str) -> PathBuf {
        self.state_dir().join(format!("{commit}.{extension}"))
    }

    /// The detached metadata of a commit, as it was written: signatures, mostly.
    pub fn detached_metadata(&self, commit: &ObjectId) -> Result<Option<Vec<u8>>> {
        let path = self.state_path(commit, DETACHED);
        let size = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at(&path)?.len(),
        };
        if size > MAX_DETACHED {
            let detail = format!("{size} bytes of detached metadata");
            return Err(Error::Corrupt { path, detail });
        }
        std::fs::read(&path).map(Some).at(&path)
    }

    /// The same, seen to be the dictionary that others take it for.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is none.
    pub(crate) fn sound_detached_metadata(&self, commit: &ObjectId) -> Result<Option<Vec<u8>>> {
        let bytes = self.detached_metadata(commit)?;
        if let Some(Err(error)) = bytes.as_deref().map(Metadata::parse) {
            return Err(Error::Corrupt {
                path: self.state_path(commit, DETACHED),
                detail: error.to_string(),
            });
        }
        Ok(bytes)
    }

    /// Replaces the detached metadata of a commit; `None` removes it.
    pub fn set_detached_metadata(&self, commit: &ObjectId, bytes: Option<&[u8]>) -> Result<()> {
        self.check_writable()?;
        self.set_state(commit, DETACHED, bytes)
    }

    /// Commits that are there without everything that they refer to.
    pub fn partial_commits(&self) -> Result<BTreeSet<ObjectId>> {
        let dir = self.state_dir();
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.at(&dir)?,
        };
        let mut partial = BTreeSet::new();
        for entry in entries {
            let name = entry.at(&dir)?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(PARTIAL));
            let id: Option<ObjectId> = stem.and_then(|stem| stem.strip_suffix('.')?.parse().ok());
            partial.extend(id);
        }
        Ok(partial)
    }

    /// Whether a commit is known to lack something that it refers to.
    pub fn is_partial(&self, commit: &ObjectId) -> bool {
        self.state_path(commit, PARTIAL).exists()
    }

    /// Marks a commit as incomplete, before it is published, or as complete, afterwards.
    pub(crate) fn set_partial(&self, commit: &ObjectId, partial: bool) -> Result<()> {
        if self.is_partial(commit) == partial {
            return Ok(());
        }
        self.set_state(commit, PARTIAL, partial.then_some(&[]))
    }

    /// Forgets what is known of a commit that is deleted.
    pub(crate) fn forget_state(&self, commit: &ObjectId) -> Result<()> {
        self.set_state(commit, DETACHED, None)?;
        self.set_state(commit, PARTIAL, None)
    }

    fn set_state(&self, commit: &ObjectId, extension: &str, bytes: Option<&[u8]>) -> Result<()> {
        let (path, dir) = (self.state_path(commit, extension), self.state_dir());
        let Some(bytes) = bytes else {
            return match self.storage.remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => {
                    other.at(&path)?;
                    self.storage.sync_dir(&dir).at(&dir)
                }
            };
        };
        if !dir.exists() {
            std::fs::create_dir_all(&dir).at(&dir)?;
            self.storage.sync_dir(&self.path).at(&self.path)?;
        }
        replace_file(&*self.storage, &path, bytes)
    }
}

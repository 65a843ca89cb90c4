//! Static deltas, which lie in a repository of ours as they do in OSTree's, below `deltas/`. Their
//! names are understood here; their contents are copied, never looked at but for their checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::target::Target;
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;
use crate::ops::static_delta::{DeltaName, list_at};

pub(in crate::ops::ostree) const SUPERBLOCK: &str = "superblock";

/// One delta of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops::ostree) struct DeltaDir {
    pub(in crate::ops::ostree) name: DeltaName,
    pub(in crate::ops::ostree) path: PathBuf,
}

impl DeltaDir {
    /// The files of it, with their sizes; the superblock last.
    pub(in crate::ops::ostree) fn files(&self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).at(&self.path)? {
            let entry = entry.at(&self.path)?;
            let meta = entry.metadata().at(entry.path())?;
            let name = entry.file_name().into_string();
            let part = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
            let known = |name: &String| name == SUPERBLOCK || part(name);
            if let Some(name) = name.ok().filter(known).filter(|_| meta.is_file()) {
                files.push((name, meta.len()));
            }
        }
        files.sort_by_key(|(name, _)| (name == SUPERBLOCK, name.len(), name.clone()));
        Ok(files)
    }

    /// The SHA-256 of the superblock.
    pub(in crate::ops::ostree) fn superblock(&self) -> Result<ObjectId> {
        let path = self.path.join(SUPERBLOCK);
        let mut file = File::open(&path).at(&path)?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut hasher)).at(&path)?;
        Ok(ObjectId::from_bytes(hasher.finalize().into()))
    }
}

struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The deltas of a repository, by name.
pub(in crate::ops::ostree) fn list(repo: &Path) -> Result<BTreeMap<String, DeltaDir>> {
    let dir = |name: DeltaName| DeltaDir {
        name,
        path: repo.join(name.dir()),
    };
    let names = list_at(repo)?.into_iter();
    Ok(names.map(|name| (name.to_string(), dir(name))).collect())
}

/// Copies the deltas that lead to one of these commits; gives their number and bytes.
pub(super) fn copy(
    repo: &Path,
    target: &Target,
    wanted: &dyn Fn(&ObjectId) -> bool,
) -> Result<(u64, u64)> {
    let (mut deltas, mut bytes) = (0, 0);
    for delta in list(repo)?.values().filter(|delta| wanted(&delta.name.to)) {
        deltas += 1;
        for (name, size) in delta.files()? {
            let from = delta.path.join(&name);
            let place = format!("{}/{name}", delta.name.dir().display());
            bytes += size;
            target.stage_at(place, |path| std::fs::copy(&from, path).map(drop).at(&from))?;
        }
    }
    target.flush()?;
    Ok((deltas, bytes))
}

/// An unusable delta of a repository of ours.
pub(in crate::ops::ostree) fn malformed(path: &Path, detail: impl Into<String>) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        detail: detail.into(),
    }
}

//! Where images of commits lie, and which of them are kept. What they hold is the business of
//! whoever makes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Repository;
use crate::error::Result;
use crate::id::ObjectId;

/// Extension of the name of an image; the rest is the commit's checksum.
const EXTENSION: &str = "img";
/// A temporary file that has not changed for so long was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Repository {
    fn images_dir(&self) -> PathBuf {
        self.cache_dir().join("images")
    }

    /// Where the image of a commit is, or may be put.
    pub fn image_path(&self, commit: &ObjectId) -> PathBuf {
        self.images_dir().join(format!("{commit}.{EXTENSION}"))
    }

    /// Removes the images of commits that are neither the newest of a ref nor leased: they are made
    /// anew where they are needed again.
    pub fn drop_unused_images(&self) -> Result<()> {
        // Leases first: a mount takes its lease before it looks for an image.
        let leases = self.leases()?.into_iter().flat_map(|lease| lease.commits);
        let mut used: BTreeSet<ObjectId> = leases.collect();
        used.extend(self.refs()?.map.into_values());
        self.retain_images(&used);
        Ok(())
    }

    /// Removes the images of all other commits, and what interrupted writers left.
    pub(crate) fn retain_images(&self, kept: &BTreeSet<ObjectId>) {
        let files = std::fs::read_dir(self.images_dir());
        for entry in files.into_iter().flatten().flatten() {
            let path = entry.path();
            let gone = match image_of(&path) {
                Some(commit) => !kept.contains(&commit),
                None => is_abandoned(&path),
            };
            if gone {
                // A cache that cannot be cleaned is a larger one.
                drop(std::fs::remove_file(path));
            }
        }
    }
}

fn image_of(path: &Path) -> Option<ObjectId> {
    let stem = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?;
    stem.strip_suffix('.')?.parse().ok()
}

fn is_abandoned(path: &Path) -> bool {
    let changed = std::fs::metadata(path).and_then(|meta| meta.modified());
    changed.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age > ABANDONED)
    })
}

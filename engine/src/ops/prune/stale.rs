//! What lies beside the packs and is of no use without what goes: files of caches, static deltas.
//!
//! Caches may lose anything at any time, so nothing here waits for writers or readers: a file that
//! somebody has open stays readable, and one that is missing is made anew.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{PruneReport, Work};
use crate::error::Result;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::ops::checkout::{cached_files, forget_files};
use crate::ops::reach::key;
use crate::ops::static_delta::{self, DeltaName};
use crate::pack::EntryKind;
use crate::repo::Repository;
use crate::store::copies::cached_copies;
use crate::store::payload::{part_key, recipe_key};

/// Files that are being written are finished sooner, in seconds.
const ABANDONED: i64 = 24 * 60 * 60;

/// What goes along with entries and commits.
#[derive(Debug, Default)]
pub(super) struct Stale {
    files: Vec<PathBuf>,
    /// Of which some files are.
    objects: HashSet<ObjectId>,
    deltas: Vec<DeltaName>,
}

impl Stale {
    /// Finds files of objects and payloads that are not alive, and deltas to commits that go.
    pub(super) fn find(work: &mut Work<'_>, report: &mut PruneReport) -> Result<Self> {
        let mut stale = Self::default();
        let mut is_alive = |keys: &[_]| -> Result<bool> {
            for key in keys {
                if work.marker.holds(&work.live, std::slice::from_ref(key))? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        for (id, path) in cached_files(work.repo) {
            let alive = match id {
                Some(id) => is_alive(&[key(EntryKind::File, &id)])?,
                None => !is_abandoned(&path),
            };
            if !alive {
                stale.objects.extend(id);
            }
            stale.add(alive, path, report);
        }
        for (id, path) in cached_copies(work.repo.path()) {
            let alive = match id {
                Some(id) => is_alive(&[part_key(&id, 0), recipe_key(&id)])?,
                None => !is_abandoned(&path),
            };
            stale.add(alive, path, report);
        }
        for name in static_delta::list(work.repo)? {
            if !work.kept.commits.contains(&name.to) {
                report.deltas_deleted += 1;
                report.delta_bytes += static_delta::size(work.repo, &name);
                stale.deltas.push(name);
            }
        }
        Ok(stale)
    }

    fn add(&mut self, alive: bool, path: PathBuf, report: &mut PruneReport) {
        // Another process may have removed it.
        let Some(meta) = fs::symlink_metadata(&path).ok().filter(|_| !alive) else {
            return;
        };
        report.cached_files_deleted += 1;
        report.cached_bytes += freed(&meta);
        self.files.push(path);
    }

    /// Removes all of it. What cannot be removed is told and stays: the next prune finds it.
    pub(super) fn remove(self, repo: &Repository, monitor: &dyn Monitor) {
        for path in &self.files {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                monitor.warn(&format!("{} stays: {error}", path.display()));
            }
        }
        forget_files(repo, &self.objects);
        // Somebody may have made a commit anew.
        let is_there = |to: &ObjectId| repo.contains(ObjectKind::Commit, to).unwrap_or(true);
        for name in self.deltas.iter().filter(|name| !is_there(&name.to)) {
            if let Err(error) = static_delta::delete(repo, name) {
                monitor.warn(&format!("static delta {name} stays: {error}"));
            }
        }
    }
}

/// What the removal of a name gives back: nothing, if a checkout has another one.
fn freed(meta: &Metadata) -> u64 {
    if meta.nlink() == 1 { meta.len() } else { 0 }
}

/// Whether nobody writes to a file any more. Modification times are set as a commit wants them, so
/// what counts is when it was last touched at all.
fn is_abandoned(path: &Path) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs().cast_signed());
    fs::symlink_metadata(path).is_ok_and(|meta| now - meta.ctime() > ABANDONED)
}

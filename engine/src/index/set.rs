//! The index of a repository: merged files, recent packs, and the rules that keep them in step.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{Builder, Files};
use super::flat::FlatIndex;
use super::memory::MemoryIndex;
use super::merge::Merge;
use super::sled::{SledIndex, remove_database};
use super::{Location, ObjectIndex, Visit};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::{Lock, LockMode};
use crate::id::PackId;
use crate::pack::doomed;
use crate::pack::reader::PackReader;
use crate::pack::writer::IndexRow;
use crate::pack::{EntryKind, Key};

/// When recent packs hold more rows than this, they are merged into a file.
pub(super) const MERGE_ROWS: usize = 20_000;
/// How long a reader waits for the database before it reads the packs' own tables.
const READER_PATIENCE: Duration = Duration::from_millis(100);
/// How long a writer waits for its turn to update the index.
const WRITER_PATIENCE: Duration = Duration::from_secs(60);

/// Paths of the index and of what it indexes.
#[derive(Debug, Clone)]
pub(crate) struct IndexPaths {
    packs: PathBuf,
    index: PathBuf,
    doomed: PathBuf,
}

impl IndexPaths {
    pub(crate) fn new(repo: &Path) -> Self {
        Self {
            packs: repo.join("packs"),
            index: repo.join("index"),
            doomed: doomed::list_path(repo),
        }
    }

    pub(crate) fn pack(&self, id: &PackId) -> PathBuf {
        self.packs.join(format!("{id}.pack"))
    }

    pub(crate) fn packs_dir(&self) -> &Path {
        &self.packs
    }

    pub(crate) fn flat(&self) -> PathBuf {
        self.index.join("objects.idx")
    }

    /// Directory of the smaller merged files.
    pub(super) fn runs(&self) -> PathBuf {
        self.index.join("runs")
    }

    /// Whether a file is one of the merged ones.
    pub(crate) fn is_merged_file(&self, path: &Path) -> bool {
        path.extension().is_some_and(|e| e == "idx") && path.starts_with(&self.index)
    }

    fn sled(&self) -> PathBuf {
        self.index.join("sled")
    }

    fn lock(&self) -> PathBuf {
        self.index.join("lock")
    }

    /// The packs that exist now, without those about to be deleted.
    pub(crate) fn present(&self) -> Result<BTreeSet<PackId>> {
        let mut ids = self.listed()?;
        loop {
            // Read after the listing: what is listed there was doomed before it could be missed here.
            let doomed = doomed::load(&self.doomed)?;
            // And listed again: packs that took the place of doomed ones were there before the
            // list, but perhaps not yet when the directory was first looked at.
            let again = self.listed()?;
            if again == ids {
                ids.retain(|id| !doomed.contains(id));
                return Ok(ids);
            }
            ids = again;
        }
    }

    /// The names in the directory of packs.
    fn listed(&self) -> Result<BTreeSet<PackId>> {
        let mut ids = BTreeSet::new();
        for entry in std::fs::read_dir(&self.packs).at(&self.packs)? {
            let name = entry.at(&self.packs)?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            ids.extend(stem.and_then(|stem| stem.parse::<PackId>().ok()));
        }
        Ok(ids)
    }
}

/// A snapshot of the index, covering every pack that was there when it was loaded.
#[derive(Debug)]
pub(crate) struct Index {
    present: BTreeSet<PackId>,
    files: Vec<FlatIndex>,
    recent: MemoryIndex,
    /// Packs that could be indexed only in part, with the reason.
    pub(crate) damaged: Vec<Error>,
}

impl Index {
    /// Loads the index, whatever state it is in; where too much is missing from it, that is merged
    /// in.
    pub(crate) fn load(paths: &IndexPaths) -> Result<Self> {
        let present = paths.present()?;
        let files = Files::open(paths)?;
        let missing = files.missing(&present);
        let (recent, left) = take_recent(paths, &missing);
        // Repair in passing, but never at the cost of not being able to read.
        if recent.len() + count_rows(paths, &left) > MERGE_ROWS
            && let Ok(_lock) = Lock::acquire(&paths.lock(), LockMode::Exclusive, Duration::ZERO)
            && let Ok(Some(index)) = Self::catch_up(paths)
        {
            return Ok(index);
        }
        let mut builder = Builder::in_memory(paths, recent);
        left.iter().for_each(|id| builder.add_from_pack(id));
        let (recent, damaged) = builder.into_memory();
        Ok(Self {
            present,
            files: files.open,
            recent,
            damaged,
        })
    }

    /// Merges everything that no file covers into files; `None` if packs are damaged, which is to
    /// be seen whenever the index is loaded. The caller holds the index lock.
    fn catch_up(paths: &IndexPaths) -> Result<Option<Self>> {
        let present = paths.present()?;
        let files = Files::open(paths)?;
        let builder = Self::gather(paths, &files, &present)?;
        if builder.is_damaged() {
            return Ok(None);
        }
        Self::merged(paths, builder, files, present).map(Some)
    }

    /// The rows of the packs that no file covers. The caller holds the index lock.
    fn gather<'p>(
        paths: &'p IndexPaths,
        files: &Files,
        present: &BTreeSet<PackId>,
    ) -> Result<Builder<'p>> {
        let mut builder = Builder::spilling(paths);
        let missing = files.missing(present);
        if missing.is_empty() {
            return Ok(builder);
        }
        let sled = SledIndex::open(&paths.sled()).ok();
        let left = take_from_sled(sled.as_ref(), &missing, builder.memory());
        drop(sled);
        for id in &left {
            builder.add_from_pack(id);
            builder.spill_if_full(present)?;
        }
        Ok(builder)
    }

    /// Writes what a builder has gathered and opens the result. The caller holds the index lock.
    fn merged(
        paths: &IndexPaths,
        builder: Builder<'_>,
        files: Files,
        present: BTreeSet<PackId>,
    ) -> Result<Self> {
        let damaged = builder.merge_into(files, &present)?;
        remove_database(&paths.sled())?;
        Ok(Self {
            present,
            files: Files::open(paths)?.open,
            recent: MemoryIndex::default(),
            damaged,
        })
    }

    /// Number of entries; one that lies in several packs may count several times.
    pub(crate) fn len(&self) -> usize {
        let merged: usize = self.files.iter().map(FlatIndex::len).sum();
        merged + self.recent.len()
    }

    pub(crate) fn present(&self) -> &BTreeSet<PackId> {
        &self.present
    }

    /// Names of the entries of one kind that are not below `first` and not above `last`.
    pub(crate) fn ids_between(
        &self,
        kind: EntryKind,
        range: (&[u8; 32], &[u8; 32]),
    ) -> Result<BTreeSet<[u8; 32]>> {
        let is_present = |pack: &PackId| self.present.contains(pack);
        let mut found = BTreeSet::new();
        for file in &self.files {
            file.ids_between(kind, range, is_present, &mut found)?;
        }
        self.recent.ids_between(kind, range, is_present, &mut found);
        Ok(found)
    }

    /// Checks the rows of the merged files.
    pub(crate) fn verify(&self) -> Result<()> {
        self.files.iter().try_for_each(FlatIndex::verify)
    }

    /// Adds new packs: into the database when they are small, else by merging.
    pub(crate) fn add(paths: &IndexPaths, packs: &[(PackId, &[IndexRow])]) -> Result<()> {
        let _lock = Lock::acquire(&paths.lock(), LockMode::Exclusive, WRITER_PATIENCE)?;
        let present = paths.present()?;
        let files = Files::open(paths)?;
        let mut missing = files.missing(&present);
        let mut builder = Builder::spilling(paths);
        for (id, rows) in packs {
            if missing.remove(id) {
                builder.memory().add_pack(*id, rows);
            }
        }
        let sled = if missing.is_empty() {
            None
        } else {
            SledIndex::open(&paths.sled()).ok()
        };
        let left = take_from_sled(sled.as_ref(), &missing, builder.memory());
        drop(sled);
        for id in &left {
            builder.add_from_pack(id);
            builder.spill_if_full(&present)?;
        }
        if builder.len() > MERGE_ROWS {
            return match Self::merged(paths, builder, files, present) {
                // A file whose rows are damaged.
                Err(Error::Corrupt { .. }) => {
                    Self::rebuild_from(paths, paths.present()?, |_| ()).map(drop)
                }
                other => other.map(drop),
            };
        }
        let sled = SledIndex::open(&paths.sled())?;
        let covered: BTreeSet<PackId> = sled.packs()?.into_iter().collect();
        let fresh: Vec<_> = packs
            .iter()
            .filter(|(id, _)| !covered.contains(id))
            .copied()
            .collect();
        sled.insert(&fresh)
    }

    /// Throws the index away and makes it anew from the packs.
    pub(crate) fn rebuild(paths: &IndexPaths, done: impl FnMut(&PackId)) -> Result<Self> {
        let _lock = Lock::acquire(&paths.lock(), LockMode::Exclusive, WRITER_PATIENCE)?;
        Self::rebuild_from(paths, paths.present()?, done)
    }

    /// Makes an index without packs that are about to be deleted, then runs `doom`, which makes
    /// them deleted. In this order an entry that has a copy elsewhere is found at all times: the
    /// files keep a row for each copy.
    pub(crate) fn without(
        paths: &IndexPaths,
        gone: &BTreeSet<PackId>,
        doom: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let _lock = Lock::acquire(&paths.lock(), LockMode::Exclusive, WRITER_PATIENCE)?;
        let present: BTreeSet<PackId> = paths.present()?.difference(gone).copied().collect();
        // From the packs alone: a pack that goes may come again under its name, and must not count as
        // covered then by a file that has dropped its rows.
        let index = Self::rebuild_from(paths, present, |_| ())?;
        doom()?;
        Ok(index)
    }

    fn rebuild_from(
        paths: &IndexPaths,
        present: BTreeSet<PackId>,
        mut done: impl FnMut(&PackId),
    ) -> Result<Self> {
        let mut builder = Builder::spilling(paths);
        for id in &present {
            builder.add_from_pack(id);
            builder.spill_if_full(&present)?;
            done(id);
        }
        Self::merged(paths, builder, Files::outdated(paths)?, present)
    }
}

impl ObjectIndex for Index {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        let is_present = |pack: &PackId| self.present.contains(pack);
        for file in &self.files {
            if let Some(at) = file.get_in(key, is_present)? {
                return Ok(Some(at));
            }
        }
        Ok(self.recent.get_in(key, is_present))
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.present.iter().copied().collect())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        let files: Vec<&FlatIndex> = self.files.iter().collect();
        Merge::new(&files, &self.recent, &self.present)?.for_each(visit)
    }
}

/// How many entries packs have by what their ends say; nothing is verified.
fn count_rows(paths: &IndexPaths, packs: &BTreeSet<PackId>) -> usize {
    let rows = |id: &PackId| PackReader::open(&paths.pack(id), *id)?.entry_count();
    packs.iter().map(|id| rows(id).unwrap_or(0) as usize).sum()
}

/// Rows of packs that no file covers, from the database if it is free; gives back the packs whose
/// rows it does not have.
fn take_recent(paths: &IndexPaths, missing: &BTreeSet<PackId>) -> (MemoryIndex, BTreeSet<PackId>) {
    let mut recent = MemoryIndex::default();
    let left = if !missing.is_empty()
        && paths.sled().join("db").exists()
        && let Ok(_lock) = Lock::acquire(&paths.lock(), LockMode::Exclusive, READER_PATIENCE)
    {
        let sled = SledIndex::open(&paths.sled()).ok();
        take_from_sled(sled.as_ref(), missing, &mut recent)
    } else {
        missing.clone()
    };
    (recent, left)
}

/// Takes the rows of wanted packs that the database covers; gives back the packs it does not.
fn take_from_sled(
    sled: Option<&SledIndex>,
    wanted: &BTreeSet<PackId>,
    recent: &mut MemoryIndex,
) -> BTreeSet<PackId> {
    let mut read = |sled: &SledIndex| -> Result<BTreeSet<PackId>> {
        let covered: BTreeSet<PackId> = sled.packs()?.into_iter().collect();
        let taken: Vec<PackId> = wanted.intersection(&covered).copied().collect();
        let mut rows = Vec::new();
        sled.for_each(&mut |key, at| {
            if taken.binary_search(&at.pack).is_ok() {
                rows.push((*key, *at));
            }
            Ok(())
        })?;
        recent.add_rows(&taken, rows);
        Ok(wanted.difference(&covered).copied().collect())
    };
    sled.and_then(|sled| read(sled).ok())
        .unwrap_or_else(|| wanted.clone())
}

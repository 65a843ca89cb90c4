//! The index of a repository: merged file, recent packs, and the rules that keep them in step.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flat::FlatIndex;
use super::memory::MemoryIndex;
use super::sled::{SledIndex, remove_database};
use super::{Location, ObjectIndex, Visit};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::{Lock, LockMode};
use crate::id::PackId;
use crate::pack::Key;
use crate::pack::doomed;
use crate::pack::reader::PackReader;
use crate::pack::writer::IndexRow;

/// When recent packs hold more rows than this, everything is merged into a new file.
const MERGE_ROWS: usize = 20_000;
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
    flat: Option<FlatIndex>,
    recent: MemoryIndex,
    /// Packs that could be indexed only in part, with the reason.
    pub(crate) damaged: Vec<Error>,
}

impl Index {
    /// Loads the index, whatever state it is in; merges it anew where too much is missing from it.
    pub(crate) fn load(paths: &IndexPaths) -> Result<Self> {
        let index = Self::load_as_is(paths)?;
        if index.recent_rows() <= MERGE_ROWS {
            return Ok(index);
        }
        // Repair in passing, but never at the cost of not being able to read.
        match Lock::acquire(&paths.lock(), LockMode::Exclusive, Duration::ZERO) {
            // Not over an index that somebody made meanwhile from other packs.
            Ok(_lock)
                if index.damaged.is_empty()
                    && paths.present()? == index.present
                    && index.merge(paths).is_ok() =>
            {
                Self::load_as_is(paths)
            }
            _ => Ok(index),
        }
    }

    fn load_as_is(paths: &IndexPaths) -> Result<Self> {
        let present = paths.present()?;
        // A damaged file is as good as none.
        let flat = FlatIndex::open(&paths.flat()).unwrap_or(None);
        let merged: BTreeSet<PackId> = flat
            .iter()
            .flat_map(|f| f.packs().unwrap_or_default())
            .collect();
        let missing: Vec<PackId> = present.difference(&merged).copied().collect();
        let (recent, damaged) = load_recent(paths, &missing);
        Ok(Self {
            present,
            flat,
            recent,
            damaged,
        })
    }

    fn recent_rows(&self) -> usize {
        self.recent.len()
    }

    /// Number of distinct keys, as far as known without a merge.
    pub(crate) fn len(&self) -> usize {
        self.flat.as_ref().map_or(0, FlatIndex::len) + self.recent.len()
    }

    pub(crate) fn present(&self) -> &BTreeSet<PackId> {
        &self.present
    }

    /// Writes everything into a new merged file and drops the database.
    fn merge(&self, paths: &IndexPaths) -> Result<()> {
        let packs = self.present.iter().copied().collect();
        let mut rows = MergedRows::new(self);
        FlatIndex::write(&paths.flat(), packs, &mut rows)?;
        remove_database(&paths.sled())
    }

    /// Checks the merged file's rows.
    pub(crate) fn verify(&self) -> Result<()> {
        self.flat.as_ref().map_or(Ok(()), FlatIndex::verify)
    }

    /// Adds new packs: into the database when they are small, else by merging.
    pub(crate) fn add(paths: &IndexPaths, packs: &[(PackId, &[IndexRow])]) -> Result<()> {
        let _lock = Lock::acquire(&paths.lock(), LockMode::Exclusive, WRITER_PATIENCE)?;
        let current = load_locked(paths, packs)?;
        if current.recent_rows() > MERGE_ROWS {
            return current.merge(paths);
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

    /// Makes the index anew without packs that are about to be deleted, then runs `doom`, which
    /// makes them deleted. In this order an entry that has a copy elsewhere is found at all times.
    pub(crate) fn without(
        paths: &IndexPaths,
        gone: &BTreeSet<PackId>,
        doom: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let _lock = Lock::acquire(&paths.lock(), LockMode::Exclusive, WRITER_PATIENCE)?;
        let present = paths.present()?.difference(gone).copied().collect();
        let index = Self::rebuild_from(paths, present, |_| ())?;
        doom()?;
        Ok(index)
    }

    fn rebuild_from(
        paths: &IndexPaths,
        present: BTreeSet<PackId>,
        mut done: impl FnMut(&PackId),
    ) -> Result<Self> {
        let mut recent = MemoryIndex::default();
        let mut damaged = Vec::new();
        for id in &present {
            add_from_pack(paths, id, &mut recent, &mut damaged);
            done(id);
        }
        let index = Self {
            present,
            flat: None,
            recent: recent.sort(),
            damaged,
        };
        index.merge(paths)?;
        Ok(index)
    }
}

impl ObjectIndex for Index {
    fn get(&self, key: &Key) -> Result<Option<Location>> {
        if let Some(flat) = &self.flat
            && let Some(at) = flat.get(key)?
            && self.present.contains(&at.pack)
        {
            return Ok(Some(at));
        }
        Ok(self
            .recent
            .get(key)?
            .filter(|at| self.present.contains(&at.pack)))
    }

    fn packs(&self) -> Result<Vec<PackId>> {
        Ok(self.present.iter().copied().collect())
    }

    fn for_each(&self, visit: &mut Visit<'_>) -> Result<()> {
        MergedRows::new(self).try_for_each(|row| row.and_then(|(key, at)| visit(&key, &at)))
    }
}

/// The state of the index including packs that are about to be added, under the index lock.
fn load_locked(paths: &IndexPaths, new: &[(PackId, &[IndexRow])]) -> Result<Index> {
    let present = paths.present()?;
    let flat = FlatIndex::open(&paths.flat()).unwrap_or(None);
    let mut known: BTreeSet<PackId> = flat
        .iter()
        .flat_map(|f| f.packs().unwrap_or_default())
        .collect();
    let mut recent = MemoryIndex::default();
    for (id, rows) in new {
        if known.insert(*id) {
            recent.add_pack(*id, rows);
        }
    }
    let mut damaged = Vec::new();
    let missing: BTreeSet<PackId> = present.difference(&known).copied().collect();
    let sled = if missing.is_empty() {
        None
    } else {
        SledIndex::open(&paths.sled()).ok()
    };
    let left = take_from_sled(sled.as_ref(), &missing, &mut recent);
    for id in &left {
        add_from_pack(paths, id, &mut recent, &mut damaged);
    }
    Ok(Index {
        present,
        flat,
        recent: recent.sort(),
        damaged,
    })
}

/// Rows of packs that are not in the merged file: from the database if it is free, else from the
/// packs themselves.
fn load_recent(paths: &IndexPaths, missing: &[PackId]) -> (MemoryIndex, Vec<Error>) {
    let mut recent = MemoryIndex::default();
    let mut damaged = Vec::new();
    if missing.is_empty() {
        return (recent, damaged);
    }
    let wanted: BTreeSet<PackId> = missing.iter().copied().collect();
    let left = if paths.sled().join("db").exists()
        && let Ok(_lock) = Lock::acquire(&paths.lock(), LockMode::Exclusive, READER_PATIENCE)
    {
        take_from_sled(
            SledIndex::open(&paths.sled()).ok().as_ref(),
            &wanted,
            &mut recent,
        )
    } else {
        wanted
    };
    for id in &left {
        add_from_pack(paths, id, &mut recent, &mut damaged);
    }
    (recent.sort(), damaged)
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

/// Takes the rows of one pack from the pack; where its footer is damaged, by scanning its blocks.
fn add_from_pack(
    paths: &IndexPaths,
    id: &PackId,
    recent: &mut MemoryIndex,
    damaged: &mut Vec<Error>,
) {
    let rows = PackReader::open(&paths.pack(id), *id).and_then(|pack| {
        pack.index_rows().or_else(|error| {
            let (heads, _) = pack.scan()?;
            damaged.push(error);
            Ok(heads
                .iter()
                .flat_map(|head| head.rows().collect::<Vec<_>>())
                .collect())
        })
    });
    match rows {
        Ok(rows) => recent.add_pack(*id, &rows),
        Err(error) => damaged.push(error),
    }
}

/// Rows of the merged file and of the recent packs in one order, without those of packs that are
/// gone, each key once.
struct MergedRows<'a> {
    index: &'a Index,
    flat_at: usize,
    recent_at: usize,
}

impl<'a> MergedRows<'a> {
    fn new(index: &'a Index) -> Self {
        Self {
            index,
            flat_at: 0,
            recent_at: 0,
        }
    }

    fn next_row(&mut self) -> Result<Option<(Key, Location)>> {
        let flat = match &self.index.flat {
            Some(flat) if self.flat_at < flat.len() => Some(flat.row(self.flat_at)?),
            _ => None,
        };
        let recent = self.index.recent.row(self.recent_at);
        let take_flat = match (&flat, &recent) {
            (None, None) => return Ok(None),
            (Some(f), Some(r)) => {
                // The same entry in two packs: the merged file's stands.
                self.recent_at += usize::from(f.0 == r.0);
                f.0 <= r.0
            }
            (flat, _) => flat.is_some(),
        };
        if take_flat {
            self.flat_at += 1;
            return Ok(flat);
        }
        self.recent_at += 1;
        Ok(recent)
    }
}

impl Iterator for MergedRows<'_> {
    type Item = Result<(Key, Location)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_row() {
                Ok(Some((_, at))) if !self.index.present.contains(&at.pack) => {}
                other => return other.transpose(),
            }
        }
    }
}

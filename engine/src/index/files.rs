//! The merged files: which there are, and which are merged when rows come in.
//!
//! The largest is `index/objects.idx`, the others lie in `index/runs/` and are named by the packs
//! that they cover. New rows go into a new file together with all files that are less than
//! [`GROWTH`] times as large as what goes in already. So each file is several times as large as the
//! next, there are few of them, and a row is written anew a few times only, however many commits come.
//! Everything here but [`Files::open`] is done under the index lock.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::flat::FlatIndex;
use super::memory::MemoryIndex;
use super::merge::Merge;
use super::set::IndexPaths;
use crate::error::{Error, IoResultExt, Result};
use crate::id::PackId;
use crate::pack::reader::PackReader;

/// A file is left alone when it is at least this many times as large as what comes in.
const GROWTH: usize = 4;
/// Rows gathered in memory before they go to a temporary file: about 150 MB.
const SPILL_ROWS: usize = 2_000_000;
/// How often a reader looks again for a file that was merged away while it was looking.
const TRIES: usize = 5;

/// The merged files of a repository.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Those that are needed, the largest first.
    pub(super) open: Vec<FlatIndex>,
    /// Those that cover nothing that others do not: left by a merge that was interrupted.
    stale: Vec<PathBuf>,
}

impl Files {
    /// Opens all. A damaged one is as good as none.
    pub(super) fn open(paths: &IndexPaths) -> Result<Self> {
        for _ in 0..TRIES {
            let mut found = Vec::new();
            let mut stale = Vec::new();
            let mut complete = true;
            for path in list(paths)? {
                match FlatIndex::open(&path) {
                    Ok(Some(file)) => found.push(file),
                    Ok(None) => complete = path == paths.flat(),
                    Err(_) => stale.push(path),
                }
            }
            if complete {
                return Ok(Self::needed(found, stale));
            }
        }
        Ok(Self::default())
    }

    fn needed(mut found: Vec<FlatIndex>, mut stale: Vec<PathBuf>) -> Self {
        found.sort_by(|a, b| (b.len(), a.path()).cmp(&(a.len(), b.path())));
        let mut covered = BTreeSet::new();
        let mut open = Vec::new();
        for file in found {
            let before = covered.len();
            covered.extend(file.pack_table().iter().copied());
            if covered.len() > before {
                open.push(file);
            } else {
                stale.push(file.path().to_owned());
            }
        }
        Self { open, stale }
    }

    /// All files, none of them to be used any more.
    pub(super) fn outdated(paths: &IndexPaths) -> Result<Self> {
        Ok(Self {
            open: Vec::new(),
            stale: list(paths)?,
        })
    }

    /// Packs that no file covers.
    pub(super) fn missing(&self, present: &BTreeSet<PackId>) -> BTreeSet<PackId> {
        let tables = self.open.iter().map(FlatIndex::pack_table);
        let covered: BTreeSet<&PackId> = tables.flatten().collect();
        let missing = present.iter().filter(|id| !covered.contains(id));
        missing.copied().collect()
    }

    /// Takes out the files that `rows` new ones are merged with: the small ones, and those most of
    /// whose packs are gone.
    fn take_for_merge(&mut self, rows: usize, present: &BTreeSet<PackId>) -> Vec<FlatIndex> {
        let mut rows = rows;
        let mut taken = Vec::new();
        for at in (0..self.open.len()).rev() {
            let file = &self.open[at];
            let there = file.pack_table().iter().filter(|id| present.contains(id));
            if file.len() < GROWTH * rows || there.count() * 2 < file.pack_table().len() {
                rows += file.len();
                taken.push(self.open.remove(at));
            }
        }
        taken
    }
}

/// Paths of the merged files that there are.
fn list(paths: &IndexPaths) -> Result<Vec<PathBuf>> {
    let mut found = vec![paths.flat()];
    found.extend(in_runs(paths, |path| paths.is_merged_file(path))?);
    Ok(found)
}

fn in_runs(paths: &IndexPaths, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let dir = paths.runs();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at(&dir),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at(&dir)?.path();
        if wanted(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).at(path),
        _ => Ok(()),
    }
}

/// Gathers the rows of packs that no file covers.
#[derive(Debug)]
pub(super) struct Builder<'p> {
    paths: &'p IndexPaths,
    memory: MemoryIndex,
    spilled: Vec<FlatIndex>,
    /// How many rows memory may hold.
    limit: usize,
    damaged: Vec<Error>,
}

impl<'p> Builder<'p> {
    /// Keeps everything in memory.
    pub(super) fn in_memory(paths: &'p IndexPaths, memory: MemoryIndex) -> Self {
        Self {
            paths,
            memory,
            spilled: Vec::new(),
            limit: usize::MAX,
            damaged: Vec::new(),
        }
    }

    /// Keeps at most [`SPILL_ROWS`] and one pack's rows in memory.
    pub(super) fn spilling(paths: &'p IndexPaths) -> Self {
        Self {
            limit: SPILL_ROWS,
            ..Self::in_memory(paths, MemoryIndex::default())
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(paths: &'p IndexPaths, limit: usize) -> Self {
        Self {
            limit,
            ..Self::spilling(paths)
        }
    }

    /// Where rows may be added.
    pub(super) fn memory(&mut self) -> &mut MemoryIndex {
        &mut self.memory
    }

    /// Whether packs could be read only in part.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Number of rows gathered.
    pub(super) fn len(&self) -> usize {
        let spilled: usize = self.spilled.iter().map(FlatIndex::len).sum();
        spilled + self.memory.len()
    }

    /// Takes the rows of one pack from the pack; where its footer is damaged, by scanning its
    /// blocks.
    pub(super) fn add_from_pack(&mut self, id: &PackId) {
        let rows = PackReader::open(&self.paths.pack(id), *id).and_then(|pack| {
            pack.index_rows().or_else(|error| {
                let (heads, _) = pack.scan()?;
                self.damaged.push(error);
                Ok(heads
                    .iter()
                    .flat_map(|head| head.rows().collect::<Vec<_>>())
                    .collect())
            })
        });
        match rows {
            Ok(rows) => self.memory.add_pack(*id, &rows),
            Err(error) => self.damaged.push(error),
        }
    }

    /// Moves the rows out of memory when there are many.
    pub(super) fn spill_if_full(&mut self, present: &BTreeSet<PackId>) -> Result<()> {
        if self.memory.len() < self.limit {
            return Ok(());
        }
        let dir = self.paths.runs();
        std::fs::create_dir_all(&dir).at(&dir)?;
        let path = dir.join(format!("{}.part", self.spilled.len()));
        let full = std::mem::take(&mut self.memory).sort();
        Merge::new(&[], &full, present)?.write_temporary(&path)?;
        self.spilled.extend(FlatIndex::open(&path)?);
        Ok(())
    }

    /// Everything, in memory, and what was wrong with packs.
    pub(super) fn into_memory(self) -> (MemoryIndex, Vec<Error>) {
        (self.memory.sort(), self.damaged)
    }

    /// Writes everything into a new file, with such files as should go into it, and deletes those.
    /// Gives back what was wrong with packs.
    pub(super) fn merge_into(
        self,
        mut files: Files,
        present: &BTreeSet<PackId>,
    ) -> Result<Vec<Error>> {
        let taken = files.take_for_merge(self.len(), present);
        let memory = self.memory.sort();
        let sources: Vec<&FlatIndex> = self.spilled.iter().chain(&taken).collect();
        let merge = Merge::new(&sources, &memory, present)?;
        let target = if files.open.is_empty() {
            self.paths.flat()
        } else {
            let dir = self.paths.runs();
            std::fs::create_dir_all(&dir).at(&dir)?;
            dir.join(run_name(merge.packs()))
        };
        let is_empty = merge.packs().is_empty();
        if !is_empty {
            merge.write(&target)?;
        }
        let old = taken.iter().map(|file| file.path().to_owned());
        let old = old.chain(files.stale);
        let left = in_runs(self.paths, |path| !self.paths.is_merged_file(path))?;
        old.chain(left)
            .filter(|path| is_empty || *path != target)
            .try_for_each(|path| remove(&path))?;
        Ok(self.damaged)
    }
}

/// A file that covers other packs has another name.
fn run_name(packs: &[PackId]) -> String {
    let ids: Vec<u8> = packs.iter().flat_map(|id| *id.as_bytes()).collect();
    format!("{:032x}.idx", xxh3_128(&ids))
}

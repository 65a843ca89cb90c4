//! What a commit has that another one lacks, and which of the other's files each new file is like.
//!
//! Candidates are the files of the old commit that whoever applies the delta can read: the one with
//! the same content, else the one at the same path, else one whose path or name differs in numbers
//! only, else those that share features of their content (`sketch`). Only the last reads anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::Object;
use crate::error::Result;
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::object::{Commit, Dirtree, FileObject};
use crate::pack::recipe::Piece;
use crate::repo::Repository;
use crate::repo::bases::{base_name, unnumbered};
use crate::sketch::{FEATURES, Sketch, SketchBuilder};
use crate::tree::{check_depth, path_hint};

/// Others may read a file.
const READ_BY_OTHERS: u32 = 0o004;
/// Smaller files are not compared by content.
const MIN_SIZE: u64 = 16 << 10;
/// Larger files are not either.
const MAX_SIZE: u64 = 64 << 20;
/// Files with fewer features in common are strangers.
const MIN_COMMON: usize = 3;
/// Files with one feature in common that are looked at.
const MAX_SHARED: usize = 256;
/// Sources of one file.
const MAX_SOURCES: usize = 3;
/// Bytes of old files that are read to compare them, in any case and for each byte that is new.
const FREE_BYTES: u64 = 64 << 20;
const BYTES_EACH: u64 = 4;

/// The objects of a commit, but for the commit itself.
#[derive(Debug, Default)]
pub(in crate::ops) struct Contents {
    /// Directories' listings and metadata, in the order of the walk.
    pub(in crate::ops) metadata: Vec<Object>,
    /// Files in the order of the walk; some may be at several paths.
    pub(in crate::ops) files: Vec<(String, ObjectId)>,
}

impl Contents {
    /// Those of a commit, without subtrees for which `known` holds.
    pub(in crate::ops) fn of(
        repo: &Repository,
        commit: &ObjectId,
        known: impl Fn(&Object) -> bool,
    ) -> Result<Self> {
        Self::walk(&repo.commit(commit)?, known, |tree| repo.dirtree(tree))
    }

    /// Those of a commit whose directories are listed by `list`. The order of the walk is part of
    /// the format of Grove's deltas.
    pub(in crate::ops) fn walk(
        root: &Commit,
        known: impl Fn(&Object) -> bool,
        list: impl Fn(&ObjectId) -> Result<Arc<Dirtree>>,
    ) -> Result<Self> {
        let mut contents = Self::default();
        let mut seen = HashSet::new();
        let mut todo = vec![(String::new(), root.tree, root.meta, 0)];
        while let Some((path, tree, meta, depth)) = todo.pop() {
            check_depth(&path, depth)?;
            let meta = (ObjectKind::Dirmeta, meta);
            if !known(&meta) && seen.insert(meta) {
                contents.metadata.push(meta);
            }
            let object = (ObjectKind::Dirtree, tree);
            if known(&object) {
                continue;
            }
            // A directory that is at many places is looked at once.
            if !seen.insert(object) {
                continue;
            }
            contents.metadata.push(object);
            let listing = list(&tree)?;
            let at = |name: &str| path_hint(&path, name);
            let files = listing
                .files
                .iter()
                .filter(|(_, id)| !known(&(ObjectKind::File, *id)));
            contents
                .files
                .extend(files.map(|(name, id)| (at(name), *id)));
            let dirs = listing.dirs.iter().rev();
            todo.extend(dirs.map(|d| (at(&d.name) + "/", d.tree, d.meta, depth + 1)));
        }
        Ok(contents)
    }

    /// Names of its files, each once, with one of their paths.
    pub(in crate::ops) fn unique_files(&self) -> Vec<&(String, ObjectId)> {
        let mut seen = HashSet::new();
        let files = self.files.iter();
        files.filter(|(_, id)| seen.insert(*id)).collect()
    }

    /// Its files, each once.
    pub(in crate::ops) fn new_files(&self, repo: &Repository) -> Result<Vec<NewFile>> {
        let unique = self.unique_files();
        let ids: Vec<ObjectId> = unique.iter().map(|(_, id)| *id).collect();
        let found = unique.into_iter().zip(repo.files(&ids));
        let new = found.map(|((path, _), file)| {
            Ok(NewFile {
                path: path.clone(),
                file: file?,
                sources: Vec::new(),
            })
        });
        new.collect()
    }

    /// Its objects by kind and name.
    pub(in crate::ops) fn objects(&self) -> impl Iterator<Item = Object> {
        let files = self.files.iter().map(|(_, id)| (ObjectKind::File, *id));
        self.metadata.iter().copied().chain(files)
    }
}

/// A file that the old commit lacks.
#[derive(Debug)]
pub(in crate::ops) struct NewFile {
    /// One of its paths.
    pub(in crate::ops) path: String,
    pub(in crate::ops) file: FileObject,
    /// Old files that it is like, the likest first.
    pub(in crate::ops) sources: Vec<Source>,
}

/// A file of the old commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Source {
    pub(in crate::ops) id: ObjectId,
    pub(in crate::ops) payload: Piece,
}

/// Which files of the old commit whoever applies a delta can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Readable {
    /// All of them.
    All,
    /// Those that others than their owner may read: clients without privileges keep files as files.
    ByOthers,
}

/// Files of the old commit, to be found by what is known of new ones.
#[derive(Debug, Default)]
pub(in crate::ops) struct OldFiles {
    files: Vec<Source>,
    by_path: HashMap<String, u32>,
    by_payload: HashMap<PayloadId, u32>,
    /// Hash of a path, and of a base name, without numbers, and position; sorted.
    paths: Vec<(u64, u32)>,
    base_names: Vec<(u64, u32)>,
}

impl OldFiles {
    pub(in crate::ops) fn load(
        repo: &Repository,
        contents: &Contents,
        readable: Readable,
    ) -> Result<Self> {
        let needed = match readable {
            Readable::All => 0,
            Readable::ByOthers => READ_BY_OTHERS,
        };
        let ids: Vec<ObjectId> = contents.files.iter().map(|(_, id)| *id).collect();
        let mut old = Self::default();
        for ((path, id), file) in contents.files.iter().zip(repo.files(&ids)) {
            let file = file?;
            let Some(payload) = file.payload.filter(|_| file.header.mode & needed == needed) else {
                continue;
            };
            let Ok(n) = u32::try_from(old.files.len()) else {
                break;
            };
            old.files.push(Source {
                id: *id,
                payload: Piece {
                    id: payload,
                    size: file.size,
                },
            });
            old.by_path.insert(path.clone(), n);
            old.by_payload.entry(payload).or_insert(n);
            old.paths.push((unnumbered(path), n));
            old.base_names.push((unnumbered(base_name(path)), n));
        }
        old.paths.sort_unstable();
        old.base_names.sort_unstable();
        Ok(old)
    }

    /// The old file with the same content.
    pub(in crate::ops) fn same(&self, payload: &PayloadId) -> Option<Source> {
        self.by_payload
            .get(payload)
            .map(|n| self.files[*n as usize])
    }

    /// The old file that is most likely an earlier version, going by names.
    pub(in crate::ops) fn by_name(&self, path: &str, size: u64) -> Option<Source> {
        let moved = path
            .strip_prefix("etc/")
            .map(|rest| format!("usr/etc/{rest}"));
        let at = |path: &str| self.by_path.get(path).map(|n| self.files[*n as usize]);
        at(path)
            .or_else(|| at(&moved?))
            .or_else(|| self.closest(&self.paths, unnumbered(path), size))
            .or_else(|| self.closest(&self.base_names, unnumbered(base_name(path)), size))
    }

    fn closest(&self, table: &[(u64, u32)], name: u64, size: u64) -> Option<Source> {
        let first = table.partition_point(|row| row.0 < name);
        table[first..]
            .iter()
            .take_while(|row| row.0 == name)
            .map(|row| self.files[row.1 as usize])
            .filter(|file| similar(file.payload.size, size))
            .min_by_key(|file| (file.payload.size.abs_diff(size), file.payload.id))
    }

    /// Gives new files their sources. Old files whose content the new commit has as well are not
    /// compared by content.
    pub(in crate::ops) fn assign(
        &self,
        repo: &Repository,
        new: &mut [NewFile],
        kept: &HashSet<PayloadId>,
    ) {
        for file in new.iter_mut() {
            let Some(payload) = file.file.payload else {
                continue;
            };
            let found = self
                .same(&payload)
                .or_else(|| self.by_name(&file.path, file.file.size));
            file.sources.extend(found);
        }
        let compared = |file: &&mut NewFile| {
            file.sources.is_empty() && (MIN_SIZE..=MAX_SIZE).contains(&file.file.size)
        };
        let mut strange: Vec<&mut NewFile> = new.iter_mut().filter(compared).collect();
        if strange.is_empty() {
            return;
        }
        let sketches: Vec<Option<Sketch>> = strange
            .par_iter()
            .map(|new| sketch(repo, &piece(&new.file)?))
            .collect();
        let known = self.sketched(repo, &strange, &sketches, kept);
        for (new, sketch) in strange.iter_mut().zip(sketches) {
            if let Some(sketch) = sketch {
                new.sources = known.likest(&sketch, new.file.size);
            }
        }
    }

    /// Sketches of old files that are gone and as large as one of the new ones.
    fn sketched(
        &self,
        repo: &Repository,
        new: &[&mut NewFile],
        sketches: &[Option<Sketch>],
        kept: &HashSet<PayloadId>,
    ) -> Sketched {
        let sizes = new
            .iter()
            .zip(sketches)
            .filter(|(_, sketch)| sketch.is_some());
        let mut sizes: Vec<u64> = sizes.map(|(new, _)| new.file.size).collect();
        sizes.sort_unstable();
        let wanted = |size: u64| {
            let next = sizes.get(sizes.partition_point(|other| *other < size / 2));
            next.is_some_and(|other| similar(*other, size))
        };
        let mut left = FREE_BYTES + BYTES_EACH * sizes.iter().sum::<u64>();
        let mut seen = HashSet::new();
        let mut chosen = Vec::new();
        for file in &self.files {
            let Piece { id, size } = file.payload;
            let fits = (MIN_SIZE..=MAX_SIZE.min(left)).contains(&size) && wanted(size);
            if fits && !kept.contains(&id) && seen.insert(id) {
                left -= size;
                chosen.push(*file);
            }
        }
        let read: Vec<Option<Sketch>> = chosen
            .par_iter()
            .map(|file| sketch(repo, &file.payload))
            .collect();
        let mut known = Sketched::default();
        for (file, sketch) in chosen.into_iter().zip(read) {
            let Some(sketch) = sketch else { continue };
            let n = known.files.len();
            known.files.push(file);
            sketch
                .features()
                .iter()
                .for_each(|f| known.by_feature.entry(*f).or_default().push(n));
        }
        known
    }
}

/// Old files by features of their content.
#[derive(Debug, Default)]
struct Sketched {
    files: Vec<Source>,
    by_feature: HashMap<u32, Vec<usize>>,
}

impl Sketched {
    /// Files with features in common, those with most first. Further ones only as long as those
    /// before leave features over.
    fn likest(&self, sketch: &Sketch, size: u64) -> Vec<Source> {
        let mut shared: HashMap<usize, u16> = HashMap::new();
        for (bit, feature) in sketch.features().iter().enumerate() {
            let with_it = self.by_feature.get(feature).into_iter().flatten();
            with_it
                .take(MAX_SHARED)
                .for_each(|n| *shared.entry(*n).or_default() |= 1 << bit);
        }
        let mut found: Vec<(usize, u16)> = shared.into_iter().collect();
        found.sort_by_key(|(n, bits)| {
            let file = self.files[*n];
            (
                FEATURES as u32 - bits.count_ones(),
                file.payload.size.abs_diff(size),
                file.payload.id,
            )
        });
        let mut covered = 0u16;
        let mut sources = Vec::new();
        for (n, bits) in found {
            if sources.len() < MAX_SOURCES && (bits & !covered).count_ones() as usize >= MIN_COMMON
            {
                covered |= bits;
                sources.push(self.files[n]);
            }
        }
        sources
    }
}

pub(in crate::ops) fn piece(file: &FileObject) -> Option<Piece> {
    Some(Piece {
        id: file.payload?,
        size: file.size,
    })
}

fn similar(a: u64, b: u64) -> bool {
    a / 2 <= b && b / 2 <= a
}

/// A file that cannot be read has none: making the delta says what is wrong.
fn sketch(repo: &Repository, payload: &Piece) -> Option<Sketch> {
    let mut builder = SketchBuilder::default();
    let mut buf = vec![0; payload.size.min(1 << 20) as usize];
    let mut at = 0;
    while at < payload.size {
        let n = repo
            .store()
            .read_payload(&payload.id, payload.size, at, &mut buf)
            .ok()?;
        if !builder.update(&buf[..n]) {
            break;
        }
        at += n as u64;
    }
    builder.finish()
}

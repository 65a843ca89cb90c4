//! Finds an older version by likeness of contents, for files whose names lead to none.
//!
//! Owns the sketches of files of the parent commit. Read are only files that may have moved: those
//! at whose path the new tree has none, as far as that is known; of them those closest in size to
//! a new file, and no more bytes than 16 MiB and a multiple of those of the new files. So a commit in which
//! nothing moved reads nothing. What is found depends on the input alone.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::delta::Older;
use super::ingest::{Content, NewPayload};
use super::split;
use super::transaction::Transaction;
use crate::id::PayloadId;
use crate::pack::recipe::Piece;
use crate::sketch::{Sketch, SketchBuilder};
use crate::store::Store;
use crate::store::payload::part_key;

/// Smaller files are not compared.
pub(super) const MIN_SIZE: u64 = 16 << 10;
/// Files with fewer features in common are strangers.
const MIN_COMMON: usize = 3;
/// Bytes of candidates that may be read whatever is new.
const FREE_BYTES: u64 = 16 << 20;
/// Bytes of candidates that may be read for each byte that is new, if it is known what moved.
const BYTES_EACH: u64 = 4;
/// Candidates next larger and next smaller than a new file that come into question.
const NEAR: usize = 512;
/// Files with one feature in common that are looked at.
const MAX_SHARED: usize = 256;
/// Bytes read at a time.
const STEP: u64 = 1 << 20;

/// A file of the parent commit that may have moved.
#[derive(Debug)]
struct Candidate {
    payload: Piece,
    /// Hash of its path.
    path: u64,
    /// Hash of its extension.
    extension: u64,
}

/// Files of the parent commit, to be found by likeness.
#[derive(Debug)]
pub(super) struct Alike {
    /// Hashes of paths that the new tree holds.
    present: HashSet<u64>,
    /// Whether these are all paths of an input.
    announced: bool,
    /// Ascending by size.
    candidates: Vec<Candidate>,
    /// Payloads that were chosen, or read in their place.
    seen: HashSet<PayloadId>,
    bases: Vec<Piece>,
    /// Positions in `bases`.
    by_feature: HashMap<u32, Vec<u32>>,
    /// Bytes that may still be read.
    allowance: u64,
}

impl Default for Alike {
    fn default() -> Self {
        Self {
            present: HashSet::new(),
            announced: false,
            candidates: Vec::new(),
            seen: HashSet::new(),
            bases: Vec::new(),
            by_feature: HashMap::new(),
            allowance: FREE_BYTES,
        }
    }
}

impl Alike {
    /// Notes a path of the new tree: the file that the parent commit has there did not move.
    pub(super) fn note_path(&mut self, path: &[u8]) {
        self.present.insert(xxh3_64(path));
    }

    /// Says that the paths of an input are noted before its files come.
    pub(super) fn set_announced(&mut self) {
        self.announced = true;
    }

    /// Adds a file of the parent commit.
    pub(super) fn add(&mut self, path: &str, payload: Piece) {
        if payload.size >= MIN_SIZE {
            self.candidates.push(Candidate {
                payload,
                path: xxh3_64(path.as_bytes()),
                extension: extension(path.as_bytes()),
            });
        }
    }

    /// To be called when all files are added.
    pub(super) fn sort(&mut self) {
        self.candidates
            .sort_unstable_by_key(|file| (file.payload.size, file.payload.id, file.path));
    }

    /// The payloads that new ones are most like, where there are any.
    pub(super) fn find(&mut self, store: &Store, new: &[&NewPayload]) -> Vec<Option<Piece>> {
        let sketches: Vec<Option<Sketch>> = new.par_iter().map(|new| sketch_new(new)).collect();
        let mut chosen = Vec::new();
        for (new, _) in new
            .iter()
            .zip(&sketches)
            .filter(|(_, sketch)| sketch.is_some())
        {
            self.choose(new.size, &new.hint, &mut chosen);
        }
        self.read(store, &chosen);
        let found = new.iter().zip(&sketches);
        found
            .map(|(new, sketch)| self.likest(sketch.as_ref()?, new.size))
            .collect()
    }

    /// Chooses what is worth reading for a new file of this size and name.
    fn choose(&mut self, size: u64, hint: &[u8], chosen: &mut Vec<Piece>) {
        let earned = size * if self.announced { BYTES_EACH } else { 1 };
        self.allowance += earned;
        let mut share = earned.max(self.allowance / 4);
        let at = self
            .candidates
            .partition_point(|file| file.payload.size < size);
        let end = self.candidates.len().min(at + NEAR);
        let extension = extension(hint);
        let mut near: Vec<&Candidate> = self.candidates[at.saturating_sub(NEAR)..end]
            .iter()
            .filter(|file| similar_size(file.payload.size, size))
            .filter(|file| !self.present.contains(&file.path))
            .collect();
        near.sort_by_key(|file| {
            let distance = file.payload.size.abs_diff(size);
            (file.extension != extension, distance)
        });
        for Candidate { payload, .. } in near {
            if payload.size <= share && self.seen.insert(payload.id) {
                share -= payload.size;
                self.allowance -= payload.size;
                chosen.push(*payload);
            }
        }
    }

    /// Makes sketches of what deltas to the chosen files would be made against.
    fn read(&mut self, store: &Store, chosen: &[Piece]) {
        let mut bases = Vec::new();
        for payload in chosen {
            let Ok(Some(base)) = store.plain_base(*payload) else {
                continue;
            };
            if base.id == payload.id || self.seen.insert(base.id) {
                bases.push(base);
            }
        }
        // In the order in which they are stored: each of their blocks is decoded once.
        bases.sort_by_cached_key(|base| {
            let at = store.locate(&part_key(&base.id, 0)).ok().flatten();
            (at.map(|at| (at.pack, at.offset, at.entry)), base.id)
        });
        let sketches: Vec<Option<Sketch>> = bases
            .par_iter()
            .map(|base| sketch_stored(store, *base))
            .collect();
        for (base, sketch) in bases.into_iter().zip(sketches) {
            let Some(sketch) = sketch else { continue };
            let number = self.bases.len() as u32;
            self.bases.push(base);
            for feature in sketch.features() {
                self.by_feature.entry(*feature).or_default().push(number);
            }
        }
    }

    /// Of the bases of similar size the one with the most features in common.
    fn likest(&self, sketch: &Sketch, size: u64) -> Option<Piece> {
        let mut shared: HashMap<u32, usize> = HashMap::new();
        for feature in sketch.features() {
            let with_it = self.by_feature.get(feature).into_iter().flatten();
            for base in with_it.take(MAX_SHARED) {
                *shared.entry(*base).or_default() += 1;
            }
        }
        shared
            .into_iter()
            .map(|(base, common)| (common, self.bases[base as usize]))
            .filter(|(common, base)| *common >= MIN_COMMON && similar_size(base.size, size))
            .max_by_key(|(common, base)| (*common, Reverse(base.size.abs_diff(size)), base.id))
            .map(|(_, base)| base)
    }
}

fn similar_size(a: u64, b: u64) -> bool {
    a / 2 <= b && b / 2 <= a
}

/// Hash of what follows the last dot of the name, or of nothing.
fn extension(path: &[u8]) -> u64 {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let dot = name.iter().rposition(|byte| *byte == b'.');
    xxh3_64(dot.map_or(b"".as_slice(), |dot| &name[dot..]))
}

/// The sketch of a new file. One that cannot be read has none: storing it says what is wrong.
fn sketch_new(new: &NewPayload) -> Option<Sketch> {
    match &new.content {
        Content::Nothing => None,
        Content::Bytes(bytes) if split::is_compressed(bytes) => None,
        Content::Bytes(bytes) => Sketch::of(bytes),
        Content::Foreign(path) | Content::Spooled(path) => {
            let mut file = File::open(path).ok()?;
            sketch_by_steps(new.size, |_, buf| file.read(buf).ok())
        }
    }
}

fn sketch_stored(store: &Store, base: Piece) -> Option<Sketch> {
    sketch_by_steps(base.size, |at, buf| {
        store.read_payload(&base.id, base.size, at, buf).ok()
    })
}

fn sketch_by_steps(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Option<usize>,
) -> Option<Sketch> {
    let mut buf = vec![0; size.min(STEP) as usize];
    let mut builder = SketchBuilder::default();
    let mut at = 0;
    while at < size {
        let n = read(at, &mut buf).filter(|n| *n > 0)?;
        if at == 0 && split::is_compressed(&buf[..n]) {
            return None;
        }
        at += n as u64;
        if !builder.update(&buf[..n]) {
            break;
        }
    }
    builder.finish()
}

impl Transaction<'_> {
    /// Names the paths of files that the new tree will hold, before these are stored: what the
    /// parent has at other paths may have moved, so it is compared with what is new.
    pub fn announce_paths(&mut self, paths: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        if let Some(bases) = &mut self.bases {
            bases.announce(paths);
        }
    }

    /// Finds bases by likeness for the new payloads that have none by name.
    pub(super) fn find_alike(&mut self, new: &mut [NewPayload]) {
        let Some(bases) = &mut self.bases else { return };
        let mut baseless: Vec<&mut NewPayload> = new
            .iter_mut()
            .filter(|new| new.base.is_none() && new.size >= MIN_SIZE)
            .collect();
        if baseless.is_empty() {
            return;
        }
        let payloads: Vec<&NewPayload> = baseless.iter().map(|new| &**new).collect();
        let found = bases.find_alike(self.repo, &payloads);
        for (new, base) in baseless.iter_mut().zip(found) {
            self.report.alike_files += u64::from(base.is_some());
            new.base = base.map(Older::from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> PayloadId {
        PayloadId::of(path.as_bytes())
    }

    fn alike(files: &[(&str, u64)]) -> Alike {
        let mut alike = Alike::default();
        for (path, size) in files {
            let payload = Piece {
                id: id(path),
                size: *size,
            };
            alike.add(path, payload);
        }
        alike.sort();
        alike
    }

    fn chosen(alike: &mut Alike, size: u64, hint: &str) -> Vec<PayloadId> {
        let mut chosen = Vec::new();
        alike.choose(size, hint.as_bytes(), &mut chosen);
        chosen.into_iter().map(|payload| payload.id).collect()
    }

    #[test]
    fn what_is_read_is_gone_of_similar_size_and_read_once() {
        let mut alike = alike(&[
            ("a/half.so", 20_000),
            ("a/like.so", 50_100),
            ("a/other", 50_001),
            ("a/stays.so", 50_000),
            ("a/double.so", 100_001),
            ("a/tiny", 5_000),
        ]);
        alike.note_path(b"a/stays.so");
        let first = chosen(&mut alike, 50_000, "b/new.so");
        assert_eq!(first, [id("a/like.so"), id("a/double.so"), id("a/other")]);
        assert_eq!(chosen(&mut alike, 50_000, "b/new.so"), []);
        assert_eq!(chosen(&mut alike, 30_000, "b/small.so"), [id("a/half.so")]);
    }

    #[test]
    fn no_more_is_read_than_in_proportion_to_what_is_new() {
        let size = 1 << 20;
        let files: Vec<(String, u64)> = (0..200).map(|n| (n.to_string(), size + n)).collect();
        let files: Vec<(&str, u64)> = files.iter().map(|(path, n)| (&**path, *n)).collect();
        for (announced, each) in [(false, 1), (true, BYTES_EACH)] {
            let mut alike = alike(&files);
            if announced {
                alike.set_announced();
            }
            let read = (0..20).map(|_| chosen(&mut alike, size, "new").len() as u64);
            let read: u64 = read.sum();
            let limit = FREE_BYTES / size + 20 * each;
            assert!((limit / 2..=limit).contains(&read), "{read} of {limit}");
        }
    }
}

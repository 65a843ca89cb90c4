//! Which added entries are removed ones at another path.
//!
//! From what is certain to what is likely: equal content, a path that differs in version numbers
//! alone, likeness of content. Only the last one reads files, and a bounded number of bytes of them.
//! A directory moved if most of what was in it is now in one new directory.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::content::Content;
use super::local;
use super::report::{Change, DiffReport, FileKind, Info, Source};
use crate::error::{Error, Result};
use crate::id::PayloadId;
use crate::monitor::Monitor;
use crate::pack::recipe::Piece;
use crate::repo::Repository;
use crate::sketch::{FEATURES, Sketch, SketchBuilder};

/// Smaller files are not compared by content.
const MIN_ALIKE: u64 = 4 << 10;
/// Files with fewer features in common are strangers.
const MIN_COMMON: usize = 4;
/// What more files than this have says nothing about any of them.
const COMMON: usize = 256;
/// Added files that are compared with a removed one, those closest in size.
const NEAR: usize = 16;
/// Bytes of removed files, and of added ones for each of them, that are read at most.
const MAX_READ: u64 = 64 << 20;

/// A removed and an added entry that are one and the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Position in [`DiffReport::removed`].
    pub removed: usize,
    /// Position in [`DiffReport::added`].
    pub added: usize,
    /// Why they are taken for the same.
    pub by: MovedBy,
}

/// Why two entries are taken for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MovedBy {
    /// Equal content.
    Content,
    /// The paths differ in version numbers alone, and nothing else is called so.
    Version,
    /// A sample of the content is the same.
    Likeness {
        /// How much of the sample, in percent.
        percent: u8,
    },
    /// Most of what was in the directory is now in the other one.
    Entries,
}

/// What makes two entries equal in content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identity {
    Empty,
    Payload(PayloadId),
    Target(Vec<u8>),
}

/// Finds the moves of a report whose metadata was loaded; ordered by where they lead.
pub(super) fn find(
    repo: Option<&Repository>,
    report: &mut DiffReport,
    monitor: &dyn Monitor,
) -> Result<Vec<Move>> {
    name_local(report, monitor)?;
    let mut search = Search::new(report);
    search.by_content();
    search.by_version();
    search.by_likeness(repo, monitor)?;
    search.directories();
    let mut moves = search.moves;
    moves.sort_unstable_by_key(|step| step.added);
    Ok(moves)
}

/// Names the payloads of local files that may equal a file of the other side: those of its size.
fn name_local(report: &mut DiffReport, monitor: &dyn Monitor) -> Result<()> {
    fn file(info: Option<&Info>) -> Option<&Info> {
        info.filter(|info| info.kind == FileKind::File && info.size > 0)
    }
    let sizes = |side: &[Change], info: fn(&Change) -> Option<&Info>| {
        let found = side.iter().filter_map(|change| file(info(change)));
        found
            .map(|info| info.size)
            .collect::<std::collections::HashSet<u64>>()
    };
    let gone = sizes(&report.removed, |change| change.a.as_ref());
    let came = sizes(&report.added, |change| change.b.as_ref());
    let sides = report
        .removed
        .iter_mut()
        .map(|change| (&mut change.a, &came));
    let added = report.added.iter_mut().map(|change| (&mut change.b, &gone));
    for (info, others) in sides.chain(added) {
        let Some(info) = info.as_mut().filter(|info| info.kind == FileKind::File) else {
            continue;
        };
        if let Source::Local(path) = &info.source
            && others.contains(&info.size)
        {
            info.payload = Some(local::payload(path, monitor)?);
        }
    }
    Ok(())
}

/// Files and links, by their places among the changes.
type Unpaired<'r> = Vec<(usize, &'r Info)>;

struct Search<'r> {
    removed: &'r [Change],
    added: &'r [Change],
    /// What each one was paired with.
    gone: Vec<Option<usize>>,
    came: Vec<bool>,
    moves: Vec<Move>,
}

impl<'r> Search<'r> {
    fn new(report: &'r DiffReport) -> Self {
        Self {
            removed: &report.removed,
            added: &report.added,
            gone: vec![None; report.removed.len()],
            came: vec![false; report.added.len()],
            moves: Vec::new(),
        }
    }

    fn pair(&mut self, removed: usize, added: usize, by: MovedBy) {
        self.gone[removed] = Some(added);
        self.came[added] = true;
        self.moves.push(Move { removed, added, by });
    }

    /// Files and links that are not paired yet.
    fn left(&self) -> (Unpaired<'r>, Unpaired<'r>) {
        let movable = |info: &&Info| info.kind != FileKind::Directory;
        let removed = self.removed.iter().enumerate().zip(&self.gone);
        let removed = removed.filter(|(_, pair)| pair.is_none());
        let removed = removed.filter_map(|((at, c), _)| Some((at, c.a.as_ref().filter(movable)?)));
        let added = self.added.iter().enumerate().zip(&self.came);
        let added = added.filter(|(_, paired)| !**paired);
        let added = added.filter_map(|((at, c), _)| Some((at, c.b.as_ref().filter(movable)?)));
        (removed.collect(), added.collect())
    }

    /// Equal content under the same name first, then equal content alone; both in the order of the
    /// paths. Links and empty files must keep their name: too many have the same content.
    fn by_content(&mut self) {
        for with_name in [true, false] {
            let (removed, added) = self.left();
            let mut places: HashMap<(Identity, &str), Vec<usize>> = HashMap::new();
            for (at, info) in removed.iter().rev() {
                if let Some(key) = key(info, &self.removed[*at].path, with_name) {
                    places.entry(key).or_default().push(*at);
                }
            }
            for (at, info) in added {
                let key = key(info, &self.added[at].path, with_name);
                let place = key.and_then(|key| places.get_mut(&key)).and_then(Vec::pop);
                if let Some(removed) = place {
                    self.pair(removed, at, MovedBy::Content);
                }
            }
        }
    }

    /// Paths that are the same but for version numbers, where this leaves no choice.
    fn by_version(&mut self) {
        let (removed, added) = self.left();
        let mut places: BTreeMap<(String, FileKind), (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (at, info) in removed {
            let key = (unversioned(&self.removed[at].path), info.kind);
            places.entry(key).or_default().0.push(at);
        }
        for (at, info) in added {
            let key = (unversioned(&self.added[at].path), info.kind);
            if let Some(place) = places.get_mut(&key) {
                place.1.push(at);
            }
        }
        for (removed, added) in places.into_values() {
            if let ([removed], [added]) = (&*removed, &*added) {
                self.pair(*removed, *added, MovedBy::Version);
            }
        }
    }

    fn by_likeness(&mut self, repo: Option<&Repository>, monitor: &dyn Monitor) -> Result<()> {
        let (removed, added) = self.candidates();
        let removed = sketches(repo, &removed, monitor)?;
        let added = sketches(repo, &added, monitor)?;
        let mut by_feature: HashMap<u32, Vec<usize>> = HashMap::new();
        for (number, (_, _, sketch)) in added.iter().enumerate() {
            for feature in sketch.features() {
                by_feature.entry(*feature).or_default().push(number);
            }
        }
        let mut pairs = Vec::new();
        for (removed, info, sketch) in &removed {
            let mut common: HashMap<usize, usize> = HashMap::new();
            for feature in sketch.features() {
                for number in by_feature
                    .get(feature)
                    .filter(|all| all.len() <= COMMON)
                    .into_iter()
                    .flatten()
                {
                    *common.entry(*number).or_default() += 1;
                }
            }
            for (number, common) in common {
                let (added, other, _) = &added[number];
                if common >= MIN_COMMON && similar_size(info.size, other.size) {
                    pairs.push((FEATURES - common, *removed, *added));
                }
            }
        }
        pairs.sort_unstable();
        for (missing, removed, added) in pairs {
            if self.gone[removed].is_none() && !self.came[added] {
                let percent = (100 * (FEATURES - missing) / FEATURES) as u8;
                self.pair(removed, added, MovedBy::Likeness { percent });
            }
        }
        Ok(())
    }

    /// What is worth reading: removed files, and for each the added ones with the same extension
    /// whose size is nearest.
    #[expect(clippy::type_complexity, reason = "two lists of the same kind")]
    fn candidates(&self) -> (Vec<(usize, &'r Info)>, Vec<(usize, &'r Info)>) {
        let (removed, added) = self.left();
        let is_large = |(_, info): &(usize, &Info)| info.size >= MIN_ALIKE;
        let mut by_extension: HashMap<&str, Vec<(u64, usize, &Info)>> = HashMap::new();
        for (at, info) in added.into_iter().filter(is_large) {
            let list = by_extension
                .entry(extension(&self.added[at].path))
                .or_default();
            list.push((info.size, at, info));
        }
        by_extension
            .values_mut()
            .for_each(|list| list.sort_unstable_by_key(|c| (c.0, c.1)));
        let (mut olds, mut news) = (Vec::new(), BTreeMap::new());
        let (mut read_olds, mut read_news) = (0, 0);
        for (at, info) in removed.into_iter().filter(is_large) {
            let extension = extension(&self.removed[at].path);
            let Some(list) = by_extension.get(extension) else {
                continue;
            };
            let middle = list.partition_point(|candidate| candidate.0 < info.size);
            let start = middle.saturating_sub(NEAR / 2);
            let near = list.iter().skip(start).take(NEAR);
            let near = near.filter(|(size, ..)| similar_size(*size, info.size));
            let mut found = false;
            for (size, added, other) in near {
                let is_known = news.contains_key(added);
                if is_known || read_news + size <= MAX_READ {
                    read_news += if is_known { 0 } else { *size };
                    news.insert(*added, *other);
                    found = true;
                }
            }
            if found && read_olds + info.size <= MAX_READ {
                read_olds += info.size;
                olds.push((at, info));
            }
        }
        (olds, news.into_iter().collect())
    }

    /// Pairs directories, from the deepest up.
    fn directories(&mut self) {
        let numbers = |list: &'r [Change]| {
            let dirs = list.iter().enumerate();
            let dirs = dirs.filter(|(_, change)| change.file_kind == FileKind::Directory);
            dirs.map(|(at, change)| (change.path.as_str(), at))
                .collect::<HashMap<&str, usize>>()
        };
        let (gone, came) = (numbers(self.removed), numbers(self.added));
        let mut entries: HashMap<usize, (u32, BTreeMap<usize, u32>)> = HashMap::new();
        // In reverse, what is below a directory comes before it.
        for at in (0..self.removed.len()).rev() {
            if self.removed[at].file_kind == FileKind::Directory
                && let Some((all, votes)) = entries.remove(&at)
                && let Some((to, most)) = votes.into_iter().max_by_key(|(_, votes)| *votes)
                && 2 * most > all
                && !self.came[to]
            {
                self.pair(at, to, MovedBy::Entries);
            }
            let Some(dir) = gone.get(parent(&self.removed[at].path)) else {
                continue;
            };
            let (all, votes) = entries.entry(*dir).or_default();
            *all += 1;
            let to = self.gone[at].and_then(|to| came.get(parent(&self.added[to].path)));
            if let Some(to) = to {
                *votes.entry(*to).or_default() += 1;
            }
        }
    }
}

fn key<'p>(info: &Info, path: &'p str, with_name: bool) -> Option<(Identity, &'p str)> {
    let identity = match (info.kind, info.payload) {
        (FileKind::Symlink, _) if with_name => Identity::Target(info.symlink_target.clone()),
        (FileKind::File, _) if with_name && info.size == 0 => Identity::Empty,
        (FileKind::File, Some(payload)) => Identity::Payload(payload),
        _ => return None,
    };
    Some((identity, if with_name { name(path) } else { "" }))
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn extension(path: &str) -> &str {
    name(path)
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension)
}

fn similar_size(a: u64, b: u64) -> bool {
    a / 2 <= b && b / 2 <= a
}

/// A path with each version number, `6.1.0-21` or `2`, replaced by a sign.
fn unversioned(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        out.push('#');
        rest = &rest[at..];
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let joined = rest.trim_start_matches(['.', '-', '_', '+', '~']);
            if joined.len() == rest.len() || !joined.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            rest = joined;
        }
    }
    out.push_str(rest);
    out
}

/// Sketches of files, stored ones read in the order in which they are stored; those that have none
/// are left out.
fn sketches<'i>(
    repo: Option<&Repository>,
    files: &[(usize, &'i Info)],
    monitor: &dyn Monitor,
) -> Result<Vec<(usize, &'i Info, Sketch)>> {
    let is_local = |info: &Info| matches!(info.source, Source::Local(_));
    let (local, stored): (Vec<_>, Vec<_>) = files.iter().partition(|(_, info)| is_local(info));
    let pieces = stored.iter().filter_map(|(at, info)| {
        let piece = Piece {
            id: info.payload?,
            size: info.size,
        };
        Some((*at, *info, piece))
    });
    let stored: Vec<(usize, &Info, Piece)> = pieces.collect();
    let pieces: Vec<Piece> = stored.iter().map(|(.., piece)| *piece).collect();
    let store = repo.map(Repository::store);
    let groups = store.map_or_else(Vec::new, |store| store.in_pack_order(&pieces));
    let of_group = |group| {
        let Some(store) = store else {
            return Ok(Vec::new());
        };
        let mut builders: BTreeMap<usize, SketchBuilder> = BTreeMap::new();
        let read = store.read_group(&pieces, group, &mut |number, _, bytes| {
            builders.entry(number).or_default().update(bytes);
            if monitor.is_cancelled() {
                Err(Error::Cancelled)
            } else {
                Ok(())
            }
        });
        read.map_err(|(_, error)| error)?;
        let finished = builders.into_iter().filter_map(|(number, builder)| {
            let (at, info, _) = stored[number];
            Some((at, info, builder.finish()?))
        });
        Ok(finished.collect())
    };
    let of_local = |(at, info): &(usize, &'i Info)| {
        let bytes =
            Content::open(repo, info)?.head(usize::try_from(MAX_READ).unwrap_or(usize::MAX))?;
        let sketch = Sketch::of(&bytes).map(|sketch| (*at, *info, sketch));
        Ok(sketch.into_iter().collect())
    };
    let found = groups
        .par_iter()
        .map(of_group)
        .chain(local.par_iter().map(of_local));
    let found: Vec<Result<Vec<_>>> = found.collect();
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    let mut sketches: Vec<_> = found.into_iter().flatten().collect();
    sketches.sort_unstable_by_key(|(at, ..)| *at);
    Ok(sketches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_are_one_sign_whatever_their_length() {
        for (path, same) in [
            (
                "/lib/modules/6.1.0-21-amd64/a.ko",
                "/lib/modules/#-amd#/a.ko",
            ),
            ("/lib/libx.so.1.2.3", "/lib/libx.so.#"),
            ("/lib/python3.11/x1y22", "/lib/python#/x#y#"),
            ("/plain.d/", "/plain.d/"),
            ("/7", "/#"),
            ("/1.", "/#."),
        ] {
            assert_eq!(unversioned(path), same);
        }
    }
}

//! How a content is written into streams, and read from them. Layout: docs/format.md, "Deltas".

use super::base::Source;
use super::limits::{MAX_CONTENT, MAX_PIECES, MAX_SOURCES};
use super::streams::{Cursors, Streams};
use crate::bsdiff::Stretch;
use crate::ops::changes::{Fault, signed, take_number};
use crate::recode;

/// Sizes, ways, sources, counts.
pub(super) const HEADS: usize = 0;
/// Of each stretch: how many bytes resemble the source's.
const ALIKE: usize = 1;
/// Of each stretch: how many bytes follow that do not.
const FRESH_LENS: usize = 2;
/// Of each stretch: how far its place in the source is from the end of the one before.
const SEEKS: usize = 3;
/// Of each change: how many bytes before it are the source's own.
const GAPS: usize = 4;
/// Of each change: how many bytes it has.
const RUNS: usize = 5;
/// What is added to the bytes of the source that are changed.
const CHANGES: usize = 6;
/// Bytes that resemble none of the source.
const FRESH: usize = 7;
/// Contents as they are, and recipes.
const WHOLE: usize = 8;
/// Frames: contents that are compressed with their sources in front.
const FRAMES: usize = 9;
/// Streams of a section of contents.
pub(crate) const STREAMS: usize = 10;

/// The streams of contents.
pub(super) type Group = Streams<STREAMS>;

/// Ways to make a content, as they are numbered in a head.
const WAY_WHOLE: u64 = 0;
const WAY_PATCH: u64 = 1;
const WAY_FRAME: u64 = 2;
const WAY_CONCAT: u64 = 3;
const WAY_RECODE: u64 = 4;

/// How a content is made.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// It is there as it is.
    Whole(&'a [u8]),
    /// From stretches of its sources.
    Patch {
        sources: Vec<Source>,
        patch: Patch<'a>,
    },
    /// From a zstd frame whose prefix are its sources.
    Frame {
        sources: Vec<Source>,
        frame: &'a [u8],
    },
    /// From pieces, one after the other.
    Concat(Vec<Source>),
    /// By compressing its plain form as a recipe says.
    Recode { plain: Source, recipe: &'a [u8] },
}

/// A content that is to be made.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) size: u64,
    pub(super) way: Way<'a>,
}

/// What makes a content from the bytes of its sources; the slices are unread numbers.
#[derive(Debug)]
pub(super) struct Patch<'a> {
    stretches: usize,
    alike: &'a [u8],
    fresh_lens: &'a [u8],
    seeks: &'a [u8],
    gaps: &'a [u8],
    runs: &'a [u8],
    changes: &'a [u8],
    fresh: &'a [u8],
}

fn begin(size: u64, way: u64) -> Group {
    let mut group = Group::default();
    group.number(HEADS, size);
    group.number(HEADS, way);
    group
}

fn put_sources(group: &mut Group, sources: &[Source]) {
    group.number(HEADS, sources.len() as u64);
    sources
        .iter()
        .for_each(|source| source.put(&mut group.0[HEADS]));
}

/// A content as it is.
pub(super) fn whole(bytes: &[u8]) -> Group {
    let mut group = begin(bytes.len() as u64, WAY_WHOLE);
    group.bytes(WHOLE, bytes);
    group
}

/// A content that is put together from pieces.
pub(super) fn concat(size: u64, pieces: &[Source]) -> Group {
    let mut group = begin(size, WAY_CONCAT);
    put_sources(&mut group, pieces);
    group
}

/// A content that is compressed from its plain form.
pub(super) fn recode(size: u64, plain: &Source, recipe: &[u8]) -> Group {
    let mut group = begin(size, WAY_RECODE);
    plain.put(&mut group.0[HEADS]);
    group.number(HEADS, recipe.len() as u64);
    group.bytes(WHOLE, recipe);
    group
}

/// A content that is compressed with its sources in front.
pub(super) fn frame(size: u64, sources: &[Source], frame: &[u8]) -> Group {
    let mut group = begin(size, WAY_FRAME);
    put_sources(&mut group, sources);
    group.number(HEADS, frame.len() as u64);
    group.bytes(FRAMES, frame);
    group
}

/// A content as stretches of `old`, which are the bytes of its sources.
pub(super) fn patch(sources: &[Source], old: &[u8], new: &[u8], stretches: &[Stretch]) -> Group {
    let mut group = begin(new.len() as u64, WAY_PATCH);
    put_sources(&mut group, sources);
    let (mut at, mut from) = (0, 0);
    let (mut gap, mut changes) = (0, 0u64);
    for stretch in stretches {
        group.number(ALIKE, stretch.alike as u64);
        group.number(FRESH_LENS, stretch.fresh as u64);
        group.signed(SEEKS, stretch.from as i64 - from);
        from = (stretch.from + stretch.alike) as i64;
        let (resembling, rest) = new[at..].split_at(stretch.alike);
        let source = &old[stretch.from..stretch.from + stretch.alike];
        let differs = |n: usize| resembling.get(n) != source.get(n);
        let mut done = 0;
        while done < stretch.alike {
            let same = common(&resembling[done..], &source[done..]);
            done += same;
            gap += same as u64;
            let start = done;
            // One byte that agrees between others that do not is cheaper than another run.
            while done < stretch.alike && (differs(done) || differs(done + 1)) {
                done += 1;
            }
            if done > start {
                group.number(GAPS, std::mem::take(&mut gap));
                group.number(RUNS, (done - start) as u64);
                let pairs = resembling[start..done].iter().zip(&source[start..done]);
                group.0[CHANGES].extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
                changes += 1;
            }
        }
        group.bytes(FRESH, &rest[..stretch.fresh]);
        at += stretch.alike + stretch.fresh;
    }
    group.number(HEADS, stretches.len() as u64);
    group.number(HEADS, changes);
    group
}

/// How many bytes agree at the front.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn take_sources(cursors: &mut Cursors<'_, STREAMS>, max: usize) -> Result<Vec<Source>, Fault> {
    let count = cursors.count(HEADS, HEADS)?;
    if count > max {
        return Err(Fault::invalid("a content has more sources than any"));
    }
    (0..count).map(|_| Source::take(cursors, HEADS)).collect()
}

impl<'a> Content<'a> {
    /// The next content of a section.
    pub(super) fn take(cursors: &mut Cursors<'a, STREAMS>) -> Result<Self, Fault> {
        let size = cursors.number(HEADS)?;
        let way = cursors.number(HEADS)?;
        let limit = match way {
            WAY_CONCAT => i64::MAX as u64,
            WAY_RECODE => recode::MAX_SIZE,
            _ => MAX_CONTENT,
        };
        if size > limit {
            return Err(Fault::invalid("a content is larger than any"));
        }
        let way = match way {
            WAY_WHOLE => Way::Whole(cursors.bytes(WHOLE, size)?),
            WAY_PATCH => Way::Patch {
                sources: take_sources(cursors, MAX_SOURCES)?,
                patch: Patch::take(cursors, size)?,
            },
            WAY_FRAME => {
                let sources = take_sources(cursors, MAX_SOURCES)?;
                let len = cursors.number(HEADS)?;
                let frame = cursors.bytes(FRAMES, len)?;
                Way::Frame { sources, frame }
            }
            WAY_CONCAT => Way::Concat(take_sources(cursors, MAX_PIECES)?),
            WAY_RECODE => {
                let plain = Source::take(cursors, HEADS)?;
                let len = cursors.number(HEADS)?;
                let recipe = cursors.bytes(WHOLE, len)?;
                Way::Recode { plain, recipe }
            }
            _ => return Err(Fault::invalid("a content is made in an unknown way")),
        };
        Ok(Self { size, way })
    }
}

impl<'a> Patch<'a> {
    fn take(cursors: &mut Cursors<'a, STREAMS>, size: u64) -> Result<Self, Fault> {
        let stretches = cursors.count(HEADS, ALIKE)?;
        let changes = cursors.count(HEADS, GAPS)?;
        let (alike, resembling) = cursors.numbers(ALIKE, stretches)?;
        let (fresh_lens, fresh) = cursors.numbers(FRESH_LENS, stretches)?;
        if resembling.checked_add(fresh) != Some(size) {
            return Err(Fault::invalid("a patch makes another size than it shall"));
        }
        let (seeks, _) = cursors.numbers(SEEKS, stretches)?;
        let (gaps, skipped) = cursors.numbers(GAPS, changes)?;
        let (runs, changed) = cursors.numbers(RUNS, changes)?;
        if skipped.saturating_add(changed) > resembling {
            return Err(Fault::invalid("a patch changes more than it has"));
        }
        Ok(Self {
            stretches,
            alike,
            fresh_lens,
            seeks,
            gaps,
            runs,
            changes: cursors.bytes(CHANGES, changed)?,
            fresh: cursors.bytes(FRESH, fresh)?,
        })
    }

    /// Makes the content from the bytes of its sources.
    pub(super) fn apply(&self, old: &[u8], size: u64) -> Result<Vec<u8>, Fault> {
        let (mut alike, mut fresh_lens, mut seeks) = (self.alike, self.fresh_lens, self.seeks);
        let mut fresh = self.fresh;
        let mut changes = Changes {
            gaps: self.gaps,
            runs: self.runs,
            bytes: self.changes,
            gap: 0,
            run: 0,
        };
        let mut out = Vec::with_capacity(size as usize);
        let mut from = 0i64;
        for _ in 0..self.stretches {
            from = from.saturating_add(signed(take_number(&mut seeks)?));
            // Sums of these were compared with what there is.
            let len = take_number(&mut alike)? as usize;
            let fresh_len = take_number(&mut fresh_lens)? as usize;
            let source = usize::try_from(from).ok();
            let source = source.and_then(|from| old.get(from..from.checked_add(len)?));
            let start = out.len();
            out.extend_from_slice(
                source.ok_or_else(|| Fault::invalid("a patch leads out of its sources"))?,
            );
            changes.apply(&mut out[start..])?;
            let (now, rest) = fresh.split_at(fresh_len);
            out.extend_from_slice(now);
            fresh = rest;
            from += len as i64;
        }
        Ok(out)
    }
}

/// Changes that are still to be made to the bytes of sources.
struct Changes<'a> {
    gaps: &'a [u8],
    runs: &'a [u8],
    bytes: &'a [u8],
    gap: u64,
    run: u64,
}

impl Changes<'_> {
    fn apply(&mut self, mut bytes: &mut [u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if self.gap == 0 && self.run == 0 {
                if self.gaps.is_empty() {
                    break;
                }
                self.gap = take_number(&mut self.gaps)?;
                self.run = take_number(&mut self.runs)?;
            }
            let skip = self.gap.min(bytes.len() as u64);
            self.gap -= skip;
            bytes = &mut bytes[skip as usize..];
            let len = self.run.min(bytes.len() as u64);
            self.run -= len;
            let (now, rest) = bytes.split_at_mut(len as usize);
            let (added, left) = self.bytes.split_at(len as usize);
            now.iter_mut()
                .zip(added)
                .for_each(|(byte, added)| *byte = byte.wrapping_add(*added));
            (bytes, self.bytes) = (rest, left);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::base::Origin;
    use super::*;
    use crate::bsdiff::Aligner;

    fn made(old: &[u8], group: &Group) -> Result<Vec<u8>, Fault> {
        let mut cursors = Cursors::new(group);
        let content = Content::take(&mut cursors)?;
        cursors.finish()?;
        match content.way {
            Way::Patch { patch, .. } => patch.apply(old, content.size),
            other => panic!("{other:?}"),
        }
    }

    fn sources() -> Vec<Source> {
        let window = Some((5, 300));
        let (number, size) = (700, 90_000);
        let origin = Origin::Plain { number, size };
        vec![Origin::Base(3).into(), Source { origin, window }]
    }

    proptest! {
        #[test]
        fn what_is_patched_is_what_was_new(
            old in prop::collection::vec(0u8..4, 0..400),
            edits in prop::collection::vec((0usize..400, 0usize..60, 0u8..9), 0..12),
        ) {
            let mut new = old.clone();
            for (at, len, kind) in edits {
                let at = at.min(new.len());
                let end = (at + len).min(new.len());
                match kind {
                    0..3 => drop(new.drain(at..end)),
                    3..6 => drop(new.splice(at..at, old.iter().rev().take(len).copied())),
                    _ => new[at..end].iter_mut().step_by(3).for_each(|b| *b = b.wrapping_add(kind)),
                }
            }
            let stretches = Aligner::default().align(&old, &new);
            let group = patch(&sources(), &old, &new, &stretches);
            prop_assert_eq!(made(&old, &group).unwrap(), new);
        }

        #[test]
        fn any_streams_are_contents_or_an_error(
            streams in prop::collection::vec(prop::collection::vec(0u8..20, 0..12), STREAMS),
        ) {
            let group = Streams(streams.try_into().unwrap());
            let mut cursors = Cursors::<STREAMS>::new(&group);
            while let Ok(content) = Content::take(&mut cursors) {
                if let Way::Patch { patch, .. } = content.way
                    && let Ok(bytes) = patch.apply(b"some old bytes", content.size)
                {
                    prop_assert_eq!(bytes.len() as u64, content.size);
                }
            }
        }
    }

    #[test]
    fn contents_come_back_in_their_order() {
        let made_source = Source::from(Origin::Made(9));
        let mut group = whole(b"as it is");
        group.append(frame(70, &sources(), b"a frame"));
        group.append(concat(123, &[made_source]));
        group.append(recode(55, &made_source, b"how"));
        let mut cursors = Cursors::new(&group);
        let mut next = || Content::take(&mut cursors).unwrap();
        assert!(matches!(next().way, Way::Whole(b"as it is")));
        let content = next();
        assert_eq!(content.size, 70);
        let Way::Frame { sources: of, frame } = content.way else {
            panic!("no frame");
        };
        assert_eq!((of, frame), (sources(), &b"a frame"[..]));
        assert!(matches!(&*next().way.pieces(), [piece] if *piece == made_source));
        let Way::Recode { plain, recipe } = next().way else {
            panic!("not recompressed");
        };
        assert_eq!((plain, recipe), (made_source, &b"how"[..]));
        cursors.finish().unwrap();
    }

    impl Way<'_> {
        fn pieces(&self) -> Vec<Source> {
            match self {
                Way::Concat(pieces) => pieces.clone(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn lies_about_sizes_are_refused() {
        let (old, new) = (b"0123456789".repeat(9), b"012345678x".repeat(9));
        let (from, alike, fresh) = (0, 90, 0);
        let stretches = [Stretch { from, alike, fresh }];
        let good = patch(&[], &old, &new, &stretches);
        assert_eq!(made(&old, &good).unwrap(), new);
        assert!(
            made(&old[..80], &good).is_err(),
            "sources that are too short"
        );
        let with = |stream: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad.0[stream] = bytes.to_vec();
            made(&old, &bad).unwrap_err().to_string()
        };
        for (stream, bytes, message) in [
            (HEADS, &[91, 1, 0, 1, 9][..], "another size"),
            (HEADS, &[90, 1, 0, 127, 9], "fewer bytes"),
            (HEADS, &[90, 9], "unknown way"),
            (HEADS, &[255, 255, 255, 255, 127, 1], "larger than any"),
            (HEADS, &[90, 1, 50, 1, 9], "fewer bytes"),
            (SEEKS, &[2], "out of its sources"),
            (SEEKS, &[1], "out of its sources"),
            (GAPS, &[90; 9], "more than it has"),
            (CHANGES, b"", "cut short"),
        ] {
            let error = with(stream, bytes);
            assert!(error.contains(message), "{stream} {bytes:?}: {error}");
        }
    }
}

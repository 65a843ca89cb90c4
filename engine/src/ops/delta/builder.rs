//! Contents on their way into sections: numbered, gathered, compressed, written.
//!
//! Sections that are full wait until there are as many as threads, so that memory is bounded by their
//! number and the size of a section.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use super::DeltaCounts;
use super::base::{Base, Origin, Source};
use super::content::{self, Group};
use super::encode::Encoder;
use super::file::{DeltaWriter, Kind};
use crate::anchors::AnchorBuilder;
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::monitor::{Monitor, Phase};
use crate::pack::recipe::Piece;

/// A section is closed when its streams are this long.
const SECTION_TARGET: usize = 32 << 20;
/// Larger contents are put together from segments of this size.
pub(super) const SEGMENT: u64 = 16 << 20;
/// Bytes of the source before and behind the place that a segment likely came from.
const PAD: u64 = 4 << 20;
/// Of larger sources only the window is compared that a content likely came from.
pub(super) const MAX_SOURCE: u64 = SEGMENT + 2 * PAD;
/// Segments and their sources that are encoded at the same time take no more, unless one does.
const BATCH: u64 = 48 << 20;
/// Bytes of a source that are read at a time.
const STEP: u64 = 1 << 20;

/// Bytes of a new content, in memory or in the repository.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'b> {
    Bytes(&'b [u8]),
    Payload(Piece),
}

impl Input<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Payload(piece) => piece.size,
        }
    }

    fn range(&self, base: &Base<'_>, offset: u64, len: u64) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes[offset as usize..(offset + len) as usize].to_vec()),
            Self::Payload(piece) => base.read_range(*piece, offset, len),
        }
    }
}

/// A part of a large content: where it is in it, and what it is like.
#[derive(Debug)]
struct Segment {
    offset: u64,
    len: u64,
    source: Option<Source>,
}

/// Takes contents and writes sections of them.
#[derive(Debug)]
pub(super) struct Builder<'a, 's> {
    base: &'a Base<'a>,
    pub(super) level: i32,
    monitor: &'a dyn Monitor,
    writer: &'a mut DeltaWriter<'s>,
    open: Group,
    full: Vec<Group>,
    /// Contents that the delta holds.
    numbers: HashMap<PayloadId, u64>,
    /// Contents that others are made of.
    kept: BTreeSet<u64>,
    counts: DeltaCounts,
}

impl<'a, 's> Builder<'a, 's> {
    pub(super) fn new(
        (base, level): (&'a Base<'a>, i32),
        writer: &'a mut DeltaWriter<'s>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            base,
            level,
            monitor,
            writer,
            open: Group::default(),
            full: Vec::new(),
            numbers: HashMap::new(),
            kept: BTreeSet::new(),
            counts: DeltaCounts::default(),
        }
    }

    /// The number of a content that was added.
    pub(super) fn number(&self, id: &PayloadId) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    /// Adds a content that makes `size` bytes; `id` if it may be needed by that name.
    pub(super) fn push(&mut self, id: Option<PayloadId>, size: u64, group: Group) -> Result<u64> {
        if self.open.len() > 0 && self.open.len() + group.len() > SECTION_TARGET {
            self.full.push(std::mem::take(&mut self.open));
            if self.full.len() >= rayon::current_num_threads() {
                self.seal()?;
            }
        }
        self.open.append(group);
        let number = self.counts.contents;
        self.counts.contents += 1;
        self.counts.made_bytes += size;
        if let Some(id) = id {
            self.numbers.insert(id, number);
        }
        Ok(number)
    }

    /// Adds a content that is put together from pieces.
    pub(super) fn join(
        &mut self,
        id: Option<PayloadId>,
        size: u64,
        pieces: &[Source],
    ) -> Result<u64> {
        pieces.iter().for_each(|piece| self.keep(piece));
        self.push(id, size, content::concat(size, pieces))
    }

    /// Adds a content that is compressed from its plain form, a content before it.
    pub(super) fn recode(&mut self, of: Piece, plain: u64, recipe: &[u8]) -> Result<u64> {
        let plain = Origin::Made(plain).into();
        self.keep(&plain);
        self.push(
            Some(of.id),
            of.size,
            content::recode(of.size, &plain, recipe),
        )
    }

    fn keep(&mut self, source: &Source) {
        if let Origin::Made(number) = source.origin {
            self.kept.insert(number);
        }
    }

    /// Adds a content that is too large to be encoded at once.
    pub(super) fn add_large(
        &mut self,
        id: Option<PayloadId>,
        input: Input<'_>,
        source: Option<Source>,
    ) -> Result<u64> {
        let segments = self.segments(input, source)?;
        let mut pieces: Vec<Source> = Vec::with_capacity(segments.len());
        let mut rest = &segments[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(self.batch_len(rest));
            rest = after;
            let (base, level) = (self.base, self.level);
            let groups: Vec<Group> = batch
                .par_iter()
                .map_init(
                    || Encoder::new(base, level),
                    |encoder, segment| {
                        let bytes = input.range(base, segment.offset, segment.len)?;
                        encoder.encode(&bytes, segment.source.as_slice())
                    },
                )
                .collect::<Result<_>>()?;
            for (segment, group) in batch.iter().zip(groups) {
                pieces.push(Origin::Made(self.push(None, segment.len, group)?).into());
                // What is in memory is a part of something that is counted as a whole.
                let payload = matches!(input, Input::Payload(_));
                self.advance(if payload { segment.len } else { 0 })?;
            }
        }
        match &*pieces {
            [
                Source {
                    origin: Origin::Made(only),
                    ..
                },
            ] => {
                self.numbers.extend(id.map(|id| (id, *only)));
                Ok(*only)
            }
            pieces => self.join(id, input.len(), pieces),
        }
    }

    /// Counts bytes as done.
    pub(super) fn advance(&self, bytes: u64) -> Result<()> {
        self.monitor.advance(Phase::Delta, bytes);
        match self.monitor.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    fn batch_len(&self, segments: &[Segment]) -> usize {
        let mut bytes = 0;
        let fits = |segment: &&Segment| {
            let source = segment.source.as_ref();
            let source = source.map_or(0, |source| self.base.len_of(source).unwrap_or(0));
            bytes += segment.len.max(source);
            bytes <= BATCH
        };
        segments.iter().take_while(fits).count().max(1)
    }

    /// Cuts a content, and finds which part of its source each segment came from.
    fn segments(&self, input: Input<'_>, source: Option<Source>) -> Result<Vec<Segment>> {
        let of_base = |fault| self.base.fault(fault);
        let mut anchors = None;
        if let Some(source) = source {
            let (first, size) = self.base.range_of(&source).map_err(of_base)?;
            if size > MAX_SOURCE {
                let mut builder = AnchorBuilder::new(size);
                let mut buf = vec![0; STEP as usize];
                let mut at = 0;
                while at < size {
                    let len = (size - at).min(STEP) as usize;
                    let part = self
                        .base
                        .read_at(source.origin, first + at, &mut buf[..len]);
                    part.map_err(of_base)?;
                    builder.update(&buf[..len]);
                    at += len as u64;
                }
                anchors = Some((builder.finish(), first, size));
            }
        }
        let mut segments = Vec::new();
        let mut offset = 0;
        while offset < input.len() {
            let len = (input.len() - offset).min(SEGMENT);
            let mut source = source;
            if let (Some(source), Some((anchors, first, size))) = (&mut source, &anchors) {
                let bytes = input.range(self.base, offset, len)?;
                let displacement = anchors.displacement(&bytes, offset).unwrap_or(0);
                let from = offset.saturating_add_signed(displacement.wrapping_neg());
                let from = from.min(size.saturating_sub(len));
                let start = from.saturating_sub(PAD);
                let end = (from + len + PAD).min(*size);
                source.window = Some((first + start, end - start));
            }
            segments.push(Segment {
                offset,
                len,
                source,
            });
            offset += len;
        }
        Ok(segments)
    }

    fn seal(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.full);
        let (base, level, monitor) = (self.base, self.level, self.monitor);
        let packed: Vec<Vec<u8>> = full
            .into_par_iter()
            .map(|group| match monitor.is_cancelled() {
                true => Err(Error::Cancelled),
                false => group.pack(&[], level).at(base.delta()),
            })
            .collect::<Result<_>>()?;
        let mut sections = packed.iter();
        sections.try_for_each(|bytes| self.writer.add(Kind::Contents, bytes))
    }

    /// Writes what is left; gives the counts so far, and the contents that others are made of.
    pub(super) fn finish(mut self) -> Result<(DeltaCounts, BTreeSet<u64>)> {
        if self.open.len() > 0 {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.seal()?;
        Ok((self.counts, self.kept))
    }
}

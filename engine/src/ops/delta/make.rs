//! Makes the contents of a delta, and hands them on with the files that have them.
//!
//! Nothing here believes a size: what is made in all is no more than the table announces. Whether it
//! is what it shall be says whoever takes a file, by its name.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::base::{Base, Origin, Source, window_of};
use super::content::{Content, Group, HEADS, STREAMS, Way};
use super::file::{DeltaFile, Kind};
use super::limits::MAX_CONTENTS_RAW;
use super::streams::Cursors;
use super::tree::{ContentOf, FileRow};
use crate::Body;
use crate::compress::decompress_with_prefix;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::check_room;
use crate::monitor::{Monitor, Phase};
use crate::ops::changes::Fault;
use crate::recode;
use crate::repo::ingest::IN_MEMORY_MAX;

/// Bytes of contents that are made at the same time, and of what they are made from.
const BATCH: u64 = 32 << 20;
/// Contents that are made at the same time.
const BATCH_CONTENTS: usize = 4096;
/// Bytes that are copied at a time.
const STEP: u64 = 1 << 20;

/// Takes files, each once.
pub(super) trait Sink {
    /// Compares a file with its name, and takes it. What the body names can go afterwards.
    fn file(&mut self, file: &FileRow, body: Body) -> Result<(), Fault>;
}

/// A content that was made.
#[derive(Debug)]
enum Made {
    Bytes(Vec<u8>),
    /// In a file of its own.
    File(PathBuf, u64),
}

/// Makes contents.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    base: &'a Base<'a>,
    files: &'a [FileRow],
    /// Numbers of the contents that are needed again, and where those are that were made.
    kept: &'a HashSet<u64>,
    places: HashMap<u64, (Arc<File>, u64, u64)>,
    shared: Option<(Arc<File>, u64)>,
    /// For contents that are too large for memory, or kept.
    scratch: &'a Path,
    /// Files by the content that they wait for.
    waiting: HashMap<u64, Vec<usize>>,
    next: u64,
    /// Bytes that may still be made.
    budget: u64,
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        base: &'a Base<'a>,
        (files, kept): (&'a [FileRow], &'a HashSet<u64>),
        scratch: &'a Path,
    ) -> Self {
        let mut waiting: HashMap<u64, Vec<usize>> = HashMap::new();
        for (n, file) in files.iter().enumerate() {
            if let ContentOf::Made(number) = file.content {
                waiting.entry(number).or_default().push(n);
            }
        }
        Self {
            base,
            files,
            kept,
            places: HashMap::new(),
            shared: None,
            scratch,
            waiting,
            next: 0,
            budget: 0,
        }
    }

    /// Makes everything.
    pub(super) fn run(
        mut self,
        delta: &DeltaFile,
        sink: &mut dyn Sink,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        monitor.begin(Phase::Delta, Some(delta.counts.made_bytes));
        let files = delta.only(Kind::Files);
        self.take_known(sink, monitor)
            .map_err(|fault| delta.fault(files, fault))?;
        self.budget = delta.counts.made_bytes;
        for (number, section) in delta.sections.iter().enumerate() {
            if section.kind == Kind::Contents {
                let bytes = delta.read(number)?;
                self.section(&bytes, sink, monitor)
                    .map_err(|fault| delta.fault(number, fault))?;
            }
        }
        monitor.end(Phase::Delta);
        let invalid = |detail: &str| Err(Fault::invalid(detail).of(&delta.path));
        if self.next != delta.counts.contents || self.budget != 0 {
            return invalid("it makes other contents than its table says");
        }
        match self.waiting.is_empty() {
            true => Ok(()),
            false => invalid("a file has a content that it does not make"),
        }
    }

    /// Files whose content is in the base commit, or which have none.
    fn take_known(&self, sink: &mut dyn Sink, monitor: &dyn Monitor) -> Result<(), Fault> {
        for file in self.files {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            let body = match file.content {
                ContentOf::Made(_) => continue,
                ContentOf::Nothing if file.header.is_symlink() => Body::None,
                ContentOf::Nothing => Body::Bytes(Vec::new()),
                ContentOf::Base(number) => {
                    let piece = self.base.payload(number)?;
                    let path = self.scratch.join("base");
                    self.put_together(&path, piece.size, &[Origin::Base(number).into()])?
                        .into_body()
                }
            };
            sink.file(file, body)?;
        }
        Ok(())
    }

    fn section(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn Sink,
        monitor: &dyn Monitor,
    ) -> Result<(), Fault> {
        let group = Group::unpack(bytes, &[], MAX_CONTENTS_RAW)?;
        let mut cursors = Cursors::new(&group);
        let mut pending = None;
        while let Some(batch) = self.batch(&mut cursors, &mut pending)? {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            let first = self.next;
            let made: Vec<Made> = batch
                .par_iter()
                .enumerate()
                .map(|(n, content)| self.make(first + n as u64, content))
                .collect::<Result<_, _>>()?;
            for (content, made) in batch.iter().zip(made) {
                self.hand_on(made, sink)?;
                monitor.advance(Phase::Delta, content.size);
            }
        }
        cursors.finish()
    }

    /// The next contents that can be made at the same time.
    fn batch<'g>(
        &mut self,
        cursors: &mut Cursors<'g, STREAMS>,
        pending: &mut Option<Content<'g>>,
    ) -> Result<Option<Vec<Content<'g>>>, Fault> {
        let mut batch: Vec<Content<'g>> = Vec::new();
        let mut bytes = 0u64;
        loop {
            let content = match pending.take() {
                Some(content) => content,
                None if cursors.is_empty(HEADS) => break,
                None => {
                    let content = Content::take(cursors)?;
                    let left = self.budget.checked_sub(content.size);
                    self.budget = left.ok_or_else(|| {
                        Fault::invalid("its contents are larger than the table announces")
                    })?;
                    content
                }
            };
            bytes = bytes.saturating_add(self.weight(&content));
            let ready = content.needs().is_none_or(|number| number < self.next);
            let full = bytes > BATCH || batch.len() == BATCH_CONTENTS;
            if !batch.is_empty() && (full || !ready) {
                *pending = Some(content);
                break;
            }
            batch.push(content);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Bytes of memory that making a content takes, about.
    fn weight(&self, content: &Content<'_>) -> u64 {
        let sources = match &content.way {
            Way::Whole(_) => &[][..],
            // They are copied piece by piece.
            Way::Concat(pieces) => {
                let rows = pieces.len() * size_of::<Source>() * 2;
                return content.size.min(IN_MEMORY_MAX).saturating_add(rows as u64);
            }
            Way::Patch { sources, .. } | Way::Frame { sources, .. } => sources,
            Way::Recode { plain, .. } => std::slice::from_ref(plain),
        };
        // What is not made yet has no size, but then its content waits for it alone.
        let len = |source: &Source| match source.window {
            Some((_, len)) => len,
            None => self.size_of(source.origin).unwrap_or(0),
        };
        let sources = sources.iter().map(len);
        sources.fold(content.size, u64::saturating_add)
    }

    /// Makes a content, or nothing if nobody waits for it.
    fn make(&self, number: u64, content: &Content<'_>) -> Result<Made, Fault> {
        let size = content.size;
        if !self.kept.contains(&number) && !self.waiting.contains_key(&number) {
            return Ok(Made::Bytes(Vec::new()));
        }
        Ok(Made::Bytes(match &content.way {
            Way::Whole(bytes) => bytes.to_vec(),
            Way::Patch { sources, patch } => {
                patch.apply(&self.base.read_sources(sources)?, size)?
            }
            Way::Frame { sources, frame } => {
                let mut out = vec![0; size as usize];
                decompress_with_prefix(frame, &self.base.read_sources(sources)?, &mut out)
                    .map_err(|error| Fault::invalid(format!("content {number}: {error}")))?;
                out
            }
            Way::Concat(pieces) => {
                let path = self.scratch.join(number.to_string());
                return self.put_together(&path, size, pieces);
            }
            Way::Recode { plain, recipe } => self.recode(plain, recipe, size)?,
        }))
    }

    fn recode(&self, plain: &Source, recipe: &[u8], size: u64) -> Result<Vec<u8>, Fault> {
        let (offset, len) = window_of(plain, self.size_of(plain.origin)?)?;
        if len > recode::MAX_PLAIN {
            return Err(Fault::invalid("a plain form is larger than any"));
        }
        let recipe = recode::Recipe::decode(recipe).map_err(|e| Fault::invalid(e.to_string()))?;
        let mut bytes = vec![0; len as usize];
        self.read_at(plain.origin, offset, &mut bytes)?;
        recode::redo(&bytes, &recipe, size as usize).map_err(|e| Fault::invalid(e.to_string()))
    }

    /// Puts pieces after one another, at a path if they are too large for memory.
    fn put_together(&self, path: &Path, size: u64, pieces: &[Source]) -> Result<Made, Fault> {
        let mut ranges = Vec::with_capacity(pieces.len());
        let mut left = size;
        for piece in pieces {
            let (offset, len) = window_of(piece, self.size_of(piece.origin)?)?;
            left = left
                .checked_sub(len)
                .ok_or_else(|| Fault::invalid("pieces are larger than their whole"))?;
            ranges.push((piece.origin, offset, len));
        }
        if left > 0 {
            return Err(Fault::invalid("pieces are smaller than their whole"));
        }
        if size <= IN_MEMORY_MAX {
            let mut bytes = vec![0; size as usize];
            let mut rest = &mut bytes[..];
            for (origin, offset, len) in ranges {
                let (own, after) = rest.split_at_mut(len as usize);
                self.read_at(origin, offset, own)?;
                rest = after;
            }
            return Ok(Made::Bytes(bytes));
        }
        check_room(self.scratch, size)?;
        let mut file = BufWriter::new(File::create(path).at(path)?);
        let mut buf = vec![0; STEP as usize];
        for (origin, mut offset, len) in ranges {
            let end = offset + len;
            while offset < end {
                let step = (end - offset).min(STEP) as usize;
                self.read_at(origin, offset, &mut buf[..step])?;
                file.write_all(&buf[..step]).at(path)?;
                offset += step as u64;
            }
        }
        file.flush().at(path)?;
        Ok(Made::File(path.to_owned(), size))
    }

    fn place(&self, number: u64) -> Result<&(Arc<File>, u64, u64), Fault> {
        let place = self.places.get(&number);
        place.ok_or_else(|| Fault::invalid("it needs a content that it does not keep"))
    }

    fn size_of(&self, origin: Origin) -> Result<u64, Fault> {
        match origin {
            Origin::Made(number) => Ok(self.place(number)?.2),
            known => self.base.len_of(&known.into()),
        }
    }

    /// Fills a buffer from an offset of an origin, within its size.
    fn read_at(&self, origin: Origin, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let Origin::Made(number) = origin else {
            return self.base.read_at(origin, offset, buf);
        };
        let (file, at, _) = self.place(number)?;
        Ok(file.read_exact_at(buf, at + offset).at(self.scratch)?)
    }

    /// Gives a content to the files that have it, and keeps it if it is needed again.
    fn hand_on(&mut self, made: Made, sink: &mut dyn Sink) -> Result<(), Fault> {
        let number = self.next;
        self.next += 1;
        if self.kept.contains(&number) {
            let place = self.keep(&made)?;
            self.places.insert(number, place);
        }
        let path = match &made {
            Made::File(path, _) => Some(path.clone()),
            Made::Bytes(_) => None,
        };
        let mut files = self.waiting.remove(&number).unwrap_or_default();
        let last = files.pop();
        for n in files {
            sink.file(&self.files[n], made.body())?;
        }
        if let Some(n) = last {
            sink.file(&self.files[n], made.into_body())?;
        }
        if let Some(path) = path {
            std::fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }

    fn keep(&mut self, made: &Made) -> Result<(Arc<File>, u64, u64)> {
        let bytes = match made {
            Made::File(path, size) => {
                let file = File::open(path).at(path)?;
                return Ok((Arc::new(file), 0, *size));
            }
            Made::Bytes(bytes) => bytes,
        };
        let (file, end) = match &self.shared {
            Some(shared) => shared.clone(),
            None => {
                let path = self.scratch.join("kept");
                let mut options = File::options();
                options.read(true).write(true).create_new(true);
                (Arc::new(options.open(&path).at(&path)?), 0)
            }
        };
        file.write_all_at(bytes, end).at(self.scratch)?;
        let len = bytes.len() as u64;
        self.shared = Some((Arc::clone(&file), end + len));
        Ok((file, end, len))
    }
}

impl Made {
    fn into_body(self) -> Body {
        match self {
            Self::Bytes(bytes) => Body::Bytes(bytes),
            Self::File(path, size) => Body::File(path, size),
        }
    }

    fn body(&self) -> Body {
        match self {
            Self::Bytes(bytes) => Body::Bytes(bytes.clone()),
            Self::File(path, size) => Body::File(path.clone(), *size),
        }
    }
}

impl Content<'_> {
    /// The last content that this one is made from.
    fn needs(&self) -> Option<u64> {
        let number = |source: &Source| match source.origin {
            Origin::Made(number) => Some(number),
            _ => None,
        };
        match &self.way {
            Way::Concat(pieces) => pieces.iter().filter_map(number).max(),
            Way::Recode { plain, .. } => number(plain),
            _ => None,
        }
    }
}

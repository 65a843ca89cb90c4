//! Runs the operations of a part: what clients do, with every length checked.
//!
//! Nothing here believes a size: what a part makes is no more than its head announces, and each
//! object is compared with its name by whoever takes it. A few bytes may make as much as a disk holds,
//! so that whether to go on is asked all the time.

use std::collections::HashMap;

use super::Fault;
use super::part::{Body, Op};
use super::superblock::PartHead;
use crate::bsdiff::{Patch, Step};
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::object::{FileHeader, FileObject};
use crate::ops::changes::Object;
use crate::repo::Repository;

/// Bytes of a source that are read at a time: an extent of most payloads.
const PAGE: u64 = 256 << 10;
/// As many of these are kept.
const MAX_PAGES: usize = 256;
/// The largest metadata object that clients take (ostree-core.h, OSTREE_MAX_METADATA_SIZE).
const MAX_METADATA: u64 = 128 << 20;
/// Longer than the target of any symbolic link.
const MAX_TARGET: u64 = 64 << 10;

/// Takes the objects of a part, one after the other, in the order of its head.
pub(super) trait Sink {
    /// A metadata object.
    fn metadata(&mut self, object: &Object, bytes: &[u8]) -> Result<(), Fault>;
    /// A file begins.
    fn begin(&mut self, id: &ObjectId, header: FileHeader, size: u64) -> Result<(), Fault>;
    /// The next bytes of the file.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault>;
    /// The file ends.
    fn end(&mut self) -> Result<(), Fault>;
}

/// A sink that takes nothing more once the operation shall stop.
struct Watched<'a> {
    sink: &'a mut dyn Sink,
    monitor: &'a dyn Monitor,
}

impl Watched<'_> {
    fn go_on(&mut self) -> Result<&mut dyn Sink, Fault> {
        match self.monitor.is_cancelled() {
            true => Err(Error::Cancelled.into()),
            false => Ok(&mut *self.sink),
        }
    }
}

impl Sink for Watched<'_> {
    fn metadata(&mut self, object: &Object, bytes: &[u8]) -> Result<(), Fault> {
        self.go_on()?.metadata(object, bytes)
    }

    fn begin(&mut self, id: &ObjectId, header: FileHeader, size: u64) -> Result<(), Fault> {
        self.go_on()?.begin(id, header, size)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.go_on()?.write(bytes)
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.go_on()?.end()
    }
}

/// Files that parts take bytes from.
///
/// Patches leap back and forth in their source, so what was read of it stays.
#[derive(Debug)]
pub(super) struct Sources<'r> {
    repo: &'r Repository,
    current: Option<FileObject>,
    pages: HashMap<(ObjectId, u64), Vec<u8>>,
}

impl<'r> Sources<'r> {
    pub(super) fn new(repo: &'r Repository) -> Self {
        Self {
            repo,
            current: None,
            pages: HashMap::new(),
        }
    }

    fn open(&mut self, id: &ObjectId) -> Result<(), Fault> {
        let file = self.repo.file(id).map_err(|error| match error {
            Error::MissingObject { .. } => Fault::invalid(format!(
                "it takes bytes from file object {id}, which is not in the repository"
            )),
            other => other.into(),
        })?;
        if file.header.is_symlink() {
            return Err(Fault::invalid(format!(
                "it takes bytes from symbolic link {id}"
            )));
        }
        self.current = Some(file);
        Ok(())
    }

    /// The bytes at an offset, at least one and at most `len`; none at the end.
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], Fault> {
        let file = self
            .current
            .as_ref()
            .ok_or_else(|| Fault::invalid("there is no source to take bytes from"))?;
        let number = offset / PAGE;
        let key = (file.id, number);
        if !self.pages.contains_key(&key) {
            if self.pages.len() == MAX_PAGES {
                self.pages.clear();
            }
            let start = number * PAGE;
            let size = file.size.saturating_sub(start).min(PAGE);
            let mut page = vec![0; size as usize];
            // What takes seconds to make is made once, not for each page.
            let n = match file.payload.filter(|_| size > 0) {
                Some(id) => {
                    let read = self.repo.read_payload(&id, file.size, start, &mut page)?;
                    read.len
                }
                None => 0,
            };
            page.truncate(n);
            self.pages.insert(key, page);
        }
        let page = &self.pages[&key];
        let from = ((offset % PAGE) as usize).min(page.len());
        let rest = &page[from..];
        Ok(&rest[..rest.len().min(len)])
    }
}

/// Makes the objects of a part.
pub(super) fn run(
    mut body: Body<'_>,
    head: &PartHead,
    sources: &mut Sources<'_>,
    sink: &mut dyn Sink,
    monitor: &dyn Monitor,
) -> Result<(), Fault> {
    let mut sink = Watched { sink, monitor };
    let mut machine = Machine {
        objects: head.objects.iter(),
        open: None,
        source: false,
        budget: head.made_size,
    };
    loop {
        let next = machine.objects.as_slice().first();
        let Some(op) = body.next_op(next.map(|object| object.0))? else {
            break;
        };
        // Some operations write nothing.
        sink.go_on()?;
        machine.step(op, &body, sources, &mut sink)?;
    }
    match (machine.open, machine.objects.next()) {
        (None, None) => Ok(()),
        _ => Err(Fault::invalid("it ends before all of its objects are made")),
    }
}

struct Machine<'a> {
    /// Those that are still to be made.
    objects: std::slice::Iter<'a, Object>,
    /// Bytes that the open file lacks.
    open: Option<u64>,
    source: bool,
    /// Bytes that may still be made.
    budget: u64,
}

impl Machine<'_> {
    fn next_object(&mut self, size: u64) -> Result<&Object, Fault> {
        if self.open.is_some() {
            return Err(Fault::invalid("an object begins within another one"));
        }
        let object = self.objects.next();
        let object = object
            .ok_or_else(|| Fault::invalid("it makes more objects than its head announces"))?;
        let left = self.budget.checked_sub(size);
        self.budget =
            left.ok_or_else(|| Fault::invalid("its objects are larger than its head announces"))?;
        Ok(object)
    }

    fn step(
        &mut self,
        op: Op,
        body: &Body<'_>,
        sources: &mut Sources<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), Fault> {
        match op {
            Op::Metadata { len, .. } if len > MAX_METADATA => {
                Err(Fault::invalid("one of its metadata objects is too large"))
            }
            Op::Metadata { len, offset } => {
                let bytes = body.slice(offset, len)?;
                sink.metadata(self.next_object(len)?, bytes)
            }
            Op::File {
                mode,
                xattrs,
                size,
                offset,
            } => {
                let bytes = body.slice(offset, size)?;
                let header = body.header(mode, xattrs, &[])?;
                if header.is_symlink() {
                    if size > MAX_TARGET {
                        return Err(Fault::invalid("the target of a symbolic link is too long"));
                    }
                    let header = FileHeader {
                        symlink_target: bytes.to_vec(),
                        ..header
                    };
                    let id = file_of(self.next_object(0)?)?;
                    sink.begin(&id, header, 0)?;
                } else {
                    let id = file_of(self.next_object(size)?)?;
                    sink.begin(&id, header, size)?;
                    sink.write(bytes)?;
                }
                sink.end()
            }
            Op::Open { mode, xattrs, size } => {
                let header = body.header(mode, xattrs, &[])?;
                let id = file_of(self.next_object(size)?)?;
                self.open = Some(size);
                sink.begin(&id, header, size)
            }
            Op::Write { len, offset } => {
                self.take(len)?;
                if !self.source {
                    return sink.write(body.slice(offset, len)?);
                }
                copy(sources, offset, len, sink)
            }
            Op::SetSource { offset } => {
                let name = ObjectId::from_slice(body.slice(offset, ObjectId::LEN as u64)?);
                sources.open(&name.expect("because it has that length"))?;
                self.source = true;
                Ok(())
            }
            Op::UnsetSource => {
                self.source = false;
                Ok(())
            }
            Op::Patch { offset, len } => {
                let size = self.open.filter(|_| self.source);
                let size =
                    size.ok_or_else(|| Fault::invalid("a patch without a source or a file"))?;
                self.take(size)?;
                patch(sources, body.slice(offset, len)?, size, sink)
            }
            Op::Close => {
                self.source = false;
                match self.open.take() {
                    Some(0) => sink.end(),
                    Some(_) => Err(Fault::invalid("a file ends too early")),
                    None => Err(Fault::invalid("a file ends that did not begin")),
                }
            }
        }
    }

    /// Counts bytes of the open file.
    fn take(&mut self, len: u64) -> Result<(), Fault> {
        let left = self
            .open
            .ok_or_else(|| Fault::invalid("bytes are written to no file"))?;
        let left = left
            .checked_sub(len)
            .ok_or_else(|| Fault::invalid("a file grows beyond its size"))?;
        self.open = Some(left);
        Ok(())
    }
}

fn file_of(object: &Object) -> Result<ObjectId, Fault> {
    match object {
        (ObjectKind::File, id) => Ok(*id),
        (kind, id) => Err(Fault::invalid(format!(
            "{kind} object {id} is made as a file"
        ))),
    }
}

fn copy(
    sources: &mut Sources<'_>,
    mut offset: u64,
    mut len: u64,
    sink: &mut dyn Sink,
) -> Result<(), Fault> {
    while len > 0 {
        let bytes = sources.at(offset, len.min(PAGE) as usize)?;
        if bytes.is_empty() {
            return Err(Fault::invalid("an operation leads out of its source"));
        }
        sink.write(bytes)?;
        offset += bytes.len() as u64;
        len -= bytes.len() as u64;
    }
    Ok(())
}

fn patch(
    sources: &mut Sources<'_>,
    stream: &[u8],
    size: u64,
    sink: &mut dyn Sink,
) -> Result<(), Fault> {
    let mut patch = Patch::new(stream, size);
    let mut made = Vec::new();
    let wrong = |error: crate::bsdiff::PatchError| Fault::invalid(error.to_string());
    while let Some(step) = patch.next().map_err(wrong)? {
        let (mut from, mut bytes) = match step {
            Step::Take(bytes) => {
                sink.write(bytes)?;
                continue;
            }
            Step::Add(from, bytes) => (from, bytes),
        };
        while !bytes.is_empty() {
            // Outside of the source there are zeros.
            let old = match u64::try_from(from) {
                Ok(from) => sources.at(from, bytes.len())?,
                Err(_) => &[],
            };
            let len = match (old.len(), from < 0) {
                (0, true) => bytes.len().min(from.unsigned_abs() as usize),
                (0, false) => bytes.len(),
                (len, _) => len,
            };
            let (now, rest) = bytes.split_at(len);
            made.clear();
            made.extend(
                now.iter()
                    .zip(old)
                    .map(|(byte, old)| byte.wrapping_add(*old)),
            );
            made.extend_from_slice(&now[made.len()..]);
            sink.write(&made)?;
            bytes = rest;
            from = from.saturating_add(len as i64);
        }
    }
    Ok(())
}

//! Parts of a static delta: tables of modes and attributes, a blob, and operations on them.
//!
//! `(a(uuu)aa(ayay)ayay)`, behind one byte that says how it is compressed.

use std::collections::HashMap;
use std::io::{self, Read};

use liblzma::stream::{Check, Filters, LzmaOptions, MatchFinder, Mode, Stream};

use super::Fault;
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::object::gvariant::{Elements, Frame, Part, Tuple};
use crate::object::{DecodeError, FileHeader, Xattrs};
use crate::ops::changes::{Object, Run, put_number, take_number};

/// First byte of a part file that is not compressed.
const PLAIN: u8 = 0;
/// More sets of attributes than any part has.
const MAX_SETS: usize = 1 << 20;
/// First byte of a part file that is an xz file.
const XZ: u8 = b'x';
/// No client takes a larger part.
pub(super) const MAX_BODY: u64 = 512 << 20;
/// Clients give the decoder this much memory.
const DECODER_MEMORY: u64 = 100 << 20;
/// The dictionary: the decoder's memory, and what the encoder takes a multiple of.
const MAX_DICTIONARY: u32 = 32 << 20;
/// Clients of 2026.3 refuse parts that take more than is announced for their objects, and this ...
const SLACK: u64 = 4 << 10;
/// ... and this for each object.
const SLACK_EACH: u64 = 256;

/// An operation and its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Make a metadata object of this length, from this offset of the blob.
    Metadata { len: u64, offset: u64 },
    /// Make a file object of one run of the blob.
    File {
        mode: u64,
        xattrs: u64,
        size: u64,
        offset: u64,
    },
    /// Begin a regular file.
    Open { mode: u64, xattrs: u64, size: u64 },
    /// Append bytes of the blob, or of the source if there is one.
    Write { len: u64, offset: u64 },
    /// Take bytes from the object whose name is at this offset of the blob.
    SetSource { offset: u64 },
    /// Take bytes from the blob again.
    UnsetSource,
    /// End the file.
    Close,
    /// Make the file by patching the source.
    Patch { offset: u64, len: u64 },
}

/// The decompressed content of a part file.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) modes: Vec<[u32; 3]>,
    pub(super) xattrs: Vec<Xattrs>,
    pub(super) blob: &'a [u8],
    ops: &'a [u8],
}

impl<'a> Body<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 3)?;
        let (modes, rest) = tuple.variable(4)?.bytes().as_chunks::<12>();
        if !rest.is_empty() {
            return Err(DecodeError::Rule("the table of modes is cut short"));
        }
        let word = |bytes: &[u8; 12], n: usize| {
            bytes[4 * n..]
                .first_chunk()
                .map_or(0, |word| u32::from_be_bytes(*word))
        };
        let xattrs = Elements::new(tuple.variable(1)?, 1)?;
        let xattrs = xattrs
            .enumerate()
            .map(|(n, set)| match n < MAX_SETS {
                true => Xattrs::parse(set?.bytes()),
                false => Err(DecodeError::Rule("too many sets of attributes")),
            })
            .collect::<Result<_, _>>()?;
        let blob = tuple.variable(1)?.bytes();
        Ok(Self {
            modes: modes
                .iter()
                .map(|m| [word(m, 0), word(m, 1), word(m, 2)])
                .collect(),
            xattrs,
            blob,
            ops: tuple.last(1)?.bytes(),
        })
    }

    /// Length of the operations.
    pub(super) fn ops_len(&self) -> usize {
        self.ops.len()
    }

    /// The next operation, of one for an object of this kind if it is one that makes objects.
    pub(super) fn next_op(&mut self, kind: Option<ObjectKind>) -> Result<Option<Op>, Fault> {
        let Some((code, rest)) = self.ops.split_first() else {
            return Ok(None);
        };
        self.ops = rest;
        let mut number = || take_number(&mut self.ops);
        Ok(Some(match code {
            b'S' if kind == Some(ObjectKind::File) => Op::File {
                mode: number()?,
                xattrs: number()?,
                size: number()?,
                offset: number()?,
            },
            b'S' => Op::Metadata {
                len: number()?,
                offset: number()?,
            },
            b'o' => Op::Open {
                mode: number()?,
                xattrs: number()?,
                size: number()?,
            },
            b'w' => Op::Write {
                len: number()?,
                offset: number()?,
            },
            b'r' => Op::SetSource { offset: number()? },
            b'R' => Op::UnsetSource,
            b'c' => Op::Close,
            b'B' => Op::Patch {
                offset: number()?,
                len: number()?,
            },
            other => return Err(Fault::invalid(format!("operation {other} is unknown"))),
        }))
    }

    /// A run of the blob.
    pub(super) fn slice(&self, offset: u64, len: u64) -> Result<&'a [u8], Fault> {
        let run = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let run = run.and_then(|(offset, len)| self.blob.get(offset..offset.checked_add(len)?));
        run.ok_or_else(|| Fault::invalid("an operation leads out of the blob"))
    }

    /// The metadata of a file.
    pub(super) fn header(
        &self,
        mode: u64,
        xattrs: u64,
        target: &[u8],
    ) -> Result<FileHeader, Fault> {
        let of = |n: u64| usize::try_from(n).ok();
        let mode = of(mode).and_then(|n| self.modes.get(n));
        let xattrs = of(xattrs).and_then(|n| self.xattrs.get(n));
        let Some(([uid, gid, mode], xattrs)) = mode.zip(xattrs) else {
            return Err(Fault::invalid("an operation leads out of a table"));
        };
        Ok(FileHeader {
            uid: *uid,
            gid: *gid,
            mode: *mode,
            symlink_target: target.to_vec(),
            xattrs: xattrs.clone(),
        })
    }
}

/// Decompresses a part file.
pub(super) fn open(file: &[u8]) -> Result<Vec<u8>, Fault> {
    open_within(file, MAX_BODY)
}

/// Decompresses a part file; what comes out is at most `limit` long.
pub(super) fn open_within(file: &[u8], limit: u64) -> Result<Vec<u8>, Fault> {
    let (method, rest) = file
        .split_first()
        .ok_or_else(|| Fault::invalid("the file is empty"))?;
    match *method {
        PLAIN if rest.len() as u64 <= limit => Ok(rest.to_vec()),
        PLAIN => Err(Fault::invalid("it is larger than any client takes")),
        XZ => {
            let mut body = Vec::new();
            let fault =
                |error: io::Error| Fault::invalid(format!("it cannot be decompressed: {error}"));
            let stream =
                Stream::new_stream_decoder(DECODER_MEMORY, 0).map_err(|e| fault(e.into()))?;
            let decoder = liblzma::bufread::XzDecoder::new_stream(rest, stream);
            decoder
                .take(limit + 1)
                .read_to_end(&mut body)
                .map_err(fault)?;
            if body.len() as u64 > limit {
                return Err(Fault::invalid("it is larger than any client takes"));
            }
            Ok(body)
        }
        other => Err(Fault::invalid(format!(
            "it is compressed by unknown method {other}"
        ))),
    }
}

/// A part under construction.
#[derive(Debug, Default)]
pub(super) struct PartBuilder {
    modes: Vec<[u32; 3]>,
    mode_numbers: HashMap<[u32; 3], u64>,
    xattrs: Frame,
    xattr_numbers: HashMap<Xattrs, u64>,
    blob: Vec<u8>,
    ops: Vec<u8>,
    /// Where payloads are that are in the blob as they are.
    payloads: HashMap<PayloadId, u64>,
    /// Where names of sources are.
    sources: HashMap<ObjectId, u64>,
    objects: Vec<Object>,
    made_size: u64,
}

/// A finished part: what its head says, but for the file.
#[derive(Debug)]
pub(super) struct PartBody {
    pub(super) objects: Vec<Object>,
    pub(super) made_size: u64,
    pub(super) bytes: Vec<u8>,
}

impl PartBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn blob_len(&self) -> usize {
        self.blob.len()
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.blob.len() as u64;
        self.blob.extend_from_slice(bytes);
        offset
    }

    fn op(&mut self, code: u8, numbers: &[u64]) {
        self.ops.push(code);
        numbers
            .iter()
            .for_each(|number| put_number(&mut self.ops, *number));
    }

    fn numbers_of(&mut self, header: &FileHeader) -> (u64, u64) {
        let mode = [header.uid, header.gid, header.mode];
        let modes = &mut self.modes;
        let mode = *self.mode_numbers.entry(mode).or_insert_with(|| {
            modes.push(mode);
            modes.len() as u64 - 1
        });
        let next = self.xattr_numbers.len() as u64;
        let frame = &mut self.xattrs;
        let xattrs = *self
            .xattr_numbers
            .entry(header.xattrs.clone())
            .or_insert_with(|| {
                frame.variable(1, &header.xattrs.to_bytes());
                next
            });
        (mode, xattrs)
    }

    /// Adds a dirtree or dirmeta object.
    pub(super) fn add_metadata(&mut self, object: Object, bytes: &[u8]) {
        let offset = self.put(bytes);
        self.op(b'S', &[bytes.len() as u64, offset]);
        self.objects.push(object);
        self.made_size += bytes.len() as u64;
    }

    /// Adds a file as it is; what is in the blob already is not put there again.
    pub(super) fn add_whole(
        &mut self,
        id: ObjectId,
        header: &FileHeader,
        payload: Option<PayloadId>,
        bytes: &[u8],
    ) {
        let (mode, xattrs) = self.numbers_of(header);
        let known = payload.and_then(|payload| self.payloads.get(&payload).copied());
        let bytes = if header.is_symlink() {
            &header.symlink_target
        } else {
            bytes
        };
        let offset = known.unwrap_or_else(|| self.put(bytes));
        if let Some(payload) = payload {
            self.payloads.insert(payload, offset);
        }
        self.op(b'S', &[mode, xattrs, bytes.len() as u64, offset]);
        self.objects.push((ObjectKind::File, id));
        if !header.is_symlink() {
            self.made_size += bytes.len() as u64;
        }
    }

    fn set_source(&mut self, source: &ObjectId) {
        let offset = match self.sources.get(source) {
            Some(offset) => *offset,
            None => self.put(source.as_bytes()),
        };
        self.sources.insert(*source, offset);
        self.op(b'r', &[offset]);
    }

    /// Adds a file that is made by patching another one.
    pub(super) fn add_patch(
        &mut self,
        id: ObjectId,
        header: &FileHeader,
        size: u64,
        source: &ObjectId,
        stream: &[u8],
    ) {
        self.begin(id, header, size);
        self.set_source(source);
        let offset = self.put(stream);
        self.op(b'B', &[offset, stream.len() as u64]);
        self.end();
    }

    /// Adds a file that is made of runs of others and of its own.
    pub(super) fn add_splice(
        &mut self,
        id: ObjectId,
        header: &FileHeader,
        size: u64,
        sources: &[ObjectId],
        runs: &[Run],
        fresh: &[u8],
    ) {
        self.begin(id, header, size);
        let start = self.put(fresh);
        let mut source = None;
        let mut taken = 0;
        for run in runs {
            match *run {
                Run::Fresh { len } => {
                    if source.take().is_some() {
                        self.op(b'R', &[]);
                    }
                    self.op(b'w', &[len, start + taken]);
                    taken += len;
                }
                Run::Copy {
                    source: number,
                    offset,
                    len,
                } => {
                    if source != Some(number) {
                        self.set_source(&sources[number]);
                        source = Some(number);
                    }
                    self.op(b'w', &[len, offset]);
                }
            }
        }
        self.end();
    }

    fn begin(&mut self, id: ObjectId, header: &FileHeader, size: u64) {
        let (mode, xattrs) = self.numbers_of(header);
        self.op(b'o', &[mode, xattrs, size]);
        self.objects.push((ObjectKind::File, id));
        self.made_size += size;
    }

    fn end(&mut self) {
        self.op(b'c', &[]);
    }

    /// The part's bytes, and what its head says.
    pub(super) fn finish(self) -> PartBody {
        let modes = self
            .modes
            .iter()
            .flatten()
            .flat_map(|word| word.to_be_bytes());
        let mut tuple = Frame::with_capacity(self.blob.len() + self.ops.len() + 4096, 4);
        tuple.variable(4, &modes.collect::<Vec<u8>>());
        tuple.variable(1, &self.xattrs.into_array());
        tuple.variable(1, &self.blob);
        tuple.variable(1, &self.ops);
        let bytes = tuple.into_tuple();
        // Where patches take more than clients of 2026.3 allow for, more must be announced.
        let allowed = SLACK + SLACK_EACH * self.objects.len() as u64;
        let made_size = self
            .made_size
            .max((bytes.len() as u64).saturating_sub(allowed));
        PartBody {
            objects: self.objects,
            made_size,
            bytes,
        }
    }
}

/// The part file without compression; clients take small ones only.
#[cfg(test)]
pub(super) fn store(body: &[u8]) -> Vec<u8> {
    [&[PLAIN], body].concat()
}

/// The part file, compressed.
///
/// Most of it are zeros, which are where a file agrees with its source. The greedy mode with a long
/// match length passes them at a tenth of the time of the presets, for a tenth more bytes.
pub(super) fn compress(body: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
    let len = u32::try_from(body.len())
        .unwrap_or(u32::MAX)
        .clamp(4096, MAX_DICTIONARY);
    let mut options = LzmaOptions::new_preset(8)?;
    options.dict_size(len);
    if effort == Effort::Fast {
        options
            .mode(Mode::Fast)
            .match_finder(MatchFinder::HashChain4)
            .nice_len(273)
            .depth(8);
    }
    if effort == Effort::Least {
        options
            .mode(Mode::Fast)
            .match_finder(MatchFinder::HashChain3)
            .nice_len(32)
            .depth(1)
            .dict_size(len.min(1 << 14));
    }
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, Check::Crc64)?;
    let mut encoder = liblzma::write::XzEncoder::new_stream(vec![XZ], stream);
    io::Write::write_all(&mut encoder, body)?;
    encoder.finish()
}

/// How much time compression may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Little: for deltas that are made with each release.
    #[default]
    Fast,
    /// Six times as much, for some percent fewer bytes.
    Best,
    /// Hardly any: for what does not compress.
    Least,
}

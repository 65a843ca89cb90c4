//! From bytes to blocks: hashing, cutting and compressing payloads, in parallel and in bounded
//! memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::delta;
use super::delta::Base;
use super::layout::LayoutKey;
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, PayloadId};
use crate::object::FileHeader;
use crate::pack::recipe::Piece;
use crate::pack::writer::{Block, BlockBuilder};
use crate::pack::{BlockClass, GROUP_TARGET, Key, extent_size};
use crate::store::Store;
use crate::store::payload::part_key;

/// Payloads up to this size are held in memory while they are stored.
pub(crate) const IN_MEMORY_MAX: u64 = 32 << 20;
/// Extents compressed at a time from a payload that is not in memory.
const EXTENTS_AT_ONCE: usize = 32;

/// Bytes of a new regular file.
pub enum Body {
    /// Symbolic links: the target is in the header.
    None,
    /// The whole payload in memory.
    Bytes(Vec<u8>),
    /// A file to read, of this size; read twice when it is large.
    File(PathBuf, u64),
    /// A stream of exactly this size; spooled to the staging directory when it is large.
    Stream(Box<dyn Read + Send>, u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(path, size) => write!(f, "File({}, {size})", path.display()),
            Self::Stream(_, size) => write!(f, "Stream({size})"),
        }
    }
}

/// A file to add to the store.
#[derive(Debug)]
pub struct NewFile {
    /// Its metadata.
    pub header: FileHeader,
    /// Its path in the tree: decides next to what it is stored.
    pub hint: Vec<u8>,
    /// Its payload.
    pub body: Body,
}

/// Where a hashed payload can be read again.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Bytes(Vec<u8>),
    /// A file of someone else's: it may change, so it is hashed again while it is stored.
    Foreign(PathBuf),
    /// A spooled stream in the staging directory.
    Spooled(PathBuf),
}

/// A file with its names.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) id: ObjectId,
    pub(super) header: FileHeader,
    pub(super) size: u64,
    pub(super) payload: Option<PayloadId>,
    pub(super) content: Content,
    pub(super) hint: Vec<u8>,
}

/// Hashes files; `staging` takes streams that are too large for memory.
#[derive(Debug)]
pub(super) struct Hasher<'a> {
    staging: &'a Path,
    spools: &'a AtomicU32,
}

impl<'a> Hasher<'a> {
    pub(super) fn new(staging: &'a Path, spools: &'a AtomicU32) -> Self {
        Self { staging, spools }
    }

    pub(super) fn hash(&self, file: NewFile) -> Result<Hashed> {
        let NewFile { header, hint, body } = file;
        let prefix = header.content_prefix();
        let in_memory = |bytes: Vec<u8>| {
            let (id, payload) = hash_bytes(&prefix, &bytes);
            (id, payload, bytes.len() as u64, Content::Bytes(bytes))
        };
        let (id, payload, size, content) = match body {
            Body::None => (ObjectId::of(&prefix), None, 0, Content::Nothing),
            Body::Bytes(bytes) => in_memory(bytes),
            Body::File(path, size) if size <= IN_MEMORY_MAX => {
                let bytes = std::fs::read(&path).at(&path)?;
                if bytes.len() as u64 != size {
                    return Err(Error::InputChanged { path });
                }
                in_memory(bytes)
            }
            Body::File(path, size) => {
                let mut file = File::open(&path).at(&path)?;
                let (id, payload, read) =
                    hash_stream(&prefix, |buf| file.read(buf), |_| Ok(())).at(&path)?;
                if read != size {
                    return Err(Error::InputChanged { path });
                }
                (id, payload, size, Content::Foreign(path))
            }
            Body::Stream(mut stream, size) => {
                let file = NewFile {
                    header,
                    hint,
                    body: Body::None,
                };
                return self.hash_stream(file, &mut *stream, size);
            }
        };
        // Empty files have no payload: nothing needs to be stored for them.
        let payload = payload.filter(|_| size > 0);
        Ok(Hashed {
            id,
            header,
            size,
            payload,
            content,
            hint,
        })
    }

    /// Hashes a file whose payload comes from a stream of exactly `size` bytes.
    pub(super) fn hash_stream(
        &self,
        file: NewFile,
        stream: &mut dyn Read,
        size: u64,
    ) -> Result<Hashed> {
        if size <= IN_MEMORY_MAX {
            let bytes = read_exactly(stream, size).at(path_of(&file.hint))?;
            return self.hash(NewFile {
                body: Body::Bytes(bytes),
                ..file
            });
        }
        let NewFile { header, hint, .. } = file;
        let (id, payload, path) = self.spool(&header.content_prefix(), stream, size, &hint)?;
        Ok(Hashed {
            id,
            header,
            size,
            payload,
            content: Content::Spooled(path),
            hint,
        })
    }

    fn spool(
        &self,
        prefix: &[u8],
        stream: &mut dyn Read,
        size: u64,
        hint: &[u8],
    ) -> Result<(ObjectId, Option<PayloadId>, PathBuf)> {
        let number = self.spools.fetch_add(1, Ordering::Relaxed);
        let path = self.staging.join(format!("spool.{number}"));
        let mut file = File::create(&path).at(&path)?;
        let mut left = size;
        let read = |buf: &mut [u8]| {
            let wanted = (buf.len() as u64).min(left) as usize;
            let n = stream.read(&mut buf[..wanted])?;
            left -= n as u64;
            Ok(n)
        };
        let (id, payload, read) =
            hash_stream(prefix, read, |bytes| io::Write::write_all(&mut file, bytes)).at(&path)?;
        if read != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).at(path_of(hint));
        }
        Ok((id, payload, path))
    }
}

fn path_of(hint: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(hint).into_owned())
}

fn read_exactly(stream: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    stream.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Object and payload names of bytes in memory.
fn hash_bytes(prefix: &[u8], bytes: &[u8]) -> (ObjectId, Option<PayloadId>) {
    let object = || {
        let mut hasher = Sha256::new();
        hasher.update(prefix);
        hasher.update(bytes);
        ObjectId::from_bytes(hasher.finalize().into())
    };
    // Splitting small work costs more than it saves.
    if bytes.len() > 1 << 20 {
        let (id, payload) = rayon::join(object, || PayloadId::of(bytes));
        (id, Some(payload))
    } else {
        (object(), Some(PayloadId::of(bytes)))
    }
}

/// Object and payload names, and the number of bytes, of a stream that is also passed on.
fn hash_stream(
    prefix: &[u8],
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut pass_on: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(ObjectId, Option<PayloadId>, u64)> {
    let mut object = Sha256::new();
    object.update(prefix);
    let mut payload = Sha256::new();
    let mut size = 0;
    let mut buf = vec![0; 1 << 20];
    loop {
        let n = read(&mut buf)?;
        if n == 0 {
            break;
        }
        let bytes = &buf[..n];
        rayon::join(|| object.update(bytes), || payload.update(bytes));
        pass_on(bytes)?;
        size += n as u64;
    }
    let payload = PayloadId::from_bytes(payload.finalize().into());
    Ok((
        ObjectId::from_bytes(object.finalize().into()),
        Some(payload),
        size,
    ))
}

/// A payload that the repository does not have.
#[derive(Debug)]
pub(super) struct NewPayload {
    pub(super) id: PayloadId,
    pub(super) size: u64,
    pub(super) content: Content,
    /// Path that it was found at, or as good as found at.
    pub(super) hint: Vec<u8>,
    /// What it may be a delta against.
    pub(super) base: Option<Piece>,
}

/// A payload in memory on its way to a block.
#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) id: PayloadId,
    pub(super) bytes: Vec<u8>,
    pub(super) base: Option<Piece>,
}

/// A small payload waiting to be grouped with its like.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) order: LayoutKey,
    pub(super) payload: InMemory,
}

/// What a part of a payload is stored as.
#[derive(Debug)]
pub(super) enum Part {
    /// A block of its own.
    Plain(Block),
    /// A delta record.
    Delta(Key, Vec<u8>),
}

/// Sorts small payloads and compresses them in groups.
fn group(mut window: Vec<Small>) -> io::Result<Vec<Block>> {
    window.sort_unstable_by(|a, b| (&a.order, a.payload.id).cmp(&(&b.order, b.payload.id)));
    let mut builders = vec![BlockBuilder::new(BlockClass::Group)];
    for Small { payload, .. } in window {
        let last = builders.last_mut().expect("because there is always one");
        let builder = if last.is_full(GROUP_TARGET, payload.bytes.len()) {
            builders.push(BlockBuilder::new(BlockClass::Group));
            builders.last_mut().expect("because it was just added")
        } else {
            last
        };
        builder.push(part_key(&payload.id, 0), &payload.bytes);
    }
    builders
        .into_par_iter()
        .filter(|b| !b.is_empty())
        .map(BlockBuilder::finish)
        .collect()
}

/// Stores small payloads: as deltas where they have a base and it pays, the others in groups.
pub(super) fn small_parts(store: &Store, window: Vec<Small>) -> io::Result<Vec<Part>> {
    let (mut based, mut plain): (Vec<Small>, Vec<Small>) = window
        .into_iter()
        .partition(|small| small.payload.base.is_some());
    // In the order in which the bases are stored: each of their blocks is decoded once.
    based.sort_by_cached_key(|small| {
        let base = small
            .payload
            .base
            .expect("because those without were taken out");
        let at = store.locate(&part_key(&base.id, 0)).ok().flatten();
        at.map(|at| (at.pack, at.offset, at.entry))
    });
    let deltas: Vec<Option<Vec<u8>>> = based
        .par_iter()
        .with_min_len(16)
        .map(|small| small_delta(store, &small.payload))
        .collect();
    let mut parts = Vec::new();
    for (small, delta) in based.into_iter().zip(deltas) {
        match delta {
            Some(record) => parts.push(Part::Delta(part_key(&small.payload.id, 0), record)),
            None => plain.push(small),
        }
    }
    parts.extend(group(plain)?.into_iter().map(Part::Plain));
    Ok(parts)
}

/// The delta of a payload of one part, if it pays. A base that cannot be read is no base.
fn small_delta(store: &Store, payload: &InMemory) -> Option<Vec<u8>> {
    let base = Base::load(store, payload.base?).ok()?;
    let record = base.delta(store, &payload.bytes, 0).ok()?;
    let worth = delta::surely_pays(record.len(), payload.bytes.len()) || {
        let plain = Block::single(BlockClass::Extent, part_key(&payload.id, 0), &payload.bytes);
        delta::pays(record.len(), plain.ok()?.stored_len())
    };
    worth.then_some(record)
}

fn extent(id: &PayloadId, part: u32, bytes: &[u8]) -> io::Result<Block> {
    Block::single(BlockClass::Extent, part_key(id, part), bytes)
}

/// An extent as a delta where that pays, else plain.
fn extent_part(
    store: &Store,
    base: Option<&Base>,
    (id, part, bytes): (&PayloadId, u32, &[u8]),
    step: usize,
) -> io::Result<Part> {
    let delta = base.and_then(|base| {
        let position = u64::from(part) * step as u64;
        base.delta(store, bytes, position).ok()
    });
    let Some(record) = delta else {
        return extent(id, part, bytes).map(Part::Plain);
    };
    if delta::surely_pays(record.len(), bytes.len()) {
        return Ok(Part::Delta(part_key(id, part), record));
    }
    let plain = extent(id, part, bytes)?;
    if delta::pays(record.len(), plain.stored_len()) {
        Ok(Part::Delta(part_key(id, part), record))
    } else {
        Ok(Part::Plain(plain))
    }
}

/// Cuts payloads in memory into extents and compresses them.
pub(super) fn extents(store: &Store, large: &[InMemory]) -> io::Result<Vec<Part>> {
    let bases: Vec<Option<Base>> = large
        .par_iter()
        .map(|payload| Base::load(store, payload.base?).ok())
        .collect();
    let mut cut = Vec::new();
    for (payload, base) in large.iter().zip(&bases) {
        let step = extent_size(payload.bytes.len() as u64) as usize;
        let parts = payload.bytes.chunks(step).enumerate();
        cut.extend(parts.map(|(part, bytes)| (&payload.id, part as u32, bytes, base, step)));
    }
    let parts: Vec<Part> = cut
        .par_iter()
        .map(|&(id, part, bytes, base, step)| {
            extent_part(store, base.as_ref(), (id, part, bytes), step)
        })
        .collect::<io::Result<_>>()?;
    plain_where_deltas_are_few(parts, &cut)
}

/// A cut of a payload: name, part, bytes, base, extent size.
type Cut<'a> = (&'a PayloadId, u32, &'a [u8], &'a Option<Base>, usize);

/// A payload of which less than half is deltas is stored plain: it is the better base.
fn plain_where_deltas_are_few(parts: Vec<Part>, cut: &[Cut<'_>]) -> io::Result<Vec<Part>> {
    let mut out = Vec::with_capacity(parts.len());
    let mut parts = parts.into_iter();
    for payload in cut.chunk_by(|a, b| a.0 == b.0) {
        let own: Vec<Part> = parts.by_ref().take(payload.len()).collect();
        let deltas = own.iter().filter(|p| matches!(p, Part::Delta(..))).count();
        if deltas == 0 || deltas * 2 >= own.len() {
            out.extend(own);
            continue;
        }
        let plain = payload
            .into_par_iter()
            .zip(own)
            .map(|(cut, part)| match part {
                Part::Delta(..) => extent(cut.0, cut.1, cut.2).map(Part::Plain),
                plain => Ok(plain),
            });
        out.extend(plain.collect::<io::Result<Vec<_>>>()?);
    }
    Ok(out)
}

/// Cuts a payload on disk into extents, some at a time; checks that it is still what was hashed.
pub(super) fn extents_of_file(
    store: &Store,
    path: &Path,
    (id, size, base): (&PayloadId, u64, Option<Piece>),
    mut append: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let base = base.and_then(|base| Base::load(store, base).ok());
    let step = extent_size(size) as usize;
    let at_once = (EXTENTS_AT_ONCE * (256 << 10) / step).max(2);
    let mut file = File::open(path).at(path)?;
    let mut hasher = Sha256::new();
    let mut first_part = 0u32;
    let mut left = size;
    let mut buf = Vec::new();
    while left > 0 {
        let wanted = left.min((step * at_once) as u64);
        buf.clear();
        (&mut file).take(wanted).read_to_end(&mut buf).at(path)?;
        if (buf.len() as u64) < wanted {
            return Err(Error::InputChanged {
                path: path.to_owned(),
            });
        }
        left -= wanted;
        let compress = || {
            let parts: Vec<(usize, &[u8])> = buf.chunks(step).enumerate().collect();
            parts
                .into_par_iter()
                .map(|(n, bytes)| {
                    let part = (id, first_part + n as u32, bytes);
                    extent_part(store, base.as_ref(), part, step)
                })
                .collect::<io::Result<Vec<Part>>>()
        };
        let (parts, ()) = rayon::join(compress, || hasher.update(&buf));
        let parts = parts.at(path)?;
        first_part += parts.len() as u32;
        parts.into_iter().try_for_each(&mut append)?;
    }
    let digest: [u8; 32] = hasher.finalize().into();
    if digest != *id.as_bytes() {
        return Err(Error::InputChanged {
            path: path.to_owned(),
        });
    }
    Ok(())
}

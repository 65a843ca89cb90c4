//! From payloads to blocks: grouping, cutting and compressing, in parallel.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::delta;
use super::delta::{Base, Older};
use super::layout::LayoutKey;
use crate::compress::LEVEL;
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::pack::writer::{Block, BlockBuilder};
use crate::pack::{BlockClass, GROUP_TARGET, Key, extent_size};
use crate::store::Store;
use crate::store::payload::part_key;

/// Extents compressed at a time from a payload that is not in memory.
const EXTENTS_AT_ONCE: usize = 32;

/// A payload in memory on its way to a block.
#[derive(Debug)]
pub(crate) struct InMemory {
    pub(crate) id: PayloadId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) base: Option<Older>,
}

/// A small payload waiting to be grouped with its like.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) order: LayoutKey,
    pub(crate) payload: InMemory,
}

/// What a part of a payload is stored as.
#[derive(Debug)]
pub(crate) enum Part {
    /// A block of its own.
    Plain(Block),
    /// A delta record.
    Delta(Key, Vec<u8>),
}

/// Sorts small payloads and compresses them in groups.
fn group(mut window: Vec<Small>, level: i32) -> io::Result<Vec<Block>> {
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
        .map(|builder| builder.finish(level))
        .collect()
}

/// Stores small payloads: as deltas where they have a base and it pays, the others in groups.
pub(crate) fn small_parts(store: &Store, window: Vec<Small>, level: i32) -> io::Result<Vec<Part>> {
    let (mut based, mut plain): (Vec<Small>, Vec<Small>) = window
        .into_iter()
        .partition(|small| small.payload.base.is_some());
    // In the order in which the bases are stored: each of their blocks is decoded once.
    based.sort_by_cached_key(|small| {
        let base = small.payload.base.as_ref();
        let base = base.expect("because those without were taken out");
        let at = store.locate(&part_key(&base.piece.id, 0)).ok().flatten();
        at.map(|at| (at.pack, at.offset, at.entry))
    });
    let deltas: Vec<Option<Vec<u8>>> = based
        .par_iter()
        .with_min_len(16)
        .map(|small| small_delta(store, &small.payload, level))
        .collect();
    let mut parts = Vec::new();
    for (small, delta) in based.into_iter().zip(deltas) {
        match delta {
            Some(record) => parts.push(Part::Delta(part_key(&small.payload.id, 0), record)),
            None => plain.push(small),
        }
    }
    parts.extend(group(plain, level)?.into_iter().map(Part::Plain));
    Ok(parts)
}

/// The delta of a payload of one part, if it pays. A base that cannot be read is no base.
fn small_delta(store: &Store, payload: &InMemory, level: i32) -> Option<Vec<u8>> {
    let base = Base::load(store, payload.base.as_ref()?).ok()?;
    let record = base.delta(store, &payload.bytes, 0, level).ok()?;
    let worth = delta::surely_pays(record.len(), payload.bytes.len()) || {
        let key = part_key(&payload.id, 0);
        let plain = Block::single(BlockClass::Extent, key, &payload.bytes, level);
        delta::pays(record.len(), plain.ok()?.stored_len())
    };
    worth.then_some(record)
}

pub(crate) fn extent(id: &PayloadId, part: u32, bytes: &[u8], level: i32) -> io::Result<Block> {
    Block::single(BlockClass::Extent, part_key(id, part), bytes, level)
}

/// An extent as a delta where that pays, else plain.
fn extent_part(
    store: &Store,
    base: Option<&Base>,
    (id, part, bytes): (&PayloadId, u32, &[u8]),
    step: usize,
    level: i32,
) -> io::Result<Part> {
    let delta = base.and_then(|base| {
        let position = u64::from(part) * step as u64;
        base.delta(store, bytes, position, level).ok()
    });
    let Some(record) = delta else {
        return extent(id, part, bytes, level).map(Part::Plain);
    };
    if delta::surely_pays(record.len(), bytes.len()) {
        return Ok(Part::Delta(part_key(id, part), record));
    }
    let plain = extent(id, part, bytes, level)?;
    if delta::pays(record.len(), plain.stored_len()) {
        Ok(Part::Delta(part_key(id, part), record))
    } else {
        Ok(Part::Plain(plain))
    }
}

/// Cuts payloads in memory into extents and compresses them.
pub(crate) fn extents(store: &Store, large: &[InMemory], level: i32) -> io::Result<Vec<Part>> {
    let bases: Vec<Option<Base>> = large
        .par_iter()
        .map(|payload| Base::load(store, payload.base.as_ref()?).ok())
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
            extent_part(store, base.as_ref(), (id, part, bytes), step, level)
        })
        .collect::<io::Result<_>>()?;
    plain_where_deltas_are_few(parts, &cut, level)
}

/// A cut of a payload: name, part, bytes, base, extent size.
type Cut<'a> = (&'a PayloadId, u32, &'a [u8], &'a Option<Base>, usize);

/// A payload of which less than half is deltas is stored plain: it is the better base.
fn plain_where_deltas_are_few(
    parts: Vec<Part>,
    cut: &[Cut<'_>],
    level: i32,
) -> io::Result<Vec<Part>> {
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
                Part::Delta(..) => extent(cut.0, cut.1, cut.2, level).map(Part::Plain),
                plain => Ok(plain),
            });
        out.extend(plain.collect::<io::Result<Vec<_>>>()?);
    }
    Ok(out)
}

/// Cuts a payload on disk into extents, some at a time; checks that it is still what was hashed.
pub(crate) fn extents_of_file(
    store: &Store,
    path: &Path,
    (id, size, base): (&PayloadId, u64, Option<Older>),
    mut append: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let base = base.and_then(|base| Base::load(store, &base).ok());
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
                    extent_part(store, base.as_ref(), part, step, LEVEL)
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

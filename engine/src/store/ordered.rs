//! Many payloads in the order in which they are stored: each block is decoded once, and past the
//! cache, however many of its entries are wanted.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use super::payload::{Way, part_key, recipe_key};
use super::{Store, lock};
use crate::error::{Error, Result};
use crate::index::set::Index;
use crate::index::{Location, ObjectIndex};
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::Piece;
use crate::pack::{BlockClass, GROUPED_MAX, extent_size};

/// Threads that put one payload together, if it is not small.
const MAX_THREADS: usize = 4;
const WORTH_THREADS: u64 = 8 << 20;

/// Payloads that are read together: small ones of one block, or a single one.
#[derive(Debug, Clone)]
pub(crate) struct ReadGroup {
    members: Vec<Wanted>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Position in the list of payloads.
    number: usize,
    /// Where the first part is, or the recipe.
    at: Option<Location>,
    /// Whether it is one entry of a block that holds others.
    is_small: bool,
    turn: (u8, Reverse<u64>),
}

impl Wanted {
    fn find(index: &Index, number: usize, piece: &Piece) -> Self {
        let find = |key| index.get(&key).ok().flatten();
        let part = find(part_key(&piece.id, 0));
        let is_small = part.is_some() && piece.size <= GROUPED_MAX;
        // What takes longest comes first: what is made by a recipe, from the largest on.
        let turn = match (part, is_small) {
            (None, _) => (0, Reverse(piece.size)),
            (Some(_), small) => (1 + u8::from(small), Reverse(0)),
        };
        Self {
            number,
            at: part.or_else(|| find(recipe_key(&piece.id))),
            is_small,
            turn,
        }
    }

    fn block(&self) -> Option<(crate::id::PackId, u32)> {
        self.at.map(|at| (at.pack, at.offset))
    }
}

/// Groups payloads and puts the groups into their order.
fn in_order(mut wanted: Vec<Wanted>) -> Vec<ReadGroup> {
    wanted.sort_unstable_by_key(|one| (one.turn, one.block(), one.number));
    let same = |a: &Wanted, b: &Wanted| a.is_small && b.is_small && a.block() == b.block();
    let groups = wanted.chunk_by(same);
    groups
        .map(|members| ReadGroup {
            members: members.to_vec(),
        })
        .collect()
}

/// Takes bytes of the payload at a position, which begin at an offset.
pub(crate) type Take<'t> = &'t mut dyn FnMut(usize, u64, &[u8]) -> Result<()>;

impl Store {
    /// Groups payloads and orders the groups as they are stored. What takes longest comes first:
    /// payloads that are made by a recipe, from the largest on, then other large ones.
    pub(crate) fn in_pack_order(&self, pieces: &[Piece]) -> Vec<ReadGroup> {
        let index = self.index();
        let pieces = pieces.par_iter().enumerate();
        let wanted = pieces.map(|(number, piece)| Wanted::find(&index, number, piece));
        in_order(wanted.collect())
    }

    /// Reads payloads in the order in which they are stored, each to its place in `out`, where they lie
    /// one after the other.
    pub(super) fn read_pieces(&self, pieces: &[Piece], out: &mut [u8], way: Way) -> Result<()> {
        let index = self.index();
        let wanted = pieces.iter().enumerate();
        let wanted = wanted.map(|(number, piece)| Wanted::find(&index, number, piece));
        let groups = in_order(wanted.collect());
        let mut places = Vec::with_capacity(pieces.len());
        let mut rest = out;
        for piece in pieces {
            let (place, after) = rest.split_at_mut((piece.size as usize).min(rest.len()));
            places.push(Mutex::new(place));
            rest = after;
        }
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(group) = groups.get(next.fetch_add(1, Relaxed)) {
                let take: Take<'_> = &mut |number, at, bytes| {
                    let mut place = lock(&places[number]);
                    let into = place.get_mut(at as usize..);
                    let into = into.and_then(|into| into.get_mut(..bytes.len()));
                    into.ok_or_else(|| {
                        self.corrupt("a payload has more bytes than its size".into())
                    })?
                    .copy_from_slice(bytes);
                    Ok(())
                };
                self.read_group_by(pieces, group, way, take)
                    .map_err(|(_, error)| error)
                    .inspect_err(|_| next.store(groups.len(), Relaxed))?;
            }
            Ok(())
        };
        let threads = match pieces.iter().map(|piece| piece.size).sum::<u64>() {
            small if small < WORTH_THREADS => 1,
            _ => rayon::current_num_threads().min(MAX_THREADS),
        };
        // Those of the pool take up other work while they wait for each other, and that may wait for
        // what is being made here.
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                let other = other.join();
                done = done.and(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })
    }

    /// Reads all of each payload of a group, the bytes of each one in order. An error comes with the
    /// position of the payload that it is about.
    pub(crate) fn read_group(
        &self,
        pieces: &[Piece],
        group: &ReadGroup,
        take: Take<'_>,
    ) -> Result<(), (usize, Error)> {
        self.read_group_by(pieces, group, Way::OUTERMOST, take)
    }

    fn read_group_by(
        &self,
        pieces: &[Piece],
        group: &ReadGroup,
        way: Way,
        take: Take<'_>,
    ) -> Result<(), (usize, Error)> {
        let mut members = group.members.clone();
        if let Some(Wanted {
            at: Some(at),
            is_small: true,
            ..
        }) = members.first()
        {
            // Whatever is wrong, reading one by one finds a way around it or says what it is.
            let class = self
                .pack(&at.pack)
                .and_then(|pack| pack.class_at(at.offset));
            match class {
                Ok(BlockClass::Group) => return self.read_block(pieces, &members, at, way, take),
                Ok(BlockClass::Delta) => self.order_by_base(pieces, &mut members),
                _ => {}
            }
        }
        for one in members {
            let done = self.read_whole(pieces[one.number], one.number, way, take);
            done.map_err(|error| (one.number, error))?;
        }
        Ok(())
    }

    fn read_block(
        &self,
        pieces: &[Piece],
        members: &[Wanted],
        at: &Location,
        way: Way,
        take: Take<'_>,
    ) -> Result<(), (usize, Error)> {
        let block = self.block_uncached(at).ok();
        for one in members {
            let piece = pieces[one.number];
            let entry = one
                .at
                .and_then(|at| block.as_ref()?.entries.get(at.entry as usize));
            let is_it = |key, len| key == part_key(&piece.id, 0) && u64::from(len) == piece.size;
            let done = match (&block, entry) {
                (Some(block), Some(entry)) if is_it(entry.key, entry.len) => {
                    take(one.number, 0, block.bytes(entry))
                }
                _ => self.read_whole(piece, one.number, way, take),
            };
            done.map_err(|error| (one.number, error))?;
        }
        Ok(())
    }

    /// Orders deltas as what they are made from is stored.
    fn order_by_base(&self, pieces: &[Piece], members: &mut [Wanted]) {
        members.sort_by_cached_key(|one| {
            let key = part_key(&pieces[one.number].id, 0);
            let (_, found) = self.get_stored(&key).ok().flatten()?;
            let (head, _) = DeltaHead::decode(found.bytes()).ok()?;
            let base = self.locate(&part_key(&head.base, 0)).ok().flatten()?;
            Some((base.pack, base.offset, base.entry))
        });
    }

    /// Reads all of a payload; what takes long to make, by way of a plain copy in the cache: the next
    /// one who wants it finds it there.
    fn read_whole(&self, piece: Piece, number: usize, way: Way, take: Take<'_>) -> Result<()> {
        let take = &mut |at, bytes: &[u8]| take(number, at, bytes);
        let copy = match way.is_outermost() {
            true => self.copy_of_slow(piece)?,
            false => None,
        };
        match copy {
            Some(copy) => copy.read_all(piece.size, take),
            None => self.read_parts(piece, way, take),
        }
    }

    /// Reads a payload extent by extent, each time with where the bytes begin.
    pub(super) fn read_parts(
        &self,
        piece: Piece,
        way: Way,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let step = match piece.size {
            small if small <= GROUPED_MAX => small,
            large => extent_size(large).min(large),
        };
        let mut buffer = vec![0; step as usize];
        let mut offset = 0;
        while offset < piece.size {
            let n = self.read_nested(piece, offset, &mut buffer, way)?;
            let bytes = buffer.get(..n).filter(|bytes| !bytes.is_empty());
            take(offset, bytes.ok_or(Error::MissingPayload { id: piece.id })?)?;
            offset += n as u64;
        }
        Ok(())
    }
}

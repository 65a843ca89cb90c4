//! Many payloads in the order in which they are stored: each block is decoded once, and past the
//! cache, however many of its entries are wanted.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::Store;
use super::payload::{part_key, recipe_key};
use crate::error::{Error, Result};
use crate::index::{Location, ObjectIndex};
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::Piece;
use crate::pack::{BlockClass, GROUPED_MAX, extent_size};

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
    /// Whether there are no parts of it.
    by_recipe: bool,
}

impl Wanted {
    fn block(&self) -> Option<(crate::id::PackId, u32)> {
        self.at.map(|at| (at.pack, at.offset))
    }
}

/// Takes bytes of the payload at a position, which begin at an offset.
pub(crate) type Take<'t> = &'t mut dyn FnMut(usize, u64, &[u8]) -> Result<()>;

impl Store {
    /// Groups payloads and orders the groups as they are stored. What takes longest comes first:
    /// payloads that are made by a recipe, from the largest on, then other large ones.
    pub(crate) fn in_pack_order(&self, pieces: &[Piece]) -> Vec<ReadGroup> {
        let index = self.index();
        let find = |key| index.get(&key).ok().flatten();
        let mut wanted: Vec<Wanted> = pieces
            .par_iter()
            .enumerate()
            .map(|(number, piece)| {
                let part = find(part_key(&piece.id, 0));
                let is_small = part.is_some() && piece.size <= GROUPED_MAX;
                let by_recipe = part.is_none();
                Wanted {
                    number,
                    at: part.or_else(|| find(recipe_key(&piece.id))),
                    is_small,
                    by_recipe,
                }
            })
            .collect();
        let turn = |one: &Wanted| match (one.by_recipe, one.is_small) {
            (true, _) => (0, Reverse(pieces[one.number].size)),
            (false, small) => (1 + u8::from(small), Reverse(0)),
        };
        wanted.par_sort_unstable_by_key(|one| (turn(one), one.block(), one.number));
        let same = |a: &Wanted, b: &Wanted| a.is_small && b.is_small && a.block() == b.block();
        let groups = wanted.chunk_by(same);
        groups
            .map(|members| ReadGroup {
                members: members.to_vec(),
            })
            .collect()
    }

    /// Reads all of each payload of a group, the bytes of each one in order. An error comes with the
    /// position of the payload that it is about.
    pub(crate) fn read_group(
        &self,
        pieces: &[Piece],
        group: &ReadGroup,
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
                Ok(BlockClass::Group) => return self.read_block(pieces, &members, at, take),
                Ok(BlockClass::Delta) => self.order_by_base(pieces, &mut members),
                _ => {}
            }
        }
        for one in members {
            let done = self.read_whole(pieces[one.number], one.number, take);
            done.map_err(|error| (one.number, error))?;
        }
        Ok(())
    }

    fn read_block(
        &self,
        pieces: &[Piece],
        members: &[Wanted],
        at: &Location,
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
                _ => self.read_whole(piece, one.number, take),
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
    fn read_whole(&self, piece: Piece, number: usize, take: Take<'_>) -> Result<()> {
        let take = &mut |at, bytes: &[u8]| take(number, at, bytes);
        match self.copy_of_slow(piece)? {
            Some(copy) => copy.read_all(piece.size, take),
            None => self.read_parts(piece, take),
        }
    }

    /// Reads a payload extent by extent, each time with where the bytes begin.
    pub(super) fn read_parts(
        &self,
        piece: Piece,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let step = match piece.size {
            small if small <= GROUPED_MAX => small,
            large => extent_size(large).min(large),
        };
        let mut buffer = vec![0; step as usize];
        let mut offset = 0;
        while offset < piece.size {
            let n = self.read_payload(&piece.id, piece.size, offset, &mut buffer)?;
            let bytes = buffer.get(..n).filter(|bytes| !bytes.is_empty());
            take(offset, bytes.ok_or(Error::MissingPayload { id: piece.id })?)?;
            offset += n as u64;
        }
        Ok(())
    }
}

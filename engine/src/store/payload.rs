//! Payloads by name: from their parts, or by the recipe that makes them from others.

use std::cell::RefCell;

use super::group::{Group, Read};
use super::{ATTEMPTS, Found, Store};
use crate::compress::decompress_with_prefix;
use crate::error::{Error, Result};
use crate::id::PayloadId;
use crate::index::Location;
use crate::pack::decoded::DecodedBlock;
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::{Piece, Recipe};
use crate::pack::{BlockClass, EntryKind, GROUPED_MAX, Key, extent_size, part_count};
use crate::recode;

/// How deep entries may need each other: recompression of a concatenation of deltas of plain
/// parts, and one to spare. Deeper nesting, or a circle, is damage.
const MAX_NESTING: u32 = 5;

/// Larger windows of bases get a buffer of their own, which is given back.
const KEPT_WINDOW: usize = 1 << 20;

thread_local! {
    /// The window of the base that this thread's delta is decoded with.
    static WINDOW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The key of a part of a payload.
pub(crate) fn part_key(id: &PayloadId, part: u32) -> Key {
    Key {
        part,
        ..Key::new(EntryKind::Payload, *id.as_bytes())
    }
}

/// The key of a payload's recipe.
pub(crate) fn recipe_key(id: &PayloadId) -> Key {
    Key::new(EntryKind::Recipe, *id.as_bytes())
}

/// The keys of the parts of a payload.
pub(crate) fn part_keys(id: &PayloadId, size: u64) -> impl Iterator<Item = Key> + use<> {
    let id = *id;
    (0..part_count(size) as u32).map(move |part| part_key(&id, part))
}

/// The part of a payload that holds an offset: its number, where it begins, and its length.
fn part_at(size: u64, at: u64) -> (u32, u64, u64) {
    if size <= GROUPED_MAX {
        return (0, 0, size);
    }
    let step = extent_size(size);
    let part = at / step;
    let start = part * step;
    let number = u32::try_from(part).unwrap_or(u32::MAX);
    (number, start, step.min(size - start))
}

/// How a read came about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// How many entries need each other so far.
    nesting: u32,
    /// Whether the bytes are a window of the base of a delta: the next extent's window overlaps it.
    window: bool,
}

impl Way {
    pub(super) const OUTERMOST: Self = Self {
        nesting: 0,
        window: false,
    };

    pub(super) fn is_outermost(self) -> bool {
        self.nesting == 0
    }

    fn deeper(self) -> Self {
        Self {
            nesting: self.nesting + 1,
            ..self
        }
    }
}

impl Store {
    /// Reads payload bytes at an offset, as many as there are up to the length of `buf`.
    pub(crate) fn read_payload(
        &self,
        id: &PayloadId,
        size: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        self.read_nested(Piece { id: *id, size }, offset, buf, Way::OUTERMOST)
    }

    /// The same; tells which block a small payload was found in.
    pub(crate) fn read_grouped(&self, of: Piece, offset: u64, buf: &mut [u8]) -> Result<Read> {
        let wanted = (buf.len() as u64).min(of.size.saturating_sub(offset)) as usize;
        if of.size > GROUPED_MAX || wanted == 0 {
            let len = match self.copy_of_slow(of)? {
                Some(copy) => copy.read_at(&mut buf[..wanted], offset)?,
                None => self.read_nested(of, offset, buf, Way::OUTERMOST)?,
            };
            return Ok(Read { len, group: None });
        }
        let (len, found) = self.read_cached(of, offset, &mut buf[..wanted], Way::OUTERMOST)?;
        let group = found.and_then(Group::of);
        Ok(Read { len, group })
    }

    pub(super) fn read_nested(
        &self,
        of: Piece,
        offset: u64,
        buf: &mut [u8],
        way: Way,
    ) -> Result<usize> {
        let wanted = (buf.len() as u64).min(of.size.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            done += self.read_some(of, at, &mut buf[done..wanted], way)?;
        }
        Ok(done)
    }

    /// Reads from the one part or piece that holds the offset; at least one byte.
    fn read_some(&self, of: Piece, at: u64, buf: &mut [u8], way: Way) -> Result<usize> {
        let (part, start, len) = part_at(of.size, at);
        let whole = of.size > GROUPED_MAX && at == start && buf.len() as u64 >= len;
        if !whole || way.window {
            return Ok(self.read_cached(of, at, buf, way)?.0);
        }
        let out = &mut buf[..len as usize];
        if self.extent_into(&part_key(&of.id, part), out, way)? {
            Ok(len as usize)
        } else {
            self.read_by_recipe(of, at, buf, way)
        }
    }

    /// Reads by way of the cache; gives also the entry that the bytes came from.
    fn read_cached(
        &self,
        of: Piece,
        at: u64,
        buf: &mut [u8],
        way: Way,
    ) -> Result<(usize, Option<Found>)> {
        let (part, start, len) = part_at(of.size, at);
        let skip = (at - start) as usize;
        let key = part_key(&of.id, part);
        let place = self.locate(&key)?;
        if of.size <= GROUPED_MAX
            && let Some(place) = &place
            && let Some(n) = self.cache.read_spilled(place, &key, skip, buf)
            && n as u64 == (len - skip as u64).min(buf.len() as u64)
        {
            return Ok((n, None));
        }
        let Some(found) = self.get_at(&key, place, way)? else {
            return Ok((self.read_by_recipe(of, at, buf, way)?, None));
        };
        let bytes = found.bytes();
        if bytes.len() as u64 != len {
            let detail = format!(
                "payload {} part {part} has {} bytes, not {len}",
                of.id,
                bytes.len()
            );
            return Err(self.corrupt(detail));
        }
        let n = copy_from(bytes, skip, buf);
        let end = (skip + n) as u64;
        if !way.window {
            self.note_read(&found, end, n as u64);
        } else if skip > 0 && end == len && found.is_extent() {
            // The windows of further extents begin behind it.
            self.cache.remove(&found.key);
        }
        Ok((n, Some(found)))
    }

    /// Decodes an extent that is wanted whole; says whether there is one.
    fn extent_into(&self, key: &Key, out: &mut [u8], way: Way) -> Result<bool> {
        let mut attempt = 1;
        loop {
            let Some(at) = self.locate(key)? else {
                return Ok(false);
            };
            match self.extent_at(key, &at, out, way) {
                Err(error) if attempt < ATTEMPTS && self.may_be_stale(&error)? => attempt += 1,
                other => return other.map(|()| true),
            }
        }
    }

    fn extent_at(&self, key: &Key, at: &Location, out: &mut [u8], way: Way) -> Result<()> {
        let made = (at.pack, at.offset, Some(at.entry));
        if let Some(block) = self.cache.peek(&made) {
            return self.copy_whole(&Found::first_of(block, made), key, out);
        }
        let stored = (at.pack, at.offset, None);
        let block = match self.cache.peek(&stored) {
            Some(block) => block,
            None => {
                let pack = self.pack(&at.pack)?;
                match pack.extent_into((u64::from(at.offset), at.block_len), key, out)? {
                    None => {
                        self.cache.note_decoded(out.len());
                        return Ok(());
                    }
                    Some(block) => self.cache.insert(stored, block),
                }
            }
        };
        let found = self.entry(key, at, Ok(block))?;
        if found.block.class != BlockClass::Delta {
            return self.copy_whole(&found, key, out);
        }
        self.apply_delta(key, found.bytes(), out, way.deeper())?;
        self.note_read(
            &found,
            found.bytes().len() as u64,
            found.bytes().len() as u64,
        );
        Ok(())
    }

    fn copy_whole(&self, found: &Found, key: &Key, out: &mut [u8]) -> Result<()> {
        let bytes = found.bytes();
        if bytes.len() != out.len() {
            let (id, part, found, wanted) = (key.payload(), key.part, bytes.len(), out.len());
            let detail = format!("payload {id} part {part} has {found} bytes, not {wanted}");
            return Err(self.corrupt(detail));
        }
        out.copy_from_slice(bytes);
        self.note_read(found, bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }

    /// A block of which everything was read leaves the cache.
    fn note_read(&self, found: &Found, end: u64, len: u64) {
        if found.block.note_read(found.number, end, len) {
            self.cache.remove(&found.key);
        }
    }

    fn read_by_recipe(&self, of: Piece, at: u64, buf: &mut [u8], way: Way) -> Result<usize> {
        let found = self.get_stored(&recipe_key(&of.id))?;
        let (at_pack, found) = found.ok_or(Error::MissingPayload { id: of.id })?;
        self.check_nesting(&of.id, way)?;
        let recipe = Recipe::decode(found.bytes())
            .map_err(|what| self.corrupt(format!("recipe of payload {}: {what}", of.id)))?;
        match recipe {
            Recipe::Concat(concat) => {
                if concat.size() != of.size {
                    let id = of.id;
                    return Err(self.corrupt(format!("recipe of payload {id} has another size")));
                }
                let mut done = 0;
                while done < buf.len()
                    && let Some((start, piece)) = concat.piece_at(at + done as u64)
                {
                    let skip = at + done as u64 - start;
                    done += self.read_nested(piece, skip, &mut buf[done..], way.deeper())?;
                }
                Ok(done)
            }
            Recipe::Recode { plain, how } => {
                let whole = self.derived(&at_pack, way, || {
                    self.recompress(of, plain, how, way.deeper())
                })?;
                Ok(self.copy_derived(&whole, at, buf))
            }
            Recipe::Decode { packed } => {
                let whole =
                    self.derived(&at_pack, way, || self.unpack(of, packed, way.deeper()))?;
                Ok(self.copy_derived(&whole, at, buf))
            }
        }
    }

    fn copy_derived(&self, whole: &Found, at: u64, buf: &mut [u8]) -> usize {
        let n = copy_from(whole.bytes(), at as usize, buf);
        self.note_read(whole, at + n as u64, n as u64);
        n
    }

    /// All bytes of a payload that is made by recompression, without keeping them; `None` for others.
    pub(super) fn recompressed(&self, of: Piece) -> Result<Option<Vec<u8>>> {
        if self.locate(&part_key(&of.id, 0))?.is_some() {
            return Ok(None);
        }
        let Some((_, found)) = self.get_stored(&recipe_key(&of.id))? else {
            return Ok(None);
        };
        match Recipe::decode(found.bytes()) {
            Ok(Recipe::Recode { plain, how }) => self
                .recompress(of, plain, how, Way::OUTERMOST.deeper())
                .map(Some),
            _ => Ok(None),
        }
    }

    fn recompress(&self, of: Piece, plain: Piece, how: &[u8], way: Way) -> Result<Vec<u8>> {
        let fail = |what: String| self.corrupt(format!("payload {}: {what}", of.id));
        let fits = of.size <= recode::MAX_SIZE && plain.size <= recode::MAX_PLAIN;
        if !fits {
            return Err(fail("sizes of its recipe are out of range".into()));
        }
        let how = recode::Recipe::decode(how).map_err(|e| fail(e.to_string()))?;
        let mut bytes = vec![0; plain.size as usize];
        self.read_into(plain, &mut bytes, way)?;
        recode::redo(&bytes, &how, of.size as usize).map_err(|e| fail(e.to_string()))
    }

    /// Reads all of a payload. The members of an archive lie in its order, but are not stored in it.
    fn read_into(&self, of: Piece, out: &mut [u8], way: Way) -> Result<()> {
        if self.locate(&part_key(&of.id, 0))?.is_none()
            && let Some((_, found)) = self.get_stored(&recipe_key(&of.id))?
            && let Ok(recipe @ Recipe::Concat(concat)) = Recipe::decode(found.bytes())
            && concat.size() == of.size
        {
            self.check_nesting(&of.id, way)?;
            return self.read_pieces(&recipe.pieces(), out, way.deeper());
        }
        self.read_nested(of, 0, out, way).map(drop)
    }

    fn unpack(&self, of: Piece, packed: Piece, way: Way) -> Result<Vec<u8>> {
        let fail = || self.corrupt(format!("payload {}: its compressed form is damaged", of.id));
        if of.size > recode::MAX_PLAIN || packed.size > recode::MAX_SIZE {
            return Err(fail());
        }
        let mut bytes = vec![0; packed.size as usize];
        self.read_nested(packed, 0, &mut bytes, way)?;
        let plain = recode::decompress(&bytes, of.size).ok_or_else(fail)?;
        if plain.len() as u64 == of.size {
            Ok(plain)
        } else {
            Err(fail())
        }
    }

    fn check_nesting(&self, id: &PayloadId, way: Way) -> Result<()> {
        if way.nesting < MAX_NESTING {
            return Ok(());
        }
        Err(self.corrupt(format!("payload {id} needs itself, or too many others")))
    }

    /// Finds an entry and decodes it, whatever it takes.
    pub(super) fn get_whole(&self, key: &Key) -> Result<Option<Found>> {
        self.get_nested(key, Way::OUTERMOST)
    }

    fn get_nested(&self, key: &Key, way: Way) -> Result<Option<Found>> {
        self.get_at(key, self.locate(key)?, way)
    }

    /// The same for an entry that was looked up already.
    fn get_at(&self, key: &Key, at: Option<Location>, way: Way) -> Result<Option<Found>> {
        if key.kind == EntryKind::Payload
            && let Some(at) = &at
            && let made = (at.pack, at.offset, Some(at.entry))
            && let Some(block) = self.cache.peek(&made)
        {
            return Ok(Some(Found::first_of(block, made)));
        }
        let Some((at, stored)) = self.get_stored_at(key, at)? else {
            return Ok(None);
        };
        if stored.block.class != BlockClass::Delta || key.kind != EntryKind::Payload {
            return Ok(Some(stored));
        }
        let made = self.derived(&at, way, || {
            let (head, _) = self.delta_of(key, stored.bytes())?;
            let mut out = vec![0; head.raw_len as usize];
            self.apply_delta(key, stored.bytes(), &mut out, way.deeper())?;
            Ok(out)
        })?;
        Ok(Some(made))
    }

    /// Makes a part from its delta record, into a buffer of exactly its size.
    fn apply_delta(&self, key: &Key, record: &[u8], out: &mut [u8], way: Way) -> Result<()> {
        self.check_nesting(&key.payload(), way)?;
        let (head, frame) = self.delta_of(key, record)?;
        let base = Piece {
            id: head.base,
            size: head.base_size,
        };
        let way = Way {
            window: true,
            ..way
        };
        // Taken, not borrowed: a window can need a delta, too, in a damaged repository or for a moment
        // while a repack goes on.
        let mut window = WINDOW.take();
        window.resize(window.len().max(head.window as usize), 0);
        let into = &mut window[..head.window as usize];
        let made = self
            .read_nested(base, head.offset, into, way)
            .and_then(|_| {
                decompress_with_prefix(frame, into, out)
                    .map_err(|e| self.bad_part(key, &e.to_string()))
            });
        if window.len() <= KEPT_WINDOW {
            WINDOW.set(window);
        }
        made
    }

    fn delta_of<'r>(&self, key: &Key, record: &'r [u8]) -> Result<(DeltaHead, &'r [u8])> {
        DeltaHead::decode(record).map_err(|e| self.bad_part(key, e))
    }

    fn bad_part(&self, key: &Key, what: &str) -> Error {
        self.corrupt(format!(
            "payload {} part {}: {what}",
            key.payload(),
            key.part
        ))
    }

    /// What an entry decodes to, by way of the cache.
    ///
    /// Only outermost entries wait for another thread that makes the same: entries that need each
    /// other in a circle, in a damaged repository, would wait for themselves.
    fn derived(
        &self,
        at: &Location,
        way: Way,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Found> {
        let key = (at.pack, at.offset, Some(at.entry));
        let make = || make().map(DecodedBlock::derived);
        let block = if way.nesting == 0 {
            self.cache.get_or_decode(key, make)?
        } else if let Some(block) = self.cache.peek(&key) {
            block
        } else {
            std::sync::Arc::new(make()?)
        };
        Ok(Found::first_of(block, key))
    }

    /// The keys under which a payload is stored: its parts, or its recipe. A prune may have left
    /// some parts of what was stored in full before and by a recipe since.
    pub(crate) fn keys_of(&self, id: &PayloadId, size: u64) -> Result<Vec<Key>> {
        let mut parts = Vec::new();
        for key in part_keys(id, size) {
            if self.locate(&key)?.is_none() && self.locate(&recipe_key(id))?.is_some() {
                return Ok(vec![recipe_key(id)]);
            }
            parts.push(key);
        }
        Ok(parts)
    }

    /// The keys of the entries that decoding another one needs; none for what is stored plain.
    pub(crate) fn needs(&self, key: &Key) -> Result<Vec<Key>> {
        let derived = match key.kind {
            EntryKind::Recipe => true,
            EntryKind::Payload => self.class_of(key)? == Some(BlockClass::Delta),
            _ => false,
        };
        if !derived {
            return Ok(Vec::new());
        }
        let Some((_, found)) = self.get_stored(key)? else {
            return Ok(Vec::new());
        };
        let fail = |what: &str| self.corrupt(format!("entry of payload {}: {what}", key.payload()));
        if key.kind != EntryKind::Recipe {
            let (head, _) = DeltaHead::decode(found.bytes()).map_err(fail)?;
            return self.window_keys(&head);
        }
        let recipe = Recipe::decode(found.bytes()).map_err(fail)?;
        let mut keys = Vec::new();
        for piece in recipe.pieces() {
            keys.extend(self.keys_of(&piece.id, piece.size)?);
        }
        Ok(keys)
    }

    /// The payloads that decoding an entry needs, whole or in part.
    pub(crate) fn needed_payloads(&self, key: &Key) -> Result<Vec<Piece>> {
        if key.kind != EntryKind::Recipe {
            let is_delta = self.class_of(key)? == Some(BlockClass::Delta);
            let base = if is_delta { self.base_of(key)? } else { None };
            return Ok(base.into_iter().collect());
        }
        let found = self.get_stored(key)?;
        let recipe = found.and_then(|(_, found)| {
            let recipe = Recipe::decode(found.bytes()).ok()?;
            Some(recipe.pieces().into_iter().collect())
        });
        Ok(recipe.unwrap_or_default())
    }

    /// What a delta record decodes to.
    pub(crate) fn decode_delta(&self, key: &Key, record: &[u8]) -> Result<Vec<u8>> {
        let (head, _) = self.delta_of(key, record)?;
        let mut out = vec![0; head.raw_len as usize];
        self.apply_delta(key, record, &mut out, Way::OUTERMOST)?;
        Ok(out)
    }

    /// What a delta against this payload is to be made against, as a delta's base has none itself:
    /// the payload, or its own base; `None` for what is made by recompression or missing.
    pub(crate) fn plain_base(&self, of: Piece) -> Result<Option<Piece>> {
        if self.locate(&part_key(&of.id, 0))?.is_some() {
            for key in part_keys(&of.id, of.size) {
                if self.class_of(&key)? == Some(BlockClass::Delta) {
                    return self.base_of(&key);
                }
            }
            return Ok(Some(of));
        }
        let Some((_, found)) = self.get_stored(&recipe_key(&of.id))? else {
            return Ok(None);
        };
        match Recipe::decode(found.bytes()) {
            Ok(Recipe::Concat(_)) => {}
            Ok(Recipe::Decode { .. }) => return Ok(Some(of)),
            _ => return Ok(None),
        }
        for key in self.needs(&recipe_key(&of.id))? {
            if key.kind == EntryKind::Recipe || self.class_of(&key)? == Some(BlockClass::Delta) {
                return Ok(None);
            }
        }
        Ok(Some(of))
    }

    /// The plain form of a payload that is stored by how it is compressed again; `None` for others.
    pub(crate) fn plain_form(&self, of: Piece) -> Result<Option<Piece>> {
        Ok(self.recipe_of_recoded(of)?.map(|(plain, _)| plain))
    }

    /// The same, with how it is compressed again.
    pub(crate) fn recipe_of_recoded(&self, of: Piece) -> Result<Option<(Piece, Vec<u8>)>> {
        let Some((_, found)) = self.get_stored(&recipe_key(&of.id))? else {
            return Ok(None);
        };
        match Recipe::decode(found.bytes()) {
            Ok(Recipe::Recode { plain, how }) => Ok(Some((plain, how.to_vec()))),
            _ => Ok(None),
        }
    }

    fn base_of(&self, key: &Key) -> Result<Option<Piece>> {
        let Some((_, found)) = self.get_stored(key)? else {
            return Ok(None);
        };
        let head = DeltaHead::decode(found.bytes()).ok();
        Ok(head.map(|(head, _)| Piece {
            id: head.base,
            size: head.base_size,
        }))
    }

    /// What the block that holds an entry is, without reading it.
    fn class_of(&self, key: &Key) -> Result<Option<BlockClass>> {
        match self.locate(key)? {
            Some(at) => self.pack(&at.pack)?.class_at(at.offset).map(Some),
            None => Ok(None),
        }
    }

    fn window_keys(&self, head: &DeltaHead) -> Result<Vec<Key>> {
        let (first, ..) = part_at(head.base_size, head.offset);
        let end = head.offset + u64::from(head.window.max(1)) - 1;
        let (last, ..) = part_at(head.base_size, end);
        let mut keys = Vec::new();
        for key in (first..=last).map(|part| part_key(&head.base, part)) {
            if self.locate(&key)?.is_none() && self.locate(&recipe_key(&head.base))?.is_some() {
                return Ok(vec![recipe_key(&head.base)]);
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

fn copy_from(bytes: &[u8], skip: usize, buf: &mut [u8]) -> usize {
    let rest = bytes.get(skip..).unwrap_or_default();
    let n = buf.len().min(rest.len());
    buf[..n].copy_from_slice(&rest[..n]);
    n
}

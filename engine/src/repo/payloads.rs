//! How new payloads are stored: grouped, cut into extents, as deltas, or by a recipe.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::delta::Older;
use super::ingest::{Content, NewPayload};
use super::layout::LayoutKey;
use super::parts::{InMemory, Part, Small, extents, extents_of_file, small_parts};
use super::split;
use super::transaction::Transaction;
use crate::compress::LEVEL;
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::pack::delta::DELTA_TARGET;
use crate::pack::recipe::{Piece, encode_concat, encode_decode, encode_recode};
use crate::pack::writer::{Block, BlockBuilder};
use crate::pack::{BlockClass, GROUPED_MAX, Key};
use crate::recode;
use crate::recode::Undone;
use crate::store::payload::{part_key, recipe_key};

/// Small payloads are gathered up to this many bytes before they are sorted and grouped.
const WINDOW_TARGET: usize = 24 << 20;
/// Older versions up to this size may be decompressed whenever a delta to them is read.
const MAX_DECODED: u64 = 1 << 20;
/// Pieces of an archive are stored in batches of about this many bytes.
const BATCH: u64 = 32 << 20;

/// A new payload after its compression was undone, where it could be.
type Looked = (NewPayload, Option<Undone>);

impl Transaction<'_> {
    /// Stores new payloads.
    pub(super) fn put_payloads(&mut self, new: Vec<NewPayload>) -> Result<()> {
        let new: Vec<NewPayload> = new.into_iter().map(into_memory).collect::<Result<_>>()?;
        let derived = self.repo.allows_derived();
        let looked: Vec<Looked> = new
            .into_par_iter()
            .map(|payload| {
                let undone = if derived { undo(&payload) } else { None };
                (payload, undone)
            })
            .collect();
        let mut large = Vec::new();
        for (payload, undone) in looked {
            match undone {
                Some(undone) => self.put_recoded(&payload, undone)?,
                None => self.put_payload(payload, &mut large)?,
            }
        }
        let parts = extents(self.repo.store(), &large, LEVEL).at(self.repo.path())?;
        self.append_parts(parts)?;
        if self.window_bytes >= WINDOW_TARGET {
            self.flush_window()?;
        }
        Ok(())
    }

    /// Stores the plain form of a compressed payload, and how to compress it again.
    fn put_recoded(&mut self, payload: &NewPayload, undone: Undone) -> Result<()> {
        self.check_cancelled()?;
        let plain = Piece {
            id: PayloadId::of(&undone.plain),
            size: undone.plain.len() as u64,
        };
        let recipe = encode_recode(plain, &undone.recipe.encode());
        self.put_recipe(&payload.id, &recipe)?;
        if self.has_payload(&plain.id, plain.size)? {
            return Ok(());
        }
        self.pending.insert(part_key(&plain.id, 0));
        let base = match &payload.base {
            Some(base) => self.plain_form(base.piece)?,
            None => None,
        };
        let plain = NewPayload {
            id: plain.id,
            size: plain.size,
            content: Content::Bytes(undone.plain),
            hint: split::stem(&payload.hint).to_vec(),
            sequence: 0,
            base,
        };
        let mut large = Vec::new();
        self.put_payload(plain, &mut large)?;
        let parts = extents(self.repo.store(), &large, LEVEL).at(self.repo.path())?;
        self.append_parts(parts)
    }

    /// The plain form of an older version: as it is stored, or else as it can be made at any time.
    fn plain_form(&mut self, older: Piece) -> Result<Option<Older>> {
        let store = self.repo.store();
        if let Ok(Some(plain)) = store.plain_form(older) {
            return Ok(Some(plain.into()));
        }
        let mut packed = vec![0; older.size.min(MAX_DECODED) as usize];
        let read = store.read_payload(&older.id, older.size, 0, &mut packed);
        if older.size > MAX_DECODED || read.is_err() {
            return Ok(None);
        }
        let Some(bytes) = recode::decompress(&packed, 8 * MAX_DECODED).filter(|b| !b.is_empty())
        else {
            return Ok(Some(older.into()));
        };
        let piece = Piece {
            id: PayloadId::of(&bytes),
            size: bytes.len() as u64,
        };
        if self.has_payload(&piece.id, piece.size)? {
            return Ok(Some(piece.into()));
        }
        self.pending.insert(part_key(&piece.id, 0));
        self.put_recipe(&piece.id, &encode_decode(older))?;
        let bytes = Some(Arc::new(bytes));
        Ok(Some(Older { piece, bytes }))
    }

    fn put_recipe(&mut self, id: &PayloadId, recipe: &[u8]) -> Result<()> {
        // Recipes are read one at a time, and small: they go where deltas go.
        self.push_record(recipe_key(id), recipe)
    }

    fn put_payload(&mut self, payload: NewPayload, large: &mut Vec<InMemory>) -> Result<()> {
        let NewPayload {
            id,
            size,
            content,
            hint,
            sequence,
            base,
        } = payload;
        match content {
            Content::Nothing => {}
            Content::Bytes(bytes) => {
                if self.repo.allows_derived()
                    && let Some(pieces) = split::pieces(&bytes, base.is_some())
                {
                    return self.put_pieces(&id, &hint, &bytes, &pieces);
                }
                let base = base.and_then(|base| self.plain_base(base));
                let payload = InMemory { id, bytes, base };
                if size > GROUPED_MAX {
                    large.push(payload);
                } else {
                    self.window_bytes += payload.bytes.len();
                    let order = LayoutKey::new(&hint, sequence);
                    self.window.push(Small { order, payload });
                }
            }
            Content::Foreign(path) => self.put_from_file(&path, &hint, Piece { id, size }, base)?,
            Content::Spooled(path) => {
                self.put_from_file(&path, &hint, Piece { id, size }, base)?;
                std::fs::remove_file(&path).at(&path)?;
            }
        }
        Ok(())
    }

    /// What a delta to an older version is to be made against, if it can be.
    fn plain_base(&self, older: Older) -> Option<Older> {
        if older.bytes.is_some() {
            return Some(older);
        }
        let base = self.repo.store().plain_base(older.piece);
        base.ok().flatten().map(Older::from)
    }

    /// Stores the pieces of a payload as payloads of their own, and how they make up the whole.
    fn put_pieces(
        &mut self,
        id: &PayloadId,
        hint: &[u8],
        bytes: &[u8],
        cuts: &[split::Cut],
    ) -> Result<()> {
        let pieces: Vec<Piece> = cuts
            .par_iter()
            .map(|cut| Piece {
                id: PayloadId::of(&bytes[cut.range.clone()]),
                size: cut.range.len() as u64,
            })
            .collect();
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for (piece, cut) in pieces.iter().zip(cuts) {
            if self.has_payload(&piece.id, piece.size)? {
                continue;
            }
            self.pending.insert(part_key(&piece.id, 0));
            let name = cut.name.as_deref();
            batch_bytes += piece.size;
            batch.push(NewPayload {
                id: piece.id,
                size: piece.size,
                content: Content::Bytes(bytes[cut.range.clone()].to_vec()),
                base: name
                    .and_then(|name| self.older_version(name, piece.size))
                    .map(Older::from),
                hint: name.unwrap_or(hint).to_vec(),
                sequence: batch.len() as u32,
            });
            if batch_bytes >= BATCH {
                batch_bytes = 0;
                self.put_payloads(std::mem::take(&mut batch))?;
            }
        }
        self.put_payloads(batch)?;
        self.put_recipe(id, &encode_concat(&pieces))
    }

    fn put_from_file(
        &mut self,
        path: &Path,
        hint: &[u8],
        Piece { id, size }: Piece,
        base: Option<Older>,
    ) -> Result<()> {
        let chunked = base.is_none() && self.repo.allows_derived();
        if chunked && split::is_chunked_file(path, size)? {
            return self.put_chunks_of_file(path, hint, &id);
        }
        let store = self.repo.store();
        let base = base.and_then(|base| self.plain_base(base));
        extents_of_file(store, path, (&id, size, base), |part| {
            self.check_cancelled()?;
            self.append_part(part)
        })
    }

    fn put_chunks_of_file(&mut self, path: &Path, hint: &[u8], id: &PayloadId) -> Result<()> {
        let mut whole = Sha256::new();
        let mut pieces = Vec::new();
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for chunk in split::chunks_of_file(path)? {
            let chunk = chunk?;
            whole.update(&chunk);
            let piece = Piece {
                id: PayloadId::of(&chunk),
                size: chunk.len() as u64,
            };
            pieces.push(piece);
            if self.has_payload(&piece.id, piece.size)? {
                continue;
            }
            self.pending.insert(part_key(&piece.id, 0));
            batch_bytes += piece.size;
            batch.push(NewPayload {
                id: piece.id,
                size: piece.size,
                content: Content::Bytes(chunk),
                hint: hint.to_vec(),
                sequence: pieces.len() as u32,
                base: None,
            });
            if batch_bytes >= BATCH {
                batch_bytes = 0;
                self.check_cancelled()?;
                self.put_payloads(std::mem::take(&mut batch))?;
            }
        }
        self.put_payloads(batch)?;
        let digest: [u8; 32] = whole.finalize().into();
        if digest != *id.as_bytes() {
            return Err(Error::InputChanged {
                path: path.to_owned(),
            });
        }
        self.put_recipe(id, &encode_concat(&pieces))
    }

    pub(super) fn append_parts(&mut self, parts: Vec<Part>) -> Result<()> {
        parts
            .into_iter()
            .try_for_each(|part| self.append_part(part))
    }

    pub(super) fn append_part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Plain(block) => self.append_block(&block),
            Part::Delta(key, record) => self.push_record(key, &record),
        }
    }

    fn append_block(&mut self, block: &Block) -> Result<()> {
        self.data_packs
            .append(self.repo, self.staging.path(), block)
    }

    fn push_record(&mut self, key: Key, record: &[u8]) -> Result<()> {
        if self.deltas.is_full(DELTA_TARGET, record.len()) {
            self.flush_deltas()?;
        }
        self.deltas.push(key, record);
        Ok(())
    }

    /// Closes the block of records.
    pub(super) fn flush_deltas(&mut self) -> Result<()> {
        if self.deltas.is_empty() {
            return Ok(());
        }
        let empty = BlockBuilder::new(BlockClass::Delta);
        let block = std::mem::replace(&mut self.deltas, empty).finish_raw();
        self.append_block(&block)
    }

    /// Stores the small payloads gathered so far.
    pub(super) fn flush_window(&mut self) -> Result<()> {
        self.check_cancelled()?;
        self.window_bytes = 0;
        let window = std::mem::take(&mut self.window);
        let parts = small_parts(self.repo.store(), window, LEVEL).at(self.repo.path())?;
        self.append_parts(parts)
    }
}

/// Reads a file whose compression may be undone into memory; it may be larger than what is
/// otherwise held there.
fn into_memory(payload: NewPayload) -> Result<NewPayload> {
    let (Content::Foreign(path) | Content::Spooled(path)) = &payload.content else {
        return Ok(payload);
    };
    if payload.size > recode::MAX_SIZE || !recode::is_compressed_file(path).at(path)? {
        return Ok(payload);
    }
    let bytes = std::fs::read(path).at(path)?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if digest != *payload.id.as_bytes() {
        return Err(Error::InputChanged { path: path.clone() });
    }
    Ok(NewPayload {
        content: Content::Bytes(bytes),
        ..payload
    })
}

fn undo(payload: &NewPayload) -> Option<Undone> {
    match &payload.content {
        // Taking a file apart costs much more than storing it, so it must promise to pay.
        Content::Bytes(bytes)
            if payload.size <= recode::MAX_SIZE
                && (payload.base.is_some() || recode::holds_archive(bytes)) =>
        {
            recode::undo(bytes)
        }
        _ => None,
    }
}

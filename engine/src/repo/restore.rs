//! Writing again what was damaged: for repairs, which know that the index has not the last word.

use std::io::Read;
use std::path::Path;

use super::encode_record;
use super::ingest::{Content, Hasher, NewFile};
use super::layout::LayoutKey;
use super::parts::{InMemory, Small, extents, extents_of_file};
use super::transaction::Transaction;
use crate::compress::LEVEL;
use crate::error::{IoResultExt, Result};
use crate::id::{ObjectId, PayloadId};
use crate::pack::recipe::Piece;
use crate::pack::{EntryKind, GROUPED_MAX, Key};
use crate::store::payload::part_key;

/// Small payloads are written in groups of about this many bytes.
const WINDOW: usize = 24 << 20;

/// What is wanted of a file that could be restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restore {
    pub(crate) record: bool,
    pub(crate) payload: bool,
}

impl Transaction<'_> {
    /// Writes a commit, dirtree or dirmeta object as it is, unless the repository has it. What it
    /// refers to may still be missing.
    pub(crate) fn restore_object(&mut self, kind: EntryKind, bytes: &[u8]) -> Result<()> {
        let id = ObjectId::of(bytes);
        self.put_meta(Key::new(kind, *id.as_bytes()), bytes)
    }

    /// Stores what is `wanted` of a file, its record or its payload, whatever the index says of
    /// the payload. Says what was wanted.
    ///
    /// Payloads are stored plain: readers look for parts before they look for a recipe, so what is
    /// left of another representation does no harm.
    pub(crate) fn restore_file(
        &mut self,
        file: NewFile,
        stream: &mut dyn Read,
        size: u64,
        wanted: &dyn Fn(&ObjectId, Option<&PayloadId>) -> Restore,
    ) -> Result<Restore> {
        let hasher = Hasher::new(self.staging.path(), &self.spools, self.monitor);
        let file = hasher.hash_stream(file, stream, size)?;
        let restore = wanted(&file.id, file.payload.as_ref());
        let spooled = match &file.content {
            Content::Spooled(path) => Some(path.clone()),
            _ => None,
        };
        if restore.payload
            && let Some(id) = file.payload
            && self.pending.insert(part_key(&id, 0))
        {
            let piece = Piece {
                id,
                size: file.size,
            };
            self.put_plain(piece, file.content, &file.hint)?;
        }
        if let Some(path) = spooled {
            std::fs::remove_file(&path).at(&path)?;
        }
        if restore.record {
            let bytes = encode_record(&file.header, file.size, file.payload);
            self.put_meta(Key::new(EntryKind::File, *file.id.as_bytes()), &bytes)?;
        }
        Ok(restore)
    }

    fn put_plain(&mut self, of: Piece, content: Content, hint: &[u8]) -> Result<()> {
        match content {
            Content::Nothing => Ok(()),
            Content::Bytes(bytes) => {
                let small = of.size <= GROUPED_MAX;
                let payload = InMemory {
                    id: of.id,
                    bytes,
                    base: None,
                };
                if !small {
                    let parts = extents(self.repo.store(), &[payload], LEVEL);
                    let parts = parts.at(self.repo.path())?;
                    return self.append_parts(parts);
                }
                self.window_bytes += payload.bytes.len();
                let order = LayoutKey::new(hint, 0);
                self.window.push(Small { order, payload });
                if self.window_bytes >= WINDOW {
                    self.flush_window()?;
                }
                Ok(())
            }
            Content::Foreign(path) | Content::Spooled(path) => self.put_plain_file(of, &path),
        }
    }

    fn put_plain_file(&mut self, of: Piece, path: &Path) -> Result<()> {
        let store = self.repo.store();
        extents_of_file(store, path, (&of.id, of.size, None), |part| {
            self.append_part(part)
        })
    }
}

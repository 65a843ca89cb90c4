//! Deltas: parts of a new payload against windows of its base.
//!
//! An extent is compressed with the matching window of the base as prefix, so a random read needs
//! that window and one small frame. Measured on consecutive releases of a desktop system this is
//! as small as a delta of whole files, and five times smaller than storing changed files whole.

use std::borrow::Cow;
use std::sync::Arc;

use crate::anchors::{AnchorBuilder, Anchors};
use crate::compress::compress_with_prefix;
use crate::error::{IoResultExt, Result};
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::Piece;
use crate::store::Store;

/// Bytes of the base on each side of the place that a block came from.
const PAD: u64 = 64 << 10;
/// Bases up to this size are a window as they are.
const WHOLE_WINDOW: u64 = 512 << 10;
/// Larger bases are not held in memory: their windows are read one by one.
const IN_MEMORY_MAX: u64 = 32 << 20;
/// Smaller payloads are not worth a delta: its head alone takes 56 bytes.
pub(crate) const MIN_SIZE: u64 = 256;

/// An older version of a payload.
#[derive(Debug, Clone)]
pub(crate) struct Older {
    pub(crate) piece: Piece,
    /// Its bytes, when they are at hand; else the store has them.
    pub(crate) bytes: Option<Arc<Vec<u8>>>,
}

impl From<Piece> for Older {
    fn from(piece: Piece) -> Self {
        Self { piece, bytes: None }
    }
}

/// A payload that deltas are made against.
#[derive(Debug)]
pub(crate) struct Base {
    piece: Piece,
    /// All its bytes, unless it is too large.
    bytes: Option<Arc<Vec<u8>>>,
    anchors: Option<Anchors>,
}

impl Base {
    /// Reads a base; its parts are stored plain.
    pub(crate) fn load(store: &Store, older: &Older) -> Result<Self> {
        let piece = older.piece;
        if let Some(bytes) = &older.bytes {
            let mut anchors = AnchorBuilder::new(piece.size);
            anchors.update(bytes);
            return Ok(Self {
                piece,
                bytes: Some(Arc::clone(bytes)),
                anchors: Some(anchors.finish()),
            });
        }
        let in_memory = piece.size <= IN_MEMORY_MAX;
        let mut whole = Vec::with_capacity(if in_memory { piece.size as usize } else { 0 });
        let mut anchors = (piece.size > WHOLE_WINDOW).then(|| AnchorBuilder::new(piece.size));
        let mut buf = vec![0; piece.size.min(1 << 20) as usize];
        let mut at = 0;
        while at < piece.size {
            let n = store.read_payload(&piece.id, piece.size, at, &mut buf)?;
            if let Some(anchors) = &mut anchors {
                anchors.update(&buf[..n]);
            }
            if in_memory {
                whole.extend_from_slice(&buf[..n]);
            }
            at += n as u64;
        }
        Ok(Self {
            piece,
            bytes: in_memory.then(|| Arc::new(whole)),
            anchors: anchors.map(AnchorBuilder::finish),
        })
    }

    /// The part of the base that a block of the new payload most likely came from.
    fn window(&self, block: &[u8], position: u64) -> (u64, u64) {
        let size = self.piece.size;
        if size <= WHOLE_WINDOW {
            return (0, size);
        }
        let displacement = self
            .anchors
            .as_ref()
            .and_then(|anchors| anchors.displacement(block, position))
            .unwrap_or(0);
        let len = block.len() as u64;
        let from = position.saturating_add_signed(displacement.wrapping_neg());
        // A block past the end of the base is still most like the base's last bytes.
        let from = from.min(size.saturating_sub(len));
        let start = from.saturating_sub(PAD);
        (start, (from + len + PAD).min(size) - start)
    }

    fn window_bytes(&self, store: &Store, offset: u64, len: u64) -> Result<Cow<'_, [u8]>> {
        if let Some(bytes) = &self.bytes {
            return Ok(Cow::Borrowed(
                &bytes[offset as usize..(offset + len) as usize],
            ));
        }
        let mut window = vec![0; len as usize];
        store.read_payload(&self.piece.id, self.piece.size, offset, &mut window)?;
        Ok(Cow::Owned(window))
    }

    /// The delta record of a block of the new payload.
    pub(crate) fn delta(
        &self,
        store: &Store,
        block: &[u8],
        position: u64,
        level: i32,
    ) -> Result<Vec<u8>> {
        let (offset, len) = self.window(block, position);
        let window = self.window_bytes(store, offset, len)?;
        let frame = compress_with_prefix(block, &window, level).at(store.paths().packs_dir())?;
        let head = DeltaHead {
            base: self.piece.id,
            base_size: self.piece.size,
            offset,
            window: window.len() as u32,
            raw_len: block.len() as u32,
        };
        Ok(head.encode(&frame))
    }
}

/// Whether a delta is so small that nobody needs to ask what plain storing would take.
pub(crate) fn surely_pays(delta: usize, raw: usize) -> bool {
    delta * 10 <= raw
}

/// Whether a delta is enough smaller than what plain storing takes to be worth reading a base.
pub(crate) fn pays(delta: usize, plain: usize) -> bool {
    delta * 10 <= plain * 7
}

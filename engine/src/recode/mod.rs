//! Compressed payloads taken apart: plain bytes, and a recipe that makes the same file again.
//!
//! Two releases of a compressed file share almost nothing, their plain forms almost everything. The
//! recipe holds what a deterministic encoder needs to repeat itself: its settings, and corrections
//! where the file's own encoder chose differently. Nothing here knows the store.
//!
//! Every answer of [`undo`] was redone and compared. [`redo`] depends on the encoders linked in, so
//! their versions are part of the format: the tests hold recipes made earlier and fail if another
//! version does not understand them (docs/decisions/009-recoding.md).

mod cpio;
mod deflate;
mod recipe;
#[cfg(test)]
mod tests;
mod xz;
mod zst;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(crate) use recipe::Recipe;

use recipe::Part;

/// Largest payload: undoing holds it, its plain form and what is made again at the same time.
pub(crate) const MAX_SIZE: u64 = 64 << 20;

/// Largest plain form: what a machine that serves files can hold beside its caches.
pub(crate) const MAX_PLAIN: u64 = 256 << 20;

/// Smallest payload worth a look: below it, the recipe and the entry cost what is gained.
const MIN_SIZE: usize = 256;

/// A recipe may take at most this share (1/8) of the payload; real ones take 1 to 4 %.
const MAX_RECIPE_SHIFT: u32 = 3;

/// A payload in two parts.
#[derive(Debug)]
pub(crate) struct Undone {
    /// What was compressed.
    pub(crate) plain: Vec<u8>,
    /// How it was compressed.
    pub(crate) recipe: Recipe,
}

/// Does this beginning of a payload promise one that can be taken apart?
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    deflate::knows(head) || zst::knows(head) || xz::knows(head) || cpio::knows(head)
}

/// Does the file begin like one that can be taken apart? Saves reading all of the others.
pub(crate) fn is_compressed_file(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut head)?;
    Ok(is_compressed(&head))
}

/// Takes a payload apart if it is of a known format, can be made again exactly, and the recipe is
/// small enough.
pub(crate) fn undo(bytes: &[u8]) -> Option<Undone> {
    if bytes.len() < MIN_SIZE || bytes.len() as u64 > MAX_SIZE {
        return None;
    }
    let mut plain = Vec::new();
    let mut parts = Vec::new();
    let front = cpio::len(bytes);
    if front > 0 {
        parts.push(Part::Plain(front as u64));
        plain.extend_from_slice(&bytes[..front]);
    }
    let rest = &bytes[front..];
    if deflate::knows(rest) {
        deflate::undo(rest, &mut plain, &mut parts)?;
    } else if zst::knows(rest) {
        zst::undo(rest, &mut plain, &mut parts)?;
    } else if xz::knows(rest) {
        xz::undo(rest, &mut plain, &mut parts)?;
    } else {
        return None;
    }
    let recipe = Recipe { parts };
    let pays = recipe.encode().len() <= bytes.len() >> MAX_RECIPE_SHIFT;
    let exact = || redo(&plain, &recipe, bytes.len()).is_ok_and(|redone| redone == bytes);
    (plain.len() as u64 <= MAX_PLAIN && pays && exact()).then_some(Undone { plain, recipe })
}

/// Makes a payload of exactly `size` bytes again.
pub(crate) fn redo(plain: &[u8], recipe: &Recipe, size: usize) -> io::Result<Vec<u8>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rest = plain;
    let mut last: &[u8] = &[];
    let mut take = |len: u64| {
        let len = usize::try_from(len).map_err(|_| wrong("recipe for more plain bytes"))?;
        let (head, after) = rest
            .split_at_checked(len)
            .ok_or_else(|| wrong("recipe for more plain bytes"))?;
        rest = after;
        last = head;
        Ok::<_, io::Error>(head)
    };
    let mut out = Vec::new();
    let mut trailed: &[u8] = &[];
    for part in &recipe.parts {
        match part {
            Part::Verbatim(bytes) => out.extend_from_slice(bytes),
            Part::Plain(len) => out.extend_from_slice(take(*len)?),
            Part::Deflate { plain, corrections } => {
                trailed = take(*plain)?;
                let made = deflate::redo(trailed, corrections);
                out.extend(made.ok_or_else(|| wrong("recipe does not fit the plain bytes"))?);
            }
            Part::Trailer => out.extend_from_slice(&deflate::trailer(trailed)),
            Part::Zstd {
                plain,
                settings,
                corrections,
            } => {
                let made = zst::redo(take(*plain)?, *settings, corrections, size);
                out.extend(made.ok_or_else(|| wrong("recipe does not fit the plain bytes"))?);
            }
            Part::Xz { plain, settings } => {
                let made = xz::redo(take(*plain)?, *settings);
                out.extend(made.ok_or_else(|| wrong("recipe does not fit the plain bytes"))?);
            }
        }
        if out.len() > size {
            return Err(wrong("recipe makes more bytes than expected"));
        }
    }
    if out.len() != size || !rest.is_empty() {
        return Err(wrong("recipe makes another number of bytes than expected"));
    }
    Ok(out)
}

/// The plain form of a payload, without a recipe; `None` when it is not compressed or larger than
/// `limit`. Unlike [`undo`] this is fast, and works for every encoder.
pub(crate) fn decompress(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    decoder(bytes)?
        .take(limit + 1)
        .read_to_end(&mut plain)
        .ok()?;
    (plain.len() as u64 <= limit).then_some(plain)
}

/// The plain form that [`undo`] finds, without a recipe; `None` when there is none or it is larger
/// than `limit`. What follows the last gzip member or zstd frame is left out.
pub(crate) fn plain_form(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let (front, rest) = bytes.split_at(cpio::len(bytes));
    let left = limit.checked_sub(front.len() as u64)?;
    let plain = if deflate::knows(rest) {
        deflate::plain_form(rest, left)?
    } else if zst::knows(rest) {
        zst::plain_form(rest, left)?
    } else {
        decompress(rest, left)?
    };
    Some([front, &plain].concat())
}

/// Is there an archive inside, whose members may be stored elsewhere, too?
pub(crate) fn holds_archive(bytes: &[u8]) -> bool {
    let mut head = [0; 6];
    let rest = bytes.get(cpio::len(bytes)..).unwrap_or_default();
    decoder(rest).is_some_and(|mut plain| plain.read_exact(&mut head).is_ok()) && cpio::knows(&head)
}

fn decoder(bytes: &[u8]) -> Option<Box<dyn Read + '_>> {
    if deflate::knows(bytes) {
        Some(Box::new(flate2::read::MultiGzDecoder::new(bytes)))
    } else if zst::knows(bytes) {
        Some(Box::new(zstd::Decoder::with_buffer(bytes).ok()?))
    } else if xz::knows(bytes) {
        Some(Box::new(liblzma::read::XzDecoder::new(bytes)))
    } else {
        None
    }
}

//! gzip files: deflate streams between a header and a trailer, one or more members.
//!
//! A stream is kept as its plain bytes and what the predictor needs to make the same choices again
//! as its encoder made. The corrections are the predictor's own byte form, so its version is
//! pinned: another one is another part of the recipe.

use std::io::Read;
use std::panic;

use flate2::Crc;
use preflate_rs::PreflateConfig;

use super::recipe::Part;

/// Largest plain form of a gzip file. Undoing and redoing run at some 10 MB/s of plain bytes, and a
/// read must not take seconds.
const MAX_PLAIN: usize = 32 << 20;

/// How far the predictor looks back; what the slowest level of zlib and gzip does.
const MAX_CHAIN: u32 = 4096;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const TRAILER: usize = 8;

/// Is this the beginning of a gzip file?
pub(super) fn knows(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Length of the header of a member (RFC 1952, section 2.3).
fn header_len(bytes: &[u8]) -> Option<usize> {
    if !knows(bytes) {
        return None;
    }
    let flags = *bytes.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        let len = bytes.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for name_or_comment in [8, 16] {
        if flags & name_or_comment != 0 {
            at += 1 + bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Some(at)
}

/// CRC-32 and size of plain bytes, as a gzip member ends.
pub(super) fn trailer(plain: &[u8]) -> [u8; TRAILER] {
    let mut crc = Crc::new();
    crc.update(plain);
    let mut out = [0; TRAILER];
    out[..4].copy_from_slice(&crc.sum().to_le_bytes());
    out[4..].copy_from_slice(&(plain.len() as u32).to_le_bytes());
    out
}

/// The predictor's corrections, the plain bytes and the length of the stream at the front.
fn split(bytes: &[u8], limit: usize) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let config = PreflateConfig {
        max_chain_length: MAX_CHAIN,
        plain_text_limit: limit,
        verify_compression: false,
    };
    // The predictor is not free of panics on streams that no encoder writes.
    let split = panic::catch_unwind(|| preflate_rs::preflate_whole_deflate_stream(bytes, &config));
    let (stream, plain) = split.ok()?.ok()?;
    Some((
        stream.corrections,
        plain.text().to_vec(),
        stream.compressed_size,
    ))
}

/// What all members hold; what is no member at the end is left out.
pub(super) fn plain_form(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = bytes;
    while header_len(rest).is_some() {
        let mut member = flate2::bufread::GzDecoder::new(rest);
        let left = limit - plain.len() as u64;
        (&mut member).take(left + 1).read_to_end(&mut plain).ok()?;
        if plain.len() as u64 > limit {
            return None;
        }
        rest = member.into_inner();
    }
    Some(plain)
}

/// A deflate stream again, from its plain bytes; `None` if the corrections do not fit them.
pub(super) fn redo(plain: &[u8], corrections: &[u8]) -> Option<Vec<u8>> {
    let redone =
        panic::catch_unwind(|| preflate_rs::recreate_whole_deflate_stream(plain, corrections));
    redone.ok()?.ok()
}

/// Takes all members; what is no member at the end stays as it is.
pub(super) fn undo(bytes: &[u8], plain: &mut Vec<u8>, parts: &mut Vec<Part>) -> Option<()> {
    let mut rest = bytes;
    while let Some(header) = header_len(rest) {
        let (head, body) = rest.split_at_checked(header)?;
        let limit = MAX_PLAIN.checked_sub(plain.len())?;
        let (corrections, text, len) = split(body, limit)?;
        let after = body.get(len..)?;
        // Also says that the stream was read to its end.
        if !after.starts_with(&trailer(&text)) || text.len() > limit {
            return None;
        }
        parts.push(Part::Verbatim(head.to_vec()));
        parts.push(Part::Deflate {
            plain: text.len() as u64,
            corrections,
        });
        parts.push(Part::Trailer);
        plain.extend_from_slice(&text);
        rest = &after[TRAILER..];
    }
    if !rest.is_empty() {
        parts.push(Part::Verbatim(rest.to_vec()));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_measured_with_all_their_fields() {
        let cases: [(u8, &[u8], Option<usize>); 6] = [
            (0, b"", Some(10)),
            (8, b"name\0", Some(15)),
            (4 | 8 | 16 | 2, b"\x02\0xxn\0c\0hc", Some(20)),
            (8, b"name", None),
            (4, b"\xff", None),
            (2, b"", Some(12)),
        ];
        for (flags, fields, len) in cases {
            let fixed = [&MAGIC[..], &[flags, 0, 0, 0, 0, 2, 3], fields].concat();
            assert_eq!(header_len(&fixed), len, "{flags} {fields:?}");
        }
        assert_eq!(header_len(b"\x1f\x8b\x09"), None);
    }
}

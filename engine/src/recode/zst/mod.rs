//! zstd files: frames, made again by our own encoder and corrections.

mod bits;
mod block;
mod corrections;
mod fse;
mod huffman;

use std::io::{self, Read};

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, compress_bound};

use block::{Block, Choices, Tables};

use super::recipe::Part;

const MAGIC: [u8; 4] = 0xfd2f_b528u32.to_le_bytes();

/// Plain bytes that the search for a level looks at; two blocks.
const HEAD: usize = 256 << 10;

/// What programs that read in pieces give the encoder at a time.
const PIECE: usize = 128 << 10;

/// Threads of the encoder that works in jobs. What it writes depends on its jobs, which have one size
/// whatever the number of threads is.
const MAX_WORKERS: usize = 4;

/// Room for what a flush adds.
const SLACK: usize = 1 << 10;

/// Levels in the order in which they are likely.
const LEVELS: [u8; 19] = [
    3, 19, 9, 15, 1, 6, 10, 12, 18, 2, 4, 5, 7, 8, 11, 13, 14, 16, 17,
];

/// Largest plain forms by level, so that no payload takes more than some ten seconds to make.
fn max_plain(level: u8) -> usize {
    match level {
        0..=12 => 512 << 20,
        13..=15 => 128 << 20,
        _ => 16 << 20,
    }
}

/// Is this the beginning of a frame?
pub(super) fn knows(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Length of the header of a frame without a dictionary.
fn header_len(frame: &[u8]) -> Option<usize> {
    let descriptor = *frame.get(4)?;
    let single = descriptor & 0x20 != 0;
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let len = 5 + usize::from(!single) + size;
    (knows(frame) && descriptor & 0x0b == 0 && frame.len() >= len).then_some(len)
}

/// Length of the frame at the front, and of its plain bytes.
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut rest = bytes.get(header_len(bytes)?..)?;
    let (mut tables, mut plain) = (Tables::default(), 0);
    loop {
        let block = Block::take(&mut rest)?;
        plain += match block.kind {
            2 => Choices::read(block.content(), &mut tables)?.1,
            _ => block.size,
        };
        if plain as u64 > super::MAX_PLAIN {
            return None;
        }
        if block.last {
            break;
        }
    }
    let checksum = if bytes[4] & 4 != 0 { 4 } else { 0 };
    let len = bytes.len() - rest.len() + checksum;
    (len <= bytes.len()).then_some((len, plain))
}

/// How the bytes are given to the encoder, which changes what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All at once.
    Whole = 0,
    /// In pieces.
    Pieces = 1,
    /// In pieces, to the encoder that works in jobs.
    Jobs = 2,
}

/// Settings of the encoder.
#[derive(Debug, Clone, Copy)]
struct Settings {
    level: u8,
    mode: Mode,
    checksum: bool,
    sized: bool,
}

impl Settings {
    fn to_number(self) -> u64 {
        u64::from(self.level)
            | (self.mode as u64) << 5
            | u64::from(self.checksum) << 7
            | u64::from(self.sized) << 8
    }

    fn from_number(number: u64) -> Option<Self> {
        let settings = Self {
            level: (number & 0x1f) as u8,
            mode: match number >> 5 & 3 {
                0 => Mode::Whole,
                1 => Mode::Pieces,
                2 => Mode::Jobs,
                _ => return None,
            },
            checksum: number >> 7 & 1 != 0,
            sized: number >> 8 & 1 != 0,
        };
        let known = LEVELS.contains(&settings.level) && settings.to_number() == number;
        known.then_some(settings)
    }

    /// Encodes the bytes, or only the first ones of `len`, as far as whole blocks go.
    fn encode(self, plain: &[u8], len: usize) -> io::Result<Vec<u8>> {
        let workers = rayon::current_num_threads().min(MAX_WORKERS);
        self.encode_with(workers, plain, len)
    }

    fn encode_with(self, workers: usize, plain: &[u8], len: usize) -> io::Result<Vec<u8>> {
        let failed = |code| io::Error::other(zstd::zstd_safe::get_error_name(code));
        let mut context = CCtx::try_create().ok_or_else(|| io::Error::other("no memory"))?;
        let mut parameters = vec![
            CParameter::CompressionLevel(i32::from(self.level)),
            CParameter::ChecksumFlag(self.checksum),
            CParameter::ContentSizeFlag(self.sized),
        ];
        if self.mode == Mode::Jobs {
            parameters.push(CParameter::NbWorkers(workers as u32));
        }
        for parameter in parameters {
            context.set_parameter(parameter).map_err(failed)?;
        }
        let mut out = Vec::with_capacity(compress_bound(plain.len()) + SLACK);
        let whole = plain.len() == len;
        if self.mode == Mode::Whole && whole {
            context.compress2(&mut out, plain).map_err(failed)?;
            return Ok(out);
        }
        let size = Some(len as u64).filter(|_| self.sized);
        context.set_pledged_src_size(size).map_err(failed)?;
        let mut at = 0;
        for piece in plain.chunks(PIECE) {
            let mut input = InBuffer::around(piece);
            while input.pos() < piece.len() {
                let mut output = OutBuffer::around_pos(&mut out, at);
                let go_on = ZSTD_EndDirective::ZSTD_e_continue;
                context
                    .compress_stream2(&mut output, &mut input, go_on)
                    .map_err(failed)?;
                at = output.pos();
            }
        }
        let end = match whole {
            true => ZSTD_EndDirective::ZSTD_e_end,
            false => ZSTD_EndDirective::ZSTD_e_flush,
        };
        loop {
            let mut output = OutBuffer::around_pos(&mut out, at);
            let mut input = InBuffer::around(&[]);
            let left = context
                .compress_stream2(&mut output, &mut input, end)
                .map_err(failed)?;
            at = output.pos();
            if left == 0 {
                return Ok(out);
            }
        }
    }
}

/// The level whose choices at the beginning are most like those of the frame.
fn guess_level(frame: &[u8], plain: &[u8]) -> Option<u8> {
    let header = &frame[..header_len(frame)?];
    let head = &plain[..plain.len().min(HEAD)];
    let mut best = None;
    for level in LEVELS {
        if plain.len() > max_plain(level) {
            continue;
        }
        let settings = settings(frame, level, Mode::Pieces);
        let predicted = settings.encode(head, plain.len()).ok()?;
        if !predicted.starts_with(header) {
            continue;
        }
        let misses = corrections::misses(frame, &predicted)?;
        if misses == 0 {
            return Some(level);
        }
        if best.is_none_or(|(least, _)| misses < least) {
            best = Some((misses, level));
        }
    }
    best.map(|(_, level)| level)
}

fn settings(frame: &[u8], level: u8, mode: Mode) -> Settings {
    let descriptor = frame[4];
    Settings {
        level,
        mode,
        checksum: descriptor & 4 != 0,
        sized: descriptor & 0xe0 != 0,
    }
}

/// The best settings for a frame, and the corrections that are left.
fn explain(frame: &[u8], plain: &[u8]) -> Option<(Settings, Vec<u8>)> {
    let level = guess_level(frame, plain)?;
    let mut best: Option<(Settings, Vec<u8>)> = None;
    for mode in [Mode::Jobs, Mode::Pieces, Mode::Whole] {
        let settings = settings(frame, level, mode);
        let predicted = settings.encode(plain, plain.len()).ok()?;
        let Some(found) = corrections::find(frame, &predicted, plain) else {
            continue;
        };
        let good = found.len() <= frame.len() / 32;
        if best
            .as_ref()
            .is_none_or(|(_, best)| found.len() < best.len())
        {
            best = Some((settings, found));
        }
        if good {
            break;
        }
    }
    best
}

/// Takes all frames; what is none at the end stays as it is.
pub(super) fn undo(bytes: &[u8], plain: &mut Vec<u8>, parts: &mut Vec<Part>) -> Option<()> {
    let mut rest = bytes;
    while knows(rest) {
        let (len, size) = measure(rest)?;
        let (frame, after) = rest.split_at(len);
        let text = zstd::bulk::decompress(frame, size).ok()?;
        if text.len() != size || (plain.len() + size) as u64 > super::MAX_PLAIN {
            return None;
        }
        let (settings, corrections) = explain(frame, &text)?;
        parts.push(Part::Zstd {
            plain: size as u64,
            settings: settings.to_number(),
            corrections,
        });
        plain.extend_from_slice(&text);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Verbatim(rest.to_vec()));
    }
    Some(())
}

/// What all frames hold; what is none at the end is left out.
pub(super) fn plain_form(bytes: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = bytes;
    while knows(rest) {
        let mut frame = zstd::Decoder::with_buffer(rest).ok()?.single_frame();
        let left = limit - plain.len() as u64;
        (&mut frame).take(left + 1).read_to_end(&mut plain).ok()?;
        if plain.len() as u64 > limit {
            return None;
        }
        rest = frame.finish();
    }
    Some(plain)
}

/// A frame again, from its plain bytes; `None` if the recipe does not fit them, or if it gets longer
/// than `size`.
pub(super) fn redo(
    plain: &[u8],
    settings: u64,
    corrections: &[u8],
    size: usize,
) -> Option<Vec<u8>> {
    let settings = Settings::from_number(settings)?;
    if plain.len() > max_plain(settings.level) {
        return None;
    }
    let predicted = settings.encode(plain, plain.len()).ok()?;
    corrections::apply(corrections, predicted, plain, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recode::tests::text;

    #[test]
    fn the_number_of_threads_does_not_change_what_is_made() {
        // Level 1 has jobs of 2 MiB.
        let plain = text(1_600_000);
        assert!(plain.len() > 5 << 20);
        let settings = Settings {
            level: 1,
            mode: Mode::Jobs,
            checksum: true,
            sized: false,
        };
        let made = |workers| settings.encode_with(workers, &plain, plain.len()).unwrap();
        let one = made(1);
        assert!((2..=MAX_WORKERS).all(|workers| made(workers) == one));
    }
}

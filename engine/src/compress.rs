//! Compression of blocks: which codec, when it pays, and decoding within known bounds.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// zstd level of everything written by a commit; higher levels are a matter of repacking.
pub(crate) const LEVEL: i32 = 3;

/// Bytes from the middle of a block that the compressibility probe looks at.
const PROBE_SIZE: usize = 16 * 1024;

/// Windows of [`compress_far`]: the smallest that zstd takes, what the tables of its high levels reach
/// over, and what its decoders take without being asked.
const MIN_WINDOW_LOG: u32 = 10;
const LEVEL_WINDOW_LOG: u32 = 23;
const MAX_WINDOW_LOG: u32 = 27;

/// A codec must save at least this share (1/32, about 3 %) to be worth decoding later.
const MIN_GAIN_SHIFT: u32 = 5;

/// How the bytes of a block are stored. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    /// The codec with this number, if known.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd]
            .into_iter()
            .find(|c| *c as u8 == tag)
    }
}

thread_local! {
    static COMPRESSORS: RefCell<Vec<(i32, Compressor<'static>)>> = const { RefCell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn pays(raw: usize, stored: usize) -> bool {
    stored < raw - (raw >> MIN_GAIN_SHIFT)
}

/// Compresses with this thread's context for a level.
fn at_level(level: i32, raw: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSORS.with_borrow_mut(|slots| {
        let at = match slots.iter().position(|(own, _)| *own == level) {
            Some(at) => at,
            None => {
                slots.push((level, Compressor::new(level)?));
                slots.len() - 1
            }
        };
        slots[at].1.compress(raw)
    })
}

/// Compresses a block; gives it back raw where compression does not pay.
pub(crate) fn compress(raw: &[u8], level: i32) -> io::Result<(Codec, Vec<u8>)> {
    if raw.len() > 4 * PROBE_SIZE {
        let middle = (raw.len() - PROBE_SIZE) / 2;
        let sample = &raw[middle..middle + PROBE_SIZE];
        let head = &raw[..PROBE_SIZE];
        let dense = |sample: &[u8]| at_level(1, sample).map(|out| !pays(PROBE_SIZE, out.len()));
        if dense(sample)? && dense(head)? {
            return Ok((Codec::Raw, raw.to_vec()));
        }
    }
    let stored = at_level(level, raw)?;
    if pays(raw.len(), stored.len()) {
        Ok((Codec::Zstd, stored))
    } else {
        Ok((Codec::Raw, raw.to_vec()))
    }
}

/// Decodes a block that must come out exactly `raw_len` bytes long into an empty buffer with room for
/// them. After an error `out` may hold anything.
pub(crate) fn decompress(
    codec: Codec,
    stored: &[u8],
    raw_len: usize,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    match codec {
        Codec::Raw => {
            check_size(stored.len(), raw_len)?;
            out.extend_from_slice(stored);
        }
        Codec::Zstd => {
            with_decompressor(|context| context.decompress_to_buffer(stored, out))?;
        }
    }
    check_size(out.len(), raw_len)
}

/// Decodes a block that must fill `out` exactly. After an error `out` may hold anything.
pub(crate) fn decompress_into(codec: Codec, stored: &[u8], out: &mut [u8]) -> io::Result<()> {
    match codec {
        Codec::Raw => {
            check_size(stored.len(), out.len())?;
            out.copy_from_slice(stored);
            Ok(())
        }
        Codec::Zstd => {
            let len = with_decompressor(|context| context.decompress_to_buffer(stored, out))?;
            check_size(len, out.len())
        }
    }
}

/// Lends this thread's context: making one costs as much as decoding some ten KiB.
fn with_decompressor<T>(
    decode: impl FnOnce(&mut Decompressor<'static>) -> io::Result<T>,
) -> io::Result<T> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new()?);
        }
        decode(slot.as_mut().expect("because it was just filled"))
    })
}

fn check_size(found: usize, wanted: usize) -> io::Result<()> {
    if found == wanted {
        return Ok(());
    }
    let what = "decoded size differs from what is recorded";
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Compresses with a prefix that the decoder must have, too. The frame carries a checksum, so a
/// wrong prefix is noticed.
pub(crate) fn compress_with_prefix(raw: &[u8], prefix: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut context = CCtx::create();
    let mut out = Vec::with_capacity(compress_bound(raw.len()));
    context
        .set_parameter(CParameter::CompressionLevel(level))
        .and_then(|_| context.set_parameter(CParameter::ChecksumFlag(true)))
        .and_then(|_| context.ref_prefix(prefix))
        .and_then(|_| context.compress2(&mut out, raw))
        .map_err(zstd_error)?;
    Ok(out)
}

/// Compresses with a window that reaches back over everything, a prefix included that the decoder must
/// have, too. Takes the memory that such a window needs; the frame carries no checksum.
pub(crate) fn compress_far(raw: &[u8], prefix: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let reach = (raw.len() + prefix.len()).max(1).next_power_of_two();
    let window = reach.ilog2().clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG);
    let mut context = CCtx::create();
    let mut out = Vec::with_capacity(compress_bound(raw.len()));
    context
        .set_parameter(CParameter::CompressionLevel(level))
        .and_then(|_| context.set_parameter(CParameter::WindowLog(window)))
        .and_then(|_| {
            // Without it, matches are found as far back as the tables of the level reach.
            let far = window > LEVEL_WINDOW_LOG;
            context.set_parameter(CParameter::EnableLongDistanceMatching(far))
        })
        .and_then(|_| context.ref_prefix(prefix))
        .and_then(|_| context.compress2(&mut out, raw))
        .map_err(zstd_error)?;
    Ok(out)
}

/// Decodes what [`compress_with_prefix`] or [`compress_far`] made; it must fill `out` exactly. After
/// an error `out` may hold anything.
pub(crate) fn decompress_with_prefix(
    frame: &[u8],
    prefix: &[u8],
    out: &mut [u8],
) -> io::Result<()> {
    // The context borrows the prefix, so it cannot outlive this call.
    let mut context = DCtx::create();
    let len = context
        .ref_prefix(prefix)
        .and_then(|_| context.decompress(out, frame))
        .map_err(zstd_error)?;
    check_size(len, out.len())
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_makes_a_small_frame_that_needs_it() {
        let base: Vec<u8> = (0..100_000u64)
            .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) as u32).to_be_bytes())
            .collect();
        let mut raw = base[1000..200_000].to_vec();
        raw[77_777] ^= 1;
        let frame = compress_with_prefix(&raw, &base, LEVEL).unwrap();
        assert!(frame.len() < 200, "{}", frame.len());
        let decode = |frame: &[u8], base: &[u8], len: usize| {
            let mut out = vec![0; len];
            decompress_with_prefix(frame, base, &mut out).map(|()| out)
        };
        assert_eq!(decode(&frame, &base, raw.len()).unwrap(), raw);
        assert!(decode(&frame, &base, raw.len() - 1).is_err());
        assert!(decode(&frame, &base, raw.len() + 1).is_err());
        assert!(decode(&frame, &base[..base.len() - 1], raw.len()).is_err());
        assert!(decode(&frame[..20], &base, raw.len()).is_err());
    }

    #[test]
    fn incompressible_blocks_are_stored_raw_and_text_is_not() {
        let mut noise = vec![0u8; 300_000];
        let mut state = 1u64;
        for byte in &mut noise {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
        let text = b"the quick brown fox ".repeat(20_000);
        for (raw, codec) in [
            (noise, Codec::Raw),
            (text, Codec::Zstd),
            (Vec::new(), Codec::Raw),
        ] {
            let (found, stored) = compress(&raw, LEVEL).unwrap();
            assert_eq!(found, codec);
            let mut out = Vec::with_capacity(raw.len());
            decompress(found, &stored, raw.len(), &mut out).unwrap();
            assert_eq!(out, raw);
            let mut out = vec![0; raw.len()];
            decompress_into(found, &stored, &mut out).unwrap();
            assert_eq!(out, raw);
        }
    }

    #[test]
    fn a_wrong_size_is_an_error() {
        for raw in [vec![7u8; 1000], b"\x00\x01\x02".to_vec()] {
            let (codec, stored) = compress(&raw, LEVEL).unwrap();
            for wrong in [raw.len() - 1, raw.len() + 1] {
                let mut out = Vec::with_capacity(2 * raw.len());
                assert!(decompress(codec, &stored, wrong, &mut out).is_err());
                assert!(decompress_into(codec, &stored, &mut vec![0; wrong]).is_err());
            }
        }
    }
}

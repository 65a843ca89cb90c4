//! Compression of blocks: which codec, when it pays, and decoding within known bounds.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// zstd level of everything written by a commit; higher levels are a matter of repacking.
pub(crate) const LEVEL: i32 = 3;

/// Bytes from the middle of a block that the compressibility probe looks at.
const PROBE_SIZE: usize = 16 * 1024;

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
    /// One zstd frame whose prefix is a window of a base payload. Reserved: read support comes
    /// with windowed deltas, and the block header has room for the base reference.
    ZstdDelta = 2,
}

impl Codec {
    /// The codec with this number, if known.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd, Self::ZstdDelta]
            .into_iter()
            .find(|c| *c as u8 == tag)
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static PROBE: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn pays(raw: usize, stored: usize) -> bool {
    stored < raw - (raw >> MIN_GAIN_SHIFT)
}

fn with_compressor<R>(
    slot: &'static std::thread::LocalKey<RefCell<Option<Compressor<'static>>>>,
    level: i32,
    run: impl FnOnce(&mut Compressor<'static>) -> io::Result<R>,
) -> io::Result<R> {
    slot.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Compressor::new(level)?);
        }
        run(slot.as_mut().expect("because it was just filled"))
    })
}

/// Compresses a block; gives it back raw where compression does not pay.
pub(crate) fn compress(raw: &[u8]) -> io::Result<(Codec, Vec<u8>)> {
    if raw.len() > 4 * PROBE_SIZE {
        let middle = (raw.len() - PROBE_SIZE) / 2;
        let sample = &raw[middle..middle + PROBE_SIZE];
        let head = &raw[..PROBE_SIZE];
        let dense = |sample: &[u8]| {
            with_compressor(&PROBE, 1, |c| c.compress(sample))
                .map(|out| !pays(PROBE_SIZE, out.len()))
        };
        if dense(sample)? && dense(head)? {
            return Ok((Codec::Raw, raw.to_vec()));
        }
    }
    let stored = with_compressor(&COMPRESSOR, LEVEL, |c| c.compress(raw))?;
    if pays(raw.len(), stored.len()) {
        Ok((Codec::Zstd, stored))
    } else {
        Ok((Codec::Raw, raw.to_vec()))
    }
}

/// Decodes a block that must come out exactly `raw_len` bytes long.
pub(crate) fn decompress(codec: Codec, stored: Vec<u8>, raw_len: usize) -> io::Result<Vec<u8>> {
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let raw = match codec {
        Codec::Raw => stored,
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = Some(Decompressor::new()?);
            }
            let decompressor = slot.as_mut().expect("because it was just filled");
            decompressor.decompress(&stored, raw_len)
        })?,
        Codec::ZstdDelta => return wrong("delta blocks are not supported by this version"),
    };
    if raw.len() != raw_len {
        return wrong("decoded size differs from the block header");
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let (found, stored) = compress(&raw).unwrap();
            assert_eq!(found, codec);
            assert_eq!(decompress(found, stored, raw.len()).unwrap(), raw);
        }
    }

    #[test]
    fn a_wrong_size_is_an_error() {
        let (codec, stored) = compress(&[7u8; 1000]).unwrap();
        assert!(decompress(codec, stored.clone(), 999).is_err());
        assert!(decompress(codec, stored, 1001).is_err());
    }
}

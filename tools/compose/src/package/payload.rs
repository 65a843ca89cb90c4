//! Decompression of payloads with bounded memory.
//!
//! Owns the choice of codec and its limits. The stream's own magic number decides; the header's
//! word is only needed for LZMA1, which has none.

use std::io::{BufRead, BufReader, Read};

use liblzma::stream::{CONCATENATED, Stream};

use super::PackageError;

/// Memory that an xz or LZMA1 decoder may take; the largest preset needs 65 MiB.
const LZMA_MEMORY: u64 = 128 << 20;
/// Largest zstd window, as a power of two: 128 MiB, what `zstd --ultra -22` uses.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 128 << 10;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// A bare cpio archive.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// LZMA1 (`.lzma`).
    Lzma,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Tells from a payload's first bytes and from the header's `PAYLOADCOMPRESSOR`.
    pub fn detect(start: &[u8], declared: &str) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            [b'0', b'7', b'0', b'7', b'0', ..] => Some(Self::None),
            _ if declared == "lzma" => Some(Self::Lzma),
            _ => None,
        }
    }
}

/// A buffered reader of the plain archive inside `input`.
pub(super) fn decompress<'r>(
    input: impl Read + 'r,
    declared: &str,
) -> Result<BufReader<Box<dyn Read + 'r>>, PackageError> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let start = input.fill_buf()?;
    let start = start.get(..8).unwrap_or(start).to_vec();
    let codec =
        Compression::detect(&start, declared).ok_or_else(|| PackageError::UnknownCompression {
            declared: declared.to_owned(),
        })?;
    let plain: Box<dyn Read + 'r> = match codec {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(LZMA_MEMORY, CONCATENATED);
            Box::new(liblzma::bufread::XzDecoder::new_stream(
                input,
                codec_ready(stream)?,
            ))
        }
        Compression::Lzma => {
            let stream = Stream::new_lzma_decoder(LZMA_MEMORY);
            Box::new(liblzma::bufread::XzDecoder::new_stream(
                input,
                codec_ready(stream)?,
            ))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok(BufReader::with_capacity(BUFFER, plain))
}

fn codec_ready(stream: Result<Stream, liblzma::stream::Error>) -> Result<Stream, PackageError> {
    stream.map_err(|source| PackageError::Decompress {
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PLAIN: &[u8] = b"070701 and so on, twice";

    fn check(packed: Vec<u8>, declared: &str) {
        let mut out = Vec::new();
        decompress(&packed[..], declared)
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, PLAIN, "{declared}");
    }

    #[test]
    fn every_codec_decodes_also_in_several_members() {
        let (a, b) = PLAIN.split_at(7);
        let twice = |pack: fn(&[u8]) -> Vec<u8>| [pack(a), pack(b)].concat();
        check(PLAIN.to_vec(), "");
        check(twice(|d| zstd::encode_all(d, 3).unwrap()), "zstd");
        check(
            twice(|d| {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                e.write_all(d).unwrap();
                e.finish().unwrap()
            }),
            "gzip",
        );
        check(
            twice(|d| {
                let mut e = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                e.write_all(d).unwrap();
                e.finish().unwrap()
            }),
            "bzip2",
        );
        check(
            twice(|d| {
                let mut e = liblzma::write::XzEncoder::new(Vec::new(), 1);
                e.write_all(d).unwrap();
                e.finish().unwrap()
            }),
            "xz",
        );
        let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        let stream = Stream::new_lzma_encoder(&options).unwrap();
        let mut e = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        e.write_all(PLAIN).unwrap();
        check(e.finish().unwrap(), "lzma");
    }

    #[test]
    fn unknown_compression_is_refused() {
        let error = decompress(&b"garbage!"[..], "lzip").err().unwrap();
        assert!(error.to_string().contains("lzip"), "{error}");
    }
}

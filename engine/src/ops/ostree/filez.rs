//! Content of `.filez` objects: raw DEFLATE. The one place that compresses, so that a size that is
//! predicted is the size that is written; and the reader, which trusts no declared size.

use std::io::{self, BufRead, Read, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};

/// OSTree's default.
pub(super) const LEVEL: u32 = 6;
/// DEFLATE does not expand by more than this.
const MAX_RATIO: u64 = 1032;
const BUFFER: usize = 128 << 10;

/// Compresses everything that `read` gives until it gives nothing.
pub(crate) fn deflate<W: Write, E: From<io::Error>>(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    out: W,
) -> Result<W, E> {
    let mut encoder = DeflateEncoder::new(out, Compression::new(LEVEL));
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = read(&mut buffer)?;
        let Some(bytes) = buffer.get(..n).filter(|_| n > 0) else {
            return Ok(encoder.finish()?);
        };
        encoder.write_all(bytes)?;
    }
}

/// Counts what is written.
#[derive(Debug, Default)]
pub(crate) struct Counter(pub(crate) u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `packed` bytes can be as much as `size` bytes of content.
pub(super) fn is_possible(packed: u64, size: u64) -> bool {
    size <= packed.saturating_mul(MAX_RATIO)
}

/// Gives exactly the declared number of bytes, or an error: when there are fewer or more of them,
/// when the stream is cut, and when anything follows it.
#[derive(Debug)]
pub(super) struct Inflate<R> {
    from: R,
    decoder: Decompress,
    left: u64,
    ended: bool,
}

impl<R: BufRead> Inflate<R> {
    pub(super) fn new(from: R, size: u64) -> Self {
        Self {
            from,
            decoder: Decompress::new(false),
            left: size,
            ended: false,
        }
    }

    /// Decodes at least one byte, or to the end of the stream.
    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let input = self.from.fill_buf()?;
            let at_end = input.is_empty();
            let (seen, made) = (self.decoder.total_in(), self.decoder.total_out());
            let flush = if at_end {
                FlushDecompress::Finish
            } else {
                FlushDecompress::None
            };
            let status = self
                .decoder
                .decompress(input, out, flush)
                .map_err(invalid)?;
            // Both are within the two buffers.
            self.from.consume((self.decoder.total_in() - seen) as usize);
            let made = (self.decoder.total_out() - made) as usize;
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(made);
            }
            if at_end && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            if self.decode(&mut [0])? > 0 {
                return Err(invalid("more content than the header declares"));
            }
            if !self.from.fill_buf()?.is_empty() {
                return Err(invalid("bytes follow the compressed content"));
            }
            return Ok(0);
        }
        let wanted = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.decode(buf.get_mut(..wanted).unwrap_or_default())?;
        if n == 0 {
            return Err(invalid("less content than the header declares"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut rest = content;
        deflate::<_, io::Error>(|buf| rest.read(buf), Vec::new()).unwrap()
    }

    #[test]
    fn streams_are_those_that_ostree_writes() {
        assert_eq!(packed(b""), [0x03, 0x00]);
        assert_eq!(
            packed(b"hello\n"),
            [0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xe7, 0x02, 0x00]
        );
    }

    #[test]
    fn only_the_declared_content_is_given() {
        let content = b"all work and no play ".repeat(10_000);
        let good = packed(&content);
        let read = |bytes: &[u8], size: usize| {
            let mut out = Vec::new();
            Inflate::new(bytes, size as u64)
                .read_to_end(&mut out)
                .map(|_| out)
        };
        assert_eq!(read(&good, content.len()).unwrap(), content);
        assert!(read(&good, content.len() - 1).is_err());
        assert!(read(&good, content.len() + 1).is_err());
        assert!(read(&good[..good.len() - 1], content.len()).is_err());
        assert!(read(&[&good[..], b"x"].concat(), content.len()).is_err());
        assert!(read(b"", 0).is_err());
        assert!(is_possible(good.len() as u64, content.len() as u64));
        assert!(!is_possible(10, 1 << 20));
    }
}

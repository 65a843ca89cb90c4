//! The bytes of one archive entry: exactly as many as it has, hashed on the way.
//!
//! Owns the distinction between a reader that fails because the package is bad and one that fails
//! because of its user: the former is kept and reported by [`Content::take_failure`].

use std::io::{self, Read};

use super::digest::{Expected, Hashing};
use super::{PackageError, copy_all, cpio};

/// Bytes after the archive's end that are tolerated as padding.
const MAX_PADDING: u64 = 64 << 10;

/// An archive entry matched to the header's.
pub(super) struct Found {
    pub at: usize,
    /// Bytes of content in the archive.
    pub size: u64,
    /// Whether the archive counts several names.
    pub linked: bool,
    /// Sum of all content bytes, if the archive has it.
    pub sum: Option<u32>,
}

/// The content of one file: exactly its size, hashed on the way.
pub(super) struct Content<'r, R> {
    inner: Hashing<&'r mut R>,
    left: u64,
    /// Sum of the bytes, where the archive gives one to compare.
    sum: Option<u32>,
    failure: Option<PackageError>,
}

impl<'r, R: Read> Content<'r, R> {
    pub fn new(input: &'r mut R, found: &Found, expected: Option<&Expected>) -> Self {
        Self {
            inner: Hashing::new(input, expected),
            left: found.size,
            sum: found.sum.map(|_| 0),
            failure: None,
        }
    }

    /// Why the package cannot be read, if that is why a read failed.
    pub fn take_failure(&mut self) -> Option<PackageError> {
        self.failure.take()
    }

    /// Skips what was not read, and compares the digest.
    pub fn finish(
        mut self,
        found: &Found,
        expected: Option<&Expected>,
        path: &str,
    ) -> Result<(), PackageError> {
        // The usual case needs no buffer: everything was read.
        let rest = if self.left > 0 {
            copy_all(&mut self)
        } else {
            Ok(())
        };
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        rest?;
        if found.sum != self.sum {
            return Err(PackageError::entry(
                path,
                "the archive's checksum does not match",
            ));
        }
        self.inner.finish(expected, path)
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..want).filter(|b| !b.is_empty()) else {
            return Ok(0);
        };
        let count = match self.inner.read(buffer) {
            Ok(0) => Err(cpio::archive("it ends inside a file")),
            Ok(count) => Ok(count),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => return Err(source),
            Err(source) => Err(PackageError::Decompress { source }),
        };
        let count = count.map_err(|failure| {
            self.failure = Some(failure);
            io::Error::other("the package cannot be read")
        })?;
        self.left -= count as u64;
        let passed = buffer.get(..count).unwrap_or_default();
        if let Some(sum) = &mut self.sum {
            *sum = passed
                .iter()
                .fold(*sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        }
        Ok(count)
    }
}

/// The target of a symbolic link; longer ones than any system allows are refused.
pub(super) fn read_target(input: &mut impl Read, size: u64) -> Result<Vec<u8>, PackageError> {
    if size > 4096 {
        return Err(cpio::archive("a symbolic link of more than 4096 bytes"));
    }
    let mut target = Vec::new();
    let count = input
        .take(size)
        .read_to_end(&mut target)
        .map_err(|source| PackageError::Decompress { source })?;
    if (count as u64) < size {
        return Err(cpio::archive("it ends inside a symbolic link"));
    }
    Ok(target)
}

/// Reads what follows the archive, so that the codec checks its end.
pub(super) fn drain(input: &mut impl Read) -> Result<(), PackageError> {
    let count = io::copy(&mut input.take(MAX_PADDING + 1), &mut io::sink())
        .map_err(|source| PackageError::Decompress { source })?;
    if count > MAX_PADDING {
        return Err(cpio::archive("data after its end"));
    }
    Ok(())
}

//! The payload's archive format: cpio "newc" (070701), with checksums (070702), and rpm's
//! stripped form (07070X) whose entries only carry an index into the header's file list.
//!
//! Owns the parsing of entry headers; content is left in the reader. Never allocates by a number
//! from the file beyond `MAX_NAME`.

use std::io::{self, Read};

use super::PackageError;

/// Longest name accepted, in bytes.
const MAX_NAME: u32 = 4096 + 2;
const TRAILER: &[u8] = b"TRAILER!!!";

/// One entry's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A named entry.
    Named {
        /// As in the archive, without the trailing NUL.
        name: Vec<u8>,
        /// `st_mode`.
        mode: u32,
        /// Number of names of the file.
        links: u32,
        /// Bytes of content that follow.
        size: u32,
        /// Sum of all content bytes, in archives that carry it.
        sum: Option<u32>,
    },
    /// An entry that stands for a file of the header, by its index.
    Stripped {
        /// Index in the header's file list.
        index: u32,
    },
    /// The end of the archive.
    Trailer,
}

impl Record {
    /// Reads the next entry header, up to the first byte of content.
    pub fn read(input: &mut impl Read) -> Result<Self, PackageError> {
        let mut magic = [0u8; 6];
        fill(input, &mut magic)?;
        match &magic {
            b"070701" => Self::read_named(input, false),
            b"070702" => Self::read_named(input, true),
            b"07070X" => {
                let mut rest = [0u8; 10];
                fill(input, &mut rest)?;
                Ok(Self::Stripped {
                    index: hex(rest.get(..8).unwrap_or_default())?,
                })
            }
            _ => Err(archive("wrong magic number of an entry")),
        }
    }

    fn read_named(input: &mut impl Read, summed: bool) -> Result<Self, PackageError> {
        let mut fields = [0u8; 13 * 8];
        fill(input, &mut fields)?;
        let field = |at: usize| hex(fields.get(at * 8..at * 8 + 8).unwrap_or_default());
        let (mode, links, size) = (field(1)?, field(4)?, field(6)?);
        let (name_size, sum) = (field(11)?, field(12)?);
        if name_size == 0 || name_size > MAX_NAME {
            return Err(archive(format!("a name of {name_size} bytes")));
        }
        let mut name = vec![0u8; name_size as usize];
        fill(input, &mut name)?;
        skip_padding(input, 110 + u64::from(name_size))?;
        if name.pop() != Some(0) {
            return Err(archive("a name without its final NUL"));
        }
        if name == TRAILER {
            return Ok(Self::Trailer);
        }
        Ok(Self::Named {
            name,
            mode,
            links,
            size,
            sum: summed.then_some(sum),
        })
    }
}

/// Consumes the padding to a multiple of 4 after `size` bytes.
pub(super) fn skip_padding(input: &mut impl Read, size: u64) -> Result<(), PackageError> {
    let mut padding = [0u8; 3];
    let count = (4 - (size % 4) as usize) % 4;
    fill(input, padding.get_mut(..count).unwrap_or_default())
}

fn fill(input: &mut impl Read, out: &mut [u8]) -> Result<(), PackageError> {
    input.read_exact(out).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => archive("it ends early"),
        _ => PackageError::Decompress { source },
    })
}

fn hex(digits: &[u8]) -> Result<u32, PackageError> {
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = (*digit as char)
            .to_digit(16)
            .ok_or_else(|| archive("a bad number"))?;
        Ok(value << 4 | digit)
    })
}

pub(super) fn archive(detail: impl Into<String>) -> PackageError {
    PackageError::Malformed {
        part: "payload archive",
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8], size: u32) -> Vec<u8> {
        let fields = [
            7,
            0o100644,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        let mut out = b"070701".to_vec();
        out.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
        out.extend_from_slice(name);
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn entries_and_the_trailer_are_told_apart() {
        let bytes = [named(b"./usr/x", 5), named(TRAILER, 0)].concat();
        let mut input = &bytes[..];
        let first = Record::read(&mut input).unwrap();
        let expected = Record::Named {
            name: b"./usr/x".to_vec(),
            mode: 0o100644,
            links: 1,
            size: 5,
            sum: None,
        };
        assert_eq!(first, expected);
        assert_eq!(Record::read(&mut input).unwrap(), Record::Trailer);
        assert!(Record::read(&mut input).is_err());
    }

    #[test]
    fn stripped_entries_carry_an_index() {
        let mut input = &b"07070X0000001f\0\0rest"[..];
        assert_eq!(
            Record::read(&mut input).unwrap(),
            Record::Stripped { index: 31 }
        );
        assert_eq!(input, b"rest");
    }

    #[test]
    fn damaged_headers_are_refused() {
        let good = named(b"./usr/x", 5);
        for at in [0, 5, 20, 100] {
            let mut bad = good.clone();
            bad[at] = b'!';
            assert!(Record::read(&mut &bad[..]).is_err(), "byte {at}");
        }
        for end in 0..good.len() {
            assert!(Record::read(&mut &good[..end]).is_err(), "cut at {end}");
        }
        let mut long = good;
        long[94..102].copy_from_slice(b"ffffffff");
        assert!(
            Record::read(&mut &long[..])
                .unwrap_err()
                .to_string()
                .contains("name of")
        );
    }
}

//! Structural check of a package file's lead and headers, before anything interprets them.
//!
//! Owns the bounds: how many tags, how many bytes, that every tag's data lies inside the store.
//! The `rpm` crate slices and allocates by the numbers in the file, so it must only ever see bytes
//! that passed here. Never interprets tags. The layout is the one of rpm's `doc/format.md`.

use std::io::{self, Read};

use super::PackageError;

/// Size of the lead in bytes.
const LEAD_SIZE: usize = 96;
/// Size of a header's fixed part and of one index entry in bytes.
const INTRO_SIZE: usize = 16;
const ENTRY_SIZE: usize = 16;
/// Limits on one header, those of rpm itself.
const MAX_TAGS: u32 = 65_535;
const MAX_STORE: u32 = 256 << 20;

const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];

/// Lead, signature header with its padding, and main header: checked, not yet interpreted.
#[derive(Debug)]
pub(super) struct Head {
    /// All of it, from the first byte of the file to the last before the payload.
    pub bytes: Vec<u8>,
    /// Where the main header begins.
    pub header_start: usize,
}

impl Head {
    /// Reads and checks the part of a package file before the payload.
    pub fn read(input: &mut dyn Read) -> Result<Self, PackageError> {
        let mut bytes = Vec::with_capacity(8192);
        read_more(input, &mut bytes, LEAD_SIZE, "lead")?;
        if !bytes.starts_with(&LEAD_MAGIC) {
            return Err(malformed("lead", "not an RPM package (wrong magic number)"));
        }
        read_header(input, &mut bytes, "signature header")?;
        let padding = (8 - (bytes.len() - LEAD_SIZE) % 8) % 8;
        read_more(input, &mut bytes, padding, "signature header")?;
        let header_start = bytes.len();
        read_header(input, &mut bytes, "header")?;
        Ok(Self {
            bytes,
            header_start,
        })
    }

    /// The main header.
    pub fn header(&self) -> RawHeader<'_> {
        let bytes = self.bytes.get(self.header_start..).unwrap_or_default();
        let tags = be_u32(bytes, 8).unwrap_or_default() as usize;
        let split = (INTRO_SIZE + tags * ENTRY_SIZE).min(bytes.len());
        let (index, store) = bytes.split_at(split);
        RawHeader {
            index: index.get(INTRO_SIZE..).unwrap_or_default(),
            store,
        }
    }
}

/// A checked header, for tags whose bytes must not be decoded as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawHeader<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> RawHeader<'a> {
    /// A header as it is in a package database: without the magic number.
    pub fn of_database(blob: &'a [u8]) -> Result<Self, PackageError> {
        const PART: &str = "header";
        let cut = || malformed(PART, "the header is cut");
        let (tags, store) = (be_u32(blob, 0), be_u32(blob, 4));
        let (tags, store) = tags.zip(store).ok_or_else(cut)?;
        if tags > MAX_TAGS || store > MAX_STORE {
            return Err(malformed(PART, "more tags or data than rpm allows"));
        }
        let body = blob.get(8..).unwrap_or_default();
        let (index, data) = body
            .split_at_checked(tags as usize * ENTRY_SIZE)
            .ok_or_else(cut)?;
        let store = data.get(..store as usize).ok_or_else(cut)?;
        check_index(index, store, PART)?;
        Ok(Self { index, store })
    }

    /// The undecoded strings of a string array tag; empty when the tag is missing.
    pub fn strings(&self, tag: u32) -> Vec<&'a [u8]> {
        let Some((data, count)) = self.find(tag) else {
            return Vec::new();
        };
        data.split(|b| *b == 0).take(count).collect()
    }

    /// The numbers of a tag of 32-bit numbers; empty when the tag is missing.
    pub fn numbers(&self, tag: u32) -> Vec<u32> {
        let Some((data, count)) = self.find(tag) else {
            return Vec::new();
        };
        let numbers = data.as_chunks::<4>().0.iter().take(count);
        numbers.map(|bytes| u32::from_be_bytes(*bytes)).collect()
    }

    /// Where a tag's data begins, and how many values there are.
    fn find(&self, tag: u32) -> Option<(&'a [u8], usize)> {
        let mut entries = self.index.chunks_exact(ENTRY_SIZE);
        let entry = entries.find(|e| be_u32(e, 0) == Some(tag))?;
        let (offset, count) = (be_u32(entry, 8)?, be_u32(entry, 12)?);
        Some((self.store.get(offset as usize..)?, count as usize))
    }
}

fn read_header(
    input: &mut dyn Read,
    bytes: &mut Vec<u8>,
    part: &'static str,
) -> Result<(), PackageError> {
    let start = bytes.len();
    read_more(input, bytes, INTRO_SIZE, part)?;
    let intro = bytes.get(start..).unwrap_or_default();
    if !intro.starts_with(&HEADER_MAGIC) {
        return Err(malformed(part, "wrong magic number"));
    }
    let (tags, store) = (
        be_u32(intro, 8).unwrap_or(0),
        be_u32(intro, 12).unwrap_or(0),
    );
    if tags > MAX_TAGS || store > MAX_STORE {
        return Err(malformed(part, "more tags or data than rpm allows"));
    }
    let size = tags as usize * ENTRY_SIZE + store as usize;
    read_more(input, bytes, size, part)?;
    let body = bytes.get(start + INTRO_SIZE..).unwrap_or_default();
    let (index, store) = body.split_at((tags as usize * ENTRY_SIZE).min(body.len()));
    check_index(index, store, part)
}

/// Every tag's data must lie inside the store. The work is bounded: tags may not share so much
/// of the store that reading them all costs many times its size.
fn check_index(index: &[u8], store: &[u8], part: &'static str) -> Result<(), PackageError> {
    let mut budget = 4 * store.len() + (1 << 16);
    for entry in index.chunks_exact(ENTRY_SIZE) {
        let field = |at| be_u32(entry, at).unwrap_or(u32::MAX);
        let (kind, offset, count) = (field(4), field(8) as usize, field(12) as usize);
        let outside = || malformed(part, format!("data of tag {} lies outside", field(0)));
        let data = store.get(offset..).ok_or_else(outside)?;
        let used = match kind {
            0 => Some(0),
            1 | 2 | 7 => Some(count),
            3 => count.checked_mul(2),
            4 => count.checked_mul(4),
            5 => count.checked_mul(8),
            6 => strings_size(data, 1),
            8 | 9 => strings_size(data, count),
            _ => {
                return Err(malformed(
                    part,
                    format!("tag {} has an unknown type", field(0)),
                ));
            }
        };
        let used = used
            .filter(|used| *used <= data.len())
            .ok_or_else(outside)?;
        budget = budget
            .checked_sub(used)
            .ok_or_else(|| malformed(part, "tags share too much of the data"))?;
    }
    Ok(())
}

/// Bytes that `count` NUL-terminated strings occupy; `None` when the data ends before.
fn strings_size(data: &[u8], count: usize) -> Option<usize> {
    if count == 0 {
        return Some(0);
    }
    let last = data
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == 0)
        .nth(count - 1)?;
    Some(last.0 + 1)
}

/// Appends exactly `size` bytes; memory grows with what the file really holds.
fn read_more(
    input: &mut dyn Read,
    bytes: &mut Vec<u8>,
    size: usize,
    part: &'static str,
) -> Result<(), PackageError> {
    let got = input.take(size as u64).read_to_end(bytes)?;
    if got < size {
        let detail = format!("ends after {got} of {size} bytes: the file is truncated");
        return Err(malformed(part, detail));
    }
    Ok(())
}

fn malformed(part: &'static str, detail: impl Into<String>) -> PackageError {
    PackageError::Malformed {
        part,
        detail: detail.into(),
    }
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl From<io::Error> for PackageError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u32, kind: u32, offset: u32, count: u32) -> Vec<u8> {
        [tag, kind, offset, count]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }

    #[test]
    fn tags_must_lie_inside_the_store() {
        let store = b"ab\0cd\0\x01\x02\x03\x04";
        for (index, good) in [
            (entry(1, 8, 0, 2), true),
            (entry(1, 8, 0, 3), false),
            (entry(1, 6, 6, 1), false),
            (entry(1, 4, 6, 1), true),
            (entry(1, 4, 7, 1), false),
            (entry(1, 5, 0, u32::MAX), false),
            (entry(1, 7, u32::MAX, 1), false),
            (entry(1, 7, 0x8000_0000, 0), false),
            (entry(1, 99, 0, 0), false),
            (entry(1, 7, 10, 0), true),
        ] {
            assert_eq!(
                check_index(&index, store, "header").is_ok(),
                good,
                "{index:?}"
            );
        }
    }

    #[test]
    fn shared_data_cannot_multiply_the_work() {
        let store = vec![b'x'; 1 << 20];
        let index: Vec<u8> = (0..60_000).flat_map(|i| entry(i, 7, 0, 1 << 20)).collect();
        assert!(check_index(&index, &store, "header").is_err());
    }

    #[test]
    fn truncation_and_foreign_files_are_told_apart() {
        let text = |bytes: &[u8]| Head::read(&mut &bytes[..]).unwrap_err().to_string();
        assert!(text(b"short").contains("truncated"));
        assert!(text(&[0; 200]).contains("not an RPM package"));
        let mut huge = [0u8; 112];
        huge[..4].copy_from_slice(&LEAD_MAGIC);
        huge[96..100].copy_from_slice(&HEADER_MAGIC);
        huge[104..112].fill(0xff);
        assert!(text(&huge).contains("more tags"));
    }
}

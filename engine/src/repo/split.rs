//! Cutting payloads into pieces that other payloads share: members of archives, and chunks.
//!
//! An initramfs holds the modules and programs that lie in the tree as files, so an archive is cut
//! where its members begin and end, and they are stored once. Other large payloads that have no
//! older version to be a delta against are cut by content (FastCDC 2020; borders depend on a few
//! bytes around them only, so what shifts is still found).

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use fastcdc::v2020::{FastCDC, StreamCDC};

use crate::error::{Error, IoResultExt, Result};
use crate::pack::recipe::MAX_PIECES;

/// Members below this size stay with the headers around them.
const MIN_MEMBER: usize = 4 << 10;
/// Smaller payloads are not cut by content.
pub(super) const MIN_CHUNKED: u64 = 1 << 20;
/// Larger payloads are cut into extents of equal size: their recipes would be too long.
pub(super) const MAX_CHUNKED: u64 = 4 << 30;
/// Smallest, average and largest chunk. They decide what is shared with chunks stored earlier.
const CHUNK: (usize, usize, usize) = (16 << 10, 64 << 10, 256 << 10);

/// A piece of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) range: Range<usize>,
    /// The name of the archive's member that it holds.
    pub(crate) name: Option<Vec<u8>>,
}

/// The members of an archive and what is between them; none if the bytes are no archive.
pub(crate) fn members(bytes: &[u8]) -> Option<Vec<Cut>> {
    let cuts = cpio_members(bytes).or_else(|| tar_members(bytes))?;
    Some(with_glue(cuts, bytes.len()))
}

/// Where to cut a payload, if at all: archives at their members, other large payloads without an
/// older version (`has_base`) by content.
pub(crate) fn pieces(bytes: &[u8], has_base: bool) -> Option<Vec<Cut>> {
    if (bytes.len() as u64) < MIN_CHUNKED {
        return None;
    }
    if let Some(cuts) = members(bytes) {
        return Some(cuts).filter(|cuts| cuts.len() <= MAX_PIECES);
    }
    if has_base || !shifts(bytes) || bytes.len() as u64 > MAX_CHUNKED {
        return None;
    }
    let (min, average, max) = CHUNK;
    let cuts = FastCDC::new(bytes, min, average, max)
        .map(|chunk| Cut {
            range: chunk.offset..chunk.offset + chunk.length,
            name: None,
        })
        .collect();
    Some(cuts)
}

/// Whether the bytes of another version may be found at other offsets: not in what is compressed,
/// and programs get deltas.
fn shifts(head: &[u8]) -> bool {
    !is_compressed(head) && !head.starts_with(b"\x7fELF") && !head.starts_with(b"PK\x03\x04")
}

/// Whether a file with this beginning is compressed as a whole, so that versions of it have no
/// bytes in common.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 6] = [
        b"\x1f\x8b",
        b"\xfd7zXZ",
        b"\x28\xb5\x2f\xfd",
        b"BZh",
        b"\x89PNG",
        b"\xff\xd8\xff",
    ];
    MAGIC.iter().any(|magic| head.starts_with(magic))
}

/// Whether a file that is not in memory is to be cut by content.
pub(super) fn is_chunked_file(path: &Path, size: u64) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).at(path)?;
    file.take(16).read_to_end(&mut head).at(path)?;
    Ok((MIN_CHUNKED..=MAX_CHUNKED).contains(&size) && shifts(&head))
}

/// The chunks of a file that is not in memory, one after the other.
pub(super) fn chunks_of_file(path: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    let (min, average, max) = CHUNK;
    let file = File::open(path).at(path)?;
    let path = path.to_owned();
    let chunks = StreamCDC::new(file, min, average, max);
    Ok(chunks.map(move |chunk| match chunk {
        Ok(chunk) => Ok(chunk.data),
        Err(fastcdc::v2020::Error::IoError(source)) => Err(Error::Io {
            path: path.clone(),
            source,
        }),
        Err(other) => Err(std::io::Error::other(other.to_string())).at(&path),
    }))
}

/// A path without the extension that says how the file is compressed.
pub(super) fn stem(path: &[u8]) -> &[u8] {
    [b".gz".as_slice(), b".xz", b".zst", b".bz2"]
        .iter()
        .find_map(|ext| path.strip_suffix(*ext))
        .unwrap_or(path)
}

/// Adds what lies between members and around them.
fn with_glue(members: Vec<Cut>, len: usize) -> Vec<Cut> {
    let glue = |range: Range<usize>| Cut { range, name: None };
    let mut cuts = Vec::with_capacity(2 * members.len() + 1);
    let mut at = 0;
    for member in members {
        if member.range.start > at {
            cuts.push(glue(at..member.range.start));
        }
        at = member.range.end;
        cuts.push(member);
    }
    if at < len {
        cuts.push(glue(at..len));
    }
    cuts
}

/// The larger members of a cpio archive ("newc", as in an initramfs; several may follow one
/// another with zeros between them), as far as it is well-formed.
fn cpio_members(bytes: &[u8]) -> Option<Vec<Cut>> {
    const HEADER: usize = 110;
    let is_header = |at: usize| {
        let magic = bytes.get(at..at + 6)?;
        matches!(magic, b"070701" | b"070702").then_some(())
    };
    is_header(0)?;
    let field = |at: usize| {
        let digits = std::str::from_utf8(bytes.get(at..at + 8)?).ok()?;
        usize::try_from(u32::from_str_radix(digits, 16).ok()?).ok()
    };
    let mut cuts = Vec::new();
    let mut at = 0;
    let next = |at: usize| -> Option<(Cut, usize)> {
        is_header(at)?;
        let (size, name_size) = (field(at + 54)?, field(at + 94)?);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at.checked_add(name_size)?)?;
        let start = (name_at + name_size).next_multiple_of(4);
        let end = start.checked_add(size).filter(|end| *end <= bytes.len())?;
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let cut = Cut {
            range: start..end,
            name: Some(name.to_vec()),
        };
        Some((cut, end.next_multiple_of(4)))
    };
    while let Some((cut, end)) = next(at) {
        at = end;
        if cut.name.as_deref() == Some(b"TRAILER!!!") {
            at += bytes
                .get(at..)?
                .iter()
                .take_while(|byte| **byte == 0)
                .count();
        } else if cut.range.len() >= MIN_MEMBER {
            cuts.push(cut);
        }
    }
    (!cuts.is_empty()).then_some(cuts)
}

/// The larger members of a tar archive, as far as it is well-formed.
fn tar_members(bytes: &[u8]) -> Option<Vec<Cut>> {
    (bytes.get(257..262)? == b"ustar").then_some(())?;
    let mut archive = tar::Archive::new(std::io::Cursor::new(bytes));
    let mut cuts: Vec<Cut> = Vec::new();
    for entry in archive.entries_with_seek().ok()? {
        let Ok(entry) = entry else { break };
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let start = usize::try_from(entry.raw_file_position()).ok()?;
        let len = usize::try_from(entry.header().entry_size().ok()?).ok()?;
        let Some(end) = start.checked_add(len).filter(|end| *end <= bytes.len()) else {
            break;
        };
        let before = cuts.last().map_or(0, |cut| cut.range.end);
        if len >= MIN_MEMBER && start >= before {
            let name = entry.path_bytes().into_owned();
            let name = name
                .strip_prefix(b"./")
                .map_or(name.clone(), <[u8]>::to_vec);
            cuts.push(Cut {
                range: start..end,
                name: Some(name),
            });
        }
    }
    (!cuts.is_empty()).then_some(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, bytes) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
            let mut fields = [0usize; 13];
            (fields[6], fields[11]) = (bytes.len(), name.len() + 1);
            out.extend_from_slice(b"070701");
            out.extend(fields.iter().flat_map(|n| format!("{n:08X}").into_bytes()));
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn assert_covers(cuts: &[Cut], len: usize) {
        let mut at = 0;
        for cut in cuts {
            assert_eq!(cut.range.start, at);
            assert!(!cut.range.is_empty());
            at = cut.range.end;
        }
        assert_eq!(at, len);
    }

    #[test]
    fn archives_are_cut_at_their_larger_members() {
        let (a, b) = (noise(1, 700_001), noise(2, 600_000));
        let files = [("usr/a", &a[..]), ("etc/small", b"x"), ("usr/b", &b)];
        let early = cpio(&[("microcode", &noise(3, 10_000))]);
        for bytes in [cpio(&files), tar(&files), [early, cpio(&files)].concat()] {
            let cuts = pieces(&bytes, true).unwrap();
            assert_covers(&cuts, bytes.len());
            for (name, wanted) in [("usr/a", &a), ("usr/b", &b)] {
                let cut = cuts
                    .iter()
                    .find(|c| c.name.as_deref() == Some(name.as_bytes()));
                assert_eq!(&bytes[cut.unwrap().range.clone()], &wanted[..], "{name}");
            }
        }
    }

    #[test]
    fn broken_archives_are_cut_as_far_as_they_go() {
        let whole = cpio(&[("a", &noise(1, 900_000)), ("b", &noise(2, 900_000))]);
        for len in [1_100_000, whole.len() - 600, 1 << 20] {
            assert_covers(&pieces(&whole[..len], false).unwrap(), len);
        }
        let mut huge = whole.clone();
        huge[54..62].copy_from_slice(b"FFFFFFFF");
        assert_covers(&pieces(&huge, false).unwrap(), huge.len());
    }

    #[test]
    fn chunks_of_shifted_data_are_the_same() {
        let old = noise(1, 3_000_000);
        let new = [&old[..1_000_000], b"inserted", &old[1_000_000..]].concat();
        let chunks = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let cuts = pieces(bytes, false).unwrap();
            assert_covers(&cuts, bytes.len());
            cuts.into_iter()
                .map(|cut| bytes[cut.range].to_vec())
                .collect()
        };
        let (old, new) = (chunks(&old), chunks(&new));
        let shared = new.iter().filter(|chunk| old.contains(chunk)).count();
        assert!(shared + 3 >= new.len(), "{shared} of {}", new.len());
    }

    #[test]
    fn borders_of_chunks_are_part_of_the_format() {
        let cuts = pieces(&noise(1, 1 << 20), false).unwrap();
        let ends: Vec<usize> = cuts.iter().map(|cut| cut.range.end).collect();
        let expected = [
            125811, 203956, 305622, 389571, 437283, 516358, 558185, 631795, 710645, 778839, 876862,
            1032647, 1048576,
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn programs_small_files_and_those_with_a_base_are_left_whole() {
        let data = noise(1, 2 << 20);
        assert_eq!(pieces(&data, true), None);
        assert_eq!(pieces(&data[..1000], false), None);
        let mut program = data.clone();
        program[..4].copy_from_slice(b"\x7fELF");
        assert_eq!(pieces(&program, false), None);
    }
}

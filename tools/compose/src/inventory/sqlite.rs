//! Rows of a table of a SQLite database in memory.
//!
//! Owns as much of the file format (sqlite.org/fileformat2.html) as a package database needs: table
//! b-trees, overflow pages, records. Trusts nothing: each page is visited at most once, and no size
//! is larger than the file. Never looks at a write-ahead log, which images do not have.

use std::borrow::Cow;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Of the first page.
const FILE_HEADER: usize = 100;
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// b-trees of real databases have three or four levels.
const MAX_DEPTH: usize = 20;

/// A database that does not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("package database: {what} in page {page}")]
pub struct SqliteError {
    what: &'static str,
    page: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    /// NULL, or a number with a fraction.
    Other,
}

#[derive(Debug)]
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that hold data.
    usable: usize,
    /// Pages that may still be visited.
    budget: usize,
}

type Visit<'v> = &'v mut dyn FnMut(&[Column<'_>]) -> Result<(), SqliteError>;

impl<'a> Database<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, SqliteError> {
        let fail = |what| SqliteError { what, page: 1 };
        let head = bytes
            .get(..FILE_HEADER)
            .filter(|head| head.starts_with(MAGIC));
        let head = head.ok_or_else(|| fail("no SQLite header"))?;
        let page_size = match be16(head, 16) {
            Some(1) => 65_536,
            Some(size) if size >= 512 && size.is_power_of_two() => usize::from(size),
            _ => return Err(fail("a wrong page size")),
        };
        let reserved = usize::from(head.get(20).copied().unwrap_or_default());
        let usable = page_size - reserved;
        if usable < 480 {
            return Err(fail("too much reserved space"));
        }
        Ok(Self {
            bytes,
            page_size,
            usable,
            budget: bytes.len() / page_size,
        })
    }

    /// Visits the rows of a table; none if there is no such table.
    pub fn table(&mut self, name: &str, visit: Visit<'_>) -> Result<(), SqliteError> {
        let mut root = None;
        self.tree(1, 0, &mut |row| {
            if let [
                Column::Bytes(b"table"),
                Column::Bytes(found),
                _,
                Column::Integer(page),
                ..,
            ] = row
                && *found == name.as_bytes()
            {
                root = u32::try_from(*page).ok();
            }
            Ok(())
        })?;
        match root {
            Some(root) => self.tree(root, 0, visit),
            None => Ok(()),
        }
    }

    fn page(&mut self, number: u32) -> Result<&'a [u8], SqliteError> {
        let fail = |what| SqliteError { what, page: number };
        self.budget = self.budget.checked_sub(1).ok_or_else(|| fail("a circle"))?;
        let start = (number as usize)
            .checked_sub(1)
            .and_then(|at| at.checked_mul(self.page_size));
        let page =
            start.and_then(|start| self.bytes.get(start..start.checked_add(self.page_size)?));
        page.ok_or_else(|| fail("a page outside the file"))
    }

    fn tree(&mut self, number: u32, depth: usize, visit: Visit<'_>) -> Result<(), SqliteError> {
        let fail = |what| SqliteError { what, page: number };
        if depth > MAX_DEPTH {
            return Err(fail("too deep a tree"));
        }
        let page = self.page(number)?;
        let at = if number == 1 { FILE_HEADER } else { 0 };
        let kind = page.get(at).copied();
        let cells = usize::from(be16(page, at + 3).unwrap_or_default());
        let pointers = at + if kind == Some(INTERIOR) { 12 } else { 8 };
        for cell in 0..cells {
            let cell = be16(page, pointers + 2 * cell).and_then(|at| page.get(usize::from(at)..));
            let cell = cell.ok_or_else(|| fail("a cell outside the page"))?;
            match kind {
                Some(LEAF) => self.leaf(number, page, cell, visit)?,
                Some(INTERIOR) => {
                    let child = be32(cell, 0).ok_or_else(|| fail("a cut cell"))?;
                    self.tree(child, depth + 1, visit)?;
                }
                _ => return Err(fail("an unknown kind of page")),
            }
        }
        match be32(page, at + 8) {
            Some(last) if kind == Some(INTERIOR) => self.tree(last, depth + 1, visit),
            _ => Ok(()),
        }
    }

    fn leaf(
        &mut self,
        number: u32,
        page: &[u8],
        cell: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), SqliteError> {
        let fail = |what| SqliteError { what, page: number };
        let (size, rest) = varint(cell).ok_or_else(|| fail("a cut cell"))?;
        let (_, rest) = varint(rest).ok_or_else(|| fail("a cut cell"))?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > self.bytes.len() {
            return Err(fail("a row that is larger than the file"));
        }
        let end = page.len() - self.usable;
        let rest = rest
            .get(..rest.len() - end.min(rest.len()))
            .unwrap_or_default();
        let here = self.kept_here(size);
        let local = rest.get(..here).ok_or_else(|| fail("a cut cell"))?;
        let mut payload = Cow::Borrowed(local);
        if here < size {
            let mut next = be32(rest, here).ok_or_else(|| fail("a cut cell"))?;
            while payload.len() < size {
                let overflow = self.page(next)?;
                let data = overflow.get(4..self.usable).unwrap_or_default();
                let wanted = data.len().min(size - payload.len());
                payload.to_mut().extend_from_slice(&data[..wanted]);
                next = be32(overflow, 0).unwrap_or_default();
            }
        }
        let row = columns(&payload).ok_or_else(|| fail("a malformed row"))?;
        visit(&row)
    }

    /// Bytes of a row that are in its cell, the others being on overflow pages.
    fn kept_here(&self, size: usize) -> usize {
        let most = self.usable - 35;
        if size <= most {
            return size;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let kept = least + (size - least) % (self.usable - 4);
        if kept <= most { kept } else { least }
    }
}

fn columns(payload: &[u8]) -> Option<Vec<Column<'_>>> {
    let (header, rest) = varint(payload)?;
    let header = usize::try_from(header).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..header)?;
    let mut data = payload.get(header..)?;
    let mut columns = Vec::new();
    while !types.is_empty() {
        let (kind, rest) = varint(types)?;
        types = rest;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            bytes => usize::try_from((bytes - 12) / 2).ok()?,
        };
        let (value, rest) = data.split_at_checked(size)?;
        data = rest;
        columns.push(match kind {
            1..=6 => Column::Integer(integer(value)),
            8 | 9 => Column::Integer(kind as i64 - 8),
            0 | 7 => Column::Other,
            _ => Column::Bytes(value),
        });
    }
    Some(columns)
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    bytes.iter().fold(if negative { -1 } else { 0 }, |n, byte| {
        (n << 8) | i64::from(*byte)
    })
}

/// Seven bits a byte, the highest ones first, and all eight of a ninth byte.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        if at == 8 {
            return Some(((value << 8) | u64::from(*byte), bytes.get(9..)?));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        assert_eq!(varint(&[0x7f, 1]), Some((127, &[1][..])));
        assert_eq!(varint(&[0x81, 0]), Some((128, &[][..])));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, &[][..])));
        assert_eq!(varint(&[0x80; 8]), None);
        assert_eq!([integer(&[0xff, 0xfe]), integer(&[0x01, 0x00])], [-2, 256]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, pages in 1usize..4, at: u16, flip: u8) {
            let mut file = MAGIC.to_vec();
            file.extend([2, 0, 1, 1, 0, 64, 32, 32]);
            file.resize(FILE_HEADER, 0);
            file.extend([LEAF, 0, 0, 0, 2, 0, 200, 0, 1, 0, 1, 80]);
            file.append(&mut bytes);
            file.resize(512 * pages, 0x83);
            let at = usize::from(at) % file.len();
            file[at] ^= flip;
            if let Ok(mut database) = Database::new(&file) {
                let mut rows = 0;
                let _ = database.table("Packages", &mut |_| { rows += 1; Ok(()) });
                prop_assert!(rows < 4096);
            }
        }
    }
}

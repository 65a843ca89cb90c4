//! Putting sorted sources of rows together, in one pass and in little memory.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;

use super::flat::{
    FlatIndex, RowBytes, RowReader, decode_row, encode_row, pack_of, row_order, with_pack,
};
use super::memory::MemoryIndex;
use super::{Location, Visit};
use crate::error::Result;
use crate::id::PackId;
use crate::pack::Key;

/// Where rows come from.
enum Rows<'a> {
    /// A file, and where its packs are in the new pack table; `None` for those that are gone.
    File(RowReader<'a>, Vec<Option<u32>>),
    /// Sorted memory; the same for its packs.
    Memory(std::slice::Iter<'a, (Key, Location)>),
}

struct Source<'a> {
    rows: Rows<'a>,
    current: Option<RowBytes>,
}

impl Source<'_> {
    /// Goes on to the next row of a pack that is there.
    fn advance(&mut self, packs: &[PackId]) -> Result<()> {
        self.current = loop {
            let (row, pack) = match &mut self.rows {
                Rows::File(reader, places) => {
                    let Some(row) = reader.next_row()? else {
                        break None;
                    };
                    // A position outside the table is as good as a pack that is gone.
                    let place = places.get(pack_of(&row) as usize).copied().flatten();
                    (row, place)
                }
                Rows::Memory(rows) => {
                    let Some((key, at)) = rows.next() else {
                        break None;
                    };
                    (encode_row(key, 0, at), place(packs, &at.pack))
                }
            };
            if let Some(pack) = pack {
                break Some(with_pack(row, pack));
            }
        };
        Ok(())
    }
}

fn place(packs: &[PackId], id: &PackId) -> Option<u32> {
    packs.binary_search(id).ok().map(|at| at as u32)
}

/// The rows of several sources in one order, without those of packs that are gone.
pub(super) struct Merge<'a> {
    packs: Vec<PackId>,
    sources: Vec<Source<'a>>,
    last: Option<RowBytes>,
}

impl<'a> Merge<'a> {
    /// Puts together what `files` and `memory` cover of the packs that are `present`.
    pub(super) fn new(
        files: &[&'a FlatIndex],
        memory: &'a MemoryIndex,
        present: &BTreeSet<PackId>,
    ) -> Result<Self> {
        let covered = files.iter().flat_map(|file| file.pack_table());
        let covered: BTreeSet<PackId> = covered.chain(memory.pack_ids()).copied().collect();
        let packs: Vec<PackId> = covered.intersection(present).copied().collect();
        let places = |file: &FlatIndex| {
            file.pack_table()
                .iter()
                .map(|id| place(&packs, id))
                .collect()
        };
        let mut sources: Vec<Source<'a>> = files
            .iter()
            .map(|file| Rows::File(RowReader::new(file), places(file)))
            .chain([Rows::Memory(memory.rows().iter())])
            .map(|rows| Source {
                rows,
                current: None,
            })
            .collect();
        for source in &mut sources {
            source.advance(&packs)?;
        }
        Ok(Self {
            packs,
            sources,
            last: None,
        })
    }

    /// The packs covered, ascending.
    pub(super) fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Writes everything into one durable file.
    pub(super) fn write(mut self, path: &Path) -> Result<()> {
        let packs = self.packs.clone();
        let mut rows = std::iter::from_fn(|| self.next_row().transpose());
        FlatIndex::write(path, &packs, &mut rows)
    }

    /// Writes everything into a file that is only needed for a moment.
    pub(super) fn write_temporary(mut self, path: &Path) -> Result<()> {
        let packs = self.packs.clone();
        let mut rows = std::iter::from_fn(|| self.next_row().transpose());
        FlatIndex::write_temporary(path, &packs, &mut rows)
    }

    /// Calls `visit` for each key once, with a place where its entry lies.
    pub(super) fn for_each(mut self, visit: &mut Visit<'_>) -> Result<()> {
        let mut last = None;
        while let Some(row) = self.next_row()? {
            let pack = self.packs.get(pack_of(&row) as usize);
            // A malformed key finds nothing either.
            let Some((key, at)) = pack.and_then(|pack| decode_row(&row, pack)) else {
                continue;
            };
            if last != Some(key) {
                last = Some(key);
                visit(&key, &at)?;
            }
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RowBytes>> {
        loop {
            let mut least: Option<(usize, &RowBytes)> = None;
            for (n, source) in self.sources.iter().enumerate() {
                if let Some(row) = &source.current
                    && least.is_none_or(|(_, least)| row_order(row, least) == Ordering::Less)
                {
                    least = Some((n, row));
                }
            }
            let Some((n, row)) = least else {
                return Ok(None);
            };
            let row = *row;
            self.sources[n].advance(&self.packs)?;
            // A pack that several sources cover brings each row several times.
            if self.last != Some(row) {
                self.last = Some(row);
                return Ok(Some(row));
            }
        }
    }
}

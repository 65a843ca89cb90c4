//! The contents of files, in the order in which they are stored, so that each block is decoded once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use super::job::Job;
use super::plan::Row;
use super::write::{self, Output};
use crate::error::{IoResultExt, Result};
use crate::id::ObjectKind;
use crate::monitor::Phase;
use crate::pack::recipe::Piece;

/// Copies of a large file that are open at once.
const MAX_OPEN: usize = 64;

/// The copies of a file that comes in pieces.
#[derive(Debug, Default)]
struct Large {
    outputs: Vec<(Row, Output)>,
    /// How many of them are written: the first one if the file system may be able to share what is
    /// in it with the others, else all.
    written: usize,
}

/// Where the bytes of an object go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The place of the row.
    Tree,
    /// The file that links are made to.
    Cache,
}

impl Job<'_> {
    /// Writes files in the order in which their contents are stored.
    pub(super) fn copy(&self, rows: &[Row], target: Target) -> Result<()> {
        let piece = |row: &Row| {
            let object = self.plan.object(*row);
            object.payload.map(|id| {
                (
                    Piece {
                        id,
                        size: object.size,
                    },
                    *row,
                )
            })
        };
        let mut rows: Vec<(Piece, Row)> = rows.iter().filter_map(piece).collect();
        rows.par_sort_unstable_by_key(|(piece, row)| (piece.id, *row));
        let same = rows.chunk_by(|(a, _), (b, _)| a.id == b.id);
        let wanted: Vec<&[(Piece, Row)]> = same.flat_map(|rows| rows.chunks(MAX_OPEN)).collect();
        let pieces: Vec<Piece> = wanted.iter().map(|rows| rows[0].0).collect();
        let store = self.repo.store();
        let groups = store.in_pack_order(&pieces);
        in_turn(&groups, |group| {
            let mut large = Large::default();
            let done = store.read_group(&pieces, group, &mut |number, offset, bytes| {
                self.check_cancelled()?;
                let rows = wanted[number];
                let is_last = offset + bytes.len() as u64 == pieces[number].size;
                if offset == 0 && is_last {
                    return rows
                        .iter()
                        .try_for_each(|(_, row)| self.put(*row, target, bytes));
                }
                if offset == 0 {
                    large = self.begin_all(rows, target)?;
                }
                for (row, output) in large.outputs.iter_mut().take(large.written) {
                    output
                        .write(bytes)
                        .at(self.os_path(&self.plan.path(*row)))?;
                }
                if is_last {
                    self.finish_all(std::mem::take(&mut large), target)
                } else {
                    Ok(())
                }
            });
            done.map_err(|(number, error)| {
                let row = wanted[number][0].1;
                let path = format!("/{}", self.plan.path(row));
                error.hitting(&path, ObjectKind::File, &self.plan.object(row).id)
            })
        })
    }

    fn begin(&self, row: Row, target: Target) -> Result<Option<Output>> {
        match (target, &self.links) {
            (Target::Cache, Some(links)) => links.begin(&self.plan.object(row).id).map(Some),
            _ => {
                let output = write::begin(self, row)?;
                if output.is_none() {
                    self.monitor.advance(Phase::Checkout, 1);
                }
                Ok(output)
            }
        }
    }

    /// Writes a small file.
    fn put(&self, row: Row, target: Target, bytes: &[u8]) -> Result<()> {
        let Some(mut output) = self.begin(row, target)? else {
            return Ok(());
        };
        output.write(bytes).at(self.os_path(&self.plan.path(row)))?;
        self.finish(output, row, target)?;
        self.advance(target);
        Ok(())
    }

    fn advance(&self, target: Target) {
        if target == Target::Tree {
            self.monitor.advance(Phase::Checkout, 1);
        }
    }

    fn begin_all(&self, rows: &[(Piece, Row)], target: Target) -> Result<Large> {
        let begun = rows
            .iter()
            .map(|(_, row)| Ok(self.begin(*row, target)?.map(|out| (*row, out))));
        let outputs = begun
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>>>()?;
        let written = if self.can_clone.load(Relaxed) {
            1
        } else {
            outputs.len()
        };
        Ok(Large { outputs, written })
    }

    fn finish_all(&self, large: Large, target: Target) -> Result<()> {
        let mut outputs = large.outputs.into_iter();
        let Some((row, first)) = outputs.next() else {
            return Ok(());
        };
        let source = first
            .file
            .try_clone()
            .at(self.os_path(&self.plan.path(row)))?;
        self.finish(first, row, target)?;
        self.advance(target);
        for (row, mut output) in outputs {
            let at = || self.os_path(&self.plan.path(row));
            if output.is_empty() && !output.clone_from(&source) {
                self.can_clone.store(false, Relaxed);
                output.copy_from(&source).at(at())?;
            }
            self.finish(output, row, target)?;
            self.advance(target);
        }
        Ok(())
    }

    /// Ends a file that was written.
    pub(super) fn finish(&self, output: Output, row: Row, target: Target) -> Result<()> {
        self.close(output, row, target)?;
        let size = self.plan.object(row).size;
        self.counters.written_bytes.fetch_add(size, Relaxed);
        Ok(())
    }

    /// Ends a file, whatever its content came from.
    pub(super) fn close(&self, mut output: Output, row: Row, target: Target) -> Result<()> {
        let object = self.plan.object(row);
        let at = || self.os_path(&self.plan.path(row));
        output.finish(&object.header, self.options).at(at())?;
        if let (Target::Cache, Some(links)) = (target, &self.links) {
            links.note(&object.id, &rustix::fs::fstat(&output.file).at(at())?);
        }
        if target == Target::Tree {
            self.counters.files.fetch_add(1, Relaxed);
            self.count_synced();
        }
        Ok(())
    }
}

/// Does all of the work in its order: whichever thread is free takes the next piece. What takes
/// longest is begun first, so that the rest is done beside it.
fn in_turn<T: Sync>(work: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let done = rayon::broadcast(|_| {
        while let Some(one) = work.get(next.fetch_add(1, Relaxed)) {
            act(one).inspect_err(|_| next.store(work.len(), Relaxed))?;
        }
        Ok(())
    });
    done.into_iter().collect()
}

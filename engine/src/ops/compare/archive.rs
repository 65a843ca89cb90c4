//! An OSTree repository in archive mode: one file for each object.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;

use super::{Listed, Needs, check_cancelled};
use crate::error::{IoResultExt, Result};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};
use crate::ops::ostree::{Counter, deflate};

/// Files that are looked at between two questions whether to go on.
const BATCH: usize = 1024;

/// The objects that are stored already.
#[derive(Debug, Default)]
pub(super) struct Archive {
    known: HashSet<ObjectId>,
    needs: Needs,
}

impl Archive {
    /// Adds a commit, dirtree or dirmeta object of this size.
    pub(super) fn add_metadata(&mut self, id: ObjectId, size: usize) {
        if self.known.insert(id) {
            self.needs.add_file(size as u64);
        }
    }

    /// Adds the files of a tree.
    pub(super) fn add(
        &mut self,
        root: &Path,
        listed: &[Listed],
        monitor: &dyn Monitor,
    ) -> Result<Needs> {
        let start = Instant::now();
        for batch in listed.chunks(BATCH) {
            check_cancelled(monitor)?;
            let is_new = |one: &&Listed| self.known.insert(one.file.id);
            let fresh: Vec<&Listed> = batch.iter().filter(is_new).collect();
            let size = |one: &&Listed| object_size(root, one);
            let sizes: Vec<u64> = fresh
                .par_iter()
                .with_max_len(16)
                .map(size)
                .collect::<Result<_>>()?;
            sizes.iter().for_each(|size| self.needs.add_file(*size));
            monitor.advance(Phase::Compare, batch.iter().map(|one| one.file.size).sum());
        }
        self.needs.time = start.elapsed();
        Ok(self.needs)
    }
}

/// The size of a `.filez`: the header, and for a regular file its content through zlib.
fn object_size(root: &Path, listed: &Listed) -> Result<u64> {
    let header = &listed.file.header;
    let prefix = header.archive_prefix(listed.file.size).len() as u64;
    if header.is_symlink() {
        return Ok(prefix);
    }
    let path = root.join(&listed.path);
    let mut file = File::open(&path).at(&path)?;
    let size = deflate(|buf| file.read(buf), Counter::default()).at(&path)?;
    Ok(prefix + size.0)
}

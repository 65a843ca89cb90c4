//! An OSTree repository in archive mode: one file for each object.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rayon::prelude::*;

use super::{Listed, Needs, check_cancelled};
use crate::error::{IoResultExt, Result};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};

/// `ostree`'s default.
const ZLIB_LEVEL: u32 = 6;
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
    Ok(prefix + deflated_size(&mut file).at(&path)?)
}

fn deflated_size(from: &mut impl Read) -> io::Result<u64> {
    let mut encoder = DeflateEncoder::new(Counter(0), Compression::new(ZLIB_LEVEL));
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(encoder.finish()?.0),
            Ok(n) => encoder.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

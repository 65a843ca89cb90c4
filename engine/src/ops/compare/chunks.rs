//! Chunks cut by content out of all files one after the other, as `casync` cuts them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use fastcdc::v2020::{Error as CutError, StreamCDC};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

use super::{Listed, Needs, check_cancelled};
use crate::error::{Error, IoResultExt, Result};
use crate::monitor::{Monitor, Phase};

/// Smallest, average and largest chunk.
const SIZES: (usize, usize, usize) = (16 << 10, 64 << 10, 256 << 10);
const ZSTD_LEVEL: i32 = 3;
/// Chunks that are compressed at once: about 16 MiB.
const BATCH: usize = 256;
/// What `casync` writes for an entry, but for its name.
const ENTRY_HEAD: usize = 96;
/// What a list of chunks has for each.
const LIST_ROW: u64 = 40;

/// The chunks that are stored already.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    known: HashSet<[u8; 32]>,
    needs: Needs,
}

impl Chunks {
    /// Adds the files of a tree.
    pub(super) fn add(
        &mut self,
        root: &Path,
        listed: &[Listed],
        monitor: &dyn Monitor,
    ) -> Result<Needs> {
        let start = Instant::now();
        let (min, average, max) = SIZES;
        let stream = Stream::new(root, listed);
        let mut cuts = StreamCDC::new(stream, min, average, max);
        let mut count = 0;
        loop {
            check_cancelled(monitor)?;
            let batch: Vec<Vec<u8>> = cuts
                .by_ref()
                .take(BATCH)
                .map(|cut| cut.map(|cut| cut.data))
                .collect::<std::result::Result<_, _>>()
                .map_err(|error| failed(root, error))?;
            if batch.is_empty() {
                break;
            }
            count += batch.len() as u64;
            monitor.advance(Phase::Compare, batch.iter().map(|c| c.len() as u64).sum());
            self.store(&batch).at(root)?;
        }
        self.needs.add_file(count * LIST_ROW);
        self.needs.time = start.elapsed();
        Ok(self.needs)
    }

    fn store(&mut self, batch: &[Vec<u8>]) -> io::Result<()> {
        let name = |chunk: &Vec<u8>| -> [u8; 32] { Sha256::digest(chunk).into() };
        let names: Vec<[u8; 32]> = batch.par_iter().map(name).collect();
        let mut fresh = Vec::new();
        for (chunk, name) in batch.iter().zip(names) {
            if self.known.insert(name) {
                fresh.push(chunk);
            }
        }
        let sizes: Vec<usize> = fresh
            .par_iter()
            .map_init(
                || Compressor::new(ZSTD_LEVEL),
                |compressor, chunk| match compressor {
                    Ok(compressor) => compressor.compress(chunk).map(|out| out.len()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                },
            )
            .collect::<io::Result<_>>()?;
        sizes
            .iter()
            .for_each(|size| self.needs.add_file(*size as u64));
        Ok(())
    }
}

fn failed(root: &Path, error: CutError) -> Error {
    let source = match error {
        CutError::IoError(source) => source,
        other => io::Error::other(other.to_string()),
    };
    Error::Io {
        path: root.to_owned(),
        source,
    }
}

/// All files of a tree one after the other, with something like the head of an entry before each.
struct Stream<'a> {
    root: &'a Path,
    rest: std::slice::Iter<'a, Listed>,
    head: io::Cursor<Vec<u8>>,
    content: Option<File>,
}

impl<'a> Stream<'a> {
    fn new(root: &'a Path, listed: &'a [Listed]) -> Self {
        Self {
            root,
            rest: listed.iter(),
            head: io::Cursor::default(),
            content: None,
        }
    }

    fn open(&mut self, next: &Listed) -> io::Result<()> {
        let (_, name) = next.path.rsplit_once('/').unwrap_or(("", &next.path));
        let mut head = next.file.header.archive_prefix(next.file.size);
        head.resize(head.len().max(ENTRY_HEAD), 0);
        head.extend_from_slice(name.as_bytes());
        self.head = io::Cursor::new(head);
        if !next.file.header.is_symlink() {
            self.content = Some(File::open(self.root.join(&next.path))?);
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.head.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            if let Some(file) = &mut self.content {
                let n = file.read(buf)?;
                if n > 0 {
                    return Ok(n);
                }
                self.content = None;
            }
            match self.rest.next() {
                Some(next) => self.open(next)?,
                None => return Ok(0),
            }
        }
    }
}

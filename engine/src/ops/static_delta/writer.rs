//! Parts on their way to files: filled, compressed, applied and compared, written.
//!
//! Parts that wait are compressed at the same time, as many as there are threads, so memory is
//! bounded by their number and the size of a part.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::check::check_part;
use super::part::{Effort, MAX_BODY, PartBody, PartBuilder, compress};
use super::superblock::PartHead;
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};
use crate::ops::changes::{Encoded, NewFile, Object};
use crate::repo::Repository;

/// Where part files go.
#[derive(Debug)]
pub(super) enum Target {
    /// Files of this directory, by number.
    Dir(PathBuf),
    /// Into the superblock.
    Inline(Vec<Vec<u8>>),
}

/// Makes the parts of a delta.
#[derive(Debug)]
pub(super) struct PartsWriter<'a> {
    repo: &'a Repository,
    monitor: &'a dyn Monitor,
    max_blob: usize,
    effort: Effort,
    /// What compression makes smaller, and what it does not.
    open: [PartBuilder; 2],
    full: Vec<(PartBody, bool)>,
    heads: Vec<PartHead>,
    target: Target,
    /// Where the superblock will be.
    place: &'a Path,
}

impl<'a> PartsWriter<'a> {
    pub(super) fn new(
        repo: &'a Repository,
        (target, place): (Target, &'a Path),
        max_blob: usize,
        effort: Effort,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            repo,
            monitor,
            max_blob,
            effort,
            open: Default::default(),
            full: Vec::new(),
            heads: Vec::new(),
            target,
            place,
        }
    }

    /// The part that takes the next bytes.
    fn part(&mut self, len: usize, dense: bool) -> Result<&mut PartBuilder> {
        let dense = dense && self.effort == Effort::Fast;
        let slot = usize::from(dense);
        if !self.open[slot].is_empty() && self.open[slot].blob_len() + len > self.max_blob {
            let part = std::mem::take(&mut self.open[slot]);
            self.full.push((part.finish(), dense));
            if self.full.len() >= rayon::current_num_threads() {
                self.seal()?;
            }
        }
        Ok(&mut self.open[slot])
    }

    /// Adds an object; gives its size.
    pub(super) fn add_metadata(&mut self, object: Object) -> Result<u64> {
        let bytes = self.repo.object_bytes(object.0, &object.1)?;
        self.part(bytes.len(), false)?.add_metadata(object, &bytes);
        Ok(bytes.len() as u64)
    }

    pub(super) fn add_file(&mut self, new: &NewFile, encoded: &Encoded) -> Result<()> {
        let (id, header, size) = (new.file.id, &new.file.header, new.file.size);
        let dense = matches!(encoded, Encoded::Whole { dense: true, .. });
        let part = self.part(encoded.len(), dense)?;
        match encoded {
            Encoded::Whole { bytes, .. } => part.add_whole(id, header, new.file.payload, bytes),
            Encoded::Patch { source, stream } => part.add_patch(id, header, size, source, stream),
            Encoded::Splice {
                sources,
                runs,
                fresh,
            } => {
                part.add_splice(id, header, size, sources, runs, fresh);
            }
        }
        Ok(())
    }

    /// The heads of all parts, and the parts themselves if they are for the superblock.
    pub(super) fn finish(mut self) -> Result<(Vec<PartHead>, Vec<Vec<u8>>)> {
        for (part, dense) in std::mem::take(&mut self.open)
            .into_iter()
            .zip([false, true])
        {
            if !part.is_empty() {
                self.full.push((part.finish(), dense));
            }
        }
        self.seal()?;
        match self.target {
            Target::Dir(dir) => {
                self.repo.storage().sync_dir(&dir).at(&dir)?;
                Ok((self.heads, Vec::new()))
            }
            Target::Inline(parts) => Ok((self.heads, parts)),
        }
    }

    fn seal(&mut self) -> Result<()> {
        let first = self.heads.len();
        let full = std::mem::take(&mut self.full);
        let sealed: Vec<(PartHead, Vec<u8>)> = full
            .into_par_iter()
            .enumerate()
            .map(|(n, (part, dense))| {
                if self.monitor.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                self.seal_part(first + n, part, dense)
            })
            .collect::<Result<_>>()?;
        for (head, file) in sealed {
            self.heads.push(head);
            if let Target::Inline(parts) = &mut self.target {
                parts.push(file);
            }
        }
        Ok(())
    }

    fn seal_part(&self, number: usize, part: PartBody, dense: bool) -> Result<(PartHead, Vec<u8>)> {
        let at = match &self.target {
            Target::Dir(_) => self.place.with_file_name(number.to_string()),
            Target::Inline(_) => self.place.to_owned(),
        };
        let made: u64 = part.made_size;
        if part.bytes.len() as u64 > MAX_BODY {
            let detail = "a part is larger than clients take".to_owned();
            return Err(Error::InvalidDelta { path: at, detail });
        }
        // Clients map parts that are not compressed at an odd offset, which fails.
        let effort = if dense { Effort::Least } else { self.effort };
        let file = compress(&part.bytes, effort).at(&at)?;
        drop(part.bytes);
        let head = PartHead {
            checksum: ObjectId::of(&file),
            size: file.len() as u64,
            made_size: made,
            objects: part.objects,
        };
        check_part(self.repo, &head, &file, None, self.monitor).map_err(|fault| fault.of(&at))?;
        self.monitor.advance(Phase::Verify, made);
        match &self.target {
            Target::Inline(_) => Ok((head, file)),
            Target::Dir(dir) => {
                write(self.repo, &dir.join(number.to_string()), &file)?;
                Ok((head, Vec::new()))
            }
        }
    }
}

/// Writes a file, durably.
pub(super) fn write(repo: &Repository, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = repo.storage().create(path).at(path)?;
    file.write_all(bytes).at(path)?;
    file.sync().at(path)
}

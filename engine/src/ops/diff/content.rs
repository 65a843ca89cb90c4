//! The bytes of regular files of either side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::report::{FileKind, Info, Source};
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::repo::Repository;

/// A regular file of either side, open for reading.
#[derive(Debug)]
pub struct Content<'r> {
    of: Of<'r>,
    size: u64,
    position: u64,
}

#[derive(Debug)]
enum Of<'r> {
    Nothing,
    Stored(&'r Repository, PayloadId),
    Local(&'r Path, File),
}

impl<'r> Content<'r> {
    /// Opens what an entry holds: nothing unless it is a regular file. `repo` is where commits are.
    pub fn open(repo: Option<&'r Repository>, info: &'r Info) -> Result<Self> {
        let of = match (&info.source, info.payload) {
            _ if info.kind != FileKind::File || info.size == 0 => Of::Nothing,
            (Source::Stored(_), Some(id)) => {
                Of::Stored(repo.ok_or(Error::MissingPayload { id })?, id)
            }
            (Source::Stored(_), None) => Of::Nothing,
            (Source::Local(path), _) => Of::Local(path, File::open(path).at(path)?),
        };
        let size = if matches!(of, Of::Nothing) {
            0
        } else {
            info.size
        };
        Ok(Self {
            of,
            size,
            position: 0,
        })
    }

    /// Its size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at an offset, like `pread`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match &self.of {
            Of::Nothing => Ok(0),
            Of::Stored(repo, payload) => {
                let store = repo.store();
                store.read_payload(payload, self.size, offset, buf)
            }
            // A file that grew meanwhile ends where it did.
            Of::Local(path, file) => {
                let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
                let len = buf.len().min(left);
                file.read_at(&mut buf[..len], offset).at(path)
            }
        }
    }

    /// The first bytes, at most `limit`.
    pub fn head(&self, limit: usize) -> Result<Vec<u8>> {
        let wanted = usize::try_from(self.size).unwrap_or(limit).min(limit);
        let mut bytes = vec![0; wanted];
        let mut done = 0;
        while done < wanted {
            match self.read_at(done as u64, &mut bytes[done..])? {
                0 => break,
                n => done += n,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self
            .read_at(self.position, buf)
            .map_err(|error| match error {
                Error::Io { source, .. } => source,
                other => io::Error::other(other),
            })?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Content<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.size, by),
            SeekFrom::Current(by) => (self.position, by),
        };
        let at = base.checked_add_signed(by);
        self.position = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

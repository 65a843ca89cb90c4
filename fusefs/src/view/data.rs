//! Contents of files: reads, what was decoded along with them, and plain copies.

use grove_engine::{CacheCounts, Group, Member, PayloadId, PlainCopy, Read};

use super::{Node, Result, Source, View, ViewError, object_error};
use crate::prefetch::Contents;
use crate::push::Files;

/// Smaller files are not worth a copy of their own.
const COPIED_MIN: u64 = 1 << 20;

impl<S: Source> View<S> {
    /// Reads a regular file into `buf`; short only at the end of the file.
    pub fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read_grouped(number, offset, buf).map(|read| read.len)
    }

    /// The same; tells the block that a small file was found in.
    pub fn read_grouped(&self, number: u64, offset: u64, buf: &mut [u8]) -> Result<Read> {
        let node = self.node(number)?;
        let file = match &node {
            Node::Live(_) | Node::Dir(_) => return Err(ViewError::IsADirectory),
            Node::RefLink(_) => return Err(ViewError::WrongType),
            Node::File(_) | Node::PathFile(_) => self.file_of(&node)?,
        };
        if file.header.is_symlink() {
            return Err(ViewError::WrongType);
        }
        let left = file.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..len).filter(|buf| !buf.is_empty()) else {
            return Ok(Read::from(0));
        };
        let read = self
            .source
            .read_grouped(&file, offset, buf)
            .map_err(|source| object_error(self.path(number), "file", file.id, source))?;
        if read.len < len {
            return Err(ViewError::ShortPayload {
                path: self.path(number),
                id: file.id,
                end: offset.saturating_add(read.len as u64),
            });
        }
        Ok(read)
    }

    /// A plain copy of a large regular file, made if there is none, and what it is a copy of; `None`
    /// for other files.
    pub fn plain_copy(&self, number: u64) -> Result<Option<(PayloadId, PlainCopy)>> {
        let node = self.node(number)?;
        if !matches!(node, Node::File(_) | Node::PathFile(_)) {
            return Ok(None);
        }
        let file = self.file_of(&node)?;
        let Some(payload) = file.payload.filter(|_| file.size >= COPIED_MIN) else {
            return Ok(None);
        };
        let copy = self.source.plain_copy(&file);
        let copy =
            copy.map_err(|source| object_error(self.path(number), "file", file.id, source))?;
        Ok(copy.map(|copy| (payload, copy)))
    }
}

impl<S: Source> Files for View<S> {
    fn numbers_of(&self, member: &Member<'_>, wanted: &dyn Fn(u64) -> bool) -> Vec<u64> {
        // Each of them is of this payload, and a payload has one length: but what is given to the
        // kernel must have the length that the kernel was told.
        let is_it = |number: &u64| {
            let file = self.node(*number).and_then(|node| self.file_of(&node));
            file.is_ok_and(|file| file.size == member.bytes.len() as u64)
        };
        let mut numbers = self.files_of_payload(&member.id, wanted);
        numbers.retain(is_it);
        numbers
    }

    fn note_done(&self, group: &Group, number: usize) {
        self.source.note_done(group, number);
    }
}

impl<S: Source> Contents for View<S> {
    fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        Self::read(self, number, offset, buf).map_err(std::io::Error::other)
    }

    fn cache_counts(&self) -> CacheCounts {
        self.source.cache_counts()
    }
}

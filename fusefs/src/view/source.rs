//! Where a view takes its data from.

use std::path::PathBuf;
use std::sync::Arc;

use grove_engine::fs::lease::Lease;
use grove_engine::object::{Commit, DirMeta, Dirtree, FileObject};
use grove_engine::{
    CacheCounts, Group, ObjectId, ObjectKind, PlainCopy, Read, Refs, Repository, Result,
};

/// What a view needs of a repository. Called from many threads at once.
pub trait Source: Send + Sync + 'static {
    /// Loads a commit.
    fn commit(&self, id: &ObjectId) -> Result<Commit>;
    /// Loads a directory's listing.
    fn dirtree(&self, id: &ObjectId) -> Result<Arc<Dirtree>>;
    /// Loads a directory's metadata.
    fn dirmeta(&self, id: &ObjectId) -> Result<Arc<DirMeta>>;
    /// Loads a file's header, size and payload name.
    fn file(&self, id: &ObjectId) -> Result<FileObject>;
    /// Loads many files; each result at the place of its name.
    fn files(&self, ids: &[ObjectId]) -> Vec<Result<FileObject>> {
        ids.iter().map(|id| self.file(id)).collect()
    }
    /// Names of the objects of a kind that are not below `first` and not above `last`.
    fn objects_between(
        &self,
        kind: ObjectKind,
        first: &ObjectId,
        last: &ObjectId,
    ) -> Result<Vec<ObjectId>>;
    /// Reads a payload like `pread`; short only at the end of the file.
    fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// The same; tells the block that a small payload was found in.
    fn read_grouped(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<Read> {
        self.read_at(file, offset, buf).map(Read::from)
    }
    /// Nobody will ask for this payload of a block any more.
    fn note_done(&self, _group: &Group, _number: usize) {}
    /// A plain copy of a file's payload, made if there is none. `None` where there are no copies.
    fn plain_copy(&self, _file: &FileObject) -> Result<Option<PlainCopy>> {
        Ok(None)
    }
    /// What the cache of decoded blocks was asked for so far.
    fn cache_counts(&self) -> CacheCounts {
        CacheCounts::default()
    }
    /// All refs as they are now.
    fn refs(&self) -> Result<Refs>;
    /// All commits as they are now.
    fn commits(&self) -> Result<Vec<ObjectId>>;
    /// A number that is another one after commits have come or gone; asking for it costs little,
    /// however many there are.
    fn generation(&self) -> Result<u64>;
    /// Bytes stored and number of objects.
    fn stored(&self) -> Result<(u64, u64)>;
    /// Where the image of a commit may be kept. A source that has no such place gets its images
    /// made in memory.
    fn image_path(&self, _commit: &ObjectId) -> Option<PathBuf> {
        None
    }
    /// Keeps a commit from being deleted for as long as the lease lives. A source from which
    /// nothing is ever deleted has none to give.
    fn lease(&self, _commit: &ObjectId) -> Result<Option<Lease>> {
        Ok(None)
    }
}

impl Source for Repository {
    fn commit(&self, id: &ObjectId) -> Result<Commit> {
        Self::commit(self, id)
    }
    fn dirtree(&self, id: &ObjectId) -> Result<Arc<Dirtree>> {
        Self::dirtree(self, id)
    }
    fn dirmeta(&self, id: &ObjectId) -> Result<Arc<DirMeta>> {
        Self::dirmeta(self, id)
    }
    fn file(&self, id: &ObjectId) -> Result<FileObject> {
        Self::file(self, id)
    }
    fn files(&self, ids: &[ObjectId]) -> Vec<Result<FileObject>> {
        Self::files(self, ids)
    }
    fn objects_between(
        &self,
        kind: ObjectKind,
        first: &ObjectId,
        last: &ObjectId,
    ) -> Result<Vec<ObjectId>> {
        Self::objects_between(self, kind, first, last)
    }
    fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Self::read_at(self, file, offset, buf)
    }
    fn read_grouped(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<Read> {
        match &file.payload {
            Some(payload) => self.read_payload(payload, file.size, offset, buf),
            None => Ok(Read::from(0)),
        }
    }
    fn note_done(&self, group: &Group, number: usize) {
        Self::note_done(self, group, number);
    }
    fn plain_copy(&self, file: &FileObject) -> Result<Option<PlainCopy>> {
        let copy = |payload| Self::plain_copy(self, &payload, file.size);
        file.payload.map(copy).transpose()
    }
    fn cache_counts(&self) -> CacheCounts {
        Self::cache_counts(self)
    }
    fn refs(&self) -> Result<Refs> {
        Self::refs(self)
    }
    fn commits(&self) -> Result<Vec<ObjectId>> {
        Self::commits(self)
    }
    fn generation(&self) -> Result<u64> {
        Self::generation(self)
    }
    fn stored(&self) -> Result<(u64, u64)> {
        Self::stored(self)
    }
    fn image_path(&self, commit: &ObjectId) -> Option<PathBuf> {
        Some(Self::image_path(self, commit))
    }
    fn lease(&self, commit: &ObjectId) -> Result<Option<Lease>> {
        Self::lease(self, &[*commit]).map(Some)
    }
}

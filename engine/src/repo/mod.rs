//! The repository: opening, looking up, and beginning transactions.

mod alike;
pub(crate) mod bases;
pub(crate) mod delta;
mod images;
mod imports;
pub(crate) mod ingest;
pub(crate) mod layout;
mod locks;
pub(crate) mod meta;
pub(crate) mod parts;
mod payloads;
mod resolve;
pub(crate) mod restore;
pub(crate) mod split;
pub(crate) mod state;
pub(crate) mod transaction;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::error::{Error, IoResultExt, Result};
use crate::fs::{DiskStorage, Storage};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::object::{Commit, DecodeError, DirMeta, Dirtree, FileHeader, FileObject};
use crate::pack::recipe::Piece;
use crate::pack::{EntryKind, Key, part_count};
use crate::refs::{RefUpdate, Refs, RefsFile};
use crate::store::copies::PlainCopy;
use crate::store::group::{Group, Read};
use crate::store::{CacheCounts, Found, Store, lock};

pub use self::imports::Import;
pub(crate) use self::imports::{decode_import, encode_import};
use self::meta::Meta;
pub use self::meta::{FEATURES, VERSION as FORMAT_VERSION};
pub use self::transaction::Transaction;

/// An open repository; shared between threads by reference.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    meta: Meta,
    storage: Arc<dyn Storage>,
    store: Store,
    refs: RefsFile,
    /// The commits of the index that was scanned last.
    commits: Mutex<Option<(Weak<Index>, Vec<ObjectId>)>>,
}

/// Directories of a repository, made by `init`.
pub(crate) const DIRECTORIES: [&str; 5] = ["packs", "index", "cache", "staging", "leases"];

/// Size of the fixed part of a file record: payload size and payload id.
const RECORD_HEAD: usize = 8 + PayloadId::LEN;

impl Repository {
    /// Makes a new empty repository; `path` may exist if it is an empty directory.
    pub fn init(path: &Path) -> Result<Self> {
        Self::init_on(path, Arc::new(DiskStorage))
    }

    /// Like [`Repository::init`], writing through the given storage.
    pub fn init_on(path: &Path, storage: Arc<dyn Storage>) -> Result<Self> {
        std::fs::create_dir_all(path).at(path)?;
        if std::fs::read_dir(path).at(path)?.next().is_some() {
            return Err(Error::NotEmpty {
                path: path.to_owned(),
            });
        }
        for name in DIRECTORIES {
            let dir = path.join(name);
            std::fs::create_dir(&dir).at(&dir)?;
        }
        RefsFile::new(path).init(&*storage)?;
        // Last: its existence makes the directory a repository.
        Meta::init(path, &*storage)?;
        Self::open_on(path, storage)
    }

    /// Opens an existing repository.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_on(path, Arc::new(DiskStorage))
    }

    /// Like [`Repository::open`], writing through the given storage.
    pub fn open_on(path: &Path, storage: Arc<dyn Storage>) -> Result<Self> {
        let meta = Meta::load(path)?;
        Ok(Self {
            meta,
            storage,
            store: Store::open(path)?,
            refs: RefsFile::new(path),
            commits: Mutex::default(),
            path: path.to_owned(),
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where callers may keep files that can be lost at any time.
    pub fn cache_dir(&self) -> PathBuf {
        self.path.join("cache")
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether new payloads may be stored as deltas and recipes.
    pub(crate) fn allows_derived(&self) -> bool {
        self.meta.allows_derived()
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.meta.check_writable(&self.path)
    }

    /// Whether packs get a parity file when they are published.
    pub fn has_parity(&self) -> bool {
        self.meta.has_parity()
    }

    /// Switches parity files for future packs on or off.
    pub fn set_parity(&mut self, parity: bool) -> Result<()> {
        self.check_writable()?;
        self.meta.set_parity(&self.path, &*self.storage, parity)
    }

    pub(crate) fn refs_file(&self) -> &RefsFile {
        &self.refs
    }

    /// All refs.
    pub fn refs(&self) -> Result<Refs> {
        self.refs.load()
    }

    /// Changes refs, all or none. New values must be commits of this repository.
    pub fn update_refs(&self, updates: &[RefUpdate]) -> Result<()> {
        self.check_writable()?;
        // A commit cannot be deleted between being looked for and being referred to.
        let _lock = self.lock_shared()?;
        self.store.refresh()?;
        for id in updates.iter().filter_map(|u| u.new) {
            if self
                .store
                .locate(&Key::new(EntryKind::Commit, *id.as_bytes()))?
                .is_none()
            {
                return Err(Error::MissingObject {
                    kind: ObjectKind::Commit,
                    id,
                });
            }
        }
        self.refs.update(&*self.storage, updates)
    }

    /// Every commit in the repository, sorted.
    pub fn commits(&self) -> Result<Vec<ObjectId>> {
        self.store.refresh()?;
        let index = self.store.index();
        let mut known = lock(&self.commits);
        if let Some((of, commits)) = known.as_ref()
            && of.as_ptr() == Arc::as_ptr(&index)
        {
            return Ok(commits.clone());
        }
        let mut commits = Vec::new();
        index.for_each(&mut |key, _| {
            if key.kind == EntryKind::Commit {
                commits.push(ObjectId::from_bytes(key.id));
            }
            Ok(())
        })?;
        // As long as the reference is held, no other index has the same address.
        *known = Some((Arc::downgrade(&index), commits.clone()));
        Ok(commits)
    }

    /// A number that grows when commits come or go, and at other times, too: how to find that out
    /// without looking for them. It means nothing to another value of this type.
    pub fn generation(&self) -> Result<u64> {
        self.store.refresh()?;
        Ok(self.store.generation())
    }

    /// Finds the commit that a rev names: a checksum, a unique abbreviation of one, a ref, or
    /// `REV^` for the parent of `REV`.
    pub fn resolve_rev(&self, rev: &str) -> Result<ObjectId> {
        resolve::resolve_rev(self, rev)
    }

    /// Whether an object is in the repository.
    pub fn contains(&self, kind: ObjectKind, id: &ObjectId) -> Result<bool> {
        Ok(self
            .store
            .locate(&Key::new(entry_kind(kind), *id.as_bytes()))?
            .is_some())
    }

    /// Whether every part of a payload is in the repository.
    pub(crate) fn contains_payload(&self, id: &PayloadId, size: u64) -> Result<bool> {
        for key in self.store.keys_of(id, size)? {
            if self.store.locate(&key)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn find(&self, kind: ObjectKind, id: &ObjectId) -> Result<Found> {
        let found = self
            .store
            .get(&Key::new(entry_kind(kind), *id.as_bytes()))?;
        found.ok_or(Error::MissingObject { kind, id: *id })
    }

    /// Loads a commit.
    pub fn commit(&self, id: &ObjectId) -> Result<Commit> {
        let found = self.find(ObjectKind::Commit, id)?;
        Commit::parse(found.bytes()).map_err(malformed(ObjectKind::Commit, id))
    }

    /// Loads a directory listing.
    pub fn dirtree(&self, id: &ObjectId) -> Result<Arc<Dirtree>> {
        let found = self.find(ObjectKind::Dirtree, id)?;
        Dirtree::parse(found.bytes())
            .map(Arc::new)
            .map_err(malformed(ObjectKind::Dirtree, id))
    }

    /// Loads a directory's metadata.
    pub fn dirmeta(&self, id: &ObjectId) -> Result<Arc<DirMeta>> {
        let found = self.find(ObjectKind::Dirmeta, id)?;
        DirMeta::parse(found.bytes())
            .map(Arc::new)
            .map_err(malformed(ObjectKind::Dirmeta, id))
    }

    /// Loads a file's header, size and payload name.
    pub fn file(&self, id: &ObjectId) -> Result<FileObject> {
        let found = self.find(ObjectKind::File, id)?;
        decode_record(id, found.bytes()).map_err(malformed(ObjectKind::File, id))
    }

    /// Loads many files, in parallel; each result at the place of its name.
    pub fn files(&self, ids: &[ObjectId]) -> Vec<Result<FileObject>> {
        let key = |id: &ObjectId| Key::new(EntryKind::File, *id.as_bytes());
        let keys: Vec<Key> = ids.iter().map(key).collect();
        let found = self.store.get_many(&keys, |n, found| {
            decode_record(&ids[n], found.bytes()).map_err(malformed(ObjectKind::File, &ids[n]))
        });
        let found = found.into_iter().zip(ids);
        found
            .map(|(file, id)| file.unwrap_or_else(|| self.file(id)))
            .collect()
    }

    /// Names of the objects of a kind that are not below `first` and not above `last`, ascending.
    pub fn objects_between(
        &self,
        kind: ObjectKind,
        first: &ObjectId,
        last: &ObjectId,
    ) -> Result<Vec<ObjectId>> {
        let range = (first.as_bytes(), last.as_bytes());
        let found = self.store.ids_between(entry_kind(kind), range)?;
        Ok(found.into_iter().map(ObjectId::from_bytes).collect())
    }

    /// Verbatim bytes of a commit, dirtree or dirmeta object; of a file, the header variant.
    pub fn object_bytes(&self, kind: ObjectKind, id: &ObjectId) -> Result<Vec<u8>> {
        let found = self.find(kind, id)?;
        let skip = if kind == ObjectKind::File {
            RECORD_HEAD
        } else {
            0
        };
        Ok(found.bytes().get(skip..).unwrap_or_default().to_vec())
    }

    /// Reads payload bytes at an offset, like `pread`; short only at the end of the file.
    pub fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Some(payload) = file.payload else {
            return Ok(0);
        };
        self.store.read_payload(&payload, file.size, offset, buf)
    }

    /// Reads payload bytes like [`Repository::read_at`], and tells what else was decoded for it.
    pub fn read_payload(
        &self,
        id: &PayloadId,
        size: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Read> {
        let of = Piece { id: *id, size };
        self.store.read_grouped(of, offset, buf)
    }

    /// Notes that nobody will ask for a payload of a group any more: when this holds for all of them,
    /// its block need not be kept.
    pub fn note_done(&self, group: &Group, number: usize) {
        self.store.note_done(group, number);
    }

    /// A plain copy of a payload in the repository's cache, open for reading; made if there is none.
    pub fn plain_copy(&self, id: &PayloadId, size: u64) -> Result<PlainCopy> {
        self.store.plain_copy(Piece { id: *id, size })
    }

    /// What the cache of decoded blocks was asked for so far.
    pub fn cache_counts(&self) -> CacheCounts {
        self.store.cache_counts()
    }

    /// Begins a transaction that adds objects and then changes refs.
    pub fn begin<'r>(&'r self, monitor: &'r dyn Monitor) -> Result<Transaction<'r>> {
        Transaction::begin(self, monitor)
    }

    /// Figures for `statfs` and `stats`: (bytes of all packs, number of objects and payload parts).
    pub fn stored(&self) -> Result<(u64, u64)> {
        let bytes = self.store.stored_bytes()?;
        Ok((bytes, self.store.index().len() as u64))
    }

    /// Makes the index anew from the packs; reports packs that are damaged.
    pub fn reindex(&self, monitor: &dyn Monitor) -> Result<ReindexReport> {
        self.check_writable()?;
        let packs = self.store.paths().present()?;
        monitor.begin(Phase::Reindex, Some(packs.len() as u64));
        let index = Index::rebuild(self.store.paths(), |_| monitor.advance(Phase::Reindex, 1))?;
        monitor.end(Phase::Reindex);
        let report = ReindexReport {
            packs: packs.len() as u64,
            entries: index.len() as u64,
            damaged: index.damaged.iter().map(ToString::to_string).collect(),
        };
        self.store.set_index(Index::load(self.store.paths())?);
        Ok(report)
    }
}

/// What [`Repository::reindex`] found.
#[derive(Debug, Clone, Default)]
pub struct ReindexReport {
    /// Packs read.
    pub packs: u64,
    /// Entries indexed.
    pub entries: u64,
    /// Packs whose footer was damaged and which were scanned instead, with what was wrong.
    pub damaged: Vec<String>,
}

fn malformed(kind: ObjectKind, id: &ObjectId) -> impl FnOnce(DecodeError) -> Error + use<> {
    let id = *id;
    move |source| Error::MalformedObject { kind, id, source }
}

fn entry_kind(kind: ObjectKind) -> EntryKind {
    match kind {
        ObjectKind::File => EntryKind::File,
        ObjectKind::Dirtree => EntryKind::Dirtree,
        ObjectKind::Dirmeta => EntryKind::Dirmeta,
        ObjectKind::Commit => EntryKind::Commit,
    }
}

/// Encodes a file record: size, payload id (zeros if none), header variant.
pub(crate) fn encode_record(header: &FileHeader, size: u64, payload: Option<PayloadId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEAD + 32);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(
        payload
            .as_ref()
            .map_or(&[0; 32], PayloadId::as_bytes)
            .as_slice(),
    );
    out.extend_from_slice(&header.to_bytes());
    out
}

/// Decodes a file record.
pub(crate) fn decode_record(id: &ObjectId, bytes: &[u8]) -> Result<FileObject, DecodeError> {
    let (head, header) = bytes
        .split_first_chunk::<RECORD_HEAD>()
        .ok_or(DecodeError::Rule("file record is too short"))?;
    let header = FileHeader::parse(header)?;
    let size = crate::pack::le64(head, 0);
    let payload = PayloadId::from_slice(&head[8..]).filter(|p| p.as_bytes() != &[0; 32]);
    if payload.is_some() != (size > 0) || (header.is_symlink() && size > 0) {
        return Err(DecodeError::Rule("file record's size and payload disagree"));
    }
    if part_count(size) > u64::from(Key::MAX_PART) {
        return Err(DecodeError::Rule("file record's size is out of range"));
    }
    Ok(FileObject {
        id: *id,
        header,
        size,
        payload,
    })
}

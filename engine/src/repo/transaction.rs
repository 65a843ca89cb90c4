//! Writing: objects go into packs in the staging directory; publishing makes them visible.
//!
//! The order of publishing is what crash safety rests on: payload packs, then metadata packs one
//! after the other (children are in earlier packs than what refers to them), then the index, then
//! the refs. Whatever is found in the repository is therefore complete below.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use rayon::prelude::*;

use super::bases::Bases;
use super::ingest::{Hashed, Hasher, NewFile, NewPayload};
use super::parts::Small;
use super::{Repository, encode_import, encode_record};
use crate::compress::LEVEL;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::{Lock, OwnedDir};
use crate::id::{ObjectId, PayloadId};
use crate::index::ObjectIndex;
use crate::index::set::Index;
use crate::monitor::{Monitor, Phase};
use crate::object::{Commit, DirMeta, Dirtree};
use crate::pack::doomed;
use crate::pack::parity;
use crate::pack::recipe::Piece;
use crate::pack::writer::{Block, BlockBuilder, IndexRow, PackWriter, StagedPack};
use crate::pack::{BlockClass, EntryKind, Key, MAX_RAW, META_TARGET, PACK_TARGET};
use crate::refs::RefUpdate;
use crate::repo::delta::{MIN_SIZE, Older};
use crate::store::payload::part_key;
use crate::tree::{FileEntry, MutableTree, NewRecord};

/// Packs that may be on their way to the disk at the same time.
const SYNCS_AT_ONCE: usize = 4;

/// What a transaction wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Files given, new or not.
    pub files: u64,
    /// File objects that the repository did not have.
    pub new_files: u64,
    /// Metadata objects that the repository did not have.
    pub new_metadata: u64,
    /// Plain bytes of payloads that the repository did not have.
    pub new_payload_bytes: u64,
    /// New files that were compared with a file of the parent commit because of their content,
    /// as their names led to none.
    pub alike_files: u64,
    /// Bytes of the packs written.
    pub stored_bytes: u64,
}

/// Adds objects; nothing is visible to others until [`Transaction::publish`]. Dropped without
/// publishing, it leaves the repository as it was.
#[derive(Debug)]
pub struct Transaction<'r> {
    pub(super) repo: &'r Repository,
    pub(super) monitor: &'r dyn Monitor,
    pub(super) index: Arc<Index>,
    /// Keys that this transaction adds.
    pub(super) pending: HashSet<Key>,
    pub(super) window: Vec<Small>,
    pub(super) window_bytes: usize,
    meta: BlockBuilder,
    /// Delta records on their way to a block.
    pub(super) deltas: BlockBuilder,
    /// Where deltas find their bases.
    pub(super) bases: Option<Bases>,
    pub(super) data_packs: PackSeries,
    meta_packs: PackSeries,
    pub(super) spools: AtomicU32,
    pub(super) report: WriteReport,
    // Last, so that the directory goes when everything in it is closed.
    pub(super) staging: OwnedDir,
    _lock: Option<Lock>,
}

impl<'r> Transaction<'r> {
    pub(super) fn begin(repo: &'r Repository, monitor: &'r dyn Monitor) -> Result<Self> {
        let lock = repo.lock_shared()?;
        Self::begin_under(repo, monitor, Some(lock))
    }

    /// Begins under a lock that the caller holds, shared or not, for as long as this lives.
    pub(crate) fn begin_locked(repo: &'r Repository, monitor: &'r dyn Monitor) -> Result<Self> {
        Self::begin_under(repo, monitor, None)
    }

    fn begin_under(
        repo: &'r Repository,
        monitor: &'r dyn Monitor,
        lock: Option<Lock>,
    ) -> Result<Self> {
        repo.check_writable()?;
        doomed::finish(repo.storage(), repo.path())?;
        // Only what is seen under the lock is sure not to be deleted meanwhile.
        repo.store().refresh()?;
        let staging = OwnedDir::create(&repo.path().join("staging"))?;
        Ok(Self {
            repo,
            monitor,
            index: repo.store().index(),
            pending: HashSet::new(),
            window: Vec::new(),
            window_bytes: 0,
            meta: BlockBuilder::new(BlockClass::Meta),
            deltas: BlockBuilder::new(BlockClass::Delta),
            bases: None,
            data_packs: PackSeries::new("data"),
            meta_packs: PackSeries::new("meta"),
            spools: AtomicU32::new(0),
            report: WriteReport::default(),
            staging,
            _lock: lock,
        })
    }

    /// The repository written to.
    pub fn repository(&self) -> &'r Repository {
        self.repo
    }

    /// What has been written so far.
    pub fn report(&self) -> WriteReport {
        self.report
    }

    fn has(&self, key: &Key) -> Result<bool> {
        Ok(self.pending.contains(key) || self.index.get(key)?.is_some())
    }

    /// Whether a file object is already in the repository or in this transaction.
    pub fn has_file(&self, id: &ObjectId) -> Result<bool> {
        self.has(&Key::new(EntryKind::File, *id.as_bytes()))
    }

    /// Whether a payload can be read: with all that its recipe and its deltas need, as an
    /// interrupted publication may have left only some of it.
    pub(super) fn has_payload(&self, id: &PayloadId, size: u64) -> Result<bool> {
        if self.pending.contains(&part_key(id, 0)) {
            return Ok(true);
        }
        let store = self.repo.store();
        let mut todo = store.keys_of(id, size)?;
        // Entries that need each other in a circle, in a damaged repository, are met once.
        let mut seen = HashSet::new();
        while let Some(key) = todo.pop() {
            if self.index.get(&key)?.is_none() {
                return Ok(false);
            }
            todo.extend(
                store
                    .needs(&key)?
                    .into_iter()
                    .filter(|key| seen.insert(*key)),
            );
        }
        Ok(true)
    }

    /// Names the commit whose files the new ones most likely are later versions of: what is new is
    /// stored as the difference to them where that is smaller.
    pub fn set_parent(&mut self, commit: &ObjectId) -> Result<()> {
        let tree = self.repo.commit(commit)?.tree;
        self.bases = self.repo.allows_derived().then(|| Bases::new(tree));
        Ok(())
    }

    /// The older version of a file at this path.
    pub(super) fn older_version(&mut self, hint: &[u8], size: u64) -> Option<Piece> {
        if size < MIN_SIZE {
            return None;
        }
        self.bases.as_mut()?.find(self.repo, hint, size)
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.monitor.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Stores files. Results are in the order of `files`. Callers keep one batch below about
    /// 32 MiB of in-memory payload; larger payloads go in as `File` or `Stream`.
    pub fn put_files(&mut self, files: Vec<NewFile>) -> Result<Vec<FileEntry>> {
        self.check_cancelled()?;
        let hasher = Hasher::new(self.staging.path(), &self.spools, self.monitor);
        let hashed: Vec<Hashed> = files
            .into_par_iter()
            .map(|file| hasher.hash(file))
            .collect::<Result<_>>()?;
        let mut entries = Vec::with_capacity(hashed.len());
        let mut new = Vec::new();
        for file in hashed {
            entries.push(self.put_hashed(file, &mut new)?);
        }
        self.find_alike(&mut new);
        self.put_payloads(new)?;
        Ok(entries)
    }

    /// Stores one file whose payload comes from a stream of exactly `size` bytes, by way of the
    /// staging directory: for payloads too large for memory. The body of `file` is not looked at.
    pub fn put_stream(
        &mut self,
        file: NewFile,
        stream: &mut dyn Read,
        size: u64,
    ) -> Result<FileEntry> {
        self.check_cancelled()?;
        let hasher = Hasher::new(self.staging.path(), &self.spools, self.monitor);
        let hashed = hasher.hash_stream(file, stream, size)?;
        let mut new = Vec::new();
        let entry = self.put_hashed(hashed, &mut new)?;
        self.find_alike(&mut new);
        self.put_payloads(new)?;
        Ok(entry)
    }

    fn put_hashed(&mut self, file: Hashed, payloads: &mut Vec<NewPayload>) -> Result<FileEntry> {
        self.report.files += 1;
        self.monitor.advance(Phase::Store, file.size);
        if let Some(bases) = &mut self.bases {
            bases.note_path(&file.hint);
        }
        if self.has_file(&file.id)? {
            return Ok(FileEntry {
                id: file.id,
                new: None,
            });
        }
        if let Some(payload) = file.payload
            && !self.has_payload(&payload, file.size)?
        {
            self.pending.insert(part_key(&payload, 0));
            self.report.new_payload_bytes += file.size;
            payloads.push(NewPayload {
                id: payload,
                size: file.size,
                content: file.content,
                base: self.older_version(&file.hint, file.size).map(Older::from),
                hint: file.hint,
                sequence: 0,
            });
        }
        let new = NewRecord {
            header: file.header,
            size: file.size,
            payload: file.payload,
        };
        Ok(FileEntry {
            id: file.id,
            new: Some(Box::new(new)),
        })
    }

    /// Adds an entry to the metadata packs unless the repository has it.
    pub(super) fn put_meta(&mut self, key: Key, bytes: &[u8]) -> Result<()> {
        if self.has(&key)? {
            return Ok(());
        }
        if bytes.len() > MAX_RAW {
            return Err(Error::UnsupportedInput {
                path: ObjectId::from_bytes(key.id).to_string(),
                reason: format!("metadata object of {} bytes is too large", bytes.len()),
            });
        }
        if self.meta.is_full(META_TARGET, bytes.len()) {
            self.flush_meta()?;
        }
        self.meta.push(key, bytes);
        self.pending.insert(key);
        match key.kind {
            EntryKind::File => self.report.new_files += 1,
            _ => self.report.new_metadata += 1,
        }
        Ok(())
    }

    fn flush_meta(&mut self) -> Result<()> {
        if self.meta.is_empty() {
            return Ok(());
        }
        let builder = std::mem::replace(&mut self.meta, BlockBuilder::new(BlockClass::Meta));
        let block = builder.finish(LEVEL).at(self.repo.path())?;
        self.meta_packs
            .append(self.repo, self.staging.path(), &block)
    }

    fn put_record(&mut self, file: &FileEntry) -> Result<()> {
        let Some(new) = &file.new else { return Ok(()) };
        let bytes = encode_record(&new.header, new.size, new.payload);
        self.put_meta(Key::new(EntryKind::File, *file.id.as_bytes()), &bytes)
    }

    /// Remembers an import: `bytes` are the caller's, `files` are the file entries it names
    /// (their records are written too, so that a later commit finds them).
    pub fn put_import(&mut self, key: &ObjectId, bytes: &[u8], files: &[FileEntry]) -> Result<()> {
        files.iter().try_for_each(|file| self.put_record(file))?;
        let record = encode_import(files.iter().map(|file| file.id), bytes);
        self.put_meta(Key::new(EntryKind::Import, *key.as_bytes()), &record)
    }

    /// Writes a directory's metadata; returns its name.
    pub fn put_dirmeta(&mut self, meta: &DirMeta) -> Result<ObjectId> {
        let bytes = meta.to_bytes();
        let id = ObjectId::of(&bytes);
        self.put_meta(Key::new(EntryKind::Dirmeta, *id.as_bytes()), &bytes)?;
        Ok(id)
    }

    /// Writes a directory listing whose parts are stored already; returns its name.
    pub fn put_dirtree(&mut self, tree: &Dirtree) -> Result<ObjectId> {
        let bytes = tree.to_bytes();
        let id = ObjectId::of(&bytes);
        self.put_meta(Key::new(EntryKind::Dirtree, *id.as_bytes()), &bytes)?;
        Ok(id)
    }

    /// Writes the objects of a tree, bottom-up; returns the root's (dirtree, dirmeta).
    pub fn put_tree(&mut self, tree: &MutableTree) -> Result<(ObjectId, ObjectId)> {
        self.monitor.begin(Phase::Tree, Some(tree.entries(0)));
        let root = tree.write(self)?;
        self.monitor.end(Phase::Tree);
        Ok(root)
    }

    /// Tells of entries that are listed.
    pub(crate) fn advance_tree(&self, entries: u64) {
        self.monitor.advance(Phase::Tree, entries);
    }

    /// Writes the record of a file that is about to be listed.
    pub(crate) fn put_listed_file(&mut self, file: &FileEntry) -> Result<()> {
        self.put_record(file)
    }

    /// Writes a commit object.
    pub fn put_commit(&mut self, commit: &Commit) -> Result<ObjectId> {
        let bytes = commit.to_bytes();
        let id = ObjectId::of(&bytes);
        self.put_meta(Key::new(EntryKind::Commit, *id.as_bytes()), &bytes)?;
        Ok(id)
    }

    /// Makes everything durable (packs, index) and then changes the refs, all or none.
    pub fn publish(mut self, refs: &[RefUpdate]) -> Result<WriteReport> {
        self.monitor.begin(Phase::Publish, None);
        self.flush_window()?;
        self.flush_deltas()?;
        self.flush_meta()?;
        let data = std::mem::replace(&mut self.data_packs, PackSeries::new("data")).finish()?;
        let meta = std::mem::replace(&mut self.meta_packs, PackSeries::new("meta")).finish()?;
        self.check_cancelled()?;
        publish_packs(self.repo, &data)?;
        meta.iter()
            .try_for_each(|pack| publish_packs(self.repo, std::slice::from_ref(pack)))?;
        let packs: Vec<_> = data.iter().chain(&meta).collect();
        if !packs.is_empty() {
            let rows: Vec<(_, &[IndexRow])> = packs
                .iter()
                .map(|pack| (pack.id, pack.rows.as_slice()))
                .collect();
            if let Err(error) = Index::add(self.repo.store().paths(), &rows) {
                // The packs are safe, and the next one to open the repository indexes them.
                self.monitor
                    .warn(&format!("the index was not updated: {error}"));
            }
            self.repo.store().refresh()?;
        }
        self.report.stored_bytes = packs.iter().map(|pack| pack.size).sum();
        self.repo.refs.update(self.repo.storage(), refs)?;
        self.monitor.end(Phase::Publish);
        Ok(self.report)
    }
}

/// Moves durable packs to where readers find them, and makes their names durable.
pub(crate) fn publish_packs(repo: &Repository, packs: &[StagedPack]) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let paths = repo.store().paths();
    for pack in packs {
        let target = paths.pack(&pack.id);
        repo.storage().rename(&pack.path, &target).at(&target)?;
    }
    repo.storage()
        .sync_dir(paths.packs_dir())
        .at(paths.packs_dir())?;
    if repo.has_parity() {
        for pack in packs {
            parity::make(repo.storage(), &paths.pack(&pack.id), pack.id)?;
        }
    }
    Ok(())
}

/// Packs of one sort, one after the other.
#[derive(Debug)]
pub(crate) struct PackSeries {
    name: &'static str,
    current: Option<PackWriter>,
    count: u32,
    finished: Vec<StagedPack>,
    syncing: Vec<JoinHandle<Result<StagedPack>>>,
}

impl PackSeries {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            current: None,
            count: 0,
            finished: Vec::new(),
            syncing: Vec::new(),
        }
    }

    pub(crate) fn append(
        &mut self,
        repo: &Repository,
        staging: &std::path::Path,
        block: &Block,
    ) -> Result<()> {
        if self.current.is_none() {
            let path: PathBuf = staging.join(format!("{}.{}", self.name, self.count));
            self.count += 1;
            self.current = Some(PackWriter::create(repo.storage(), &path)?);
        }
        let writer = self.current.as_mut().expect("because it was just made");
        writer.append(block)?;
        if writer.size() >= PACK_TARGET {
            self.close_current()?;
        }
        Ok(())
    }

    /// Hands a full pack to a thread that waits for the disk, so that work goes on meanwhile.
    fn close_current(&mut self) -> Result<()> {
        if let Some(writer) = self.current.take() {
            if self.syncing.len() >= SYNCS_AT_ONCE {
                let oldest = self.syncing.remove(0);
                self.finished.push(join(oldest)?);
            }
            self.syncing
                .push(std::thread::spawn(move || writer.finish()));
        }
        Ok(())
    }

    /// All packs, durable under their staging names, in the order of writing.
    pub(crate) fn finish(mut self) -> Result<Vec<StagedPack>> {
        let last = self.current.take().map(PackWriter::finish);
        for handle in self.syncing {
            self.finished.push(join(handle)?);
        }
        self.finished.extend(last.transpose()?);
        Ok(self.finished)
    }
}

fn join(handle: JoinHandle<Result<StagedPack>>) -> Result<StagedPack> {
    handle.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that made a pack durable panicked",
        ))
        .at("staging")
    })
}

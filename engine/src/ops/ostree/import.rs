//! Commits of an OSTree repository on disk, taken into ours.
//!
//! Commits come one after the other, parents first, so that each is stored as what it changes.
//! Every object is compared with its name. Files are published about every gigabyte: a run that is
//! interrupted leaves whole files, which the next one does not read again, and commits only with
//! everything below them. Refs change at the end, all or none.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::Path;

use rayon::prelude::*;

use super::MAX_CONFIG;
use super::keyfile::{Group, KeyFile};
use super::loose::LooseRepo;
use super::object::{Content, Head};
use super::walk::{Gatherer, Needed, commit, history};
use crate::error::{Error, Result};
use crate::fs::replace_file;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::Commit;
use crate::pack::{EntryKind, GROUPED_MAX};
use crate::refs::{RefUpdate, is_valid_ref_name};
use crate::repo::ingest::{Body, IN_MEMORY_MAX, NewFile};
use crate::repo::layout::LayoutKey;
use crate::repo::{Repository, Transaction};
use crate::tree::FileEntry;

/// Content bytes and files read at a time.
const BATCH_BYTES: u64 = 16 << 20;
const BATCH_FILES: usize = 8192;
/// Leases that are held at the same time: each is an open file.
const MAX_LEASES: usize = 64;
/// Large files that are open together.
const OPEN_FILES: u64 = 16;

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Refs, or checksums of commits; none = all refs.
    pub refs: Vec<String>,
    /// At most this many parents of each; `None` = all that are there.
    pub depth: Option<u64>,
    /// Bytes of files after which these are published although their commit is not complete.
    pub publish_bytes: u64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            refs: Vec::new(),
            depth: None,
            publish_bytes: 1 << 30,
        }
    }
}

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// The mode of the repository.
    pub mode: String,
    /// Refs with the commits that they have now.
    pub refs: BTreeMap<String, ObjectId>,
    /// Commits looked at.
    pub commits: u64,
    /// Commits that were not there.
    pub new_commits: u64,
    /// Commits that are incomplete, as they are where they come from.
    pub partial_commits: u64,
    /// File objects of new commits.
    pub files: u64,
    /// Those that were read, as they were not there.
    pub read_files: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Plain bytes of payloads that were not there.
    pub new_payload_bytes: u64,
    /// Bytes of the packs written.
    pub stored_bytes: u64,
}

/// Imports from the OSTree repository at `path`.
///
/// # Errors
/// [`Error::BadObject`] for what is damaged or missing there, [`Error::UnsupportedInput`] for what
/// is no such repository. Refs and commits are then as before.
pub fn import(
    repo: &Repository,
    path: &Path,
    options: &ImportOptions,
    monitor: &dyn Monitor,
) -> Result<ImportReport> {
    let from = LooseRepo::open(path)?;
    let all = from.refs(monitor)?;
    let (refs, heads) = select(&from, all, &options.refs)?;
    let mut report = ImportReport {
        mode: from.mode().to_string(),
        ..ImportReport::default()
    };
    monitor.begin(Phase::Scan, None);
    let order = history(&from, heads, options.depth)?;
    monitor.end(Phase::Scan);
    report.commits = order.len() as u64;
    let now = repo.refs()?.map;
    let bases: HashMap<ObjectId, ObjectId> = refs
        .iter()
        .filter_map(|(name, id)| Some((*id, *now.get(name)?)))
        .collect();
    // Nothing else keeps what has come until refs lead to it.
    let mut leases = Vec::with_capacity(MAX_LEASES);
    for (at, id) in order.iter().enumerate() {
        let task = Task {
            repo,
            from: &from,
            id,
            publish_bytes: options.publish_bytes,
            monitor,
        };
        task.run(bases.get(id), &mut report)?;
        leases.push(repo.lease(std::slice::from_ref(id))?);
        if leases.len() == MAX_LEASES {
            leases = vec![repo.lease(&order[..=at])?];
        }
    }
    let update = |(name, id): (&String, &ObjectId)| RefUpdate {
        name: name.clone(),
        expected: Some(now.get(name).copied()),
        new: Some(*id),
    };
    let changed = |(name, id): &(&String, &ObjectId)| now.get(*name) != Some(*id);
    let updates: Vec<RefUpdate> = refs.iter().filter(changed).map(update).collect();
    keep_config(repo, from.config(), monitor)?;
    repo.update_refs(&updates)?;
    drop(leases);
    report.refs = refs;
    Ok(report)
}

type Selected = (BTreeMap<String, ObjectId>, Vec<ObjectId>);

/// The refs that are wanted, and the commits that they and wanted checksums stand for.
fn select(
    from: &LooseRepo,
    all: BTreeMap<String, ObjectId>,
    wanted: &[String],
) -> Result<Selected> {
    let mut refs = BTreeMap::new();
    let mut heads = Vec::new();
    if wanted.is_empty() {
        refs = all;
    } else {
        for rev in wanted {
            match (all.get(rev), rev.parse::<ObjectId>()) {
                (Some(id), _) => drop(refs.insert(rev.clone(), *id)),
                (None, Ok(id)) => heads.push(id),
                (None, Err(_)) if !is_valid_ref_name(rev) => {
                    return Err(Error::InvalidRefName { name: rev.clone() });
                }
                (None, Err(_)) => {
                    let path = from.path().display().to_string();
                    let reason = format!("it has no ref {rev:?}");
                    return Err(Error::UnsupportedInput { path, reason });
                }
            }
        }
    }
    heads.extend(refs.values().copied());
    for id in &heads {
        if !from.has(ObjectKind::Commit, id) {
            return Err(from.missing(ObjectKind::Commit, id));
        }
    }
    Ok((refs, heads))
}

/// One commit to import.
struct Task<'a> {
    repo: &'a Repository,
    from: &'a LooseRepo,
    id: &'a ObjectId,
    publish_bytes: u64,
    monitor: &'a dyn Monitor,
}

/// A file to be read.
struct Item<'n> {
    id: ObjectId,
    path: &'n str,
    weight: Weight,
}

/// What a file takes while it is read. Headers themselves are read again with the contents: each has
/// up to a megabyte of attributes, and there are as many as files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weight {
    size: u64,
    header: u64,
}

impl Weight {
    fn of(head: &Head) -> Self {
        let header = &head.header;
        let xattrs = header.xattrs.iter();
        let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        Self {
            size: head.size,
            header: (header.symlink_target.len() + xattrs) as u64,
        }
    }
}

impl Task<'_> {
    fn run(&self, current: Option<&ObjectId>, report: &mut ImportReport) -> Result<()> {
        let (repo, from, id) = (self.repo, self.from, self.id);
        let partial = from.partial_mark(id).exists();
        report.partial_commits += u64::from(partial);
        let detached = from.detached(id)?;
        let there = repo.contains(ObjectKind::Commit, id)?;
        if there && !repo.is_partial(id) {
            // Then everything below it is there, too.
            return self.set_detached(detached.as_deref());
        }
        let Some((commit, bytes)) = commit(from, id)? else {
            return Err(from.missing(ObjectKind::Commit, id));
        };
        self.monitor.begin(Phase::Scan, None);
        let needed = Gatherer::default().commit(from, &commit, partial, self.monitor)?;
        self.monitor.end(Phase::Scan);
        report.files += needed.files.len() as u64;
        report.new_commits += u64::from(!there);
        let base = self.base(&commit, current)?;
        let mut txn = self.store(&needed, partial, base, report)?;
        for (_, bytes) in needed.dirmetas.values() {
            txn.restore_object(EntryKind::Dirmeta, bytes)?;
        }
        for (_, bytes) in &needed.dirtrees {
            txn.restore_object(EntryKind::Dirtree, bytes)?;
        }
        txn.restore_object(EntryKind::Commit, &bytes)?;
        // Before the commit can be seen: it must not be taken for a complete one.
        if partial && !there {
            repo.set_partial(id, true)?;
        }
        self.set_detached(detached.as_deref())?;
        publish(txn, report)?;
        if !partial {
            repo.set_partial(id, false)?;
        }
        Ok(())
    }

    fn set_detached(&self, bytes: Option<&[u8]>) -> Result<()> {
        // What we know of a commit is not forgotten because the other side does not know it.
        match bytes {
            Some(bytes) if self.repo.detached_metadata(self.id)?.as_deref() != Some(bytes) => {
                self.repo.set_detached_metadata(self.id, Some(bytes))
            }
            _ => Ok(()),
        }
    }

    /// The commit whose files the new ones are most likely versions of.
    fn base(&self, commit: &Commit, current: Option<&ObjectId>) -> Result<Option<ObjectId>> {
        for id in commit.parent.iter().chain(current) {
            if self.repo.contains(ObjectKind::Commit, id)? && !self.repo.is_partial(id) {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    /// Stores files until all are there; gives the transaction under whose lock this is so.
    fn store<'t>(
        &'t self,
        needed: &Needed,
        partial: bool,
        base: Option<ObjectId>,
        report: &mut ImportReport,
    ) -> Result<Transaction<'t>> {
        let mut weights: HashMap<ObjectId, Weight> = HashMap::new();
        let mut announced = false;
        loop {
            let mut txn = self.repo.begin(self.monitor)?;
            if let Some(base) = &base {
                txn.set_parent(base)?;
            }
            // What was published before may have been pruned meanwhile, so each round looks anew.
            let items = self.items(&txn, needed, partial, &mut weights)?;
            txn.announce_paths(needed.files.values());
            let bytes = items.iter().map(|item| item.weight.size);
            if !std::mem::replace(&mut announced, true) {
                self.monitor.begin(Phase::Store, Some(bytes.sum()));
            }
            let mut rest = items.as_slice();
            let mut stored = 0;
            let mut next = self.read_batch(rest)?;
            while !rest.is_empty() && stored < self.publish_bytes {
                let (batch, later) = rest.split_at(next.len());
                let now = std::mem::take(&mut next);
                // One is read while the one before is stored.
                let (put, read) =
                    rayon::join(|| self.put(&mut txn, batch, now), || self.read_batch(later));
                put?;
                (rest, next) = (later, read?);
                stored += batch.iter().map(|item| item.weight.size).sum::<u64>();
                report.read_files += batch.len() as u64;
            }
            report.read_bytes += stored;
            if rest.is_empty() {
                self.monitor.end(Phase::Store);
                return Ok(txn);
            }
            publish(txn, report)?;
        }
    }

    /// The files that neither the repository nor the transaction has, in the order of storage.
    fn items<'n>(
        &self,
        txn: &Transaction<'_>,
        needed: &'n Needed,
        partial: bool,
        weights: &mut HashMap<ObjectId, Weight>,
    ) -> Result<Vec<Item<'n>>> {
        let mut missing = Vec::new();
        for (id, path) in &needed.files {
            if !txn.has_file(id)? {
                missing.push((id, path));
            }
        }
        let read = |(id, path): (&ObjectId, &'n String)| {
            if self.monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let weight = match weights.get(id) {
                Some(weight) => Some(*weight),
                None => self.from.head(id)?.as_ref().map(Weight::of),
            };
            let id = *id;
            match weight {
                Some(weight) => Ok(Some(Item { id, path, weight })),
                None if partial => Ok(None),
                None => Err(self.from.missing(ObjectKind::File, &id)),
            }
        };
        let items: Vec<_> = missing.into_par_iter().map(read).collect::<Result<_>>()?;
        let mut items: Vec<Item<'n>> = items.into_iter().flatten().collect();
        weights.extend(items.iter().map(|item| (item.id, item.weight)));
        // As `grove commit` does: small ones like next to like, then large ones by path.
        items.sort_by_cached_key(|item| {
            let small = item.weight.size <= GROUPED_MAX;
            let order = small.then(|| LayoutKey::new(item.path.as_bytes(), 0));
            (order.ok_or(()), item.path)
        });
        Ok(items)
    }

    /// Reads the first files of those that are left.
    fn read_batch(&self, rest: &[Item<'_>]) -> Result<Vec<(NewFile, Content)>> {
        let (batch, _) = rest.split_at(batch_len(rest, self.publish_bytes));
        batch.par_iter().map(|item| self.read(item)).collect()
    }

    /// Verifies and stores what was read.
    fn put(
        &self,
        txn: &mut Transaction<'_>,
        batch: &[Item<'_>],
        read: Vec<(NewFile, Content)>,
    ) -> Result<()> {
        let mut files = Vec::with_capacity(read.len());
        let mut at = Vec::with_capacity(read.len());
        for (item, (file, content)) in batch.iter().zip(read) {
            if let Content::Packed(mut stream) = content {
                let mut watched = Watched {
                    stream: &mut *stream,
                    failed: None,
                };
                let entry = txn.put_stream(file, &mut watched, item.weight.size);
                let entry = match (entry, watched.failed) {
                    (Err(_), Some(error)) => Err(self.from.unreadable(&item.id, error)),
                    (entry, _) => entry,
                }?;
                // It was read no further than its declared size: nothing may follow.
                let rest = stream.read(&mut [0]);
                rest.map_err(|error| self.from.unreadable(&item.id, error))?;
                self.take(txn, item, &entry)?;
            } else {
                files.push(file);
                at.push(item);
            }
        }
        let entries = txn.put_files(files)?;
        for (item, entry) in at.into_iter().zip(entries) {
            self.take(txn, item, &entry)?;
        }
        Ok(())
    }

    fn take(&self, txn: &mut Transaction<'_>, item: &Item<'_>, entry: &FileEntry) -> Result<()> {
        if entry.id != item.id {
            return Err(self.from.misnamed(&item.id, entry.id));
        }
        txn.put_listed_file(entry)
    }

    fn read(&self, item: &Item<'_>) -> Result<(NewFile, Content)> {
        let id = &item.id;
        let head = self.from.head(id)?;
        let head = &head.ok_or_else(|| self.from.missing(ObjectKind::File, id))?;
        if Weight::of(head) != item.weight {
            let path = self.from.object(ObjectKind::File, id);
            return Err(Error::InputChanged { path });
        }
        let content = self.from.content(id, head)?;
        let header = match head.header.hashed_forms().as_slice() {
            [header] => Some(header.clone()),
            // As there are several orders to try, the right one is found out first.
            _ => self.from.hashed_header(id, head, self.monitor)?,
        };
        let header = header.unwrap_or_else(|| head.header.clone());
        let hint = item.path.as_bytes().to_vec();
        let (body, content) = match content {
            Content::None => (Body::None, Content::None),
            Content::Bytes(bytes) => (Body::Bytes(bytes), Content::None),
            Content::File(path) => (Body::File(path, head.size), Content::None),
            packed => (Body::None, packed),
        };
        Ok((NewFile { header, hint, body }, content))
    }
}

/// Remembers why a stream broke off.
struct Watched<'s> {
    stream: &'s mut dyn Read,
    failed: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

/// How many of the files are read together.
fn batch_len(todo: &[Item<'_>], limit: u64) -> usize {
    let (mut held, mut bytes) = (0u64, 0u64);
    let fits = |item: &&Item<'_>| {
        let Weight { size, header } = item.weight;
        held += header;
        // Large ones are not held, but open: few at a time.
        held += if size > IN_MEMORY_MAX {
            BATCH_BYTES / OPEN_FILES
        } else {
            size
        };
        bytes = bytes.saturating_add(size);
        held <= BATCH_BYTES && bytes <= limit
    };
    let fitting = todo.iter().take(BATCH_FILES).take_while(fits).count();
    fitting.max(1).min(todo.len())
}

fn publish(txn: Transaction<'_>, report: &mut ImportReport) -> Result<()> {
    let written = txn.publish(&[])?;
    report.new_payload_bytes += written.new_payload_bytes;
    report.stored_bytes += written.stored_bytes;
    Ok(())
}

/// Keeps what a configuration says of remotes and collections, for exports.
fn keep_config(repo: &Repository, theirs: &KeyFile, monitor: &dyn Monitor) -> Result<()> {
    repo.check_writable()?;
    let path = repo.ostree_config_path();
    let _lock = repo.refs_file().hold()?;
    let ours = super::config_of(repo)?;
    let mut new = ours.clone();
    if let Some(collection) = theirs.get("core", "collection-id") {
        match ours.get("core", "collection-id") {
            None => new.set("core", "collection-id", collection),
            Some(own) if own != collection => monitor.warn(&format!(
                "the collection stays {own}, not {collection}: {} says so",
                path.display()
            )),
            Some(_) => {}
        }
    }
    let own: HashMap<&str, &Group> = ours.remotes().map(|own| (&*own.name, own)).collect();
    for remote in theirs.remotes() {
        match own.get(&*remote.name) {
            None => new.groups.push(remote.clone()),
            Some(own) if *own != remote => monitor.warn(&format!(
                "[{}] stays as it is in {}",
                remote.name,
                path.display()
            )),
            Some(_) => {}
        }
    }
    if new == ours {
        return Ok(());
    }
    let text = new.to_string();
    // Else nobody could read it again.
    if text.len() as u64 > MAX_CONFIG {
        return Err(Error::UnsupportedInput {
            path: path.display().to_string(),
            reason: format!(
                "the remotes of that repository would make it larger than {MAX_CONFIG} bytes"
            ),
        });
    }
    replace_file(repo.storage(), &path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_together_is_bounded_by_contents_headers_and_number() {
        let batch = |size, header| {
            let item = || Item {
                id: ObjectId::of(b""),
                path: "",
                weight: Weight { size, header },
            };
            let todo: Vec<Item<'_>> = (0..2 * BATCH_FILES).map(|_| item()).collect();
            batch_len(&todo, 1 << 30)
        };
        assert_eq!(batch(0, 0), BATCH_FILES);
        assert_eq!(batch(1 << 20, 0), 16);
        assert_eq!(batch(1, 1 << 20), 15);
        assert_eq!(batch(1 << 29, 0), 2);
        assert_eq!(batch(2 << 30, 0), 1);
    }
}

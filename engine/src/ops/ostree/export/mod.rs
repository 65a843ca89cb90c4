//! Commits of ours, written as an OSTree repository on disk.
//!
//! What is there already is left as it is, so that a run that was interrupted goes on. Objects are
//! made visible children first, commits after everything that they need, refs last.

pub(super) mod deltas;
mod summary;
mod target;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

pub(super) use self::summary::Outline;
use self::target::Target;
pub(super) use self::target::config_text;
pub(super) use self::write::Pieces;
use super::RepoMode;
use super::sizes::Sizes;
use super::walk::{Gatherer, commit, history, in_tree};
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{DirMeta, FileObject};
use crate::repo::Repository;
use crate::store::lock;
use crate::store::payload::{part_key, recipe_key};

/// Content bytes and files between two times at which all that was written is made durable.
const GROUP_BYTES: u64 = 1 << 30;
const GROUP_FILES: usize = 1 << 16;

/// What to export, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The mode of the new repository; `None` = archive, or what an existing one has.
    pub mode: Option<RepoMode>,
    /// Refs, or other revs; none = all refs.
    pub refs: Vec<String>,
    /// At most this many parents of each; `None` = all that are there.
    pub depth: Option<u64>,
    /// Make objects durable before refs lead to them.
    pub fsync: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            mode: None,
            refs: Vec::new(),
            depth: None,
            fsync: true,
        }
    }
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// The mode of the repository.
    pub mode: String,
    /// Refs with the commits that they have now.
    pub refs: BTreeMap<String, ObjectId>,
    /// Commits.
    pub commits: u64,
    /// Those of them that are incomplete.
    pub partial_commits: u64,
    /// Objects that these commits need, themselves included.
    pub objects: u64,
    /// Those that were not there.
    pub new_objects: u64,
    /// Sizes of these.
    pub written_bytes: u64,
    /// Static deltas copied.
    pub deltas: u64,
    /// Their bytes.
    pub delta_bytes: u64,
}

/// Exports to the directory `path`, which is new, empty, or an OSTree repository.
///
/// # Errors
/// [`Error::UnsupportedInput`] for what the mode cannot hold, and for a repository of another one;
/// [`Error::RefConflict`] for a ref that cannot be beside one that is there, before anything is
/// written; damage of ours. What was written until then is whole, and no ref has changed.
pub fn export(
    repo: &Repository,
    path: &Path,
    options: &ExportOptions,
    monitor: &dyn Monitor,
) -> Result<ExportReport> {
    let (refs, heads) = select(repo, &options.refs)?;
    let order = history(repo, heads, options.depth)?;
    // Long enough that a prune may come in between.
    let _lease = repo.lease(&order)?;
    let config = super::config_of(repo)?;
    let target = Target::open(path, options.mode, &config, options.fsync)?;
    for name in refs.keys() {
        target.make_room_for_ref(name)?;
    }
    let partial = repo.partial_commits()?;
    let mut job = Job {
        repo,
        target: &target,
        monitor,
        sizes: Sizes::load(repo),
        report: ExportReport {
            mode: target.repo.mode().to_string(),
            ..ExportReport::default()
        },
    };
    let mut gatherer = Gatherer::default();
    for id in &order {
        job.commit(id, partial.contains(id), &mut gatherer)?;
    }
    if let Err(error) = job.sizes.store(repo) {
        monitor.warn(&format!("sizes of objects are not remembered: {error}"));
    }
    let mut report = job.report;
    let exported: BTreeSet<ObjectId> = order.into_iter().collect();
    let wanted = |id: &ObjectId| exported.contains(id);
    monitor.begin(Phase::Publish, None);
    (report.deltas, report.delta_bytes) = deltas::copy(repo.path(), &target, &wanted)?;
    target.flush()?;
    for (name, id) in &refs {
        // As it was long ago that somebody looked.
        target.make_room_for_ref(name)?;
        target.stage_ref(name, id)?;
    }
    target.flush()?;
    if target.repo.mode() == RepoMode::Archive {
        Outline::of_export(&target, monitor)?.write(&target)?;
    }
    target.touch()?;
    monitor.end(Phase::Publish);
    report.refs = refs;
    Ok(report)
}

/// The first path that each file was met at.
type Paths = HashMap<ObjectId, String>;

fn path_of(paths: &Paths, id: &ObjectId) -> String {
    in_tree(paths.get(id).map_or("", String::as_str))
}

/// Says which path of the tree damage hits.
fn hitting(paths: &Paths, id: &ObjectId, error: Error) -> Error {
    error.hitting(&path_of(paths, id), ObjectKind::File, id)
}

type Selected = (BTreeMap<String, ObjectId>, Vec<ObjectId>);

fn select(repo: &Repository, wanted: &[String]) -> Result<Selected> {
    let all = repo.refs()?.map;
    if wanted.is_empty() {
        let heads = all.values().copied().collect();
        return Ok((all, heads));
    }
    let mut refs = BTreeMap::new();
    let mut heads = Vec::new();
    for rev in wanted {
        let id = repo.resolve_rev(rev)?;
        heads.push(id);
        if all.contains_key(rev) {
            refs.insert(rev.clone(), id);
        }
    }
    Ok((refs, heads))
}

struct Job<'a> {
    repo: &'a Repository,
    target: &'a Target,
    monitor: &'a dyn Monitor,
    sizes: Sizes,
    report: ExportReport,
}

impl Job<'_> {
    /// Writes a commit and what it needs that none before it did.
    fn commit(&mut self, id: &ObjectId, partial: bool, gatherer: &mut Gatherer) -> Result<()> {
        let (repo, target) = (self.repo, self.target);
        let missing = || Error::MissingObject {
            kind: ObjectKind::Commit,
            id: *id,
        };
        let (commit, bytes) = commit(repo, id)?.ok_or_else(missing)?;
        self.monitor.begin(Phase::Scan, None);
        let needed = gatherer.commit(repo, &commit, partial, self.monitor)?;
        self.monitor.end(Phase::Scan);
        let dirs = needed.dirmetas.len() + needed.dirtrees.len();
        self.report.objects += (dirs + needed.files.len() + 1) as u64;
        self.report.commits += 1;
        self.report.partial_commits += u64::from(partial);
        for id in self.files(&needed.files, partial)? {
            gatherer.forget(ObjectKind::File, &id);
        }
        self.monitor.begin(Phase::Tree, Some(dirs as u64));
        for (id, (path, bytes)) in &needed.dirmetas {
            if target.repo.mode() == RepoMode::BareUserOnly {
                check_plain(id, path, bytes)?;
            }
            self.metadata(ObjectKind::Dirmeta, id, bytes)?;
        }
        for (id, bytes) in &needed.dirtrees {
            self.metadata(ObjectKind::Dirtree, id, bytes)?;
        }
        target.flush()?;
        self.monitor.end(Phase::Tree);
        // Before the commit can be seen: it must not be taken for a complete one.
        let mark = target.repo.partial_mark(id);
        if partial && !target.repo.has(ObjectKind::Commit, id) {
            let name = format!("state/{id}.commitpartial");
            target.stage_at(name, |path| target::write_file(path, b""))?;
        }
        if let Some(detached) = repo.detached_metadata(id)? {
            target.stage_detached(id, &detached)?;
        }
        target.flush()?;
        self.metadata(ObjectKind::Commit, id, &bytes)?;
        target.flush()?;
        if !partial && mark.exists() {
            std::fs::remove_file(&mark).map_err(|source| Error::Io { path: mark, source })?;
        }
        Ok(())
    }

    fn metadata(&mut self, kind: ObjectKind, id: &ObjectId, bytes: &[u8]) -> Result<()> {
        self.monitor.advance(Phase::Tree, 1);
        if self.target.repo.has(kind, id) {
            return Ok(());
        }
        self.report.new_objects += 1;
        self.report.written_bytes += bytes.len() as u64;
        self.target.stage_bytes(kind, id, bytes)
    }

    /// Writes files that are not there yet; gives those that we lack ourselves.
    fn files(&mut self, paths: &Paths, partial: bool) -> Result<Vec<ObjectId>> {
        let ids: Vec<ObjectId> = paths.keys().copied().collect();
        let lacks = |id: &ObjectId| !self.target.repo.has(ObjectKind::File, id);
        let ids: Vec<ObjectId> = ids.into_par_iter().filter(lacks).collect();
        let mut missing = Vec::new();
        let mut files = Vec::with_capacity(ids.len());
        for (id, file) in ids.iter().zip(self.repo.files(&ids)) {
            let file = match file {
                Err(Error::MissingObject { id, .. }) if partial => {
                    missing.push(id);
                    continue;
                }
                file => file.map_err(|error| hitting(paths, id, error))?,
            };
            if self.target.repo.mode() == RepoMode::BareUserOnly {
                write::check_plain(&file.header, || path_of(paths, id))?;
            }
            files.push(file);
        }
        sort_by_place(self.repo, &mut files);
        self.monitor
            .begin(Phase::Checkout, Some(files.len() as u64));
        let mut rest = files.as_slice();
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_len(rest));
            rest = later;
            self.group(group, paths)?;
        }
        self.monitor.end(Phase::Checkout);
        Ok(missing)
    }

    fn group(&mut self, files: &[FileObject], paths: &Paths) -> Result<()> {
        let (target, mode) = (self.target, self.target.repo.mode());
        let written = AtomicU64::new(0);
        let sizes = Mutex::new(Vec::with_capacity(files.len()));
        files.par_iter().with_max_len(64).try_for_each(|file| {
            if self.monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut size = 0;
            let staged = target.stage(ObjectKind::File, &file.id, |path| {
                size = write::write(self.repo, file, mode, path)?;
                Ok(())
            });
            staged.map_err(|error| hitting(paths, &file.id, error))?;
            written.fetch_add(size, Relaxed);
            self.monitor.advance(Phase::Checkout, 1);
            if mode == RepoMode::Archive {
                lock(&sizes).push((file.id, size));
            }
            Ok(())
        })?;
        self.report.new_objects += files.len() as u64;
        self.report.written_bytes += written.into_inner();
        self.sizes.extend(std::mem::take(&mut *lock(&sizes)));
        target.flush()
    }
}

/// Puts files into the order in which their payloads are stored, so that each block is decoded once.
pub(super) fn sort_by_place(repo: &Repository, files: &mut [FileObject]) {
    files.sort_by_cached_key(|file| {
        let place = file.payload.and_then(|id| {
            let store = repo.store();
            let part = store.locate(&part_key(&id, 0)).ok().flatten();
            part.or_else(|| store.locate(&recipe_key(&id)).ok().flatten())
        });
        (place.map(|at| (at.pack, at.offset, at.entry)), file.id)
    });
}

fn group_len(files: &[FileObject]) -> usize {
    let mut bytes = 0;
    let fits = |file: &&FileObject| {
        bytes += file.size;
        bytes <= GROUP_BYTES
    };
    let fitting = files.iter().take(GROUP_FILES).take_while(fits).count();
    fitting.max(1)
}

/// Whether a bare-user-only repository can hold a directory: the client would make another one of it.
fn check_plain(id: &ObjectId, path: &str, bytes: &[u8]) -> Result<()> {
    let malformed = |source| Error::MalformedObject {
        kind: ObjectKind::Dirmeta,
        id: *id,
        source,
    };
    let meta = DirMeta::parse(bytes).map_err(malformed)?;
    if (meta.uid, meta.gid) == (0, 0) && meta.xattrs.is_empty() {
        return Ok(());
    }
    Err(Error::UnsupportedInput {
        path: in_tree(path),
        reason: "a bare-user-only repository holds only directories of owner 0 without extended \
                 attributes"
            .to_owned(),
    })
}

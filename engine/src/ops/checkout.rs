//! Writes a commit, or a directory of one, to the file system by copying.
//!
//! Everything is created relative to open directories and never through a symbolic link, so what
//! already lies in the destination cannot redirect a write to somewhere else.

mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::Scope;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::DirMeta;
use crate::ops::ls::{Node, normalise, resolve_path};
use crate::repo::Repository;
use crate::tree::check_depth;

/// Files that one task writes before other threads may take over the rest of a directory.
const FILES_PER_TASK: usize = 32;

/// What to do about entries that exist in the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Union {
    /// The destination must not exist.
    #[default]
    None,
    /// Keep directories, replace files.
    Overwrite,
    /// Keep directories and files, add what is missing.
    Add,
    /// Keep directories and equal files; a different file is an error.
    Identical,
}

/// How to check out.
#[derive(Debug, Clone, Default)]
pub struct CheckoutOptions {
    /// Leave owners and extended attributes alone, drop set-user-ID and set-group-ID.
    pub user_mode: bool,
    /// Only what is at this path of the commit; empty for everything.
    pub subpath: String,
    /// What may exist already.
    pub union: Union,
    /// Make the result durable before returning.
    pub fsync: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckoutReport {
    /// Directories made.
    pub dirs: u64,
    /// Regular files written.
    pub files: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Entries left as they were.
    pub kept: u64,
    /// Bytes of the regular files written.
    pub written_bytes: u64,
}

/// Checks a commit out to `destination`. A failure leaves what was written so far.
pub fn checkout(
    repo: &Repository,
    commit: &ObjectId,
    destination: &Path,
    options: &CheckoutOptions,
    monitor: &dyn Monitor,
) -> Result<CheckoutReport> {
    // Long enough that a prune may come in between.
    let _lease = repo.lease(&[*commit])?;
    let root = Node::root(&repo.commit(commit)?);
    let start = resolve_path(repo, root, &options.subpath)?;
    let job = Job {
        repo,
        options,
        monitor,
        destination,
        counters: Counters::default(),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    monitor.begin(Phase::Checkout, None);
    let fd = match start {
        Node::Dir { tree, meta } => job.tree(tree, meta)?,
        Node::File(id) => job.single_file(&id)?,
    };
    if options.fsync {
        rustix::fs::syncfs(&fd).at(destination)?;
    }
    monitor.end(Phase::Checkout);
    Ok(job.counters.report())
}

#[derive(Debug, Default)]
struct Counters {
    dirs: AtomicU64,
    files: AtomicU64,
    symlinks: AtomicU64,
    kept: AtomicU64,
    written_bytes: AtomicU64,
}

impl Counters {
    fn report(&self) -> CheckoutReport {
        CheckoutReport {
            dirs: self.dirs.load(Relaxed),
            files: self.files.load(Relaxed),
            symlinks: self.symlinks.load(Relaxed),
            kept: self.kept.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
        }
    }
}

/// One checkout, shared by its tasks.
struct Job<'r> {
    repo: &'r Repository,
    options: &'r CheckoutOptions,
    monitor: &'r dyn Monitor,
    destination: &'r Path,
    counters: Counters,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// A directory being filled. Its own metadata is set when the last task below it has dropped it:
/// only then does writing to it no longer change its times, or need its permission.
struct OpenDir<'j> {
    job: &'j Job<'j>,
    fd: OwnedFd,
    /// Path below the destination, empty for the destination itself.
    path: String,
    depth: usize,
    /// Metadata to set in the end; `None` for directories that were there before.
    meta: Option<Arc<DirMeta>>,
    /// Keeps the parent unfinished; never read.
    _parent: Option<Arc<Self>>,
}

impl OpenDir<'_> {
    fn child_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

impl Drop for OpenDir<'_> {
    fn drop(&mut self) {
        if let Some(meta) = self.meta.take().filter(|_| !self.job.failed.load(Relaxed)) {
            let done = write::finish_dir(self.fd.as_fd(), &meta, self.job.options);
            self.job.note(done.at(self.job.os_path(&self.path)));
        }
    }
}

impl<'r> Job<'r> {
    fn os_path(&self, path: &str) -> PathBuf {
        match path.trim_start_matches('/') {
            "" => self.destination.to_owned(),
            below => self.destination.join(below),
        }
    }

    /// Remembers the first error and lets all tasks stop.
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.failed.store(true, Relaxed);
            self.error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
        }
    }

    fn tree(&self, tree: ObjectId, meta: ObjectId) -> Result<OwnedFd> {
        let id = meta;
        let meta = self.repo.dirmeta(&id);
        let meta = meta.map_err(|e| e.hitting("/", ObjectKind::Dirmeta, &id))?;
        let (fd, made) = self.make_dir(CWD, self.destination, "")?;
        let keep = fd.try_clone().at(self.destination)?;
        let dir = OpenDir {
            job: self,
            fd,
            path: String::new(),
            depth: 0,
            meta: made.then_some(meta),
            _parent: None,
        };
        rayon::scope(|scope| fill(scope, Arc::new(dir), tree));
        match self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(error) => Err(error),
            None => Ok(keep),
        }
    }

    /// A subpath that is no directory goes into a new directory, as `ostree` does it.
    fn single_file(&self, id: &ObjectId) -> Result<OwnedFd> {
        let (fd, _) = self.make_dir(CWD, self.destination, "")?;
        let path = normalise(&self.options.subpath);
        let name = path.rsplit('/').next().unwrap_or_default();
        write::file(self, fd.as_fd(), name, &format!("/{name}"), id)?;
        Ok(fd)
    }

    /// Makes and opens a directory; tells whether it is new.
    fn make_dir(
        &self,
        parent: impl AsFd,
        name: impl rustix::path::Arg + Copy,
        path: &str,
    ) -> Result<(OwnedFd, bool)> {
        let parent = parent.as_fd();
        let private = Mode::RWXU;
        let made = match rustix::fs::mkdirat(parent, name, private) {
            Ok(()) => true,
            Err(Errno::EXIST) if self.options.union != Union::None => false,
            Err(errno) => return Err(errno).at(self.os_path(path)),
        };
        let mut flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        if !path.is_empty() {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).at(self.os_path(path))?;
        if made {
            self.counters.dirs.fetch_add(1, Relaxed);
        }
        Ok((fd, made))
    }
}

/// Writes what a directory holds: files in tasks of some, each subdirectory as a task.
fn fill<'s, 'j: 's>(scope: &Scope<'s>, dir: Arc<OpenDir<'j>>, tree: ObjectId) {
    let job = dir.job;
    let listing = match check_depth(&dir.path, dir.depth).and_then(|()| job.repo.dirtree(&tree)) {
        Ok(listing) => listing,
        Err(error) => {
            let error = error.hitting(&dir.path, ObjectKind::Dirtree, &tree);
            return job.note(Err(error));
        }
    };
    for start in (0..listing.files.len()).step_by(FILES_PER_TASK) {
        let (dir, listing) = (Arc::clone(&dir), Arc::clone(&listing));
        scope.spawn(move |_| {
            for (name, id) in listing.files.iter().skip(start).take(FILES_PER_TASK) {
                if job.failed.load(Relaxed) {
                    return;
                }
                let path = dir.child_path(name);
                job.note(write::file(job, dir.fd.as_fd(), name, &path, id));
                job.monitor.advance(Phase::Checkout, 1);
            }
        });
    }
    for at in 0..listing.dirs.len() {
        let (parent, listing) = (Arc::clone(&dir), Arc::clone(&listing));
        scope.spawn(move |scope| {
            let Some(entry) = listing.dirs.get(at).filter(|_| !job.failed.load(Relaxed)) else {
                return;
            };
            match open_child(parent, &entry.name, &entry.meta) {
                Ok(dir) => fill(scope, Arc::new(dir), entry.tree),
                Err(error) => job.note(Err(error)),
            }
        });
    }
}

fn open_child<'j>(parent: Arc<OpenDir<'j>>, name: &str, meta: &ObjectId) -> Result<OpenDir<'j>> {
    let job = parent.job;
    let path = parent.child_path(name);
    let damaged = |e: crate::Error| e.hitting(&path, ObjectKind::Dirmeta, meta);
    let meta = job.repo.dirmeta(meta).map_err(damaged)?;
    let (fd, made) = job.make_dir(&parent.fd, name, &path)?;
    let depth = parent.depth + 1;
    Ok(OpenDir {
        job,
        fd,
        path,
        depth,
        meta: made.then_some(meta),
        _parent: Some(parent),
    })
}

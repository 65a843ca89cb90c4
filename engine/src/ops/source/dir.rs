//! A directory of the host as input.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::stat_cache::{Stamp, StatCache};
use super::{SourceOptions, SourceReport};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::xattr;
use crate::monitor::{Monitor, Phase};
use crate::object::{DirMeta, Xattrs};
use crate::pack::GROUPED_MAX;
use crate::repo::ingest::{Body, IN_MEMORY_MAX, NewFile};
use crate::repo::layout::LayoutKey;
use crate::repo::{Repository, Transaction};
use crate::tree::{FileEntry, MutableTree, check_depth, in_path};

/// Bytes and files read at a time.
const BATCH_BYTES: u64 = 16 << 20;
const BATCH_FILES: usize = 8192;

/// Lays a directory over `tree`.
///
/// Files are read in the order in which they are stored, several at a time, at most once; files
/// that the stat cache knows are not read at all.
///
/// # Errors
/// What a commit cannot hold (see [`SourceOptions::skip_special`]), and a file that changes while
/// it is read.
pub fn add_dir(
    txn: &mut Transaction<'_>,
    tree: &mut MutableTree,
    dir: &Path,
    options: &SourceOptions,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let root = std::fs::canonicalize(dir).at(dir)?;
    let repo = txn.repository();
    monitor.begin(Phase::Scan, None);
    let mut scan = Scan {
        root: &root,
        options,
        monitor,
        dirs: Vec::new(),
        files: Vec::new(),
        skipped: 0,
    };
    scan.run(repo)?;
    let Scan {
        dirs,
        files,
        skipped,
        ..
    } = scan;
    monitor.end(Phase::Scan);

    let fingerprint = options.fingerprint();
    let cache = StatCache::load(&repo.cache_dir(), &root, &fingerprint);
    let known = known_files(txn, &files, &cache, options)?;
    let entries = store_files(txn, &root, &dirs, &files, known.clone(), options, monitor)?;
    if !options.no_stat_cache {
        let rows = files
            .iter()
            .zip(&entries)
            .filter(|(f, _)| f.kind == Kind::Regular);
        if let Err(error) = cache.store(rows.map(|(file, entry)| (file.stamp, entry.id))) {
            monitor.warn(&format!("the stat cache was not written: {error}"));
        }
    }
    let report = SourceReport {
        files: files.len() as u64,
        dirs: dirs.len() as u64,
        unread_files: known.iter().flatten().count() as u64,
        skipped,
    };
    lay_over(repo, tree, dirs, files, entries)?;
    Ok(report)
}

/// A directory found by the scan; its path is relative, empty for the root.
#[derive(Debug)]
struct FoundDir {
    path: String,
    meta: DirMeta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Symlink,
}

/// A file found by the scan.
#[derive(Debug)]
struct FoundFile {
    dir: u32,
    name: Box<str>,
    kind: Kind,
    stamp: Stamp,
    mode: u32,
    uid: u32,
    gid: u32,
}

struct Scan<'a> {
    root: &'a Path,
    options: &'a SourceOptions,
    monitor: &'a dyn Monitor,
    dirs: Vec<FoundDir>,
    files: Vec<FoundFile>,
    skipped: u64,
}

impl Scan<'_> {
    /// Lists the whole tree; a repository inside it is left out.
    fn run(&mut self, repo: &Repository) -> Result<()> {
        let own = std::fs::canonicalize(repo.path()).at(repo.path())?;
        let mut queue = vec![(String::new(), 0usize)];
        while let Some((path, depth)) = queue.pop() {
            if self.monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let full = self.root.join(&path);
            if full == own {
                continue;
            }
            check_depth(&path, depth)?;
            let fd = open_dir(&full)?;
            let stat = rustix::fs::fstat(&fd).at(&full)?;
            let xattrs = self.xattrs(|| xattr::of_file(fd.as_fd())).at(&full)?;
            let meta = self
                .options
                .directory(stat.st_uid, stat.st_gid, stat.st_mode, xattrs);
            let number = self.dirs.len() as u32;
            for (name, stat) in read_dir(fd, &full)? {
                if let Some(child) = self.entry(&path, number, &name, &stat)? {
                    queue.push((child, depth + 1));
                }
            }
            self.dirs.push(FoundDir { path, meta });
        }
        Ok(())
    }

    /// Takes one entry; gives back the path of a subdirectory.
    fn entry(
        &mut self,
        dir: &str,
        number: u32,
        name: &CStr,
        stat: &Stat,
    ) -> Result<Option<String>> {
        let path = || {
            let name = name.to_string_lossy();
            if dir.is_empty() {
                name.into_owned()
            } else {
                format!("{dir}/{name}")
            }
        };
        let mut refuse = |reason: &str| {
            if self.options.skip_special {
                self.skipped += 1;
                return Ok(None);
            }
            Err(Error::UnsupportedInput {
                path: path(),
                reason: reason.to_owned(),
            })
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Kind::Regular),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Directory => None,
            FileType::Socket => return refuse("a commit cannot hold a socket"),
            FileType::Fifo => return refuse("a commit cannot hold a FIFO"),
            FileType::CharacterDevice | FileType::BlockDevice => {
                return refuse("a commit cannot hold a device");
            }
            _ => return refuse("unknown file type"),
        };
        let Ok(name) = name.to_str() else {
            return refuse("the name is not UTF-8");
        };
        let Some(kind) = kind else {
            return Ok(Some(path()));
        };
        self.files.push(FoundFile {
            dir: number,
            name: name.into(),
            kind,
            stamp: stamp(stat),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        });
        Ok(None)
    }

    fn xattrs(&self, read: impl FnOnce() -> std::io::Result<Xattrs>) -> std::io::Result<Xattrs> {
        if self.options.keeps_xattrs() {
            read()
        } else {
            Ok(Xattrs::default())
        }
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at(path)
}

/// Names and metadata of a directory's entries, sorted by name.
fn read_dir(fd: OwnedFd, path: &Path) -> Result<Vec<(CString, Stat)>> {
    let mut entries = Vec::new();
    let mut dir = Dir::read_from(&fd).at(path)?;
    while let Some(entry) = dir.read() {
        let entry = entry.at(path)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .at(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())))?;
        entries.push((name.to_owned(), stat));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn stamp(stat: &Stat) -> Stamp {
    let nanos =
        |seconds: i64, nanos: u64| seconds.saturating_mul(1_000_000_000) + nanos.cast_signed();
    Stamp {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// The files that the stat cache knows and whose objects the repository still has.
fn known_files(
    txn: &Transaction<'_>,
    files: &[FoundFile],
    cache: &StatCache,
    options: &SourceOptions,
) -> Result<Vec<Option<FileEntry>>> {
    let known = files.iter().map(|file| {
        let cached = cache
            .get(&file.stamp)
            .filter(|_| file.kind == Kind::Regular && !options.no_stat_cache);
        match cached {
            Some(id) if txn.has_file(&id)? => Ok(Some(FileEntry { id, new: None })),
            _ => Ok(None),
        }
    });
    known.collect()
}

/// Reads and stores the files that are not known yet.
fn store_files(
    txn: &mut Transaction<'_>,
    root: &Path,
    dirs: &[FoundDir],
    files: &[FoundFile],
    mut entries: Vec<Option<FileEntry>>,
    options: &SourceOptions,
    monitor: &dyn Monitor,
) -> Result<Vec<FileEntry>> {
    let relative = |file: &FoundFile| {
        let dir = &dirs[file.dir as usize].path;
        if dir.is_empty() {
            file.name.to_string()
        } else {
            format!("{dir}/{}", file.name)
        }
    };
    txn.announce_paths(files.iter().map(relative));
    let mut todo: Vec<usize> = (0..files.len()).filter(|n| entries[*n].is_none()).collect();
    // Small ones in storage order, then large ones by path.
    todo.sort_by_cached_key(|n| {
        let file = &files[*n];
        let path = relative(file);
        let small = file.stamp.size <= GROUPED_MAX;
        (
            small.then(|| LayoutKey::new(path.as_bytes(), 0)).ok_or(()),
            path,
        )
    });
    monitor.begin(
        Phase::Store,
        Some(todo.iter().map(|n| files[*n].stamp.size).sum()),
    );
    let mut rest = todo.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_len(rest, files));
        rest = later;
        let read = |n: &usize| read_file(root, relative(&files[*n]), &files[*n], options);
        let new: Vec<NewFile> = batch.par_iter().map(read).collect::<Result<_>>()?;
        for (n, entry) in batch.iter().zip(txn.put_files(new)?) {
            entries[*n] = Some(entry);
        }
    }
    monitor.end(Phase::Store);
    Ok(entries
        .into_iter()
        .map(|e| e.expect("because every file was known or stored"))
        .collect())
}

/// How many of the files are read together.
fn batch_len(todo: &[usize], files: &[FoundFile]) -> usize {
    let mut bytes = 0;
    let fits = |n: &&usize| {
        let size = files[**n].stamp.size;
        bytes += if size > IN_MEMORY_MAX { 0 } else { size };
        bytes <= BATCH_BYTES
    };
    todo.iter()
        .take(BATCH_FILES)
        .take_while(fits)
        .count()
        .max(1)
}

/// Reads one file and checks that it is what the scan saw.
fn read_file(
    root: &Path,
    path: String,
    file: &FoundFile,
    options: &SourceOptions,
) -> Result<NewFile> {
    let full = root.join(&path);
    let hint = path.into_bytes();
    if file.kind == Kind::Symlink {
        let target = std::fs::read_link(&full)
            .at(&full)?
            .into_os_string()
            .into_encoded_bytes();
        if std::str::from_utf8(&target).is_err() {
            let reason = "the target of the symbolic link is not UTF-8".to_owned();
            return Err(Error::UnsupportedInput {
                path: full.display().to_string(),
                reason,
            });
        }
        let xattrs = if options.keeps_xattrs() {
            xattr::of_path(&full).at(&full)?
        } else {
            Xattrs::default()
        };
        let header = options.symlink(file.uid, file.gid, target, xattrs);
        return Ok(NewFile {
            header,
            hint,
            body: Body::None,
        });
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&full, flags, Mode::empty()).at(&full)?;
    let xattrs = if options.keeps_xattrs() {
        xattr::of_file(&fd).at(&full)?
    } else {
        Xattrs::default()
    };
    let header = options.regular(file.uid, file.gid, file.mode, xattrs);
    let body = if file.stamp.size > IN_MEMORY_MAX {
        Body::File(full.clone(), file.stamp.size)
    } else {
        let mut bytes = Vec::with_capacity(file.stamp.size as usize + 1);
        let mut reader = File::from(fd.try_clone().at(&full)?);
        (&mut reader)
            .take(file.stamp.size + 1)
            .read_to_end(&mut bytes)
            .at(&full)?;
        Body::Bytes(bytes)
    };
    if stamp(&rustix::fs::fstat(&fd).at(&full)?) != file.stamp {
        return Err(Error::InputChanged { path: full });
    }
    Ok(NewFile { header, hint, body })
}

/// Puts everything into the tree.
fn lay_over(
    repo: &Repository,
    tree: &mut MutableTree,
    dirs: Vec<FoundDir>,
    files: Vec<FoundFile>,
    entries: Vec<FileEntry>,
) -> Result<()> {
    let mut by_dir: Vec<Vec<(Box<str>, FileEntry)>> = (0..dirs.len()).map(|_| Vec::new()).collect();
    for (file, entry) in files.into_iter().zip(entries) {
        by_dir[file.dir as usize].push((file.name, entry));
    }
    for (dir, files) in dirs.into_iter().zip(by_dir) {
        let target = tree.ensure_dir(repo, &dir.path)?;
        target.meta = Some(dir.meta);
        files
            .into_iter()
            .try_for_each(|(name, entry)| target.put_file(&name, entry))
            .map_err(in_path(&dir.path))?;
    }
    Ok(())
}

//! Whole files, with owner, mode and attributes, that checkouts are made of by hard links.
//!
//! They are a cache below `cache/links` of the repository: packs stay the truth, and no checkout needs
//! them once it is made. Whoever writes to such a file through a checkout changes it in all of them,
//! so a file is only ever linked if it still looks as it did when it was made, or reads as it should;
//! one that does not is made anew.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, DirEntry, File};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::CheckoutOptions;
use super::beneath::Root;
use super::seen::{self, Seen, Since};
use super::write::{Output, is_whole};
use crate::error::{IoResultExt, Result};
use crate::fs::replace_cache_file;
use crate::id::ObjectId;
use crate::object::FileObject;
use crate::pack::recipe::Piece;
use crate::repo::Repository;
use crate::store::copies::is_copy;
use crate::store::lock;

/// Where notes are kept, in the directory of each kind of checkout.
const SEEN: &str = "seen";

/// What names of files begin with that are being written.
const TEMPORARY: &str = ".grove-";

/// Numbers the files that this process makes.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The files for one kind of checkout.
#[derive(Debug)]
pub(super) struct Links {
    path: PathBuf,
    root: Root,
    /// What earlier checkouts noted; read when it is first needed.
    seen: OnceLock<HashMap<ObjectId, Seen>>,
    /// What this one does.
    noted: Mutex<HashMap<ObjectId, Seen>>,
}

/// What became of an attempt to link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    Yes,
    /// There is no such file, or it was changed.
    NotMade,
    /// It has as many names as it can have.
    TooMany,
    /// The name is taken.
    Exists,
}

impl Links {
    /// The files that are there already.
    pub fn existing(repo: &Repository, options: &CheckoutOptions) -> Option<Self> {
        Self::at(directory(repo, options)).ok()
    }

    /// The files, and a place for more of them.
    pub fn open(repo: &Repository, options: &CheckoutOptions) -> Result<Self> {
        let path = directory(repo, options);
        let all = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(all).at(all)?;
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&path).at(&path)?;
        for byte in 0..=u8::MAX {
            let shard = path.join(format!("{byte:02x}"));
            private.create(&shard).at(&shard)?;
        }
        Self::at(path)
    }

    fn at(path: PathBuf) -> Result<Self> {
        let fd: OwnedFd = File::open(&path).at(&path)?.into();
        Ok(Self {
            root: Root::new(fd),
            seen: OnceLock::new(),
            noted: Mutex::default(),
            path,
        })
    }

    /// An object's file, if it is there and whole, to copy from.
    pub fn source(&self, object: &FileObject, options: &CheckoutOptions) -> Option<File> {
        let own = own(&object.id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = self.root.open(&own, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        self.is_sound(object, &own, &stat, options)
            .then(|| file.into())
    }

    /// What earlier checkouts noted.
    pub fn seen(&self) -> &HashMap<ObjectId, Seen> {
        let read = || load(&self.path.join(SEEN)).unwrap_or_default();
        self.seen.get_or_init(read)
    }

    /// Notes what a file looks like that is whole.
    pub fn note(&self, id: &ObjectId, stat: &Stat) {
        lock(&self.noted).insert(*id, Seen::of(stat));
    }

    /// Keeps what was noted, for later checkouts.
    pub fn keep_notes(&self) -> Result<()> {
        let noted = std::mem::take(&mut *lock(&self.noted));
        if noted.is_empty() {
            return Ok(());
        }
        // Others may have kept theirs meanwhile.
        let path = self.path.join(SEEN);
        let mut seen = load(&path).unwrap_or_default();
        seen.extend(noted);
        store(&path, &seen)
    }

    /// Makes a file for an object.
    pub fn begin(&self, id: &ObjectId) -> Result<Output> {
        let (shard, name) = place(id);
        let path = self.path.join(&shard);
        let dir = self.root.open_dir(&shard).at(&path)?;
        // Two checkouts may make the same file at once.
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}{}-{number}", std::process::id());
        Output::replacing_as(dir, &name, temporary).at(&path)
    }

    /// Gives an object's file another name in a directory. One that is not whole any more is removed.
    pub fn link(
        &self,
        object: &FileObject,
        dir: BorrowedFd<'_>,
        name: &str,
        options: &CheckoutOptions,
    ) -> io::Result<Linked> {
        let own = own(&object.id);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statat(self.root.fd(), &own, nofollow) {
            Ok(stat) if self.is_sound(object, &own, &stat, options) => {}
            Ok(_) => return self.remove(&own),
            Err(Errno::NOENT) => return Ok(Linked::NotMade),
            Err(errno) => return Err(errno.into()),
        }
        match rustix::fs::linkat(self.root.fd(), &own, dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Linked::NotMade),
            Err(Errno::MLINK) => return Ok(Linked::TooMany),
            Err(Errno::EXIST) => return Ok(Linked::Exists),
            Err(errno) => return Err(errno.into()),
        }
        // Once more under its new name: somebody may write to it at this moment.
        let stat = rustix::fs::statat(dir, name, nofollow)?;
        if is_whole(&stat, object, options) {
            self.note(&object.id, &stat);
            return Ok(Linked::Yes);
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        self.remove(&own)
    }

    /// Whether a file is what it was made as.
    fn is_sound(
        &self,
        object: &FileObject,
        own: &str,
        stat: &Stat,
        options: &CheckoutOptions,
    ) -> bool {
        let now = Seen::of(stat);
        let noted = lock(&self.noted).get(&object.id).copied();
        let seen = noted.or_else(|| self.seen().get(&object.id).copied());
        let since = seen.map_or(Since::Anything, |seen| seen.since(&now));
        let path = || self.path.join(own);
        let same_xattrs = || {
            let found = || crate::fs::xattr::of_path(&path());
            options.user_mode || found().is_ok_and(|found| found == object.header.xattrs)
        };
        let looks_whole = || is_whole(stat, object, options) && same_xattrs();
        match since {
            Since::Nothing => is_whole(stat, object, options),
            Since::Names => looks_whole(),
            Since::Anything => looks_whole() && has_payload(&path(), object),
        }
    }

    fn remove(&self, own: &str) -> io::Result<Linked> {
        match rustix::fs::unlinkat(self.root.fd(), own, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Linked::NotMade),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether a file reads as it should.
fn has_payload(path: &Path, object: &FileObject) -> bool {
    let size = object.size;
    let piece = object.payload.map(|id| Piece { id, size });
    piece.is_some_and(|piece| File::open(path).is_ok_and(|file| is_copy(&file, piece)))
}

fn load(path: &Path) -> Option<HashMap<ObjectId, Seen>> {
    seen::decode(&std::fs::read(path).ok()?)
}

fn store(path: &Path, seen: &HashMap<ObjectId, Seen>) -> Result<()> {
    let bytes = seen::encode(seen);
    replace_cache_file(path, |file| file.write_all(&bytes)).at(path)
}

/// Forgets what was noted of files that a prune removes.
pub(in crate::ops) fn forget_files(repo: &Repository, gone: &HashSet<ObjectId>) {
    for (_, kind) in entries(&repo.cache_dir().join("links")) {
        let path = kind.join(SEEN);
        let Some(mut seen) = load(&path) else {
            continue;
        };
        let before = seen.len();
        seen.retain(|id, _| !gone.contains(id));
        if seen.len() != before {
            // A note too many does no harm.
            let _ = store(&path, &seen);
        }
    }
}

/// Every file of the cache, for all kinds of checkout, with the object that it is; `None` for what is
/// being written. What another user keeps to himself is left out.
pub(in crate::ops) fn cached_files(repo: &Repository) -> Vec<(Option<ObjectId>, PathBuf)> {
    let mut found = Vec::new();
    for (_, kind) in entries(&repo.cache_dir().join("links")) {
        for (shard, path) in entries(&kind) {
            let files = entries(&path).into_iter();
            found.extend(files.filter_map(|(name, path)| {
                let id = format!("{shard}{name}").parse().ok();
                (id.is_some() || name.starts_with(TEMPORARY)).then_some((id, path))
            }));
        }
    }
    found
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = |entry: DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    entries.filter_map(named).collect()
}

/// Where files for one kind of checkout are.
fn directory(repo: &Repository, options: &CheckoutOptions) -> PathBuf {
    // Files of one user are not another's to trust, nor their set-user-ID programs anybody's to run.
    let kind = match options.user_mode {
        true => format!("user-{}", rustix::process::geteuid().as_raw()),
        false => "root".to_owned(),
    };
    repo.cache_dir().join("links").join(kind)
}

/// Where an object's file is, below the directory of its kind.
fn own(id: &ObjectId) -> String {
    let (shard, name) = place(id);
    format!("{shard}/{name}")
}

fn place(id: &ObjectId) -> (String, String) {
    let text = id.to_string();
    let (shard, name) = text.split_at(2);
    (shard.to_owned(), name.to_owned())
}

//! Whole files, with owner, mode and attributes, that checkouts are made of by hard links.
//!
//! They are a cache below `cache/links` of the repository: packs stay the truth, and no checkout needs
//! them once it is made. Whoever writes to such a file through a checkout changes it in all of them,
//! so a file is only ever linked if it still looks as it did when it was made, its modification
//! time above all; one that does not is made anew.

use std::fs::{DirBuilder, DirEntry};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::CheckoutOptions;
use super::beneath::Root;
use super::write::{Output, is_whole};
use crate::error::{IoResultExt, Result};
use crate::id::ObjectId;
use crate::object::FileObject;
use crate::repo::Repository;

/// What names of files begin with that are being written.
const TEMPORARY: &str = ".grove-";

/// Numbers the files that this process makes.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The files for one kind of checkout.
#[derive(Debug)]
pub(super) struct Links {
    path: PathBuf,
    root: Root,
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
    pub fn open(repo: &Repository, options: &CheckoutOptions) -> Result<Self> {
        // Files of one user are not another's to trust, nor their set-user-ID programs anybody's to run.
        let kind = match options.user_mode {
            true => format!("user-{}", rustix::process::geteuid().as_raw()),
            false => "root".to_owned(),
        };
        let all = repo.cache_dir().join("links");
        std::fs::create_dir_all(&all).at(&all)?;
        let path = all.join(kind);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&path).at(&path)?;
        for byte in 0..=u8::MAX {
            let shard = path.join(format!("{byte:02x}"));
            private.create(&shard).at(&shard)?;
        }
        let fd: OwnedFd = std::fs::File::open(&path).at(&path)?.into();
        Ok(Self {
            root: Root::new(fd),
            path,
        })
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

    /// Gives an object's file another name in a directory.
    pub fn link(
        &self,
        object: &FileObject,
        dir: BorrowedFd<'_>,
        name: &str,
        options: &CheckoutOptions,
    ) -> io::Result<Linked> {
        let (shard, own) = place(&object.id);
        let own = format!("{shard}/{own}");
        match rustix::fs::linkat(self.root.fd(), &own, dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Linked::NotMade),
            Err(Errno::MLINK) => return Ok(Linked::TooMany),
            Err(Errno::EXIST) => return Ok(Linked::Exists),
            Err(errno) => return Err(errno.into()),
        }
        // It is looked at under its new name: nobody can put another one in its place.
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let same_xattrs = || {
            let found = crate::fs::xattr::of_path(&self.path.join(&own));
            options.user_mode || found.is_ok_and(|found| found == object.header.xattrs)
        };
        if is_whole(&stat, object, options) && same_xattrs() {
            return Ok(Linked::Yes);
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        match rustix::fs::unlinkat(self.root.fd(), &own, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Linked::NotMade),
            Err(errno) => Err(errno.into()),
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

fn place(id: &ObjectId) -> (String, String) {
    let text = id.to_string();
    let (shard, name) = text.split_at(2);
    (shard.to_owned(), name.to_owned())
}

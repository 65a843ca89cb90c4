//! Applying a delta, and looking whether it could be applied.
//!
//! All lengths and checksums of the file are compared before anything is used. Everything goes through
//! one transaction: until every object is compared with its name and the tree of the commit is seen to
//! be whole, nobody sees any of it.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use super::base::Base;
use super::file::{DeltaFile, Kind};
use super::make::{Maker, Sink};
use super::tree::{FileRow, unpack_files, unpack_tree};
use crate::Body;
use crate::NewFile;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::object::{DirMeta, Dirtree, FileHeader};
use crate::ops::changes::{Fault, NewTree, Receiver, Visitor, check_base};
use crate::refs::{RefUpdate, is_valid_ref_name};
use crate::repo::Repository;

/// How to apply a delta.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// Refs that shall point to the new commit.
    pub refs: Vec<String>,
}

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyReport {
    /// The commit that the delta begins at.
    pub from: Option<ObjectId>,
    /// The commit that it makes.
    pub to: ObjectId,
    /// Whether the repository had that commit already.
    pub was_there: bool,
    /// Metadata objects in the delta, with the commit.
    pub metadata: u64,
    /// Files in the delta.
    pub files: u64,
    /// What its contents take when they are made.
    pub made_bytes: u64,
    /// By how much the repository grew.
    pub stored_bytes: u64,
}

/// Adds the commit that a delta leads to, and sets refs to it.
///
/// # Errors
/// [`Error::WrongBase`] or [`Error::PartialBase`] if the repository lacks the commit that the delta
/// begins at or has it in part, [`Error::UnsupportedFormat`] if a newer program made it,
/// [`Error::InvalidDelta`] if it is damaged, lies or does not make a whole commit. The repository is
/// then as it was.
pub fn apply(
    repo: &Repository,
    path: &Path,
    options: &ApplyOptions,
    monitor: &dyn Monitor,
) -> Result<ApplyReport> {
    let delta = DeltaFile::open(path)?;
    let updates = updates(repo, &options.refs, &delta.to)?;
    let mut report = ApplyReport {
        from: delta.from,
        to: delta.to,
        was_there: false,
        metadata: delta.counts.metadata,
        files: delta.counts.files,
        made_bytes: delta.counts.made_bytes,
        stored_bytes: 0,
    };
    repo.store().refresh()?;
    if repo.contains(ObjectKind::Commit, &delta.to)? && !repo.is_partial(&delta.to) {
        repo.update_refs(&updates)?;
        report.was_there = true;
        return Ok(report);
    }
    let mut txn = repo.begin(monitor)?;
    // Under the transaction's lock it cannot go any more.
    if let Some(from) = delta.from {
        check_base(repo, from, path)?;
        txn.set_parent(&from)?;
    }
    delta.check(monitor)?;
    let mut sink = Taker(Receiver::new(txn));
    let tree = make(repo, &delta, &mut sink, monitor)?;
    let Taker(mut receiver) = sink;
    let flushed = receiver.flush();
    flushed.map_err(|refused| Fault::from(refused).of(path))?;
    let finished = receiver.finish(repo, &tree, &updates);
    report.stored_bytes = finished.map_err(|error| Fault::of_tree(error).of(path))?;
    Ok(report)
}

fn updates(repo: &Repository, names: &[String], to: &ObjectId) -> Result<Vec<RefUpdate>> {
    let refs = repo.refs()?;
    let update = |name: &String| match is_valid_ref_name(name) {
        true => Ok(RefUpdate {
            name: name.clone(),
            expected: Some(refs.map.get(name).copied()),
            new: Some(*to),
        }),
        false => Err(Error::InvalidRefName { name: name.clone() }),
    };
    names.iter().map(update).collect()
}

/// Makes all files of a delta; gives the tree that they are in.
fn make(
    repo: &Repository,
    delta: &DeltaFile,
    sink: &mut dyn Sink,
    monitor: &dyn Monitor,
) -> Result<NewTree> {
    let base = Base::load(repo, delta.from.as_ref(), &delta.path)?;
    let number = delta.only(Kind::Tree);
    let tree = unpack_tree(&delta.read(number)?, &delta.to, &base);
    let tree = tree.map_err(|fault| delta.fault(number, fault))?;
    let number = delta.only(Kind::Files);
    let files = unpack_files(&delta.read(number)?, &tree, &base);
    let (files, kept) = files.map_err(|fault| delta.fault(number, fault))?;
    let counts = (tree.len() as u64 + 1, files.len() as u64);
    if counts != (delta.counts.metadata, delta.counts.files) {
        let fault = Fault::invalid("it holds other objects than its table says");
        return Err(fault.of(&delta.path));
    }
    let scratch = OwnedDir::create(&repo.path().join("staging"))?;
    Maker::new(&base, (&files, &kept), scratch.path()).run(delta, sink, monitor)?;
    Ok(tree)
}

/// Puts files into a transaction.
#[derive(Debug)]
struct Taker<'r>(Receiver<'r>);

impl Sink for Taker<'_> {
    fn file(&mut self, file: &FileRow, body: Body) -> Result<(), Fault> {
        let xattrs = file.header.xattrs.iter();
        let attributes: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        let bytes = match &body {
            Body::Bytes(bytes) => bytes.len(),
            _ => file.header.symlink_target.len(),
        };
        let new = NewFile {
            header: named_form(file, &body)?,
            hint: file.path.clone().into_bytes(),
            body,
        };
        let held = (attributes + bytes) as u64;
        Ok(self.0.put(Some(file.id), new, held)?)
    }
}

/// The header whose hash gives the name; of bytes in memory the receiver finds it.
fn named_form(file: &FileRow, body: &Body) -> Result<FileHeader> {
    let header = &file.header;
    if let Body::File(path, _) = body
        && !header.xattrs.is_sorted()
    {
        let stored = header.object_id_of(File::open(path).at(path)?).at(path)?;
        if stored != file.id {
            return Ok(header.with_sorted_xattrs().into_owned());
        }
    }
    Ok(header.clone())
}

/// What [`verify`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// The commit that the delta begins at.
    pub from: Option<ObjectId>,
    /// The commit that it makes.
    pub to: ObjectId,
    /// Metadata objects in the delta, with the commit.
    pub metadata: u64,
    /// Files that are what they shall be.
    pub files: u64,
}

/// Makes everything that a delta makes without keeping it, and compares each object with its name.
///
/// # Errors
/// As [`apply`].
pub fn verify(repo: &Repository, path: &Path, monitor: &dyn Monitor) -> Result<VerifyReport> {
    verify_file(repo, &DeltaFile::open(path)?, monitor)
}

/// The same of a delta that is open.
pub(super) fn verify_file(
    repo: &Repository,
    delta: &DeltaFile,
    monitor: &dyn Monitor,
) -> Result<VerifyReport> {
    let path = &delta.path;
    repo.store().refresh()?;
    if let Some(from) = delta.from {
        check_base(repo, from, path)?;
    }
    let leased: Vec<ObjectId> = delta.from.into_iter().collect();
    let _lease = repo.lease(&leased)?;
    delta.check(monitor)?;
    let files = HashSet::new();
    let mut checker = Checker { path, files };
    let tree = make(repo, delta, &mut checker, monitor)?;
    tree.visit(repo, &mut checker)
        .map_err(|error| Fault::of_tree(error).of(path))?;
    Ok(VerifyReport {
        from: delta.from,
        to: delta.to,
        metadata: delta.counts.metadata,
        files: checker.files.len() as u64,
    })
}

/// Compares files with their names, and keeps nothing.
#[derive(Debug)]
struct Checker<'a> {
    /// The delta.
    path: &'a Path,
    files: HashSet<ObjectId>,
}

impl Sink for Checker<'_> {
    fn file(&mut self, file: &FileRow, body: Body) -> Result<(), Fault> {
        let header = &file.header;
        let same = match &body {
            Body::File(path, _) => header
                .is_named(&file.id, File::open(path).at(path)?)
                .at(path)?,
            Body::Bytes(bytes) => header.is_named(&file.id, &bytes[..]).at(self.path)?,
            _ => header.is_named(&file.id, &[][..]).at(self.path)?,
        };
        if !same {
            return Err(Fault::other_object(ObjectKind::File, &file.id));
        }
        self.files.insert(file.id);
        Ok(())
    }
}

impl Visitor for Checker<'_> {
    fn dirmeta(&mut self, _: &DirMeta) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, id: &ObjectId) -> Result<bool> {
        Ok(self.files.contains(id))
    }

    fn dirtree(&mut self, _: &Dirtree) -> Result<()> {
        Ok(())
    }
}

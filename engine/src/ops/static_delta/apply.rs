//! Applying a static delta to a Grove repository.
//!
//! Everything goes through one transaction: until the last object is compared with its name and
//! the tree of the commit is seen to be whole, nobody sees any of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::Fault;
use super::check::Made;
use super::files::{DeltaAt, Opened};
use super::machine::{Sink, Sources, run};
use super::name::DeltaName;
use super::part::{Body, open};
use crate::Body as Content;
use crate::NewFile;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::check_room;
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::FileHeader;
use crate::ops::changes::{Object, Receiver};
use crate::repo::Repository;

/// Files up to this size are held in memory.
const IN_MEMORY_MAX: u64 = 32 << 20;

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyReport {
    /// Which delta it was.
    pub name: DeltaName,
    /// Whether the repository had the commit already; nothing was made then.
    pub was_there: bool,
    /// Metadata objects that were made, with the commit.
    pub metadata: u64,
    /// Files that were made.
    pub files: u64,
    /// What these files take.
    pub made_bytes: u64,
    /// By how much the repository grew.
    pub stored_bytes: u64,
}

/// Adds the commit that a delta leads to, unless it is there. No ref is set.
///
/// # Errors
/// [`Error::WrongBase`] if the repository lacks the commit that the delta begins at;
/// [`Error::InvalidDelta`] if it is damaged, lies, leaves objects out or does not make a whole
/// commit. The repository is then as it was.
pub fn apply_offline(
    repo: &Repository,
    delta: &DeltaAt<'_>,
    monitor: &dyn Monitor,
) -> Result<ApplyReport> {
    let opened = delta.open(repo)?;
    let superblock = &opened.superblock;
    let mut report = ApplyReport {
        name: superblock.name,
        was_there: false,
        metadata: 0,
        files: 0,
        made_bytes: 0,
        stored_bytes: 0,
    };
    repo.store().refresh()?;
    let to = &superblock.name.to;
    if repo.contains(ObjectKind::Commit, to)? && !repo.is_partial(to) {
        report.was_there = true;
        return Ok(report);
    }
    if let Some(fallback) = superblock.fallbacks.first() {
        let (kind, id) = fallback.object;
        let count = superblock.fallbacks.len();
        let detail = format!(
            "it leaves out {count} objects, {kind} {id} among them, which only a server has"
        );
        return Err(Fault::invalid(detail).of(&opened.path));
    }
    if opened.signed {
        monitor.warn("the signatures of the delta are not verified");
    }
    let mut txn = repo.begin(monitor)?;
    // Under the transaction's lock it cannot go any more.
    opened.check_base(repo)?;
    if let Some(from) = &superblock.name.from {
        txn.set_parent(from)?;
    }
    let tree = opened.tree().map_err(|fault| fault.of(&opened.path))?;
    monitor.begin(
        Phase::Delta,
        Some(superblock.parts.iter().map(|part| part.made_size).sum()),
    );
    let mut adder = Adder {
        made: Made::new(tree),
        receiver: Receiver::new(txn),
        paths: None,
        open: None,
        spool: OwnedDir::create(&repo.path().join("staging"))?,
        spools: 0,
        made_bytes: 0,
    };
    adder.run(repo, &opened, monitor)?;
    monitor.end(Phase::Delta);
    let Adder {
        made: Made { tree, .. },
        receiver,
        made_bytes,
        ..
    } = adder;
    report.metadata = tree.len() as u64 + 1;
    report.files = receiver.files();
    report.made_bytes = made_bytes;
    report.stored_bytes = receiver
        .finish(repo, &tree, &[])
        .map_err(|error| Fault::of_tree(error).of(&opened.path))?;
    Ok(report)
}

/// Puts the objects of a delta into a transaction.
#[derive(Debug)]
struct Adder<'r> {
    made: Made,
    receiver: Receiver<'r>,
    /// Where files will be in the tree, once a file comes: metadata is first in a delta. Files are
    /// stored next to their like.
    paths: Option<HashMap<ObjectId, String>>,
    open: Option<OpenFile>,
    /// Files that are too large for memory.
    spool: OwnedDir,
    spools: u64,
    made_bytes: u64,
}

#[derive(Debug)]
struct OpenFile {
    id: ObjectId,
    header: FileHeader,
    size: u64,
    bytes: Vec<u8>,
    spooled: Option<(PathBuf, File)>,
}

impl Adder<'_> {
    fn run(&mut self, repo: &Repository, opened: &Opened, monitor: &dyn Monitor) -> Result<()> {
        let mut sources = Sources::new(repo);
        for (number, head) in opened.superblock.parts.iter().enumerate() {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let file = opened.part(number, head)?;
            let fault = |fault| opened.fault(number, fault);
            let bytes = open(&file).map_err(fault)?;
            let body = Body::parse(&bytes).map_err(|error| fault(error.into()))?;
            run(body, head, &mut sources, self, monitor).map_err(fault)?;
            monitor.advance(Phase::Delta, head.made_size);
        }
        self.receiver
            .flush()
            .map_err(|refused| Fault::from(refused).of(&opened.path))
    }
}

impl Sink for Adder<'_> {
    fn metadata(&mut self, object: &Object, bytes: &[u8]) -> Result<(), Fault> {
        self.made.add(object, bytes)
    }

    fn begin(&mut self, id: &ObjectId, header: FileHeader, size: u64) -> Result<(), Fault> {
        header
            .check()
            .map_err(|error| Fault::invalid(format!("file object {id}: {error}")))?;
        let spooled = if size > IN_MEMORY_MAX {
            check_room(self.spool.path(), size)?;
            let path = self.spool.path().join(self.spools.to_string());
            self.spools += 1;
            let file = File::create(&path).at(&path)?;
            Some((path, file))
        } else {
            None
        };
        self.open = Some(OpenFile {
            id: *id,
            header,
            size,
            bytes: Vec::new(),
            spooled,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.open {
            Some(OpenFile {
                spooled: Some((path, file)),
                ..
            }) => Ok(file.write_all(bytes).at(path)?),
            Some(open) => {
                open.bytes.extend_from_slice(bytes);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(OpenFile {
            id,
            header,
            size,
            bytes,
            spooled,
        }) = self.open.take()
        else {
            return Ok(());
        };
        self.made_bytes += size;
        let paths = self.paths.get_or_insert_with(|| self.made.tree.paths());
        let hint = paths
            .get(&id)
            .map_or_else(Vec::new, |path| path.clone().into_bytes());
        let xattrs = header.xattrs.iter();
        let attributes: u64 = xattrs
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum();
        let held = attributes + header.symlink_target.len() as u64;
        let (body, held, spool) = match spooled {
            Some((path, _)) => (Content::File(path.clone(), size), held, Some(path)),
            None if header.is_symlink() => (Content::None, held, None),
            None => (Content::Bytes(bytes), held + size, None),
        };
        self.receiver
            .put(Some(id), NewFile { header, hint, body }, held)?;
        // It is stored by now.
        if let Some(path) = spool {
            std::fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }
}

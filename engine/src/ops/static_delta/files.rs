//! Deltas as files: where they lie, and what they hold.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::Fault;
use super::name::DeltaName;
use super::part::{Body, MAX_BODY, Op, open};
use super::superblock::{PartHead, Superblock};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::fs::{dir_of, open_regular};
use crate::id::ObjectId;
use crate::object::gvariant::{Part, Tuple};
use crate::object::{Metadata, Value};
use crate::ops::changes::{NewTree, check_base};
use crate::repo::Repository;

/// First number of a superblock that is wrapped with its signatures.
const SIGNED_MAGIC: u64 = 0x4f53_5453_474e_4454;
/// Name of the file that says what the others hold.
pub(super) const SUPERBLOCK: &str = "superblock";
/// No superblock is larger.
const MAX_SUPERBLOCK: u64 = 2 << 30;

/// Metadata key of a part that is in the superblock.
pub(super) fn part_key(name: &DeltaName, number: usize) -> String {
    format!("{}/{number}", name.dir().display())
}

/// Metadata key of the detached metadata of the commit that a delta makes.
pub(super) fn detached_key(name: &DeltaName) -> String {
    format!("{}/commitmeta", name.dir().display())
}

/// A delta whose superblock was read.
#[derive(Debug)]
pub(super) struct Opened {
    /// The superblock's file.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) signed: bool,
    pub(super) superblock: Superblock,
}

impl Opened {
    /// A delta of the repository.
    pub(super) fn named(repo: &Repository, name: &DeltaName) -> Result<Self> {
        let path = repo.path().join(name.dir()).join(SUPERBLOCK);
        if !path.exists() {
            return Err(Error::DeltaNotFound {
                name: name.to_string(),
            });
        }
        Self::at(&path)
    }

    /// A delta's superblock, or its directory.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let path = if path.is_dir() {
            path.join(SUPERBLOCK)
        } else {
            path.to_owned()
        };
        let (file, size) = open_regular(&path).at(&path)?;
        let wrong = |fault: Fault| fault.of(&path);
        if size > MAX_SUPERBLOCK {
            return Err(wrong(Fault::invalid("it is too large")));
        }
        let bytes = read_all(file, size).at(&path)?;
        let signed = bytes.first_chunk() == Some(&SIGNED_MAGIC.to_be_bytes());
        let inner = if signed {
            signed_part(&bytes).map_err(wrong)?
        } else {
            &bytes
        };
        let superblock = Superblock::parse(inner).map_err(|error| wrong(error.into()))?;
        Ok(Self {
            path,
            size,
            signed,
            superblock,
        })
    }

    /// The commit that the delta makes, with its detached metadata.
    pub(super) fn tree(&self) -> Result<NewTree, Fault> {
        let superblock = &self.superblock;
        let mut tree = NewTree::new(&superblock.commit)?;
        let detached = superblock.metadata.get(&detached_key(&superblock.name));
        // Clients pass over what is of another type.
        if let Some(dictionary) = detached.filter(|variant| variant.signature() == "a{sv}") {
            tree.set_detached(dictionary.bytes())?;
        }
        Ok(tree)
    }

    /// The file of a part, which is what the superblock says.
    pub(super) fn part(&self, number: usize, head: &PartHead) -> Result<Vec<u8>> {
        let key = part_key(&self.superblock.name, number);
        let (at, file) = match inline(&self.superblock.metadata, &key) {
            Some(file) => (self.path.clone(), file),
            None => {
                let path = self.path.with_file_name(number.to_string());
                let (file, size) = open_regular(&path).at(&path)?;
                if size != head.size {
                    let detail = format!("the part has {size} bytes, not {}", head.size);
                    return Err(Error::InvalidDelta { path, detail });
                }
                if size > MAX_BODY + (1 << 20) {
                    let detail = "the part is larger than any client takes".to_owned();
                    return Err(Error::InvalidDelta { path, detail });
                }
                let bytes = read_all(file, size).at(&path)?;
                (path, bytes)
            }
        };
        if file.len() as u64 != head.size || ObjectId::of(&file) != head.checksum {
            let detail = format!(
                "part {number} is not what the superblock says: it is damaged or of another delta"
            );
            return Err(Error::InvalidDelta { path: at, detail });
        }
        Ok(file)
    }

    /// Names the part that an error is about.
    pub(super) fn fault(&self, number: usize, fault: Fault) -> Error {
        match fault {
            Fault::Invalid(detail) => {
                Fault::Invalid(format!("part {number}: {detail}")).of(&self.path)
            }
            other => other.of(&self.path),
        }
    }

    /// Fails if the repository lacks the commit that the delta begins at.
    pub(super) fn check_base(&self, repo: &Repository) -> Result<()> {
        match self.superblock.name.from {
            Some(from) => check_base(repo, from, &self.path),
            None => Ok(()),
        }
    }
}

fn read_all(file: fs::File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The superblock within its signatures, `(taya{sv})`. Signatures are not this module's business.
pub(super) fn signed_part(bytes: &[u8]) -> Result<&[u8], Fault> {
    let mut tuple = Tuple::new(Part::whole(bytes), 1)?;
    tuple.fixed(8, 8)?;
    let inner = tuple.variable(1)?.bytes();
    Metadata::parse(tuple.last(8)?.bytes())?;
    Ok(inner)
}

fn inline(metadata: &Metadata, key: &str) -> Option<Vec<u8>> {
    let variant = metadata
        .get(key)
        .filter(|variant| variant.signature() == "(yay)")?;
    match variant.value() {
        Value::Tuple(members) => match <[Value; 2]>::try_from(members).ok()? {
            [Value::Byte(method), Value::Bytes(rest)] => Some([&[method], &*rest].concat()),
            _ => None,
        },
        _ => None,
    }
}

/// The deltas of a repository, sorted.
pub fn list(repo: &Repository) -> Result<Vec<DeltaName>> {
    list_at(repo.path())
}

/// The same of any repository, ours or OSTree's.
pub(in crate::ops) fn list_at(repo: &Path) -> Result<Vec<DeltaName>> {
    let root = repo.join("deltas");
    let mut names = Vec::new();
    for first in entries(&root)? {
        for rest in entries(&root.join(&first))? {
            let name = DeltaName::parse_dir(&first, &rest);
            let found = |name: &DeltaName| repo.join(name.dir()).join(SUPERBLOCK).is_file();
            names.extend(name.filter(found));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Names of what is in a directory; none if there is no such directory.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.at(dir)?,
    };
    let names = entries.map(|entry| Ok(entry.at(dir)?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

/// Whether the repository has a delta.
pub fn exists(repo: &Repository, name: &DeltaName) -> bool {
    repo.path().join(name.dir()).join(SUPERBLOCK).is_file()
}

/// What the files of a delta take.
pub(in crate::ops) fn size(repo: &Repository, name: &DeltaName) -> u64 {
    let files = fs::read_dir(repo.path().join(name.dir()));
    let files = files.into_iter().flatten().flatten();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// Moves a finished delta to its place, from a directory in the staging area.
pub(super) fn install(repo: &Repository, dir: &Path, name: &DeltaName) -> Result<()> {
    let target = repo.path().join(name.dir());
    let first = target.parent().expect("because deltas lie in directories");
    fs::create_dir_all(first).at(first)?;
    let storage = repo.storage();
    if target.exists() {
        let old = dir.with_file_name("old");
        storage.rename(&target, &old).at(&target)?;
    }
    storage.rename(dir, &target).at(&target)?;
    let deltas = first.parent().expect("because deltas lie two levels deep");
    for dir in [first, deltas, repo.path()] {
        storage.sync_dir(dir).at(dir)?;
    }
    Ok(())
}

/// Moves the files of a finished delta beside each other, the superblock to its place last: until then one
/// that was there before stays, though its parts may be gone.
pub(super) fn put_beside(repo: &Repository, dir: &Path, place: &Path, parts: u64) -> Result<()> {
    let storage = repo.storage();
    let target = dir_of(place);
    for number in 0..parts {
        let name = number.to_string();
        let part = place.with_file_name(&name);
        storage.rename(&dir.join(name), &part).at(&part)?;
    }
    storage.sync_dir(target).at(target)?;
    storage.rename(&dir.join(SUPERBLOCK), place).at(place)?;
    storage.sync_dir(target).at(target)
}

/// Deletes a delta.
pub fn delete(repo: &Repository, name: &DeltaName) -> Result<()> {
    repo.check_writable()?;
    if !exists(repo, name) {
        return Err(Error::DeltaNotFound {
            name: name.to_string(),
        });
    }
    let staging = OwnedDir::create(&repo.path().join("staging"))?;
    let dir = repo.path().join(name.dir());
    repo.storage()
        .rename(&dir, &staging.path().join("old"))
        .at(&dir)?;
    let first = dir.parent().expect("because deltas lie in directories");
    repo.storage().sync_dir(first).at(first)?;
    // Another delta may be there.
    drop(fs::remove_dir(first));
    Ok(())
}

/// What a delta holds.
#[derive(Debug, Clone)]
pub struct DeltaInfo {
    /// Which commits it leads from and to.
    pub name: DeltaName,
    /// Whether it is wrapped with signatures.
    pub signed: bool,
    /// Whether its numbers are big-endian.
    pub big_endian: bool,
    /// When it was made, in seconds since 1970.
    pub timestamp: u64,
    /// Size of the superblock's file.
    pub superblock_size: u64,
    /// Its parts.
    pub parts: Vec<PartInfo>,
    /// Objects that are left out.
    pub fallbacks: u64,
    /// What is to be fetched of them.
    pub fallback_size: u64,
    /// What they take when they are there.
    pub fallback_made_size: u64,
}

/// What a part of a delta holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartInfo {
    /// Objects that it makes.
    pub objects: u64,
    /// Size of its file.
    pub size: u64,
    /// What its objects take.
    pub made_size: u64,
    /// Different owners and modes.
    pub modes: u64,
    /// Different sets of extended attributes.
    pub xattrs: u64,
    /// Length of the blob that operations refer to.
    pub blob_size: u64,
    /// Length of the operations.
    pub ops_size: u64,
    /// Number of operations: open-splice-close, open, write, set and unset source, close, patch.
    pub ops: [u64; 7],
}

/// Describes a delta of the repository, or of a file or directory.
pub fn show(repo: &Repository, delta: &DeltaAt<'_>) -> Result<DeltaInfo> {
    let opened = delta.open(repo)?;
    let superblock = &opened.superblock;
    let parts = superblock.parts.iter().enumerate().map(|(number, head)| {
        let file = opened.part(number, head)?;
        describe(head, &file).map_err(|fault| opened.fault(number, fault))
    });
    Ok(DeltaInfo {
        name: superblock.name,
        signed: opened.signed,
        big_endian: superblock.big_endian,
        timestamp: superblock.timestamp,
        superblock_size: opened.size,
        parts: parts.collect::<Result<_>>()?,
        fallbacks: superblock.fallbacks.len() as u64,
        fallback_size: superblock.fallbacks.iter().map(|f| f.size).sum(),
        fallback_made_size: superblock.fallbacks.iter().map(|f| f.made_size).sum(),
    })
}

fn describe(head: &PartHead, file: &[u8]) -> Result<PartInfo, Fault> {
    let bytes = open(file)?;
    let mut body = Body::parse(&bytes)?;
    let mut info = PartInfo {
        objects: head.objects.len() as u64,
        size: head.size,
        made_size: head.made_size,
        modes: body.modes.len() as u64,
        xattrs: body.xattrs.len() as u64,
        blob_size: body.blob.len() as u64,
        ops_size: body.ops_len() as u64,
        ops: [0; 7],
    };
    let mut made = 0;
    while let Some(op) = body.next_op(head.objects.get(made).map(|object| object.0))? {
        made += usize::from(matches!(
            op,
            Op::Metadata { .. } | Op::File { .. } | Op::Open { .. }
        ));
        let slot = match op {
            Op::Metadata { .. } | Op::File { .. } => 0,
            Op::Open { .. } => 1,
            Op::Write { .. } => 2,
            Op::SetSource { .. } => 3,
            Op::UnsetSource => 4,
            Op::Close => 5,
            Op::Patch { .. } => 6,
        };
        info.ops[slot] += 1;
    }
    Ok(info)
}

/// Where a delta is.
#[derive(Debug, Clone, Copy)]
pub enum DeltaAt<'a> {
    /// In the repository.
    Name(DeltaName),
    /// In a file, or in a directory with a file `superblock`.
    Path(&'a Path),
}

impl DeltaAt<'_> {
    pub(super) fn open(&self, repo: &Repository) -> Result<Opened> {
        match self {
            Self::Name(name) => Opened::named(repo, name),
            Self::Path(path) => Opened::at(path),
        }
    }
}

//! The file of a delta: a head, sections, and a table that says what they are.
//!
//! Owns the layout (docs/format.md, "Deltas") and the checks of lengths and checksums. What is in
//! the sections it does not know.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::DeltaCounts;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::fs::{Storage, StorageFile, dir_of, open_regular};
use crate::id::ObjectId;
use crate::monitor::{Monitor, Phase};
use crate::ops::changes::Fault;
use crate::pack::{le32, le64};

/// First bytes of every delta.
pub(crate) const MAGIC: &[u8; 8] = b"GROVEDL1";
/// Last bytes of every delta.
const END_MAGIC: &[u8; 8] = b"GROVEDE1";
/// Version of the layout and of everything in it.
pub(crate) const VERSION: u32 = 1;
/// Magic, version, reserved, and the commits that the delta leads from and to.
pub(crate) const HEAD_SIZE: usize = 80;
/// Size of the counts at the beginning of the table.
const COUNTS_SIZE: usize = 32;
/// Size of a row of the table: kind, size, checksum.
pub(crate) const ROW_SIZE: usize = 44;
/// Length and checksum of the table, and the magic.
pub(crate) const TAIL_SIZE: usize = 48;
/// No delta has more sections.
pub(crate) const MAX_SECTIONS: usize = 1 << 18;
/// No section is larger.
pub(crate) const MAX_SECTION: u64 = 1 << 30;
/// Bytes that are read at a time to compare checksums.
const STEP: usize = 1 << 20;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The commit, listings of directories, and metadata of directories.
    Tree = 1,
    /// Metadata of files, and which contents they have.
    Files = 2,
    /// Contents.
    Contents = 3,
}

impl Kind {
    fn from_tag(tag: u32) -> Option<Self> {
        let kinds = [Self::Tree, Self::Files, Self::Contents];
        kinds.into_iter().find(|kind| *kind as u32 == tag)
    }
}

/// A section: what it is and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: Kind,
    pub(super) size: u64,
    checksum: [u8; 32],
    /// Where in the file it begins; follows from the sections before it.
    offset: u64,
}

/// Which commits the delta leads from and to, as the head of its file.
pub(crate) fn head(from: Option<&ObjectId>, to: &ObjectId) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_SIZE);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(from.map_or([0; 32].as_slice(), |from| from.as_bytes()));
    out.extend_from_slice(to.as_bytes());
    out
}

/// The table and the tail, given the head.
fn encode_end(head: &[u8], counts: &DeltaCounts, sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::with_capacity(COUNTS_SIZE + sections.len() * ROW_SIZE + TAIL_SIZE);
    let numbers = [
        counts.metadata,
        counts.files,
        counts.contents,
        counts.made_bytes,
    ];
    numbers
        .iter()
        .for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    for section in sections {
        out.extend_from_slice(&(section.kind as u32).to_le_bytes());
        out.extend_from_slice(&section.size.to_le_bytes());
        out.extend_from_slice(&section.checksum);
    }
    let len = out.len() as u64;
    let checksum = Sha256::new().chain_update(head).chain_update(&out);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum.finalize());
    out.extend_from_slice(END_MAGIC);
    out
}

/// Writes a delta beside its place, and moves it there when it is complete.
#[derive(Debug)]
pub(super) struct DeltaWriter<'s> {
    storage: &'s dyn Storage,
    target: PathBuf,
    temporary: PathBuf,
    file: Box<dyn StorageFile>,
    head: Vec<u8>,
    sections: Vec<Section>,
    offset: u64,
    /// The directory of the temporary file.
    _staging: OwnedDir,
}

impl<'s> DeltaWriter<'s> {
    pub(super) fn create(
        storage: &'s dyn Storage,
        target: &Path,
        (from, to): (Option<&ObjectId>, &ObjectId),
    ) -> Result<Self> {
        if target.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory)).at(target);
        }
        let staging = OwnedDir::beside(target)?;
        let temporary = staging.path().join("delta");
        let mut file = storage.create(&temporary).at(&temporary)?;
        let head = head(from, to);
        file.write_all(&head).at(&temporary)?;
        Ok(Self {
            storage,
            target: target.to_owned(),
            temporary,
            file,
            offset: head.len() as u64,
            head,
            sections: Vec::new(),
            _staging: staging,
        })
    }

    /// Where the delta will be.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// What was written, by the name that it will have.
    pub(super) fn reopen(&self) -> Result<DeltaFile> {
        let written = DeltaFile::open(&self.temporary)?;
        Ok(DeltaFile {
            path: self.target.clone(),
            ..written
        })
    }

    /// Appends a section.
    pub(super) fn add(&mut self, kind: Kind, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        if size > MAX_SECTION || self.sections.len() >= MAX_SECTIONS {
            return Err(Error::UnsupportedInput {
                path: self.target.display().to_string(),
                reason: "there is more to send than a delta can hold".to_owned(),
            });
        }
        self.file.write_all(bytes).at(&self.temporary)?;
        self.sections.push(Section {
            kind,
            size,
            checksum: Sha256::digest(bytes).into(),
            offset: self.offset,
        });
        self.offset += size;
        Ok(())
    }

    /// Writes the table, and makes the file durable where it is.
    pub(super) fn seal(&mut self, counts: &DeltaCounts) -> Result<()> {
        let end = encode_end(&self.head, counts, &self.sections);
        self.file.write_all(&end).at(&self.temporary)?;
        self.file.sync().at(&self.temporary)
    }

    /// Moves the file to its place.
    pub(super) fn keep(self) -> Result<()> {
        let (from, to) = (&self.temporary, &self.target);
        self.storage.rename(from, to).at(to)?;
        let dir = dir_of(to);
        self.storage.sync_dir(dir).at(dir)
    }
}

/// A delta whose head and table were read.
#[derive(Debug)]
pub(super) struct DeltaFile {
    pub(super) path: PathBuf,
    file: File,
    pub(super) size: u64,
    pub(super) from: Option<ObjectId>,
    pub(super) to: ObjectId,
    pub(super) counts: DeltaCounts,
    pub(super) sections: Vec<Section>,
}

impl DeltaFile {
    /// Opens a delta: its head, its table and the lengths are looked at.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (file, size) = open_regular(path).at(path)?;
        let wrong = |detail: &str| Fault::invalid(detail).of(path);
        let mut head = vec![0; (HEAD_SIZE as u64).min(size) as usize];
        file.read_exact_at(&mut head, 0).at(path)?;
        if !head.starts_with(MAGIC) {
            return Err(wrong("it is no delta of Grove"));
        }
        let version = head.get(8..12).map(|_| le32(&head, 8));
        if let Some(version) = version.filter(|version| *version != VERSION) {
            return Err(Error::UnsupportedFormat {
                path: path.to_owned(),
                detail: format!("a delta of version {version}, this program knows {VERSION}"),
            });
        }
        let end = size.checked_sub((HEAD_SIZE + TAIL_SIZE) as u64);
        let end = end.ok_or_else(|| wrong("it is cut short"))?;
        let mut tail = [0; TAIL_SIZE];
        file.read_exact_at(&mut tail, HEAD_SIZE as u64 + end)
            .at(path)?;
        if !tail.ends_with(END_MAGIC) {
            return Err(wrong("it is cut short, or something follows it"));
        }
        let len = le64(&tail, 0);
        let max = (COUNTS_SIZE + MAX_SECTIONS * ROW_SIZE) as u64;
        if len > end.min(max) || len < COUNTS_SIZE as u64 {
            return Err(wrong("its table has an impossible length"));
        }
        let mut table = vec![0; len as usize];
        let table_at = HEAD_SIZE as u64 + end - len;
        file.read_exact_at(&mut table, table_at).at(path)?;
        let checksum = Sha256::new().chain_update(&head).chain_update(&table);
        if checksum.finalize()[..] != tail[8..40] {
            return Err(wrong("its head or its table is damaged"));
        }
        let id =
            |at: usize| ObjectId::from_slice(&head[at..at + 32]).expect("because of its length");
        let sections = sections(&table[COUNTS_SIZE..], table_at).map_err(|f| f.of(path))?;
        Ok(Self {
            from: Some(id(16)).filter(|from| from.as_bytes() != &[0; 32]),
            to: id(48),
            counts: DeltaCounts {
                metadata: le64(&table, 0),
                files: le64(&table, 8),
                contents: le64(&table, 16),
                made_bytes: le64(&table, 24),
            },
            path: path.to_owned(),
            file,
            size,
            sections,
        })
    }

    /// Compares every section with its checksum, before any of it is used.
    pub(super) fn check(&self, monitor: &dyn Monitor) -> Result<()> {
        monitor.begin(Phase::Verify, Some(self.size));
        self.sections
            .par_iter()
            .enumerate()
            .try_for_each(|(n, section)| {
                let mut hasher = Sha256::new();
                let mut buf = vec![0; section.size.min(STEP as u64) as usize];
                let mut at = 0;
                while at < section.size {
                    if monitor.is_cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let step = (section.size - at).min(STEP as u64) as usize;
                    self.file
                        .read_exact_at(&mut buf[..step], section.offset + at)
                        .at(&self.path)?;
                    hasher.update(&buf[..step]);
                    at += step as u64;
                    monitor.advance(Phase::Verify, step as u64);
                }
                self.compare(n, section, hasher.finalize().into())
            })?;
        monitor.end(Phase::Verify);
        Ok(())
    }

    /// The bytes of a section, which are what the table says.
    pub(super) fn read(&self, number: usize) -> Result<Vec<u8>> {
        let section = &self.sections[number];
        let mut bytes = vec![0; section.size as usize];
        self.file
            .read_exact_at(&mut bytes, section.offset)
            .at(&self.path)?;
        self.compare(number, section, Sha256::digest(&bytes).into())?;
        Ok(bytes)
    }

    fn compare(&self, number: usize, section: &Section, checksum: [u8; 32]) -> Result<()> {
        if checksum == section.checksum {
            return Ok(());
        }
        Err(self.fault(number, Fault::invalid("it is damaged")))
    }

    /// The number of the one section of a kind.
    pub(super) fn only(&self, kind: Kind) -> usize {
        let found = self.sections.iter().position(|s| s.kind == kind);
        found.expect("because deltas without it are refused")
    }

    /// Names the section that an error is about.
    pub(super) fn fault(&self, number: usize, fault: Fault) -> Error {
        match fault {
            Fault::Invalid(detail) => {
                let kind = match self.sections[number].kind {
                    Kind::Tree => "tree",
                    Kind::Files => "files",
                    Kind::Contents => "contents",
                };
                Fault::Invalid(format!("section {number} ({kind}): {detail}")).of(&self.path)
            }
            other => other.of(&self.path),
        }
    }
}

/// The rows of the table; the sections must fill the file up to it.
fn sections(rows: &[u8], end: u64) -> Result<Vec<Section>, Fault> {
    let (rows, rest) = rows.as_chunks::<ROW_SIZE>();
    if !rest.is_empty() {
        return Err(Fault::invalid("its table ends within a row"));
    }
    let mut offset = HEAD_SIZE as u64;
    let mut sections = Vec::with_capacity(rows.len());
    for row in rows {
        let kind = Kind::from_tag(le32(row, 0));
        let kind = kind.ok_or_else(|| Fault::invalid("it has a section of an unknown kind"))?;
        let size = le64(row, 4);
        if size > MAX_SECTION {
            return Err(Fault::invalid("it has a section that is larger than any"));
        }
        let checksum = row[12..].try_into().expect("because of its length");
        sections.push(Section {
            kind,
            size,
            checksum,
            offset,
        });
        offset += size;
    }
    let count = |kind| sections.iter().filter(|s| s.kind == kind).count();
    if count(Kind::Tree) != 1 || count(Kind::Files) != 1 {
        return Err(Fault::invalid("it has not one tree and one list of files"));
    }
    if offset != end {
        return Err(Fault::invalid("its sections do not fill it"));
    }
    Ok(sections)
}

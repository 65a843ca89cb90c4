//! The commit that a delta begins at: its payloads by number, and bytes of them.
//!
//! Both sides number the payloads in the order in which a walk of the commit meets their files, so
//! that a delta names them in a byte or two.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::limits::{MAX_PREFIX, MAX_SOURCES_BYTES};
use super::streams::Cursors;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::ops::changes::{Contents, Fault, Object, put_number};
use crate::pack::recipe::Piece;
use crate::recode;
use crate::repo::Repository;
use crate::store::lock;

/// Smaller plain forms are made each time that they are needed.
const REMEMBERED_MIN: u64 = 1 << 20;

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A payload of the base commit, by number.
    Base(u64),
    /// What a compressed payload of the base commit holds: its number, and how many bytes these are.
    Plain { number: u64, size: u64 },
    /// A content that the delta made before, by number.
    Made(u64),
}

/// A range of bytes of an origin, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) window: Option<(u64, u64)>,
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        Self {
            origin,
            window: None,
        }
    }
}

impl Source {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (kind, number) = match self.origin {
            Origin::Base(number) => (0, number),
            Origin::Plain { number, .. } => (1, number),
            Origin::Made(number) => (2, number),
        };
        put_number(
            out,
            number << 3 | kind << 1 | u64::from(self.window.is_some()),
        );
        if let Origin::Plain { size, .. } = self.origin {
            put_number(out, size);
        }
        if let Some((offset, len)) = self.window {
            put_number(out, offset);
            put_number(out, len);
        }
    }

    pub(super) fn take<const N: usize>(
        cursors: &mut Cursors<'_, N>,
        stream: usize,
    ) -> Result<Self, Fault> {
        let word = cursors.number(stream)?;
        let number = word >> 3;
        let origin = match word >> 1 & 3 {
            0 => Origin::Base(number),
            1 => Origin::Plain {
                number,
                size: cursors.number(stream)?,
            },
            2 => Origin::Made(number),
            _ => return Err(Fault::invalid("a source is of an unknown kind")),
        };
        let window = match word & 1 {
            0 => None,
            _ => Some((cursors.number(stream)?, cursors.number(stream)?)),
        };
        Ok(Self { origin, window })
    }
}

/// What a compressed payload holds.
#[derive(Debug, Clone)]
enum Plain {
    /// The repository stores it so.
    Stored(Piece),
    Bytes(Arc<Vec<u8>>),
}

/// The commit that a delta begins at; one without anything for deltas that hold a whole commit.
#[derive(Debug)]
pub(super) struct Base<'r> {
    repo: &'r Repository,
    /// The delta, which errors are about.
    delta: PathBuf,
    pub(super) contents: Contents,
    known: HashSet<Object>,
    payloads: Vec<Piece>,
    numbers: HashMap<PayloadId, u64>,
    /// The large plain form that was needed last.
    last_plain: Mutex<Option<(u64, Plain)>>,
}

impl<'r> Base<'r> {
    pub(super) fn load(
        repo: &'r Repository,
        from: Option<&ObjectId>,
        delta: &Path,
    ) -> Result<Self> {
        let contents = match from {
            Some(from) => Contents::of(repo, from, |_| false)?,
            None => Contents::default(),
        };
        let ids: Vec<ObjectId> = contents.unique_files().iter().map(|file| file.1).collect();
        let mut base = Self {
            repo,
            delta: delta.to_owned(),
            known: contents.objects().collect(),
            contents,
            payloads: Vec::new(),
            numbers: HashMap::new(),
            last_plain: Mutex::default(),
        };
        for file in repo.files(&ids) {
            let file = file?;
            let Some(id) = file.payload else { continue };
            let next = base.payloads.len() as u64;
            if *base.numbers.entry(id).or_insert(next) == next {
                let size = file.size;
                base.payloads.push(Piece { id, size });
            }
        }
        Ok(base)
    }

    /// The file of the delta.
    pub(super) fn delta(&self) -> &Path {
        &self.delta
    }

    /// The error of using the base commit while the delta is made.
    pub(super) fn fault(&self, fault: Fault) -> Error {
        fault.of(&self.delta)
    }

    /// Whether the base commit has an object.
    pub(super) fn knows(&self, object: &Object) -> bool {
        self.known.contains(object)
    }

    /// The number of a payload.
    pub(super) fn number(&self, id: &PayloadId) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    pub(super) fn payload(&self, number: u64) -> Result<Piece, Fault> {
        let found = usize::try_from(number)
            .ok()
            .and_then(|number| self.payloads.get(number));
        let found = found.copied();
        found.ok_or_else(|| Fault::invalid("it names a payload that the base commit does not have"))
    }

    /// What listings of directories are compressed against: those of the base commit, one after the
    /// other, as many as fit.
    pub(super) fn prefix(&self) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        for (kind, id) in &self.contents.metadata {
            if *kind != ObjectKind::Dirtree {
                continue;
            }
            let bytes = self.repo.object_bytes(*kind, id)?;
            if prefix.len() + bytes.len() > MAX_PREFIX {
                break;
            }
            prefix.extend(bytes);
        }
        Ok(prefix)
    }

    /// How many bytes a payload holds when it is decompressed; none if that cannot be done.
    pub(super) fn plain_size(&self, number: u64) -> Result<Option<u64>> {
        let Ok(piece) = self.payload(number) else {
            return Ok(None);
        };
        if let Some(plain) = self.repo.store().plain_form(piece)? {
            return Ok(Some(plain.size).filter(|size| *size <= recode::MAX_PLAIN));
        }
        if piece.size > recode::MAX_SIZE {
            return Ok(None);
        }
        let mut head = vec![0; piece.size.min(8) as usize];
        self.read_payload(piece, 0, &mut head)?;
        if !recode::is_compressed(&head) {
            return Ok(None);
        }
        let packed = self.read_whole(piece)?;
        let plain = recode::plain_form(&packed, recode::MAX_PLAIN);
        let size = plain.as_ref().map(|plain| plain.len() as u64);
        if let Some(plain) = plain {
            self.remember(number, &Plain::Bytes(Arc::new(plain)));
        }
        Ok(size)
    }

    fn remember(&self, number: u64, plain: &Plain) {
        let large = match plain {
            Plain::Stored(_) => true,
            Plain::Bytes(bytes) => bytes.len() as u64 >= REMEMBERED_MIN,
        };
        if large {
            *lock(&self.last_plain) = Some((number, plain.clone()));
        }
    }

    /// Gives memory back.
    pub(super) fn forget_plain(&self) {
        *lock(&self.last_plain) = None;
    }

    fn plain(&self, number: u64, size: u64) -> Result<Plain, Fault> {
        let last = lock(&self.last_plain).clone();
        if let Some((_, plain)) = last.filter(|last| last.0 == number && last.1.len() == size) {
            return Ok(plain);
        }
        let piece = self.payload(number)?;
        if piece.size > recode::MAX_SIZE || size > recode::MAX_PLAIN {
            return Err(Fault::invalid(
                "it decompresses a payload that is too large",
            ));
        }
        let stored = self.repo.store().plain_form(piece)?;
        let plain = match stored.filter(|plain| plain.size == size) {
            Some(plain) => Plain::Stored(plain),
            None => {
                let plain = recode::plain_form(&self.read_whole(piece)?, size);
                let plain = plain.filter(|plain| plain.len() as u64 == size);
                Plain::Bytes(Arc::new(plain.ok_or_else(|| {
                    Fault::invalid("a payload of the base commit does not decompress as it says")
                })?))
            }
        };
        self.remember(number, &plain);
        Ok(plain)
    }

    fn read_payload(&self, piece: Piece, offset: u64, buf: &mut [u8]) -> Result<()> {
        let store = self.repo.store();
        store
            .read_payload(&piece.id, piece.size, offset, buf)
            .map(drop)
    }

    /// All bytes of a payload of the repository.
    pub(super) fn read_whole(&self, piece: Piece) -> Result<Vec<u8>> {
        self.read_range(piece, 0, piece.size)
    }

    /// Some bytes of a payload of the repository.
    pub(super) fn read_range(&self, piece: Piece, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.read_payload(piece, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Size of an origin in the base commit.
    fn size_of(&self, origin: Origin) -> Result<u64, Fault> {
        match origin {
            Origin::Base(number) => Ok(self.payload(number)?.size),
            Origin::Plain { size, .. } => Ok(size),
            Origin::Made(_) => Err(Fault::invalid("a patch of what it made itself")),
        }
    }

    /// Where in its origin a source of the base commit begins, and how many bytes it has.
    pub(super) fn range_of(&self, source: &Source) -> Result<(u64, u64), Fault> {
        window_of(source, self.size_of(source.origin)?)
    }

    /// How many bytes a source of the base commit has.
    pub(super) fn len_of(&self, source: &Source) -> Result<u64, Fault> {
        self.range_of(source).map(|(_, len)| len)
    }

    /// The bytes of sources of the base commit, one after the other.
    pub(super) fn read_sources(&self, sources: &[Source]) -> Result<Vec<u8>, Fault> {
        let mut len = 0u64;
        for source in sources {
            len = len.saturating_add(self.len_of(source)?);
        }
        if len > MAX_SOURCES_BYTES {
            return Err(Fault::invalid("a content has sources that are too large"));
        }
        let mut bytes = vec![0; len as usize];
        let mut rest = &mut bytes[..];
        for source in sources {
            let (offset, len) = self.range_of(source)?;
            let (own, after) = rest.split_at_mut(len as usize);
            self.read_at(source.origin, offset, own)?;
            rest = after;
        }
        Ok(bytes)
    }

    /// Fills a buffer from an offset of an origin in the base commit, within its size.
    pub(super) fn read_at(&self, origin: Origin, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        match origin {
            Origin::Base(number) => {
                self.read_payload(self.payload(number)?, offset, buf)?;
            }
            Origin::Plain { number, size } => match self.plain(number, size)? {
                Plain::Stored(piece) => self.read_payload(piece, offset, buf)?,
                Plain::Bytes(bytes) => {
                    let range = offset as usize..offset as usize + buf.len();
                    buf.copy_from_slice(&bytes[range]);
                }
            },
            Origin::Made(_) => self.size_of(origin).map(drop)?,
        }
        Ok(())
    }
}

impl Plain {
    fn len(&self) -> u64 {
        match self {
            Self::Stored(piece) => piece.size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// The range that a source has of an origin of this size.
pub(super) fn window_of(source: &Source, size: u64) -> Result<(u64, u64), Fault> {
    let (offset, len) = source.window.unwrap_or((0, size));
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok((offset, len)),
        _ => Err(Fault::invalid(
            "a source leads out of what it is taken from",
        )),
    }
}

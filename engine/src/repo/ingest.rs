//! From files to names: hashing payloads, in parallel and in bounded memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{Error, IoResultExt, Result};
use crate::fs::check_room;
use crate::id::{ObjectId, PayloadId};
use crate::monitor::Monitor;
use crate::object::FileHeader;
use crate::repo::delta::Older;

/// Payloads up to this size are held in memory while they are stored.
pub(crate) const IN_MEMORY_MAX: u64 = 32 << 20;

/// Bytes of a new regular file.
pub enum Body {
    /// Symbolic links: the target is in the header.
    None,
    /// The whole payload in memory.
    Bytes(Vec<u8>),
    /// A file to read, of this size; read twice when it is large.
    File(PathBuf, u64),
    /// A stream of exactly this size; spooled to the staging directory when it is large.
    Stream(Box<dyn Read + Send>, u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(path, size) => write!(f, "File({}, {size})", path.display()),
            Self::Stream(_, size) => write!(f, "Stream({size})"),
        }
    }
}

/// A file to add to the store.
#[derive(Debug)]
pub struct NewFile {
    /// Its metadata.
    pub header: FileHeader,
    /// Its path in the tree: decides next to what it is stored.
    pub hint: Vec<u8>,
    /// Its payload.
    pub body: Body,
}

/// Where a hashed payload can be read again.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Bytes(Vec<u8>),
    /// A file of someone else's: it may change, so it is hashed again while it is stored.
    Foreign(PathBuf),
    /// A spooled stream in the staging directory.
    Spooled(PathBuf),
}

/// A file with its names.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) id: ObjectId,
    pub(super) header: FileHeader,
    pub(super) size: u64,
    pub(super) payload: Option<PayloadId>,
    pub(super) content: Content,
    pub(super) hint: Vec<u8>,
}

/// Hashes files; `staging` takes streams that are too large for memory.
#[derive(Debug)]
pub(super) struct Hasher<'a> {
    staging: &'a Path,
    spools: &'a AtomicU32,
    monitor: &'a dyn Monitor,
}

impl<'a> Hasher<'a> {
    pub(super) fn new(staging: &'a Path, spools: &'a AtomicU32, monitor: &'a dyn Monitor) -> Self {
        Self {
            staging,
            spools,
            monitor,
        }
    }

    pub(super) fn hash(&self, file: NewFile) -> Result<Hashed> {
        let NewFile { header, hint, body } = file;
        let prefix = header.content_prefix();
        let in_memory = |bytes: Vec<u8>| {
            let (id, payload) = hash_bytes(&prefix, &bytes);
            (id, payload, bytes.len() as u64, Content::Bytes(bytes))
        };
        let (id, payload, size, content) = match body {
            Body::None => (ObjectId::of(&prefix), None, 0, Content::Nothing),
            Body::Bytes(bytes) => in_memory(bytes),
            Body::File(path, size) if size <= IN_MEMORY_MAX => {
                let bytes = std::fs::read(&path).at(&path)?;
                if bytes.len() as u64 != size {
                    return Err(Error::InputChanged { path });
                }
                in_memory(bytes)
            }
            Body::File(path, size) => {
                let mut file = File::open(&path).at(&path)?;
                let next = |buf: &mut [u8]| file.read(buf).at(&path);
                let (id, payload, read) = hash_stream(&prefix, next, |_| self.go_on())?;
                if read != size {
                    return Err(Error::InputChanged { path });
                }
                (id, payload, size, Content::Foreign(path))
            }
            Body::Stream(mut stream, size) => {
                let file = NewFile {
                    header,
                    hint,
                    body: Body::None,
                };
                return self.hash_stream(file, &mut *stream, size);
            }
        };
        // Empty files have no payload: nothing needs to be stored for them.
        let payload = payload.filter(|_| size > 0);
        Ok(Hashed {
            id,
            header,
            size,
            payload,
            content,
            hint,
        })
    }

    /// Hashes a file whose payload comes from a stream of exactly `size` bytes.
    pub(super) fn hash_stream(
        &self,
        file: NewFile,
        stream: &mut dyn Read,
        size: u64,
    ) -> Result<Hashed> {
        if size <= IN_MEMORY_MAX {
            let bytes = read_exactly(stream, size).at(path_of(&file.hint))?;
            return self.hash(NewFile {
                body: Body::Bytes(bytes),
                ..file
            });
        }
        let NewFile { header, hint, .. } = file;
        let (id, payload, path) = self.spool(&header.content_prefix(), stream, size, &hint)?;
        Ok(Hashed {
            id,
            header,
            size,
            payload,
            content: Content::Spooled(path),
            hint,
        })
    }

    fn spool(
        &self,
        prefix: &[u8],
        stream: &mut dyn Read,
        size: u64,
        hint: &[u8],
    ) -> Result<(ObjectId, Option<PayloadId>, PathBuf)> {
        // The size is what somebody says: compressed streams of little can be of very much.
        check_room(self.staging, size)?;
        let number = self.spools.fetch_add(1, Ordering::Relaxed);
        let path = self.staging.join(format!("spool.{number}"));
        let mut file = File::create(&path).at(&path)?;
        let mut left = size;
        let next = |buf: &mut [u8]| {
            let wanted = (buf.len() as u64).min(left) as usize;
            let n = stream.read(&mut buf[..wanted]).at(&path)?;
            left -= n as u64;
            Ok(n)
        };
        let keep = |bytes: &[u8]| {
            file.write_all(bytes).at(&path)?;
            self.go_on()
        };
        let (id, payload, read) = hash_stream(prefix, next, keep)?;
        if read != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).at(path_of(hint));
        }
        Ok((id, payload, path))
    }

    fn go_on(&self) -> Result<()> {
        match self.monitor.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }
}

fn path_of(hint: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(hint).into_owned())
}

fn read_exactly(stream: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    stream.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Object and payload names of bytes in memory.
fn hash_bytes(prefix: &[u8], bytes: &[u8]) -> (ObjectId, Option<PayloadId>) {
    let object = || {
        let mut hasher = Sha256::new();
        hasher.update(prefix);
        hasher.update(bytes);
        ObjectId::from_bytes(hasher.finalize().into())
    };
    // Splitting small work costs more than it saves.
    if bytes.len() > 1 << 20 {
        let (id, payload) = rayon::join(object, || PayloadId::of(bytes));
        (id, Some(payload))
    } else {
        (object(), Some(PayloadId::of(bytes)))
    }
}

/// Object and payload names, and the number of bytes, of a stream that is also passed on.
fn hash_stream(
    prefix: &[u8],
    mut read: impl FnMut(&mut [u8]) -> Result<usize>,
    mut pass_on: impl FnMut(&[u8]) -> Result<()>,
) -> Result<(ObjectId, Option<PayloadId>, u64)> {
    let mut object = Sha256::new();
    object.update(prefix);
    let mut payload = Sha256::new();
    let mut size = 0;
    let mut buf = vec![0; 1 << 20];
    loop {
        let n = read(&mut buf)?;
        if n == 0 {
            break;
        }
        let bytes = &buf[..n];
        rayon::join(|| object.update(bytes), || payload.update(bytes));
        pass_on(bytes)?;
        size += n as u64;
    }
    let payload = PayloadId::from_bytes(payload.finalize().into());
    Ok((
        ObjectId::from_bytes(object.finalize().into()),
        Some(payload),
        size,
    ))
}

/// A payload that the repository does not have.
#[derive(Debug)]
pub(super) struct NewPayload {
    pub(super) id: PayloadId,
    pub(super) size: u64,
    pub(super) content: Content,
    /// Path that it was found at, or as good as found at.
    pub(super) hint: Vec<u8>,
    /// Its place among others of the same path.
    pub(super) sequence: u32,
    /// What it may be a delta against.
    pub(super) base: Option<Older>,
}

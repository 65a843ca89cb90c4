//! File objects of an OSTree repository, in every form that the modes give them. What is read is
//! believed only as far as limits go; whether it has the name that it must have is seen by whoever
//! hashes it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::filez::{Inflate, is_possible};
use super::loose::{Found, LooseRepo, NO_FILE, find};
use super::{RepoMode, loose_path};
use crate::error::{Error, IoResultExt, ObjectFault, Result};
use crate::fs::xattr;
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::object::{DecodeError, FileHeader, Xattrs};
use crate::repo::ingest::IN_MEMORY_MAX;

/// A header has a target and extended attributes, each at most 64 KiB.
const MAX_HEADER: u64 = 1 << 20;
/// The kernel takes no longer targets of symbolic links.
const MAX_TARGET: u64 = 64 << 10;
/// Length and padding in front of a header.
const PREFIX: usize = 8;
const OSTREE_META: &str = "user.ostreemeta";

/// What is known of a file object before its content is read.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) header: FileHeader,
    /// Size of the content.
    pub(super) size: u64,
    /// Where the content begins in the file.
    pub(super) offset: u64,
}

/// Where a content can be read from.
#[derive(Debug)]
pub(super) enum Content {
    /// Of symbolic links.
    None,
    /// The whole of it.
    Bytes(Vec<u8>),
    /// It is a file, too large for memory.
    File(PathBuf),
    /// It is in a file, compressed, and too large for memory.
    Packed(Box<Inflate<BufReader<File>>>),
}

/// Breaks a stream off when the operation is to stop.
struct Stoppable<'m, R> {
    from: R,
    monitor: &'m dyn Monitor,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.monitor.is_cancelled() {
            true => Err(io::Error::other(Error::Cancelled)),
            false => self.from.read(buf),
        }
    }
}

impl LooseRepo {
    fn bad(&self, id: &ObjectId, source: impl Into<ObjectFault>) -> Error {
        let kind = ObjectKind::File;
        Error::BadObject {
            kind,
            id: *id,
            path: self.object(kind, id),
            source: Box::new(source.into()),
        }
    }

    /// Reads what precedes the content of a file; `None` if the object is not there.
    pub(super) fn head(&self, id: &ObjectId) -> Result<Option<Head>> {
        let path = self.object(ObjectKind::File, id);
        let stat = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at(&path)?,
        };
        let head = match self.mode() {
            RepoMode::Archive => self.archive_head(id, &path)?,
            RepoMode::BareUser => self.bare_user_head(id, &path)?,
            _ => self.bare_head(id, &path, &stat)?,
        };
        head.header.check().map_err(|rule| self.bad(id, rule))?;
        Ok(Some(head))
    }

    /// Opens an object that is to be a regular file.
    fn regular(&self, id: &ObjectId, path: &Path) -> Result<(File, u64)> {
        match find(path)? {
            Found::File(file, size) => Ok((file, size)),
            Found::Nothing => Err(self.bad(id, ObjectFault::Missing)),
            Found::Other => Err(self.bad(id, ObjectFault::Metadata(NO_FILE))),
        }
    }

    fn archive_head(&self, id: &ObjectId, path: &Path) -> Result<Head> {
        let (mut file, packed) = self.regular(id, path)?;
        let head = read_archive_head(&mut file, packed).at(path)?;
        head.map_err(|fault| self.bad(id, fault))
    }

    fn bare_user_head(&self, id: &ObjectId, path: &Path) -> Result<Head> {
        let (file, mut size) = self.regular(id, path)?;
        let mut meta = vec![0; 64 << 10];
        let meta = match rustix::fs::fgetxattr(&file, OSTREE_META, &mut meta) {
            Ok(n) => meta.get(..n).unwrap_or_default(),
            Err(rustix::io::Errno::NODATA) => {
                let fault = "the attribute user.ostreemeta is missing";
                return Err(self.bad(id, ObjectFault::Metadata(fault)));
            }
            Err(errno) => return Err(errno).at(path),
        };
        let parsed = FileHeader::parse_bare_user(meta);
        let mut header = parsed.map_err(|error| self.bad(id, error))?;
        if header.is_symlink() {
            if size > MAX_TARGET {
                let limit = MAX_TARGET;
                return Err(self.bad(id, ObjectFault::TooLarge { size, limit }));
            }
            let mut target = Vec::new();
            file.take(MAX_TARGET).read_to_end(&mut target).at(path)?;
            if target.last() == Some(&0) {
                target.pop();
            }
            header.symlink_target = target;
            size = 0;
        }
        self.check_target(id, &header)?;
        Ok(Head {
            header,
            size,
            offset: 0,
        })
    }

    /// Of the modes in which the file itself has the metadata, or most of it.
    fn bare_head(&self, id: &ObjectId, path: &Path, stat: &std::fs::Metadata) -> Result<Head> {
        if !stat.is_file() && !stat.is_symlink() {
            let fault = "neither a regular file nor a symbolic link";
            return Err(self.bad(id, ObjectFault::Metadata(fault)));
        }
        let symlink_target = if stat.is_symlink() {
            let target = std::fs::read_link(path).at(path)?;
            target.into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        let mode = if stat.is_symlink() {
            FileHeader::SYMLINK_MODE
        } else {
            stat.mode()
        };
        let (uid, gid, xattrs) = match self.mode() {
            RepoMode::BareUserOnly => (0, 0, Xattrs::default()),
            RepoMode::BareSplitXattrs => (stat.uid(), stat.gid(), self.split_xattrs(id)?),
            _ => (stat.uid(), stat.gid(), xattr::of_path(path).at(path)?),
        };
        let header = FileHeader {
            uid,
            gid,
            mode,
            symlink_target,
            xattrs,
        };
        self.check_target(id, &header)?;
        Ok(Head {
            size: if stat.is_symlink() { 0 } else { stat.len() },
            header,
            offset: 0,
        })
    }

    fn check_target(&self, id: &ObjectId, header: &FileHeader) -> Result<()> {
        let target = std::str::from_utf8(&header.symlink_target);
        match target.is_ok_and(|target| !target.contains('\0')) {
            true => Ok(()),
            false => {
                let rule = DecodeError::Rule("the target of a symbolic link is no text");
                Err(self.bad(id, rule))
            }
        }
    }

    fn split_xattrs(&self, id: &ObjectId) -> Result<Xattrs> {
        let path = self.path().join(loose_path(id, "file-xattrs-link"));
        let wrong = |text| Err(self.bad(id, ObjectFault::Metadata(text)));
        let (file, size) = match find(&path)? {
            Found::File(file, size) => (file, size),
            Found::Nothing => return wrong("its .file-xattrs-link is missing"),
            Found::Other => return wrong("its .file-xattrs-link is not a regular file"),
        };
        if size > MAX_HEADER {
            let limit = MAX_HEADER;
            return Err(self.bad(id, ObjectFault::TooLarge { size, limit }));
        }
        let mut bytes = Vec::new();
        file.take(MAX_HEADER).read_to_end(&mut bytes).at(&path)?;
        Xattrs::parse(&bytes).map_err(|error| self.bad(id, error))
    }

    /// The content that belongs to a head; in memory if it is not large.
    pub(super) fn content(&self, id: &ObjectId, head: &Head) -> Result<Content> {
        if head.header.is_symlink() {
            return Ok(Content::None);
        }
        let path = self.object(ObjectKind::File, id);
        let (mut file, _) = self.regular(id, &path)?;
        if self.mode() != RepoMode::Archive {
            if head.size > IN_MEMORY_MAX {
                return Ok(Content::File(path));
            }
            let mut bytes = Vec::with_capacity(head.size as usize + 1);
            file.take(head.size + 1).read_to_end(&mut bytes).at(&path)?;
            if bytes.len() as u64 != head.size {
                return Err(Error::InputChanged { path });
            }
            return Ok(Content::Bytes(bytes));
        }
        file.seek(SeekFrom::Start(head.offset)).at(&path)?;
        let reader = BufReader::with_capacity(64 << 10, file);
        let mut inflate = Inflate::new(reader, head.size);
        if head.size > IN_MEMORY_MAX {
            return Ok(Content::Packed(Box::new(inflate)));
        }
        let mut bytes = Vec::with_capacity(head.size as usize);
        match inflate.read_to_end(&mut bytes) {
            Ok(_) => Ok(Content::Bytes(bytes)),
            Err(error) => Err(self.bad(id, ObjectFault::Content(error))),
        }
    }

    /// The header as it was hashed: writers had several orders of extended attributes. `None` if
    /// it is hashed under this name in none of them.
    pub(super) fn hashed_header(
        &self,
        id: &ObjectId,
        head: &Head,
        monitor: &dyn Monitor,
    ) -> Result<Option<FileHeader>> {
        for header in head.header.hashed_forms() {
            let found = match self.content(id, head)? {
                Content::None => Ok(header.object_id(&[])),
                Content::Bytes(bytes) => Ok(header.object_id(&bytes)),
                Content::File(path) => {
                    let from = File::open(&path).at(&path)?;
                    let found = header.object_id_of(Stoppable { from, monitor });
                    found.at(&path)
                }
                Content::Packed(from) => header
                    .object_id_of(Stoppable { from, monitor })
                    .map_err(|error| self.bad(id, ObjectFault::Content(error))),
            };
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if found? == *id {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// The error for content that has another name.
    pub(super) fn misnamed(&self, id: &ObjectId, found: ObjectId) -> Error {
        self.bad(id, ObjectFault::Checksum { found })
    }

    /// The error for a stream that could not be read to its end.
    pub(super) fn unreadable(&self, id: &ObjectId, error: io::Error) -> Error {
        self.bad(id, ObjectFault::Content(error))
    }

    /// The error for an object that is not there.
    pub(super) fn missing(&self, kind: ObjectKind, id: &ObjectId) -> Error {
        Error::BadObject {
            kind,
            id: *id,
            path: self.object(kind, id),
            source: Box::new(ObjectFault::Missing),
        }
    }
}

/// Reads the head of an object of an archive, which has `packed` bytes in all.
pub(super) fn read_archive_head(
    from: &mut impl Read,
    packed: u64,
) -> io::Result<Result<Head, ObjectFault>> {
    let mut first = Vec::with_capacity(512);
    from.by_ref().take(512).read_to_end(&mut first)?;
    let cut = || Ok(Err(ObjectFault::Metadata("the header is cut short")));
    let Some((prefix, rest)) = first.split_first_chunk::<PREFIX>() else {
        return cut();
    };
    let [a, b, c, d, ..] = *prefix;
    let len = u32::from_be_bytes([a, b, c, d]);
    if u64::from(len) > MAX_HEADER {
        let (size, limit) = (u64::from(len), MAX_HEADER);
        return Ok(Err(ObjectFault::TooLarge { size, limit }));
    }
    let offset = PREFIX as u64 + u64::from(len);
    if offset > packed {
        return cut();
    }
    let len = len as usize;
    let mut header = rest.get(..len.min(rest.len())).unwrap_or_default().to_vec();
    let missing = (len - header.len()) as u64;
    from.take(missing).read_to_end(&mut header)?;
    if header.len() != len {
        return cut();
    }
    Ok(check_head(&header, packed - offset, offset))
}

fn check_head(header: &[u8], packed: u64, offset: u64) -> Result<Head, ObjectFault> {
    let (header, size) = FileHeader::parse_archive(header)?;
    if header.is_symlink() && packed > 0 {
        let fault = "bytes follow the header of a symbolic link";
        return Err(ObjectFault::Metadata(fault));
    }
    if !is_possible(packed, size) {
        return Err(ObjectFault::Impossible { packed, size });
    }
    Ok(Head {
        header,
        size,
        offset,
    })
}

//! From a package's entries to objects: headers, places, owners, capabilities.
//!
//! Owns what one reading thread does. Knows nothing of transactions: what it makes goes through a
//! bounded channel.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use grove_engine::object::{FileHeader, Xattrs};

use super::record::{DirKind, Skipped};
use super::{ImportOptions, Named, check_unchanged};
use crate::layout::{Layout, Placement};
use crate::owners::UnknownOwner;
use crate::package::{Entry, EntryKind, Facts, Names, Package, PackageError, ReadOptions, Visitor};
use crate::{Error, caps};

/// Larger files pass through in pieces.
const STREAM_MIN: u64 = 8 << 20;
/// Size of those pieces, and of the content that is gathered before it is passed on.
const PIECE: usize = 1 << 20;
/// Files gathered before they are passed on.
const BATCH_FILES: usize = 1024;
/// Pieces of one file on their way.
const PIECES_AT_ONCE: usize = 4;

const S_IFMT: u32 = 0o170_000;
const SYMLINK_MODE: u32 = 0o120_777;

/// What a reading thread has to say about its package.
pub(super) enum Message {
    /// Files and symbolic links in memory.
    Files(Vec<Made>),
    /// A file of this size that comes in pieces.
    Stream(Made, u64, Receiver<Vec<u8>>),
    /// The end.
    Done(Box<Finished>),
    /// The end, by an error.
    Failed(Box<Error>),
}

/// A file with all its places in the tree.
pub(super) struct Made {
    pub paths: Vec<String>,
    pub header: FileHeader,
    /// Content, if it is a regular file in memory.
    pub content: Option<Vec<u8>>,
}

/// What is known when a package was read to its end.
pub(super) struct Finished {
    pub facts: Facts,
    pub skipped: Skipped,
    pub dirs: Vec<(String, DirKind)>,
}

/// Why reading stopped.
enum Stop {
    Failed(Box<Error>),
    /// Nobody listens any more.
    Unheard,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Reads a package; everything about it goes to `out`, an error too.
pub(super) fn read_package(named: &Named, options: &ImportOptions, out: &SyncSender<Message>) {
    let done = match read_inner(named, options, out) {
        Ok(finished) => Message::Done(Box::new(finished)),
        Err(Stop::Failed(error)) => Message::Failed(error),
        Err(Stop::Unheard) => return,
    };
    // Whether anybody still listens makes no difference any more.
    let _ = out.send(done);
}

fn read_inner(
    named: &Named,
    options: &ImportOptions,
    out: &SyncSender<Message>,
) -> Result<Finished, Stop> {
    let package = Package::open(&named.path)?;
    check_unchanged(&package, &named.stamp)?;
    if package.is_source() {
        let detail = "it is a source package: nothing in it is to be installed".to_owned();
        let source = PackageError::Malformed {
            part: "package",
            detail,
        };
        return Err(Error::package(&named.path, source).into());
    }
    let names = if options.skip_special {
        Names::Any
    } else {
        Names::Utf8Only
    };
    let files = package.files_named(names)?;
    let mut collector = Collector {
        named,
        options,
        out,
        layout: Layout::new(options.rules, &package.facts().name),
        batch: Vec::new(),
        batch_bytes: 0,
        finished: Finished {
            facts: package.facts().clone(),
            skipped: Skipped::default(),
            dirs: Vec::new(),
        },
    };
    package.read(&files, ReadOptions::verified(), &mut collector)?;
    check_unchanged(&package, &named.stamp)?;
    collector.finish()
}

struct Collector<'a> {
    named: &'a Named,
    options: &'a ImportOptions,
    out: &'a SyncSender<Message>,
    layout: Layout<'a>,
    batch: Vec<Made>,
    batch_bytes: usize,
    finished: Finished,
}

impl Collector<'_> {
    fn refuse(&self, entry: &Entry, reason: impl Into<String>) -> Stop {
        Error::package(&self.named.path, PackageError::entry(&entry.path, reason)).into()
    }

    fn send(&self, message: Message) -> Result<(), Stop> {
        self.out.send(message).map_err(|_| Stop::Unheard)
    }

    /// Where an entry goes, if anywhere.
    fn place(&mut self, entry: &Entry) -> Result<Option<String>, Stop> {
        match self.layout.place(entry) {
            Ok(Placement::At(path)) => Ok(Some(path)),
            Ok(Placement::Tmpfiles | Placement::Dropped) => {
                self.finished.skipped.dropped += 1;
                Ok(None)
            }
            Err(reason) => Err(self.refuse(entry, reason)),
        }
    }

    /// Owner, group and permission bits, and whether the owners are those the package wants.
    fn owned(&mut self, entry: &Entry) -> Result<(DirKind, bool), Stop> {
        let options = self.options;
        if options.canonical_permissions {
            return Ok((
                DirKind {
                    uid: 0,
                    gid: 0,
                    mode: entry.mode & 0o755,
                },
                false,
            ));
        }
        let uid = options
            .owner_uid
            .or_else(|| options.owners.user(&entry.user));
        let gid = options
            .owner_gid
            .or_else(|| options.owners.group(&entry.group));
        let mode = entry.mode & 0o7777;
        if let (Some(uid), Some(gid)) = (uid, gid) {
            return Ok((DirKind { uid, gid, mode }, true));
        }
        if options.owners.unknown == UnknownOwner::Refuse {
            let (what, name) = if uid.is_none() {
                ("owner", &entry.user)
            } else {
                ("group", &entry.group)
            };
            return Err(self.refuse(entry, format!("unknown {what} {name:?}")));
        }
        self.finished.skipped.unowned += 1;
        let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
        Ok((
            DirKind {
                uid,
                gid,
                mode: mode & !0o6000,
            },
            false,
        ))
    }

    fn header(&mut self, entry: &Entry) -> Result<FileHeader, Stop> {
        let (DirKind { uid, gid, mode }, owned) = self.owned(entry)?;
        let mut xattrs = Vec::new();
        if let Some(text) = entry.caps.as_ref().filter(|_| owned) {
            let value = caps::to_xattr(text).map_err(|e| self.refuse(entry, e.to_string()))?;
            xattrs.push((b"security.capability".to_vec(), value.to_vec()));
        }
        Ok(FileHeader {
            uid,
            gid,
            mode: entry.mode & S_IFMT | mode,
            symlink_target: Vec::new(),
            xattrs: Xattrs::from_unsorted(xattrs),
        })
    }

    fn add(&mut self, made: Made) -> Result<(), Stop> {
        let size = made.content.as_ref().map_or(0, Vec::len);
        if self.batch_bytes + size > PIECE || self.batch.len() >= BATCH_FILES {
            self.flush()?;
        }
        self.batch_bytes += size;
        self.batch.push(made);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let files = std::mem::take(&mut self.batch);
        self.send(Message::Files(files))
    }

    fn stream(&mut self, made: Made, size: u64, content: &mut dyn Read) -> Result<(), Stop> {
        self.flush()?;
        let (pieces, receiver) = sync_channel(PIECES_AT_ONCE);
        self.send(Message::Stream(made, size, receiver))?;
        let mut left = size;
        while left > 0 {
            let piece = self.read_content(content, left.min(PIECE as u64))?;
            left -= piece.len() as u64;
            pieces.send(piece).map_err(|_| Stop::Unheard)?;
        }
        Ok(())
    }

    fn read_content(&self, content: &mut dyn Read, size: u64) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::with_capacity(size as usize);
        let read = content.take(size).read_to_end(&mut bytes);
        let short = |_| std::io::ErrorKind::UnexpectedEof.into();
        let read = read.and_then(|n| {
            if n as u64 == size {
                Ok(())
            } else {
                Err(short(n))
            }
        });
        read.map_err(|source| Error::package(&self.named.path, PackageError::Io(source)))?;
        Ok(bytes)
    }

    fn finish(mut self) -> Result<Finished, Stop> {
        let layout = std::mem::replace(&mut self.layout, Layout::new(self.options.rules, ""));
        if let Some((path, text)) = layout.tmpfiles() {
            let header = FileHeader {
                uid: self.options.owner_uid.unwrap_or(0),
                gid: self.options.owner_gid.unwrap_or(0),
                mode: 0o100_644,
                symlink_target: Vec::new(),
                xattrs: Xattrs::default(),
            };
            self.add(Made {
                paths: vec![path],
                header,
                content: Some(text.into_bytes()),
            })?;
        }
        self.flush()?;
        Ok(self.finished)
    }
}

impl Visitor for Collector<'_> {
    type Error = Stop;

    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        if entry.is_ghost() {
            self.finished.skipped.ghosts += 1;
            return Ok(());
        }
        if matches!(entry.kind, EntryKind::Special | EntryKind::Unnameable) {
            if !self.options.skip_special {
                let reason = format!("a {}, which no commit can hold", entry.kind_name());
                return Err(self.refuse(entry, reason));
            }
            self.finished.skipped.special += 1;
            return Ok(());
        }
        let Some(path) = self.place(entry)? else {
            return Ok(());
        };
        if entry.kind == EntryKind::Dir {
            let (mut kind, _) = self.owned(entry)?;
            kind.mode = self.layout.dir_mode(kind.mode);
            self.finished.dirs.push((path, kind));
            return Ok(());
        }
        if path.is_empty() {
            return Err(self.refuse(entry, "the root is not a directory"));
        }
        if entry.target.is_empty() {
            return Err(self.refuse(entry, "a symbolic link to nothing"));
        }
        let header = FileHeader {
            mode: SYMLINK_MODE,
            symlink_target: entry.target.clone().into_bytes(),
            xattrs: Xattrs::default(),
            ..self.header(entry)?
        };
        self.add(Made {
            paths: vec![path],
            header,
            content: None,
        })
    }

    /// Hard links are one file: as when rpm unpacks it, the name listed last decides its metadata.
    fn file(&mut self, names: &[&Entry], content: &mut dyn Read) -> Result<(), Stop> {
        let mut paths = Vec::with_capacity(names.len());
        for entry in names {
            paths.extend(self.place(entry)?);
        }
        let last = names.iter().copied().max_by_key(|entry| entry.position());
        let last = last.expect("because a file has a name");
        if paths.is_empty() {
            return Ok(());
        }
        if paths.iter().any(String::is_empty) {
            return Err(self.refuse(last, "the root is not a directory"));
        }
        let header = self.header(last)?;
        let mut made = Made {
            paths,
            header,
            content: None,
        };
        if last.size > STREAM_MIN {
            return self.stream(made, last.size, content);
        }
        made.content = Some(self.read_content(content, last.size)?);
        self.add(made)
    }
}
